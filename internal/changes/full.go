package changes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
)

// Full is the patch of an attempt with the content of binary files and without masks, which exists
// if a publication needs it. It contains no secret.
type Full struct {
	Stored bool   `json:"stored"`
	Rule   string `json:"rule,omitempty"`   // why it is not stored: secret, file_size or incomplete
	Reason string `json:"reason,omitempty"` // a sentence
}

const (
	fullName = "full.zst"
	maxFull  = 64 << 20 // bytes of the changed files
)

// refusal is why there is no full patch.
type refusal struct{ rule, reason string }

func (r *refusal) Error() string { return r.reason }

// full writes the full patch, unless a changed file contains a secret.
func (req *Request) full(ctx context.Context, r *repo, tree string, heavy bool, rec *Record, temp string) error {
	rec.Full = &Full{}
	err := req.checkFull(ctx, r, tree, heavy)
	if err == nil {
		err = writeFull(ctx, r, tree, filepath.Join(temp, fullName))
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		rec.Full.Rule, rec.Full.Reason = refused.rule, refused.reason
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		rec.Full.Rule, rec.Full.Reason = "incomplete", sentence(plain(err))
		return nil
	}
	rec.Full.Stored = true
	return nil
}

// checkFull examines the new version of each changed file.
func (req *Request) checkFull(ctx context.Context, r *repo, tree string, heavy bool) error {
	if heavy {
		return &refusal{"file_size", fmt.Sprintf("A changed file is larger than %d MiB.", req.Limits.FileBytes>>20)}
	}
	list, err := r.entries(ctx, r.base(), tree)
	if err != nil {
		return err
	}
	for _, e := range list {
		if req.Mask != nil && req.Mask.MaskString(e.Path) != e.Path {
			return &refusal{"secret", "The name of a changed file contains a secret."}
		}
	}
	total := int64(0)
	return r.blobs(ctx, list, func(e Entry, content []byte) error {
		if total += int64(len(content)); total > maxFull {
			return &refusal{"max_bytes", fmt.Sprintf("The changed files have more than %d MiB.", maxFull>>20)}
		}
		if req.Mask != nil {
			if text := string(content); req.Mask.MaskString(text) != text {
				return &refusal{"secret", "The file " + printable(e.Path) + " contains a secret."}
			}
		}
		return nil
	})
}

// Entry is a path that differs between two trees.
type Entry struct {
	Path    string
	Mode    string // of the new version: 000000 if it was deleted
	OldMode string
	ID      string // of the new version
	Size    int64  // of the new version, if it is a file or a symbolic link
	Link    string // target of a symbolic link
}

// entries lists the paths that differ between two trees. Renamed files are deleted and added.
func (r *repo) entries(ctx context.Context, from, to string) ([]Entry, error) {
	out, err := r.run(ctx, call{args: []string{"diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", "--no-ext-diff", from, to}, most: maxPathBytes})
	if err != nil {
		return nil, err
	}
	var list []Entry
	fields := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for i := 0; i+1 < len(fields); i += 2 {
		part := strings.Fields(strings.TrimPrefix(fields[i], ":"))
		if len(part) != 5 {
			return nil, errors.New("git diff-tree printed an unknown format")
		}
		list = append(list, Entry{Path: fields[i+1], OldMode: part[0], Mode: part[1], ID: part[3]})
	}
	return list, nil
}

const (
	gone      = "000000"
	submodule = "160000"
	symlink   = "120000"
)

// blobs reads the new versions of files and symbolic links, one after the other.
func (r *repo) blobs(ctx context.Context, list []Entry, visit func(Entry, []byte) error) error {
	var in strings.Builder
	var read []Entry
	for _, e := range list {
		if e.Mode != gone && e.Mode != submodule {
			in.WriteString(e.ID + "\n")
			read = append(read, e)
		}
	}
	if len(read) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := r.run(ctx, call{args: []string{"cat-file", "--batch"}, in: strings.NewReader(in.String()), out: pw})
		pw.CloseWithError(err)
		done <- err
	}()
	err := readBlobs(bufio.NewReaderSize(pr, 64<<10), read, visit)
	if err != nil {
		cancel()
		pr.CloseWithError(err)
		<-done
		return err
	}
	return <-done
}

func readBlobs(in *bufio.Reader, list []Entry, visit func(Entry, []byte) error) error {
	for _, e := range list {
		head, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		part := strings.Fields(head)
		if len(part) != 3 || part[1] != "blob" {
			return fmt.Errorf("the file %s cannot be read", printable(e.Path))
		}
		size, err := strconv.ParseInt(part[2], 10, 64)
		if err != nil || size < 0 {
			return errors.New("git cat-file printed an unknown format")
		}
		if size > maxFull {
			return &refusal{"file_size", fmt.Sprintf("The file %s is larger than %d MiB.", printable(e.Path), maxFull>>20)}
		}
		content := make([]byte, size)
		if _, err := io.ReadFull(in, content); err != nil {
			return err
		}
		if _, err := in.Discard(1); err != nil {
			return err
		}
		if err := visit(e, content); err != nil {
			return err
		}
	}
	return nil
}

// writeFull compresses the full patch into a file.
func writeFull(ctx context.Context, r *repo, tree, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	args := []string{"diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"}
	_, err = r.run(ctx, call{args: append(args, r.base(), tree), out: z})
	if err = errors.Join(err, z.Close()); err != nil {
		_ = os.Remove(path)
		return err
	}
	return f.Sync()
}

// OpenFull opens the full patch of an attempt.
func OpenFull(f Folders, attempt int) (io.ReadCloser, error) {
	file, err := os.Open(filepath.Join(f.Attempt(attempt), fullName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, agented.Errorf(agented.NotFound, "the patch of this attempt was not stored, or was removed").Because(err)
	}
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		file.Close()
		return nil, err
	}
	return &fullReader{z, file}, nil
}

type fullReader struct {
	*zstd.Decoder
	file *os.File
}

// Close implements io.Closer.
func (f *fullReader) Close() error {
	f.Decoder.Close()
	return f.file.Close()
}

package changes

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	frameSize  = 256 << 10 // of the patch in one frame
	maskMargin = 16 << 10  // text after a frame that is examined for secrets across its end
)

var errPatchSize = errors.New("the patch is too large")

// patch writes the patch and sets where the part of each file is.
func (req *Request) patch(ctx context.Context, r *repo, tree string, files []File, sections []int, rec *Record, temp string) error {
	if len(files) == 0 {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(temp, patchName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	c, err := shared()
	if err != nil {
		return err
	}
	w := &patchWriter{out: out, codec: c, mask: req.Mask, most: req.Limits.Patch, mostText: req.Limits.PatchText, lineStart: true}
	_, err = r.run(ctx, call{
		args: []string{"diff-tree", "-r", "-M", "-p", "--full-index", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", r.base(), tree},
		out:  w,
	})
	if w.err == nil && err == nil {
		w.err = w.flush(true)
	}
	if w.err == nil && err == nil {
		err = out.Sync()
	}
	switch {
	case errors.Is(w.err, errPatchSize):
		rec.Truncated = true
		rec.note(fmt.Sprintf("The patch is larger than the limit of %d MiB, so only the list of files was kept.", req.Limits.Patch>>20))
		return os.Remove(out.Name())
	case w.err != nil:
		return w.err
	case err != nil:
		return err
	}
	rec.Frames, rec.PatchSize = w.frames, w.size
	total := 0
	for _, n := range sections {
		total += n
	}
	if total != len(w.starts) {
		rec.note("The parts of the patch could not be assigned to its files.")
		return nil
	}
	starts := append(w.starts, w.size)
	at := 0
	for i := range files {
		files[i].At = starts[at]
		at += sections[i]
		files[i].Len = starts[at] - files[i].At
	}
	return nil
}

// patchWriter compresses a patch frame by frame and notes where its parts begin.
type patchWriter struct {
	out            io.Writer
	codec          codec
	mask           Masker
	most, mostText int64

	buf       []byte
	head      []byte // beginning of the current line
	lineStart bool
	pos       int64 // bytes received
	starts    []int64
	frames    [][2]int64
	size      int64 // bytes written
	stored    int64 // compressed bytes written
	err       error
}

// partHead begins each part of a patch. Lines of a file have a prefix, so none of them can be equal.
const partHead = "diff --git "

// Write implements io.Writer.
func (w *patchWriter) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.find(b)
	w.buf = append(w.buf, b...)
	if w.pos > w.mostText {
		w.err = errPatchSize
		return 0, w.err
	}
	if w.err = w.flush(false); w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// find notes the parts that begin in b.
func (w *patchWriter) find(b []byte) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		line := b
		if end >= 0 {
			line = b[:end+1]
		}
		if w.lineStart {
			w.head = w.head[:0]
		}
		before := len(w.head)
		if need := len(partHead) - before; need > 0 {
			w.head = append(w.head, line[:min(need, len(line))]...)
			if len(w.head) == len(partHead) && string(w.head) == partHead {
				w.starts = append(w.starts, w.pos-int64(before))
			}
		}
		w.lineStart = end >= 0
		w.pos += int64(len(line))
		b = b[len(line):]
	}
}

// flush writes complete frames.
func (w *patchWriter) flush(final bool) error {
	for len(w.buf) >= frameSize+maskMargin || final && len(w.buf) > 0 {
		if w.mask != nil {
			w.mask.Overwrite(w.buf[:min(len(w.buf), frameSize+maskMargin)])
		}
		n := min(frameSize, len(w.buf))
		packed := w.codec.enc.EncodeAll(w.buf[:n], nil)
		if w.stored+int64(len(packed)) > w.most {
			return errPatchSize
		}
		if _, err := w.out.Write(packed); err != nil {
			return err
		}
		w.frames = append(w.frames, [2]int64{int64(n), int64(len(packed))})
		w.size += int64(n)
		w.stored += int64(len(packed))
		w.buf = append(w.buf[:0], w.buf[n:]...)
	}
	return nil
}

// Patch reads a patch.
type Patch struct {
	f      *os.File
	codec  codec
	frames [][2]int64
	size   int64
	pos    int64

	buf   []byte // decoded frame
	start int64  // its offset
}

// OpenPatch opens the patch of an attempt.
func OpenPatch(f Folders, attempt int, r *Record) (*Patch, error) {
	c, err := shared()
	if err != nil {
		return nil, err
	}
	p := &Patch{codec: c, frames: r.Frames, size: r.PatchSize}
	if len(r.Frames) == 0 {
		return p, nil
	}
	p.f, err = os.Open(filepath.Join(f.Attempt(attempt), patchName))
	return p, err
}

// Close closes the file.
func (p *Patch) Close() error {
	if p.f == nil {
		return nil
	}
	return p.f.Close()
}

// Size returns the size of the patch in bytes.
func (p *Patch) Size() int64 { return p.size }

// Seek implements io.Seeker.
func (p *Patch) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.pos
	case io.SeekEnd:
		offset += p.size
	}
	if offset < 0 {
		return 0, errors.New("seek in patch: position is before the start")
	}
	p.pos = offset
	return offset, nil
}

// Read implements io.Reader.
func (p *Patch) Read(b []byte) (int, error) {
	if p.pos >= p.size {
		return 0, io.EOF
	}
	if p.pos < p.start || p.pos >= p.start+int64(len(p.buf)) {
		if err := p.load(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.buf[p.pos-p.start:])
	p.pos += int64(n)
	return n, nil
}

// load decodes the frame that contains pos.
func (p *Patch) load() error {
	var at, packed int64
	for _, f := range p.frames {
		if p.pos < at+f[0] {
			if f[0] > frameSize || f[1] > 2*frameSize || f[1] < 0 {
				return errors.New("the index of the patch is invalid")
			}
			b := make([]byte, f[1])
			if _, err := p.f.ReadAt(b, packed); err != nil {
				return fmt.Errorf("read the patch: %w", err)
			}
			decoded, err := p.codec.dec.DecodeAll(b, p.buf[:0])
			if err == nil && int64(len(decoded)) != f[0] {
				err = errors.New("a frame has another size than recorded")
			}
			if err != nil {
				p.buf = nil
				return fmt.Errorf("read the patch: %w", err)
			}
			p.buf, p.start = decoded, at
			return nil
		}
		at, packed = at+f[0], packed+f[1]
	}
	return io.ErrUnexpectedEOF
}

// Hunk is a group of changed lines of one file.
type Hunk struct {
	OldStart int      `json:"old_start"`
	NewStart int      `json:"new_start"`
	Heading  string   `json:"heading"` // such as the function that contains it
	Lines    []string `json:"lines"`   // each begins with a space, "-", "+" or "\"
}

// Hunks parses the part of a patch that belongs to one file, at most lines lines. Invalid UTF-8 is
// replaced. It reports whether lines were left out.
func Hunks(part io.Reader, lines int) (hunks []Hunk, cut bool, err error) {
	r := bufio.NewReaderSize(part, 64<<10)
	inside := false
	for {
		line, err := r.ReadString('\n')
		if line != "" && (err == nil || errors.Is(err, io.EOF)) {
			line = strings.ToValidUTF8(strings.TrimSuffix(line, "\n"), "\uFFFD")
			switch {
			case strings.HasPrefix(line, "@@ "):
				h := parseHunk(line)
				hunks, inside = append(hunks, h), true
			case inside && line != "" && strings.IndexByte(` -+\`, line[0]) >= 0:
				if lines--; lines < 0 {
					return hunks, true, nil
				}
				last := &hunks[len(hunks)-1]
				last.Lines = append(last.Lines, line)
			default:
				inside = false
			}
		}
		if errors.Is(err, io.EOF) {
			return hunks, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// parseHunk parses "@@ -1,2 +3,4 @@ heading".
func parseHunk(line string) Hunk {
	h := Hunk{Lines: []string{}}
	ranges, heading, _ := strings.Cut(strings.TrimPrefix(line, "@@ "), " @@")
	h.Heading = strings.TrimSpace(heading)
	for part := range strings.FieldsSeq(ranges) {
		first, _, _ := strings.Cut(part[1:], ",")
		n, _ := strconv.Atoi(first)
		if part[0] == '-' {
			h.OldStart = n
		} else {
			h.NewStart = n
		}
	}
	return h
}

// Attempts returns the numbers of the attempts that have a record, in order.
func Attempts(f Folders) ([]int, error) {
	entries, err := os.ReadDir(f.root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && strconv.Itoa(n) == e.Name() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, err
}

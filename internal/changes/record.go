package changes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/remove"
)

// Masker masks secrets. A [redact.Masker] is one.
type Masker interface {
	MaskString(s string) string
	Overwrite(text []byte) // keeps the length
}

// Request describes the record to make.
type Request struct {
	Folders Folders
	Attempt int
	Git     Git
	Limits  Limits
	Mask    Masker // for the patch and names; nil masks nothing
	Full    bool   // also store the full patch, for a publication
}

// Make compares the working tree with the state that Take stored, copies the artifacts, and stores
// the record of the attempt. It returns nil if there is neither a repository nor an artifact. If
// the record exists already, it is returned unchanged. A comparison that fails is a record with the
// reason; the error is that of ctx or of storing the record.
func Make(ctx context.Context, req Request) (*Record, error) {
	if r, err := Load(req.Folders, req.Attempt); err == nil {
		return r, nil
	}
	req.Limits = req.Limits.Defaults()
	temp := req.Folders.Attempt(req.Attempt) + ".new"
	if err := remove.All(temp); err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, err
	}
	rec := &Record{Version: version, Commits: []Commit{}, Files: []File{}, Artifacts: []Artifact{}}
	s, err := readStart(req.Folders)
	if err == nil {
		rec.Git, rec.Base = true, s.Head
		req.compare(ctx, s, rec, temp)
	} else if !errors.Is(err, fs.ErrNotExist) {
		rec.note("The state before the attempt could not be read.")
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := req.collect(ctx, rec, temp); ctx.Err() != nil {
		return nil, ctx.Err()
	} else if err != nil {
		rec.note("The artifacts could not be copied: " + sentence(plain(err)))
	}
	if !rec.Git && len(rec.Artifacts) == 0 && rec.Reason == "" {
		return nil, nil
	}
	if m := req.Mask; m != nil {
		rec.Mask(m)
	}
	// After masking, which does not recognize a part of a secret.
	for i := range rec.Commits {
		rec.Commits[i].Author, rec.Commits[i].Subject = format.Clip(rec.Commits[i].Author, 200), format.Clip(rec.Commits[i].Subject, 500)
	}
	return rec, rec.store(temp, req.Folders.Attempt(req.Attempt))
}

// plain returns the innermost error, without file names.
func plain(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// Mask masks secrets in texts of the record.
func (r *Record) Mask(m Masker) {
	r.Reason = m.MaskString(r.Reason)
	if r.Full != nil {
		r.Full.Reason = m.MaskString(r.Full.Reason)
	}
	for i := range r.Files {
		f := &r.Files[i]
		f.Path, f.Old = m.MaskString(f.Path), m.MaskString(f.Old)
	}
	for i := range r.Commits {
		c := &r.Commits[i]
		c.Subject, c.Author = m.MaskString(c.Subject), m.MaskString(c.Author)
	}
	for i := range r.Artifacts {
		r.Artifacts[i].Path = m.MaskString(r.Artifacts[i].Path)
	}
}

// compare fills the record. Errors become its reason.
func (req *Request) compare(ctx context.Context, s *start, rec *Record, temp string) {
	if s.Reason != "" {
		rec.note(s.Reason)
		return
	}
	limited, cancel := context.WithTimeout(ctx, req.Limits.Time)
	defer cancel()
	r := &repo{git: req.Git, dir: req.Folders.start(), state: s}
	err := req.fill(limited, r, rec, temp)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("the changes were not recorded within %s", req.Limits.Time)
	}
	if err != nil {
		rec.Truncated = true
		rec.note(sentence(plain(err)))
	}
}

func (req *Request) fill(ctx context.Context, r *repo, rec *Record, temp string) error {
	if err := r.configure(); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(r.dir, "index.lock")) // of an interrupted comparison
	head, err := r.head(ctx)
	if err != nil {
		return err
	}
	rec.Head = head
	if err := r.commits(ctx, rec, req.Limits); err != nil {
		return err
	}
	if r.state.Sparse {
		list, err := r.run(ctx, call{tree: true, args: []string{"ls-files", "-v", "-z"}, most: 256 << 20})
		if err == nil {
			err = r.clearFlags(ctx, list)
		}
		if err != nil {
			return err
		}
	}
	tree, heavy, err := r.snapshot(ctx, req.Limits, rec.note)
	if err != nil {
		return err
	}
	files, sections, err := r.list(ctx, tree)
	if err != nil {
		return err
	}
	if err := req.patch(ctx, r, tree, files, sections, rec, temp); err != nil {
		return err
	}
	small := len(files)
	if files, err = r.addHeavy(ctx, files, heavy); err != nil {
		return err
	}
	if req.Full {
		if err := req.full(ctx, r, tree, len(files) > small || changedHeavy(files, heavy), rec, temp); err != nil {
			return err
		}
	}
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	rec.FileCount = len(files)
	for i := range files {
		rec.Added += files[i].Added
		rec.Removed += files[i].Removed
	}
	if len(files) > req.Limits.Files {
		files = files[:req.Limits.Files]
		rec.Truncated = true
		rec.note(fmt.Sprintf("Only the first %d of %d files are listed.", len(files), rec.FileCount))
	}
	for i := range files {
		files[i].Path, files[i].Old = strings.ToValidUTF8(files[i].Path, "\uFFFD"), strings.ToValidUTF8(files[i].Old, "\uFFFD")
	}
	rec.Files = files
	return nil
}

// commits lists the commits that the repository has since the start.
func (r *repo) commits(ctx context.Context, rec *Record, l Limits) error {
	if rec.Head == "" || rec.Head == rec.Base {
		return nil
	}
	args := []string{"log", "-z", "--no-show-signature", "--no-mailmap", "--no-color", "--format=%H%x1f%an%x1f%ct%x1f%s", "--max-count=" + strconv.Itoa(l.Commits+1), rec.Head}
	if rec.Base != "" {
		args = append(args, "^"+rec.Base)
	}
	out, err := r.run(ctx, call{args: append(args, "--")})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		rec.note("The commits could not be listed.")
		return nil
	}
	for entry := range bytes.SplitSeq(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
		part := strings.SplitN(strings.ToValidUTF8(string(entry), "\uFFFD"), "\x1f", 4)
		if len(part) < 4 {
			continue
		}
		if len(rec.Commits) == l.Commits {
			rec.Truncated = true
			rec.note(fmt.Sprintf("Only the last %d commits are listed.", l.Commits))
			break
		}
		seconds, _ := strconv.ParseInt(part[2], 10, 64)
		rec.Commits = append(rec.Commits, Commit{ID: part[0], Author: part[1], At: time.Unix(seconds, 0).UTC(), Subject: part[3]})
	}
	return nil
}

// list returns the files that differ between the trees, and how many parts of the patch belong to
// each.
func (r *repo) list(ctx context.Context, tree string) (files []File, sections []int, err error) {
	out, err := r.run(ctx, call{args: []string{"diff-tree", "-r", "-M", "-z", "--raw", "--numstat", "--full-index", "--no-ext-diff", "--no-textconv", r.base(), tree}, most: maxPathBytes})
	if err != nil {
		return nil, nil, err
	}
	fields := strings.Split(string(out), "\x00")
	var ids [][2]string
	at := 0
	next := func() string {
		if at < len(fields) {
			at++
			return fields[at-1]
		}
		return ""
	}
	for at < len(fields) && strings.HasPrefix(fields[at], ":") {
		part := strings.Fields(next()[1:])
		if len(part) != 5 {
			return nil, nil, errors.New("git diff-tree printed an unknown format")
		}
		f := File{OldMode: part[0], Mode: part[1], Status: Modified, Path: next()}
		count := 1
		switch part[4][0] {
		case 'A':
			f.Status, f.OldMode = Added, ""
		case 'D':
			f.Status, f.Mode = Deleted, ""
		case 'T':
			f.Status, count = TypeChanged, 2
		case 'R':
			f.Status, f.Old = Renamed, f.Path
			f.Path = next()
		}
		if f.OldMode == f.Mode {
			f.OldMode = ""
		}
		files, sections, ids = append(files, f), append(sections, count), append(ids, [2]string{part[2], part[3]})
	}
	for i := range files {
		added, rest, _ := strings.Cut(next(), "\t")
		removed, path, _ := strings.Cut(rest, "\t")
		if path == "" { // a renamed file
			next()
			next()
		}
		if files[i].Binary = added == "-"; !files[i].Binary {
			files[i].Added, _ = strconv.Atoi(added)
			files[i].Removed, _ = strconv.Atoi(removed)
		}
	}
	return files, sections, r.sizes(ctx, files, ids)
}

// base returns the tree at the start.
func (r *repo) base() string { return r.state.Tree }

// sizes sets the sizes of binary files.
func (r *repo) sizes(ctx context.Context, files []File, ids [][2]string) error {
	var in strings.Builder
	for i := range files {
		if files[i].Binary {
			in.WriteString(ids[i][0] + "\n" + ids[i][1] + "\n")
		}
	}
	if in.Len() == 0 {
		return nil
	}
	out, err := r.run(ctx, call{args: []string{"cat-file", "--batch-check=%(objectsize)"}, in: strings.NewReader(in.String())})
	if err != nil {
		return err
	}
	lines := strings.Split(string(out), "\n")
	at := 0
	size := func() *int64 {
		at++
		if at > len(lines) {
			return nil
		}
		n, err := strconv.ParseInt(lines[at-1], 10, 64)
		if err != nil {
			return nil // missing: there is no such version of the file
		}
		return &n
	}
	for i := range files {
		if files[i].Binary {
			files[i].OldSize, files[i].Size = size(), size()
		}
	}
	return nil
}

// addHeavy adds files that are compared by size and time.
func (r *repo) addHeavy(ctx context.Context, files []File, heavy map[string]stat) ([]File, error) {
	listed := map[string]int{}
	for i := range files {
		listed[files[i].Path] = i
	}
	var paths []string
	for path, now := range heavy {
		if r.state.Heavy[path] != now {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	known, err := r.inTree(ctx, paths)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		size := heavy[path].Size
		f := File{Path: path, Status: Added, Binary: true, Size: &size}
		if was, ok := r.state.Heavy[path]; ok {
			f.Status, f.OldSize = Modified, &was.Size
		} else if known[path] {
			f.Status = Modified
		}
		if i, ok := listed[path]; ok {
			files[i] = f
		} else {
			files = append(files, f)
		}
	}
	for path, was := range r.state.Heavy {
		if _, still := heavy[path]; still {
			continue
		}
		i, ok := listed[path]
		if ok && files[i].Status == Added {
			files[i].Status = Modified
		}
		if _, err := os.Lstat(filepath.Join(r.state.Root, path)); !ok && errors.Is(err, fs.ErrNotExist) {
			files = append(files, File{Path: path, Status: Deleted, Binary: true, OldSize: &was.Size})
		}
	}
	return files, nil
}

// changedHeavy reports whether a file that is compared by size and time is listed.
func changedHeavy(files []File, heavy map[string]stat) bool {
	return slices.ContainsFunc(files, func(f File) bool { _, ok := heavy[f.Path]; return ok })
}

// inTree reports which paths are in the tree at the start.
func (r *repo) inTree(ctx context.Context, paths []string) (map[string]bool, error) {
	known := map[string]bool{}
	if len(paths) == 0 {
		return known, nil
	}
	args := append([]string{"--literal-pathspecs", "ls-tree", "-z", "--name-only", r.base(), "--"}, paths[:min(len(paths), 1000)]...)
	out, err := r.run(ctx, call{args: args})
	for path := range strings.SplitSeq(string(out), "\x00") {
		known[path] = true
	}
	return known, err
}

// codec holds an encoder and a decoder.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// maxDecoded bounds what one frame and one record decode to.
const maxDecoded = 256 << 20

var shared = sync.OnceValues(func() (codec, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(frameSize))
	if err != nil {
		return codec{}, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderMaxWindow(8<<20))
	return codec{enc, dec}, err
})

// store writes the record and moves its folder into place.
func (r *Record) store(temp, to string) error {
	c, err := shared()
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := disk.ReplaceFile(filepath.Join(temp, recordName), c.enc.EncodeAll(b, nil), 0o600); err != nil {
		return err
	}
	if err := remove.All(to); err != nil {
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(to))
}

// Load reads the record of an attempt. It returns NotFound if there is none.
func Load(f Folders, attempt int) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(f.Attempt(attempt), recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, agented.Errorf(agented.NotFound, "the changes of this attempt were not recorded").Because(err)
	}
	if err != nil {
		return nil, err
	}
	c, err := shared()
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if b, err = c.dec.DecodeAll(b, nil); err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil {
		return nil, fmt.Errorf("the record of the changes cannot be read: %w", err)
	}
	if r.Version > version {
		return nil, agented.Errorf(agented.Invalid, "a newer version of Agented recorded these changes")
	}
	return r, nil
}

package changes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"

	"github.com/agented/agented/internal/format"
)

// MakeOut creates the folder that an attempt may fill, and returns its path.
func MakeOut(f Folders, attempt int) (string, error) {
	dir := f.Out(attempt)
	return dir, os.MkdirAll(filepath.Join(dir, artifactsName), 0o700)
}

// maxDepth bounds the nesting of folders of artifacts.
const maxDepth = 32

// collector copies the artifacts of an attempt: regular files up to the limits. An agent chooses
// names, kinds and number of the files, so every loop is bounded.
type collector struct {
	root    *os.Root // the artifacts folder
	to      string
	limits  Limits
	visits  int   // entries that may still be read
	left    int64 // bytes that may still be copied
	special int   // entries left out because of their kind
	over    int   // entries left out because of a limit
	list    []Artifact
}

// collect copies the artifacts and adds them to the record.
func (req *Request) collect(ctx context.Context, rec *Record, temp string) error {
	outs, err := os.OpenRoot(req.Folders.Outs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer outs.Close()
	from := filepath.Join(strconv.Itoa(req.Attempt), artifactsName)
	if info, err := outs.Lstat(from); err != nil || !info.IsDir() {
		return nil
	}
	root, err := outs.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	c := &collector{
		root: root, to: filepath.Join(temp, artifactsName), limits: req.Limits,
		visits: 100 * req.Limits.Artifacts, left: req.Limits.ArtifactBytes,
	}
	err = c.folder(ctx, ".", 0)
	rec.Artifacts = append(rec.Artifacts, c.list...)
	if c.special > 0 {
		rec.note(format.Plural(c.special, "file", "files") + " in artifacts left out: only regular files that can be read are kept.")
	}
	if c.over > 0 {
		rec.Truncated = true
		rec.note(fmt.Sprintf("Artifacts were left out because of the limits of %d files and %d MiB.", c.limits.Artifacts, c.limits.ArtifactBytes>>20))
	}
	return err
}

// folder copies the files of a folder and of those below it, in the order of their names. It reads
// no more entries than are left: the folder may have millions.
func (c *collector) folder(ctx context.Context, path string, depth int) error {
	if depth > maxDepth || c.visits <= 0 {
		c.over++
		return nil
	}
	dir, err := c.root.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		c.special++
		return nil
	}
	entries, err := dir.ReadDir(c.visits + 1)
	dir.Close()
	if err != nil && err != io.EOF {
		c.special++
		return nil
	}
	if len(entries) > c.visits {
		entries = entries[:c.visits]
		c.over++
	}
	c.visits -= len(entries)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.Join(path, e.Name())
		switch {
		case e.IsDir():
			err = c.folder(ctx, name, depth+1)
		case !e.Type().IsRegular():
			c.special++
		case len(c.list) == c.limits.Artifacts:
			c.over++
		default:
			err = c.file(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file copies one file.
func (c *collector) file(path string) error {
	n, err := copyArtifact(c.root, path, filepath.Join(c.to, strconv.Itoa(len(c.list))), c.left)
	switch {
	case errors.Is(err, errArtifactSize):
		c.over++
		return nil
	case errors.Is(err, errArtifactKind), errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist):
		c.special++
		return nil
	case err != nil:
		return err
	}
	c.left -= n
	c.list = append(c.list, Artifact{Path: strings.ToValidUTF8(path, "\uFFFD"), Size: n})
	return nil
}

var (
	errArtifactSize = errors.New("the artifact is too large")
	errArtifactKind = errors.New("the artifact is not a regular file")
)

// copyArtifact copies a regular file of at most left bytes, and returns its size.
func copyArtifact(root *os.Root, path, to string, left int64) (int64, error) {
	in, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, errArtifactKind
	case info.Size() > left:
		return 0, errArtifactSize
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	n, err := io.Copy(out, io.LimitReader(in, left))
	if err == nil {
		err = out.Sync() // the record that names it is synced, too
	}
	if err != nil {
		_ = os.Remove(to)
		return 0, err
	}
	return n, out.Close()
}

// OpenArtifact opens an artifact of an attempt by its index.
func OpenArtifact(f Folders, attempt, index int) (*os.File, error) {
	file, err := os.Open(filepath.Join(f.Attempt(attempt), artifactsName, strconv.Itoa(index)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, agented.Errorf(agented.NotFound, "the attempt has no such artifact").Because(err)
	}
	return file, err
}

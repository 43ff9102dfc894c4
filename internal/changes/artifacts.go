package changes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// collect copies the artifacts of the attempt: regular files up to the limits.
func (req *Request) collect(rec *Record, temp string) error {
	from := filepath.Join(req.Folders.Out(req.Attempt), artifactsName)
	if info, err := os.Lstat(from); err != nil || !info.IsDir() {
		return nil
	}
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	to := filepath.Join(temp, artifactsName)
	var special, over int
	left := req.Limits.ArtifactBytes
	visited := 0
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if visited++; visited > 100*req.Limits.Artifacts {
			over++
			return fs.SkipAll
		}
		switch {
		case err != nil:
			special++
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			if strings.Count(path, "/") >= maxDepth {
				over++
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			special++
			return nil
		case len(rec.Artifacts) == req.Limits.Artifacts:
			over++
			return nil
		}
		n, err := copyArtifact(root, path, filepath.Join(to, strconv.Itoa(len(rec.Artifacts))), left)
		switch {
		case errors.Is(err, errArtifactSize):
			over++
			return nil
		case errors.Is(err, errArtifactKind), errors.Is(err, fs.ErrPermission):
			special++
			return nil
		case err != nil:
			return err
		}
		left -= n
		rec.Artifacts = append(rec.Artifacts, Artifact{Path: strings.ToValidUTF8(path, "\uFFFD"), Size: n})
		return nil
	})
	if special > 0 {
		rec.note(format.Plural(special, "file", "files") + " in artifacts left out: only regular files that can be read are kept.")
	}
	if over > 0 {
		rec.Truncated = true
		rec.note(fmt.Sprintf("Artifacts were left out because of the limits of %d files and %d MiB.", req.Limits.Artifacts, req.Limits.ArtifactBytes>>20))
	}
	return err
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

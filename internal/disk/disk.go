// Package disk measures free space, and replaces files so that a crash leaves the old or the new
// content.
package disk

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Space is the space of a file system.
type Space struct {
	Free  int64 // bytes that this user can write
	Total int64 // bytes
	Files int64 // files that can be created; negative if the file system does not report it
}

// Measure returns the space of the file system of path.
func Measure(path string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Space{}, err
	}
	s := Space{Free: int64(st.Bavail) * int64(st.Bsize), Total: int64(st.Blocks) * int64(st.Bsize), Files: -1}
	if st.Files > 0 {
		s.Files = int64(st.Ffree)
	}
	return s, nil
}

// ReplaceFile writes a file with the given mode, whatever the umask, and replaces an existing one
// atomically. Content and name are durable when it returns.
func ReplaceFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a folder durable. File systems that cannot sync folders are no error,
// because there is no alternative on them.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

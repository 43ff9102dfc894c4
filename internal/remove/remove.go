// Package remove deletes folders regardless of the permissions in them.
package remove

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// All deletes path and everything below it, like os.RemoveAll. Folders whose permissions prevent
// it (build caches make theirs read-only) are made writable first, if this process's user owns
// them. It deletes everything that it can: an error names the first entry that could not be
// deleted.
func All(path string) error {
	err := os.RemoveAll(path)
	if err == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() { // never true of a symbolic link
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// Package searchpath finds programs as an execution does.
package searchpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNotFound reports that no folder of a PATH contains a program.
var ErrNotFound = errors.New("not found on the PATH")

// errFolder reports that a name is a folder.
var errFolder = errors.New("is a folder")

// Find returns the first executable file of this name in the folders of a PATH. It ignores
// relative folders, because the working directory may be an untrusted repository. If there is none,
// the error is that of the last unusable file, or ErrNotFound.
func Find(program, path string) (string, error) {
	reason := ErrNotFound
	for _, dir := range filepath.SplitList(path) {
		if program == "" || !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, program)
		err := Executable(file)
		switch {
		case err == nil:
			return file, nil
		case errors.Is(err, errFolder):
		case !errors.Is(err, fs.ErrNotExist):
			reason = err
		case isLink(file):
			reason = fmt.Errorf("%s is a broken link", file)
		}
	}
	return "", reason
}

// Executable returns an error if a file is not an executable program. For a missing file it is
// fs.ErrNotExist.
func Executable(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fs.ErrNotExist
	case err != nil:
		return errors.Unwrap(err)
	case info.IsDir():
		return errFolder
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable: run chmod +x %s", file, file)
	}
	return nil
}

func isLink(file string) bool {
	info, err := os.Lstat(file)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/filelock"
	"github.com/agented/agented/internal/remove"
)

// Prefixes of the names of folders in which backups are made, checked and
// restored. Such a folder holds a copy of the database while it is in use.
const (
	tempPrefix    = ".agented-backup-"
	checkPrefix   = "agented-check-"
	restorePrefix = ".agented-restore-"
)

// tempLock is the file in a temporary folder that its process keeps locked. If the lock is free,
// the process was killed.
const tempLock = "in-use.lock"

// unlockedAge is how old a temporary folder without a lock file must be before it
// counts as abandoned: its process may be about to lock it.
const unlockedAge = 24 * time.Hour

// tempFolder is a locked temporary folder.
type tempFolder struct {
	path string
	lock *os.File
}

// newTemp creates a temporary folder below parent, and removes those that killed processes have
// left there.
func newTemp(parent, prefix string) (*tempFolder, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	for _, dir := range abandoned(parent, prefix) {
		_ = remove.All(dir)
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return nil, err
	}
	t := &tempFolder{path: dir}
	if t.lock, err = os.OpenFile(filepath.Join(dir, tempLock), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		err = filelock.Try(t.lock)
	}
	if err != nil {
		t.remove()
		return nil, err
	}
	return t, nil
}

// remove deletes the folder.
func (t *tempFolder) remove() {
	_ = remove.All(t.path)
	t.unlock()
}

// unlock releases the folder and deletes the lock file.
func (t *tempFolder) unlock() {
	if t.lock != nil {
		_ = os.Remove(t.lock.Name())
		_ = filelock.Release(t.lock)
	}
}

// abandoned lists the temporary folders below parent whose process has ended. Only folders of
// this process's user count.
func abandoned(parent, prefix string) (out []string) {
	list, _ := filepath.Glob(filepath.Join(escapeGlob(parent), prefix+"*"))
	for _, dir := range list {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !ours(info) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, tempLock), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if time.Since(info.ModTime()) > unlockedAge {
				out = append(out, dir)
			}
		case err == nil:
			if filelock.Try(f) == nil {
				out = append(out, dir)
			}
			filelock.Release(f)
		}
	}
	return out
}

func ours(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// escapeGlob escapes a folder's name for filepath.Glob.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// unfinishedName is the file in the data folder that names the temporary folder of the backup in
// progress, which may be on any disk.
const unfinishedName = "backup.unfinished"

// Unfinished returns the temporary folder that a killed backup of this data folder left, or "".
// It contains a copy of the database.
func Unfinished(layout agented.Layout) string {
	b, err := os.ReadFile(filepath.Join(layout.Root, unfinishedName))
	dir := strings.TrimSpace(string(b))
	if err != nil || !filepath.IsAbs(dir) || !strings.HasPrefix(filepath.Base(dir), tempPrefix) {
		return ""
	}
	for _, left := range abandoned(filepath.Dir(dir), tempPrefix) {
		if left == dir {
			return dir
		}
	}
	return ""
}

// sweepUnfinished removes the temporary folder of the last backup. The caller holds the backup
// lock.
func sweepUnfinished(layout agented.Layout) {
	if dir := Unfinished(layout); dir != "" && remove.All(dir) != nil {
		return
	}
	_ = os.Remove(filepath.Join(layout.Root, unfinishedName))
}

// noteUnfinished records where a backup is being created, before the folder contains a copy. It
// may fail: the disk of the data folder can be full, which is no reason to refuse a backup to
// another disk.
func noteUnfinished(layout agented.Layout, dir string) {
	_ = os.WriteFile(filepath.Join(layout.Root, unfinishedName), []byte(dir+"\n"), 0o600)
}

package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/agented/agented/internal/filelock"
	"modernc.org/sqlite"
)

// The fields of SQLite's file header that identify the program.
const (
	headerSize    = 100
	headerMagic   = "SQLite format 3\x00"
	headerVersion = 60 // PRAGMA user_version: the latest applied migration
	headerAppID   = 68 // PRAGMA application_id
)

// setLockMode makes SQLite lock the database file per open file, so that code
// that opens and closes the file elsewhere in the process does not drop the
// lock. It is a switch of the whole process that must be set before the first
// connection, and once: two first calls at the same time can turn it off again
// under a lock that is already held. It is only available on Linux; elsewhere
// the rule never to open the file except through SQLite has the same effect.
var setLockMode = sync.OnceValue(func() error {
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) &&
		!errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return fmt.Errorf("lock mode: %w", err)
	}
	return nil
})

// resolve resolves symbolic links, so that two names of one file share one
// lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("database path: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", &FileError{Problem: NoFolder, Path: path, Err: err}
	}
	path = filepath.Join(dir, filepath.Base(path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// takeLock locks the file next to the database while it is open, and writes the
// process id into it. made reports whether it created the file.
func takeLock(path string) (f *os.File, made bool, err error) {
	name := path + ".lock"
	for {
		_, statErr := os.Lstat(name)
		made = errors.Is(statErr, fs.ErrNotExist)
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, false, &FileError{Problem: NoLockFile, Path: path, Err: err}
		}
		if err := flock(f, path); err != nil {
			f.Close()
			return nil, false, err
		}
		// A process that rejects a database removes a lock file that it
		// created. If that happened between open and lock, this lock protects
		// nothing.
		ours, err1 := f.Stat()
		there, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(ours, there) {
			break
		}
		filelock.Release(f)
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid()) // for people; only the lock counts
	}
	return f, made, nil
}

// borrowLock takes the lock next to the database, if it exists, so that no
// server changes the file meanwhile. Unlike a server, it leaves no trace.
func borrowLock(path string) (unlock func() error, err error) {
	f, err := os.Open(path + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, &FileError{Problem: NoLockFile, Path: path, Err: err}
	}
	if err := flock(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return func() error { return filelock.Release(f) }, nil
}

// flock locks the open lock file of the database at path, or returns InUse.
func flock(f *os.File, path string) error {
	err := filelock.Try(f)
	switch {
	case errors.Is(err, filelock.ErrHeld):
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return &FileError{Problem: InUse, Path: path, Holder: pid}
	case err != nil:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// admit decides whether the file may be opened, without changing it or anything
// next to it. It creates a missing file with mode 0600, before SQLite would
// create it readable by all users.
func (f Format) admit(ctx context.Context, path string, latest int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return file.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return &FileError{Problem: NotCreated, Path: path, Err: err}
	}
	// Reading the file without SQLite is only safe here: the lock is held, so
	// no connection of this process is open on it.
	_, info, err := f.examine(ctx, path, latest)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return &FileError{Problem: PublicReadable, Path: path, Err: err}
		}
	}
	return nil
}

// examine reads the schema version from the file's header, 0 for an empty file,
// and rejects files that are no database of this program and version.
func (f Format) examine(ctx context.Context, path string, latest int64) (version int64, info fs.FileInfo, err error) {
	header, info, err := readHeader(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil, &FileError{Problem: NotFound, Path: path, Err: err}
	case err != nil:
		return 0, nil, &FileError{Problem: Unreadable, Path: path, Err: err}
	case !info.Mode().IsRegular():
		return 0, nil, &FileError{Problem: NotRegular, Path: path}
	case info.Size() == 0:
		return 0, info, nil
	case !isSQLite(header):
		return 0, nil, &FileError{Problem: NotSQLite, Path: path}
	case binary.BigEndian.Uint32(header[headerAppID:]) != f.ApplicationID:
		return 0, nil, otherProgram(ctx, path)
	}
	version = int64(binary.BigEndian.Uint32(header[headerVersion:]))
	if version > latest {
		return version, info, newer(path, version, latest)
	}
	return version, info, nil
}

// CheckUpgradable returns NewerSchema if the database at path was written by a
// newer version, which Open would reject. It reads only the start of the file,
// so another process may be using it, but this process must not. All other
// errors are left to Open.
func (f Format) CheckUpgradable(path string) error {
	latest, err := f.latest()
	if err != nil {
		return err
	}
	header, _, err := readHeader(path)
	if err != nil || !isSQLite(header) || binary.BigEndian.Uint32(header[headerAppID:]) != f.ApplicationID {
		return nil
	}
	if v := int64(binary.BigEndian.Uint32(header[headerVersion:])); v > latest {
		return newer(path, v, latest)
	}
	return nil
}

func isSQLite(header []byte) bool {
	return len(header) == headerSize && string(header[:len(headerMagic)]) == headerMagic
}

func readHeader(path string) ([]byte, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, info, err
	}
	header := make([]byte, headerSize)
	n, err := io.ReadFull(f, header)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return header[:n], info, err
}

func newer(path string, version, latest int64) error {
	return &FileError{Problem: NewerSchema, Path: path, Version: version, Latest: latest}
}

// otherProgram returns an error with the tables of the database, which identify
// its program.
func otherProgram(ctx context.Context, path string) error {
	tables, err := tablesOf(ctx, path)
	return &FileError{Problem: OtherProgram, Path: path, Tables: tables, Err: err}
}

// tablesOf returns the tables of a database that must not be changed: immutable
// prevents SQLite from locking, recovering and creating files next to it.
func tablesOf(ctx context.Context, path string) ([]string, error) {
	db, err := sql.Open("sqlite", uri(path, url.Values{"mode": {"ro"}, "immutable": {"1"}}))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return texts(db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table'`))
}

// syncFile calls fsync on a file or a folder.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

package store

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
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/agented/agented"
)

// applicationID marks a database as ours in the file's header: "AGNT".
const applicationID = 0x41474e54

// The places of SQLite's file header that tell whose a file is.
const (
	headerSize    = 100
	headerMagic   = "SQLite format 3\x00"
	headerVersion = 60 // PRAGMA user_version: the newest migration that is in
	headerAppID   = 68 // PRAGMA application_id
)

// resolve returns the path behind symbolic links, so that two names of one file
// share one lock.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("database path: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", agented.Errorf(agented.Unavailable, "the folder of the database %s cannot be used: create it, or set AGENTED_DB_PATH", path).Because(err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	return path, nil
}

// takeLock locks the file beside the database for as long as it stays open and
// writes our process id into it. made says that the file was not there before.
func takeLock(path string) (f *os.File, made bool, err error) {
	name := path + ".lock"
	for {
		_, statErr := os.Lstat(name)
		made = errors.Is(statErr, fs.ErrNotExist)
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, false, agented.Errorf(agented.Unavailable,
				"the lock beside the database, %s, cannot be opened: check the permissions of the file and its folder", name).Because(err)
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			text, _ := io.ReadAll(io.LimitReader(f, 32))
			f.Close()
			holder := "another server"
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				holder = fmt.Sprintf("the server with process id %d", pid)
			}
			return nil, false, agented.Errorf(agented.Conflict,
				"the database %s is in use by %s: stop that one first, or set AGENTED_DB_PATH to another file", path, holder)
		}
		if err != nil {
			f.Close()
			return nil, false, fmt.Errorf("lock %s: %w", name, err)
		}
		// Whoever refuses a database removes a lock file that it made. If that
		// happened between our open and our lock, ours guards nothing.
		ours, err1 := f.Stat()
		there, err2 := os.Stat(name)
		if err1 == nil && err2 == nil && os.SameFile(ours, there) {
			break
		}
		f.Close()
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid()) // for people; the lock itself is what counts
	}
	return f, made, nil
}

// admitFile decides whether the file may be opened at all, without changing it
// or anything beside it. A file that is not there is made, readable by its
// owner only, before SQLite would make it readable by everybody.
func admitFile(ctx context.Context, path string, latest int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return agented.Errorf(agented.Unavailable, "the database %s cannot be created: check the permissions of its folder", path).Because(err)
	}
	// Reading the file past SQLite is safe here only: we hold the lock beside
	// it, so no connection of this process is open on it.
	header, info, err := readHeader(path)
	switch {
	case err != nil:
		return agented.Errorf(agented.Unavailable, "the database %s cannot be read: check its permissions", path).Because(err)
	case !info.Mode().IsRegular():
		return agented.Errorf(agented.Invalid, "%s is not a file: set AGENTED_DB_PATH to the database file", path)
	case info.Size() == 0:
	case len(header) < headerSize || string(header[:len(headerMagic)]) != headerMagic:
		return agented.Errorf(agented.Invalid,
			"%s is not a SQLite database: nothing was changed in it; set AGENTED_DB_PATH to another file, or move this one away", path)
	case binary.BigEndian.Uint32(header[headerAppID:]) != applicationID:
		return foreign(ctx, path)
	default:
		if v := int64(binary.BigEndian.Uint32(header[headerVersion:])); v > latest {
			return newer(path, v, latest)
		}
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return agented.Errorf(agented.Unavailable, "the database %s can be read by others and that could not be changed: make it 0600", path).Because(err)
		}
	}
	return nil
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
	return agented.Errorf(agented.Conflict,
		"the database %s was written by a newer version of Agented (schema %d, this one knows %d): nothing was changed in it; start the newer version, or restore the backup that it took before it changed the schema",
		path, version, latest)
}

// foreign says whose database it is, as far as its tables tell.
func foreign(ctx context.Context, path string) error {
	const mend = "nothing was changed in it; set AGENTED_DB_PATH to another file, or move this one away"
	tables, err := tablesOf(ctx, path)
	if err == nil && slices.Contains(tables, "triggers") &&
		(slices.Contains(tables, "execution_logs") || slices.Contains(tables, "bots")) {
		return agented.Errorf(agented.Conflict,
			"%s is the database of the earlier Agented, the one written in Python, whose data this version cannot read: %s", path, mend)
	}
	return agented.Errorf(agented.Conflict, "%s is a SQLite database of another program: %s", path, mend).Because(err)
}

// tablesOf lists the tables of a database that must not be touched: immutable
// keeps SQLite from locking, recovering and making files beside it.
func tablesOf(ctx context.Context, path string) ([]string, error) {
	u := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table'`)
	return collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
}

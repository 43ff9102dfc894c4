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
	"strconv"
	"strings"
	"syscall"

	"github.com/agented/agented"
	"modernc.org/sqlite"
)

// Inspection is what Inspect found out about a database.
type Inspection struct {
	Path    string   // behind symbolic links
	Size    int64    // bytes of the database file
	Version int64    // of its schema; 0 is an empty database
	Latest  int64    // the schema that this program wants; the next start goes there
	Damage  []string // what SQLite's check says, at most ten lines; none is good
}

// Inspect looks at the database file at path without changing it: nothing is
// created, migrated or repaired. NotFound is no database yet, Conflict one
// that a server has open (the sentence names it, Holder its process id) or
// that Open would refuse.
func Inspect(ctx context.Context, path string) (Inspection, error) {
	path, err := resolve(path)
	if err != nil {
		return Inspection{}, err
	}
	out := Inspection{Path: path}
	unlock, err := borrowLock(path)
	if err != nil {
		return out, err
	}
	defer unlock()
	header, info, err := readHeader(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return out, agented.Errorf(agented.NotFound, "there is no database at %s yet", path)
	case err != nil:
		return out, agented.Errorf(agented.Unavailable, "the database %s cannot be read: check its permissions", path).Because(err)
	case !info.Mode().IsRegular():
		return out, agented.Errorf(agented.Invalid, "%s is not a file: set AGENTED_DB_PATH to the database file", path)
	}
	schema, err := fs.Sub(schemaFS, "schema/sqlite")
	if err != nil {
		return out, err
	}
	if out.Latest, err = latestVersion(schema); err != nil {
		return out, err
	}
	if out.Size = info.Size(); out.Size == 0 {
		return out, nil
	}
	if len(header) < headerSize || string(header[:len(headerMagic)]) != headerMagic {
		return out, agented.Errorf(agented.Invalid, "%s is not a SQLite database: set AGENTED_DB_PATH to another file, or move this one away", path)
	}
	if binary.BigEndian.Uint32(header[headerAppID:]) != applicationID {
		return out, foreign(ctx, path)
	}
	if out.Version = int64(binary.BigEndian.Uint32(header[headerVersion:])); out.Version > out.Latest {
		return out, newer(path, out.Version, out.Latest)
	}
	out.Damage, err = quickCheck(ctx, path)
	return out, err
}

// Admits reports that the database at path was written by a newer version, which
// this one would refuse to open. It looks at the first bytes of the file only, so
// a server may be running on it, but none of this process.
func Admits(path string) error {
	schema, err := fs.Sub(schemaFS, "schema/sqlite")
	if err != nil {
		return err
	}
	latest, err := latestVersion(schema)
	if err != nil {
		return err
	}
	header, _, err := readHeader(path)
	if err != nil || len(header) < headerSize || string(header[:len(headerMagic)]) != headerMagic ||
		binary.BigEndian.Uint32(header[headerAppID:]) != applicationID {
		return nil // Open says it better
	}
	if v := int64(binary.BigEndian.Uint32(header[headerVersion:])); v > latest {
		return newer(path, v, latest)
	}
	return nil
}

// borrowLock takes the lock beside the database, if there is one, so that no
// server changes the file meanwhile. Unlike a server it leaves no trace.
func borrowLock(path string) (unlock func() error, err error) {
	f, err := os.Open(path + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, agented.Errorf(agented.Unavailable, "the lock beside the database, %s.lock, cannot be opened: check its permissions", path).Because(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s.lock: %w", path, err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return nil, agented.Errorf(agented.Conflict, "the database is in use by a server (process %d)", pid).Because(Holder(pid))
	}
	return f.Close, nil
}

// Holder is the process id of the server that has a database open, 0 if
// unknown. It is in the chain of Inspect's Conflict.
type Holder int

func (h Holder) Error() string { return "held by process " + strconv.Itoa(int(h)) }

// quickCheck reads through the database. Without a write-ahead log, as after
// an orderly end, SQLite is told that nothing changes, and makes no file.
func quickCheck(ctx context.Context, path string) ([]string, error) {
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) &&
		!errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return nil, fmt.Errorf("lock mode: %w", err)
	}
	q := url.Values{"mode": {"ro"}, "_query_only": {"1"}}
	if wal, err := os.Stat(path + "-wal"); err != nil || wal.Size() == 0 {
		q.Set("immutable", "1")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, `PRAGMA quick_check(10)`)
	lines, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
	switch {
	case err != nil && (code(err)&0xff == codeCorrupt || code(err)&0xff == codeNotADB):
		return []string{err.Error()}, nil // too damaged even to be checked
	case err != nil:
		return nil, agented.Errorf(agented.Unavailable, "the database %s cannot be read: check its permissions and the disk", path).Because(err)
	case len(lines) == 1 && lines[0] == "ok":
		return nil, nil
	}
	return lines, nil
}

package sqlite

import (
	"context"
	"database/sql"
	"net/url"
	"os"

	"github.com/agented/agented/internal/database"
)

// Inspection is the result of Inspect.
type Inspection struct {
	Path    string   // with symbolic links resolved
	Size    int64    // bytes of the database file
	Version int64    // schema version; 0 means an empty database
	Latest  int64    // latest schema version of this program; the next start migrates to it
	Damage  []string // findings of SQLite's check, at most ten lines; none means intact
}

// Inspect examines the database file at path without changing it: it creates,
// migrates and repairs nothing. It returns a *[FileError] with NotFound if
// there is no database yet, with InUse if a process has it open, and for what
// Open would reject.
func (f Format) Inspect(ctx context.Context, path string) (Inspection, error) {
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
	if out.Latest, err = f.latest(); err != nil {
		return out, err
	}
	version, info, err := f.examine(ctx, path, out.Latest)
	out.Version = version
	if info != nil {
		out.Size = info.Size()
	}
	if err != nil || out.Size == 0 {
		return out, err
	}
	out.Damage, err = quickCheck(ctx, path)
	return out, err
}

// quickCheck checks the whole database.
func quickCheck(ctx context.Context, path string) ([]string, error) {
	db, err := openUnchanged(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	lines, err := texts(db.QueryContext(ctx, `PRAGMA quick_check(10)`))
	switch {
	case err != nil && FaultOf(err) == database.Damaged:
		return []string{err.Error()}, nil // too damaged to be checked
	case err != nil:
		return nil, &FileError{Problem: Unreadable, Path: path, Err: err}
	case len(lines) == 1 && lines[0] == "ok":
		return nil, nil
	}
	return lines, nil
}

// OpenReadOnly opens the database at path, which no process may have open, for
// reading, without changing the file or anything next to it. It holds the lock
// until done is called.
func OpenReadOnly(path string) (db *sql.DB, done func(), err error) {
	path, err = resolve(path)
	if err != nil {
		return nil, nil, err
	}
	unlock, err := borrowLock(path)
	if err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(path); err != nil {
		unlock()
		return nil, nil, &FileError{Problem: NotFound, Path: path, Err: err}
	}
	db, err = openUnchanged(path)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return db, func() { db.Close(); unlock() }, nil
}

// openUnchanged opens a database for reading. Without a write-ahead log, as
// after a graceful shutdown, SQLite opens it as immutable and creates no file.
func openUnchanged(path string) (*sql.DB, error) {
	if err := setLockMode(); err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"ro"}, "_query_only": {"1"}}
	if wal, err := os.Stat(path + "-wal"); err != nil || wal.Size() == 0 {
		q.Set("immutable", "1")
	}
	return sql.Open("sqlite", uri(path, q))
}

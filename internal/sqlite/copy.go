package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
)

// Copy copies the database at path, which a process may be using, to target,
// which must not exist. The copy is consistent and contains every transaction
// that was committed before the call. Then edit may change the copy, in
// [EditCopy]; nil changes nothing.
func (f Format) Copy(ctx context.Context, path, target string, edit func(*sql.DB) error) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return &FileError{Problem: NotFound, Path: path, Err: err}
	}
	if err := setLockMode(); err != nil {
		return err
	}
	if err := createPrivate(target); err != nil {
		return err
	}
	if err := f.copyInto(ctx, path, target); err != nil {
		return err
	}
	if edit == nil {
		return syncFile(target)
	}
	return EditCopy(target, edit)
}

// createPrivate creates an empty file, so that what is written into it is never
// readable by other users.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (f Format) copyInto(ctx context.Context, path, target string) error {
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "temp_store(MEMORY)", "cache_size(-8000)"}}
	db, err := sql.Open("sqlite", uri(path, q))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := f.identify(ctx, db, path); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO $1`, target)
	return err
}

// identify returns the schema version of an open database, and rejects one of
// another program or a newer version.
func (f Format) identify(ctx context.Context, db *sql.DB, path string) (version int64, err error) {
	var id int64
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version FROM pragma_application_id, pragma_user_version`).Scan(&id, &version)
	if err != nil {
		return 0, err
	}
	latest, err := f.latest()
	switch {
	case err != nil:
		return version, err
	case id != int64(f.ApplicationID):
		return version, otherProgram(ctx, path)
	case version > latest:
		return version, newer(path, version, latest)
	}
	return version, nil
}

// EditCopy changes a copy that no process has open, and calls fsync. Deleted
// data is overwritten. If it fails, the copy may be damaged.
func EditCopy(path string, edit func(*sql.DB) error) error {
	q := url.Values{"mode": {"rw"}, "_pragma": {"journal_mode(MEMORY)", "synchronous(OFF)", "secure_delete(1)", "foreign_keys(ON)"}}
	db, err := sql.Open("sqlite", uri(path, q))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := edit(db); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return syncFile(path)
}

// OpenCopy opens a copy for reading and returns its schema version. It rejects
// databases of other programs and newer versions. The content is not trusted.
func (f Format) OpenCopy(ctx context.Context, path string) (*sql.DB, int64, error) {
	if err := setLockMode(); err != nil {
		return nil, 0, err
	}
	db, err := sql.Open("sqlite", uri(path, url.Values{
		"mode": {"ro"}, "immutable": {"1"}, "_query_only": {"1"}, "_dqs": {"0"},
		"_pragma": {"trusted_schema(0)", "cell_size_check(1)", "temp_store(MEMORY)", "cache_size(-8000)"},
	}))
	if err != nil {
		return nil, 0, err
	}
	version, err := f.identify(ctx, db, path)
	if err != nil {
		db.Close()
		return nil, version, err
	}
	return db, version, nil
}

// CheckIntegrity returns the findings of SQLite's integrity check and of the
// foreign-key check, at most ten lines each; none means intact.
func CheckIntegrity(ctx context.Context, db *sql.DB) ([]string, error) {
	lines, err := texts(db.QueryContext(ctx, `PRAGMA integrity_check(10)`))
	if err != nil {
		return []string{err.Error()}, ctx.Err()
	}
	if len(lines) == 1 && lines[0] == "ok" {
		lines = nil
	}
	broken, err := texts(db.QueryContext(ctx, `SELECT "table" || ' refers to a row of ' || parent || ' that is not there' FROM pragma_foreign_key_check LIMIT 10`))
	if err != nil {
		return append(lines, err.Error()), ctx.Err()
	}
	return append(lines, broken...), nil
}

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/agented/agented"
	"modernc.org/sqlite"
)

// Snapshot copies the database at path, which a server may be writing, to target,
// which must not exist. The copy is as of one moment: it has every transaction
// that was committed before the call. Sessions are left out, and the leases of
// what runs have run out, so that the next server takes it over at once.
func Snapshot(ctx context.Context, path, target string) error {
	path, err := resolve(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return agented.Errorf(agented.NotFound, "there is no database at %s: set AGENTED_DATA_DIR or AGENTED_DB_PATH to those of the server", path)
	}
	if err := setLockMode(); err != nil {
		return err
	}
	fail := func(err error) error { return (*DB)(nil).explain("copy the database", err) }
	// Made beforehand so that it is never readable by others.
	f, err := os.OpenFile(target, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := f.Close(); err != nil {
		return fail(err)
	}
	if err := copyInto(ctx, path, target); err != nil {
		return fail(err)
	}
	if err := stripCopy(ctx, target); err != nil {
		return fail(err)
	}
	return fail(syncFile(target))
}

func setLockMode() error {
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) &&
		!errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return fmt.Errorf("lock mode: %w", err)
	}
	return nil
}

func copyInto(ctx context.Context, path, target string) error {
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "temp_store(MEMORY)", "cache_size(-8000)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var id, version int64
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version FROM pragma_application_id, pragma_user_version`).Scan(&id, &version)
	if err != nil {
		return err
	}
	schema, err := fs.Sub(schemaFS, "schema/sqlite")
	if err != nil {
		return err
	}
	latest, err := latestVersion(schema)
	if err != nil {
		return err
	}
	switch {
	case id != applicationID:
		return foreign(ctx, path)
	case version > latest:
		return newer(path, version, latest)
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO $1`, target)
	return err
}

// stripCopy takes out of a copy what must not leave the machine or would be wrong
// elsewhere. What is deleted is overwritten.
func stripCopy(ctx context.Context, target string) error {
	q := url.Values{"mode": {"rw"}, "_pragma": {"journal_mode(MEMORY)", "synchronous(OFF)", "secure_delete(1)", "foreign_keys(ON)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: target, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, q := range []string{
		`DELETE FROM session`,
		`UPDATE execution SET lease_expires_at = 0 WHERE lease_owner IS NOT NULL`,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return db.Close()
}

// Copy is a copy of a database that nobody writes, as Snapshot makes it.
type Copy struct {
	db      *sql.DB
	Version int64 // of its schema
}

// OpenCopy opens a copy for reading. One that is not ours, or newer than this
// program, is refused. Nothing in it is trusted.
func OpenCopy(ctx context.Context, path string) (*Copy, error) {
	if err := setLockMode(); err != nil {
		return nil, err
	}
	q := url.Values{
		"mode": {"ro"}, "immutable": {"1"}, "_query_only": {"1"}, "_dqs": {"0"},
		"_pragma": {"trusted_schema(0)", "cell_size_check(1)", "temp_store(MEMORY)", "cache_size(-8000)"},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	c := &Copy{db: db}
	var id, latest int64
	err = db.QueryRowContext(ctx, `SELECT application_id, user_version FROM pragma_application_id, pragma_user_version`).Scan(&id, &c.Version)
	if err == nil {
		var schema fs.FS
		if schema, err = fs.Sub(schemaFS, "schema/sqlite"); err == nil {
			latest, err = latestVersion(schema)
		}
	}
	switch {
	case err != nil:
		err = agented.Errorf(agented.Invalid, "the database in the backup cannot be read").Because(err)
	case id != applicationID:
		err = agented.Errorf(agented.Invalid, "the database in the backup is not one of Agented")
	case c.Version > latest:
		err = agented.Errorf(agented.Invalid, "the database in the backup is of version %d, and this program knows up to %d: use a newer Agented", c.Version, latest)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the copy.
func (c *Copy) Close() error { return c.db.Close() }

// Damage says what SQLite's thorough check and the check of references find, at
// most ten lines; none is good.
func (c *Copy) Damage(ctx context.Context) ([]string, error) {
	rows, err := c.db.QueryContext(ctx, `PRAGMA integrity_check(10)`)
	lines, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
	if err != nil {
		return []string{err.Error()}, ctx.Err()
	}
	if len(lines) == 1 && lines[0] == "ok" {
		lines = nil
	}
	rows, err = c.db.QueryContext(ctx, `SELECT "table" || ' refers to a row of ' || parent || ' that is not there' FROM pragma_foreign_key_check LIMIT 10`)
	broken, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
	if err != nil {
		return append(lines, err.Error()), ctx.Err()
	}
	return append(lines, broken...), nil
}

// CopyCounts is how much a copy has of each thing.
type CopyCounts struct {
	Triggers   int64 `json:"triggers"`
	Executions int64 `json:"executions"`
	Deliveries int64 `json:"deliveries"`
	Users      int64 `json:"users"`
}

// Counts counts what people would miss.
func (c *Copy) Counts(ctx context.Context) (n CopyCounts, err error) {
	err = c.db.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM trigger_), (SELECT COUNT(*) FROM execution),
		(SELECT COUNT(*) FROM delivery), (SELECT COUNT(*) FROM user_)`).Scan(&n.Triggers, &n.Executions, &n.Deliveries, &n.Users)
	return n, err
}

// CopiedExecution is what a backup has to know of an execution.
type CopiedExecution struct {
	ID        agented.ExecutionID
	State     agented.State
	AttemptNo int
	LastSeq   agented.Seq
	Removed   bool // its log went by retention
}

func (c *Copy) columns() string {
	removed := `log_removed_at IS NOT NULL`
	if c.Version < 4 {
		removed = `FALSE`
	}
	return `id, status, attempt_no, last_seq, ` + removed
}

func scanCopied(e *CopiedExecution, scan func(...any) error) error {
	return scan(&e.ID, &e.State, &e.AttemptNo, &e.LastSeq, &e.Removed)
}

// Executions calls f for each execution that may have files, in the order of
// their ids.
func (c *Copy) Executions(ctx context.Context, f func(CopiedExecution) error) error {
	rows, err := c.db.QueryContext(ctx, `SELECT `+c.columns()+` FROM execution WHERE attempt_no > 0 ORDER BY id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e CopiedExecution
		if err := scanCopied(&e, rows.Scan); err != nil {
			return err
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Execution returns one execution of the copy, or NotFound.
func (c *Copy) Execution(ctx context.Context, id agented.ExecutionID) (CopiedExecution, error) {
	var e CopiedExecution
	err := scanCopied(&e, c.db.QueryRowContext(ctx, `SELECT `+c.columns()+` FROM execution WHERE id = $1`, id).Scan)
	if missing(err) {
		return e, noExecution(id)
	}
	return e, err
}

// Expected is how many logs the copy says that there are of what has ended.
func (c *Copy) Expected(ctx context.Context) (n int64, err error) {
	err = c.Executions(ctx, func(e CopiedExecution) error {
		if e.HasLog() {
			n++
		}
		return nil
	})
	return n, err
}

// HasLog reports whether there must be a log: of what runs, only its files know.
func (e CopiedExecution) HasLog() bool { return e.State.Final() && e.LastSeq > 0 && !e.Removed }

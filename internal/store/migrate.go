package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/pressly/goose/v3"
)

//go:embed schema
var schemaFS embed.FS

// versionTable is where goose notes which migrations are in.
const versionTable = "schema_version"

// latestVersion is the highest number of a migration file.
func latestVersion(schema fs.FS) (int64, error) {
	files, err := fs.Glob(schema, "*.sql")
	if err != nil {
		return 0, err
	}
	var latest int64
	for _, f := range files {
		number, _, _ := strings.Cut(f, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s has no number", f)
		}
		latest = max(latest, n)
	}
	return latest, nil
}

// migrate brings the schema up to latest. Each migration is one transaction. A
// database that has a schema is copied first.
func (db *DB) migrate(ctx context.Context, o Options, schema fs.FS, latest int64) error {
	from, err := db.schemaVersion(ctx)
	if err != nil {
		return db.explain("read the schema's version", err)
	}
	if from > latest {
		return newer(db.path, from, latest)
	}
	if from == 0 {
		// First of all the mark, and out of the write-ahead log into the file's
		// header: a crash from here on leaves a database that is known as ours.
		if err := db.stamp(ctx, 0); err != nil {
			return db.explain("mark the database", err)
		}
	}
	if from == latest {
		return nil
	}
	if from > 0 {
		backup, err := db.backup(ctx, o.BackupDir, latest)
		if err != nil {
			return err
		}
		db.dropCopies(filepath.Dir(backup))
		db.log.Info("backup taken before the database changes", "file", backup, "from_version", from, "to_version", latest)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db.w, schema,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return db.explain("migrate the database", err)
	}
	return db.explain("mark the database", db.stamp(ctx, latest))
}

// schemaVersion is the number of the newest migration that is in; 0 for an
// empty database.
func (db *DB) schemaVersion(ctx context.Context) (int64, error) {
	var n int64
	err := db.w.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1`, versionTable).Scan(&n)
	if err != nil || n == 0 {
		return 0, err
	}
	var v sql.NullInt64
	err = db.w.QueryRowContext(ctx, `SELECT MAX(version_id) FROM `+versionTable).Scan(&v)
	return v.Int64, err
}

// stamp writes whose database this is, and its version, where admitFile finds
// them without SQLite.
func (db *DB) stamp(ctx context.Context, version int64) error {
	for _, q := range []string{
		fmt.Sprintf(`PRAGMA application_id = %d`, applicationID),
		fmt.Sprintf(`PRAGMA user_version = %d`, version),
		`PRAGMA wal_checkpoint(TRUNCATE)`,
	} {
		if _, err := db.w.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// backup copies the database through SQLite, to a name that says before which
// version it was.
func (db *DB) backup(ctx context.Context, dir string, latest int64) (string, error) {
	if dir == "" {
		dir = filepath.Dir(db.path)
	}
	target := filepath.Join(dir, fmt.Sprintf("%s.before-v%d.bak", filepath.Base(db.path), latest))
	fail := func(err error) (string, error) {
		if e, ok := db.explain("backup", err).(*agented.Error); ok {
			return "", agented.Errorf(e.Kind, "no backup could be taken before the database changes, so nothing was changed: %s", e.Text).Because(err)
		}
		return "", agented.Errorf(agented.Unavailable, "no backup could be written to %s before the database changes, so nothing was changed: make room or permit it, then start again", target).Because(err)
	}
	temp := target + ".tmp"
	if err := os.Remove(temp); err != nil && !os.IsNotExist(err) {
		return fail(err)
	}
	// Made beforehand so that it is never readable by others.
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(temp)
	if err := f.Close(); err != nil {
		return fail(err)
	}
	if _, err := db.w.ExecContext(ctx, `VACUUM INTO $1`, temp); err != nil {
		return fail(err)
	}
	if err := syncFile(temp); err != nil {
		return fail(err)
	}
	if err := os.Rename(temp, target); err != nil {
		return fail(err)
	}
	if err := syncFile(dir); err != nil {
		return fail(err)
	}
	return target, nil
}

// copiesKept is how many copies of before a migration stay.
const copiesKept = 3

// dropCopies removes all but the newest copies of before a migration.
func (db *DB) dropCopies(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		db.log.Warn("old copies of the database could not be looked for", "dir", dir, "err", err)
		return
	}
	var copies []fs.FileInfo
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(db.path)+".before-v")
		number, ours := strings.CutSuffix(number, ".bak")
		if _, err := strconv.ParseUint(number, 10, 63); !ok || !ours || err != nil {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			copies = append(copies, info)
		}
	}
	// By age and not by number: after a restored backup, the latest copy is of an
	// older version than those before it.
	slices.SortFunc(copies, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, c := range copies[min(copiesKept, len(copies)):] {
		if err := os.Remove(filepath.Join(dir, c.Name())); err != nil {
			db.log.Warn("an old copy of the database could not be removed", "file", c.Name(), "err", err)
			continue
		}
		db.log.Info("old copy of the database removed", "file", filepath.Join(dir, c.Name()))
	}
}

// syncFile makes a file or a folder durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

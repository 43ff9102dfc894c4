package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// versionTable is where goose records the applied migrations.
const versionTable = "schema_version"

// latest returns the highest number of a migration file.
func (f Format) latest() (int64, error) {
	files, err := fs.Glob(f.Migrations, "*.sql")
	if err != nil {
		return 0, err
	}
	var latest int64
	for _, name := range files {
		number, _, _ := strings.Cut(name, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("migration %s has no number", name)
		}
		latest = max(latest, n)
	}
	return latest, nil
}

// migrate applies all migrations up to latest. Each migration is one
// transaction. A database with a schema is copied first.
func (db *DB) migrate(ctx context.Context, backupDir string, latest int64) error {
	from, err := db.schemaVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if from > latest {
		return newer(db.path, from, latest)
	}
	if from == 0 {
		// Write the mark first, and checkpoint it from the write-ahead log into
		// the file header: after a crash the database is then recognised.
		if err := db.stamp(ctx, 0); err != nil {
			return fmt.Errorf("mark the database: %w", err)
		}
	}
	if from == latest {
		return nil
	}
	if from > 0 {
		backup, err := db.backup(ctx, backupDir, latest)
		if err != nil {
			return err
		}
		db.dropCopies(filepath.Dir(backup))
		db.log.Info("backup taken before the database is migrated", "file", backup, "from_version", from, "to_version", latest)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db.w, db.format.Migrations,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	if err := db.stamp(ctx, latest); err != nil {
		return fmt.Errorf("mark the database: %w", err)
	}
	return nil
}

// schemaVersion returns the number of the latest applied migration; 0 for an
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

// stamp writes the application id and the schema version where examine finds
// them without SQLite.
func (db *DB) stamp(ctx context.Context, version int64) error {
	for _, q := range []string{
		fmt.Sprintf(`PRAGMA application_id = %d`, db.format.ApplicationID),
		fmt.Sprintf(`PRAGMA user_version = %d`, version),
		`PRAGMA wal_checkpoint(TRUNCATE)`,
	} {
		if _, err := db.w.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// backup copies the database through SQLite to a file whose name contains the
// schema version before the migration.
func (db *DB) backup(ctx context.Context, dir string, latest int64) (string, error) {
	if dir == "" {
		dir = filepath.Dir(db.path)
	}
	target := filepath.Join(dir, fmt.Sprintf("%s.before-v%d.bak", filepath.Base(db.path), latest))
	fail := func(err error) (string, error) { return "", &BackupError{Path: target, Err: err} }
	temp := target + ".tmp"
	if err := os.Remove(temp); err != nil && !os.IsNotExist(err) {
		return fail(err)
	}
	if err := createPrivate(temp); err != nil {
		return fail(err)
	}
	defer os.Remove(temp)
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

// copiesKept is how many copies from before migrations are kept.
const copiesKept = 3

// dropCopies removes all but the newest copies from before migrations.
func (db *DB) dropCopies(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		db.log.Warn("could not list old copies of the database", "dir", dir, "err", err)
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
	// By age and not by number: after restoring a backup, the latest copy has
	// an older version than earlier ones.
	slices.SortFunc(copies, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, c := range copies[min(copiesKept, len(copies)):] {
		if err := os.Remove(filepath.Join(dir, c.Name())); err != nil {
			db.log.Warn("could not remove an old copy of the database", "file", c.Name(), "err", err)
			continue
		}
		db.log.Info("removed an old copy of the database", "file", filepath.Join(dir, c.Name()))
	}
}

package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// versionTable is where goose records the applied migrations.
const versionTable = "schema_version"

// oldestServer is the first version of PostgreSQL that is supported.
const oldestServer = 140000

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

// migrate applies all migrations up to latest. Each migration is one transaction.
// The lock of the server is held.
func (db *DB) migrate(ctx context.Context, latest int64) error {
	from, err := db.format.admit(ctx, db.conn, latest)
	if err != nil {
		return err
	}
	if from < latest {
		if err := db.apply(ctx); err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
		if from > 0 {
			db.log.Info("the database was migrated", "from_version", from, "to_version", latest)
		}
	}
	return byteOrder(ctx, db.conn)
}

func (db *DB) apply(ctx context.Context) error {
	config := db.config.ConnConfig.Copy()
	pool := stdlib.OpenDB(*config)
	defer pool.Close()
	p, err := goose.NewProvider(goose.DialectPostgres, pool, db.format.Migrations,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// admit returns the version of the schema, 0 for an empty one, and rejects a
// database that cannot be used, without changing it.
func (f Format) admit(ctx context.Context, conn *pgx.Conn, latest int64) (int64, error) {
	var number, tables int64
	var marked bool
	var name, encoding string
	var schema *string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::bigint, current_setting('server_version'), current_setting('server_encoding'), current_schema(),
		(SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p')),
		EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind = 'r' AND relname = $1)`, f.Mark).
		Scan(&number, &name, &encoding, &schema, &tables, &marked)
	switch {
	case err != nil:
		return 0, openError(err)
	case number < oldestServer:
		return 0, &OpenError{Problem: OldServer, Detail: name}
	case encoding != "UTF8":
		return 0, &OpenError{Problem: NotUTF8, Detail: encoding}
	case schema == nil:
		return 0, &OpenError{Problem: NoSchema}
	case tables == 0:
		return 0, nil
	}
	version, versioned, err := schemaVersion(ctx, conn)
	switch {
	case err != nil:
		return 0, err
	case version > latest:
		return version, &OpenError{Problem: NewerSchema, Version: version, Latest: latest}
	case version == 0 && tables > 1, version == 0 && !versioned, version > 0 && !marked:
		return 0, &OpenError{Problem: OtherProgram}
	}
	return version, nil
}

// schemaVersion returns the number of the latest applied migration, 0 if there is
// none, and whether the table of versions exists.
func schemaVersion(ctx context.Context, conn *pgx.Conn) (version int64, there bool, err error) {
	if err := conn.QueryRow(ctx, `SELECT to_regclass(quote_ident(current_schema()) || '.schema_version') IS NOT NULL`).Scan(&there); err != nil || !there {
		return 0, there, err
	}
	var v sql.NullInt64
	err = conn.QueryRow(ctx, `SELECT MAX(version_id) FROM `+versionTable).Scan(&v)
	return v.Int64, true, err
}

// byteOrder rejects a schema with a text column whose order depends on a locale:
// ranges and pages of lists need that of the bytes.
func byteOrder(ctx context.Context, conn *pgx.Conn) error {
	var found *string
	err := conn.QueryRow(ctx, `SELECT min(c.relname || '.' || a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
		AND a.attcollation <> 0 AND a.attcollation <> to_regcollation('pg_catalog."C"')`).Scan(&found)
	if err != nil {
		return err
	}
	if found != nil {
		return &OpenError{Problem: LocaleOrder, Detail: *found}
	}
	return nil
}

package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
)

// This file is the seam to the database engines: the statements of the nouns use
// only what is declared here and the transactions of tx.go. The files that name an
// engine are store.go (open), file.go (copies and checks of SQLite files) and
// errors.go.

// querier reads from a write transaction or a read transaction.
type querier interface {
	query(q string, args ...any) (database.Rows, error)
	row(q string, args ...any) database.Row
	useIndex(name string) string
}

// exec executes a statement. Its error may be returned by the next statement
// instead, so a violated constraint is found by execNow.
func (tx *tx) exec(q string, args ...any) error { return tx.Exec(q, args...) }

// execNow executes a statement whose violation of a unique constraint is handled
// by the caller.
func (tx *tx) execNow(q string, args ...any) error {
	_, err := tx.Affected(q, args...)
	return err
}

func (tx *tx) affected(q string, args ...any) (int64, error) { return tx.Affected(q, args...) }

func (tx *tx) query(q string, args ...any) (database.Rows, error) { return tx.Query(q, args...) }
func (tx *tx) row(q string, args ...any) database.Row             { return tx.Row(q, args...) }

func (tx *tx) useIndex(name string) string { return tx.db.useIndex(name) }

// useIndex returns a clause that makes SQLite use an index. PostgreSQL has no such
// clause, and statistics instead.
func (db *DB) useIndex(name string) string {
	if db.postgres {
		return ""
	}
	return " INDEXED BY " + name
}

// reader is a read transaction: its reads are consistent.
type reader struct {
	database.ReadTx
	db *DB
}

func (r *reader) useIndex(name string) string { return r.db.useIndex(name) }

// read runs f in a read transaction.
func (db *DB) read(ctx context.Context, what string, f func(*reader) error) error {
	return explain(what, db.engine.Read(ctx, func(t database.ReadTx) error { return f(&reader{t, db}) }))
}

func (r *reader) query(q string, args ...any) (database.Rows, error) { return r.Query(q, args...) }
func (r *reader) row(q string, args ...any) database.Row             { return r.Row(q, args...) }

// query returns the rows of a single read statement.
func (db *DB) query(ctx context.Context, q string, args ...any) (database.Rows, error) {
	return db.engine.Query(ctx, q, args...)
}

// row returns the row of a single read statement.
func (db *DB) row(ctx context.Context, q string, args ...any) database.Row {
	return db.engine.Row(ctx, q, args...)
}

// rowPrepared is row for frequent statements with constant text.
func (db *DB) rowPrepared(ctx context.Context, q string, args ...any) database.Row {
	return db.engine.RowPrepared(ctx, q, args...)
}

// Page selects a part of a list.
type Page = database.Page

// MaxLimit is the largest page.
const MaxLimit = database.MaxLimit

// pageKey returns the sort key in the page's cursor, nil for the first page.
func pageKey(p Page, list string, parts int) ([]string, error) {
	key, err := p.After(list, parts)
	if err != nil {
		return nil, badCursor()
	}
	return key, nil
}

func badCursor() error {
	return agented.InvalidFields([]agented.Field{{
		Path: "cursor", Text: "is not a cursor of this list: omit it to start from the first page",
	}})
}

// cut returns the rows of a page, of which there may be one more, and the cursor
// of the next page.
func cut[T any](p Page, rows []T, list string, key func(*T) []string) ([]T, string, error) {
	rows, next := database.Cut(p, rows, list, key)
	return rows, next, nil
}

// where collects conditions and their arguments. $? becomes the next number.
type where = database.Where

// in formats a list of arguments for IN.
func in[T any](w *where, list []T) string { return database.In(w, list) }

// lastRune sorts after every text that continues a prefix.
const lastRune = database.LastRune

// collect scans all rows.
func collect[T any](rows database.Rows, err error, scan func(*T, func(...any) error) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v, rows.Scan); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// micros encodes a time as microseconds since 1970. The zero time is NULL.
type micros time.Time

// Value implements driver.Valuer.
func (m micros) Value() (driver.Value, error) {
	if time.Time(m).IsZero() {
		return nil, nil
	}
	return time.Time(m).UnixMicro(), nil
}

// toTime decodes micros.
type toTime struct{ t *time.Time }

// Scan implements sql.Scanner.
func (s toTime) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*s.t = time.Time{}
	case int64:
		*s.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a time is stored as %T", v)
	}
	return nil
}

// stored returns the time as the database returns it.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

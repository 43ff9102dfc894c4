package store

import (
	"context"
	"database/sql"
	"slices"

	"github.com/agented/agented"
)

// querier is what reads: a write transaction or a read one.
type querier interface {
	query(q string, args ...any) (*sql.Rows, error)
	row(q string, args ...any) *sql.Row
}

// tx is a write transaction. It lives as long as the call of write that made
// it, hence the context in it.
type tx struct {
	ctx     context.Context
	db      *DB
	t       *sql.Tx
	changed []agented.ExecutionID // in the order of their event_seq
}

// write runs f in the one write transaction at a time, commits, and tells
// OnChange what changed. what names the doing in errors.
func (db *DB) write(ctx context.Context, what string, f func(*tx) error) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return db.explain(what, ctx.Err())
	}
	defer func() { <-db.turn }()
	t, err := db.w.BeginTx(ctx, nil)
	if err != nil {
		return db.explain(what, err)
	}
	defer t.Rollback()
	tx := &tx{ctx: ctx, db: db, t: t}
	if err := f(tx); err != nil {
		return db.explain(what, err)
	}
	events, err := tx.events()
	if err != nil {
		return db.explain(what, err)
	}
	if err := t.Commit(); err != nil {
		return db.explain(what, err)
	}
	for _, e := range events {
		db.onChange(e)
	}
	return nil
}

// events loads what changed, as the transaction leaves it.
func (tx *tx) events() ([]agented.ExecutionEvent, error) {
	if tx.db.onChange == nil || len(tx.changed) == 0 {
		return nil, nil
	}
	seen := map[agented.ExecutionID]bool{}
	var ids []agented.ExecutionID
	for _, id := range tx.changed {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	var out []agented.ExecutionEvent
	for part := range slices.Chunk(ids, 200) {
		list, err := loadBrief(tx, part)
		if err != nil {
			return nil, err
		}
		for i := range list {
			out = append(out, agented.ExecutionEvent{Seq: list[i].EventSeq, Execution: &list[i]})
		}
	}
	slices.SortFunc(out, func(a, b agented.ExecutionEvent) int { return int(a.Seq - b.Seq) })
	return out, nil
}

// change takes the next event number for a change of the execution. The caller
// writes it into the row.
func (tx *tx) change(id agented.ExecutionID) (int64, error) {
	var seq int64
	err := tx.row(`UPDATE counter SET value = value + 1 WHERE name = 'event' RETURNING value`).Scan(&seq)
	tx.changed = append(tx.changed, id)
	return seq, err
}

// exec runs a statement.
func (tx *tx) exec(q string, args ...any) error {
	_, err := tx.affected(q, args...)
	return err
}

// affected is exec that returns how many rows it touched.
func (tx *tx) affected(q string, args ...any) (int64, error) {
	res, err := tx.t.ExecContext(tx.ctx, q, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (tx *tx) query(q string, args ...any) (*sql.Rows, error) {
	return tx.t.QueryContext(tx.ctx, q, args...)
}

func (tx *tx) row(q string, args ...any) *sql.Row {
	return tx.t.QueryRowContext(tx.ctx, q, args...)
}

// reader is a read transaction: what it reads fits together.
type reader struct {
	ctx context.Context
	t   *sql.Tx
}

// read runs f in a read transaction.
func (db *DB) read(ctx context.Context, what string, f func(*reader) error) error {
	t, err := db.r.BeginTx(ctx, nil)
	if err != nil {
		return db.explain(what, err)
	}
	defer t.Rollback()
	return db.explain(what, f(&reader{ctx, t}))
}

func (r *reader) query(q string, args ...any) (*sql.Rows, error) {
	return r.t.QueryContext(r.ctx, q, args...)
}

func (r *reader) row(q string, args ...any) *sql.Row {
	return r.t.QueryRowContext(r.ctx, q, args...)
}

// collect reads all rows with scan.
func collect[T any](rows *sql.Rows, err error, scan func(*T, func(...any) error) error) ([]T, error) {
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

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
	changed []agented.ExecutionID // in the order of their event_seq
}

// write runs f in the one write transaction at a time, commits, and tells
// OnChange what changed. what names the doing in errors.
func (db *DB) write(ctx context.Context, what string, f func(*tx) error) error {
	select {
	case db.turn <- struct{}{}:
	case <-ctx.Done():
		return db.explain(what, ctx.Err())
	case <-db.closed:
		return db.explain(what, sql.ErrConnDone)
	}
	defer func() { <-db.turn }()
	if err := ctx.Err(); err != nil {
		return db.explain(what, err)
	}
	tx := &tx{ctx: ctx, db: db}
	if err := tx.exec(`BEGIN IMMEDIATE`); err != nil {
		return db.explain(what, err)
	}
	// From here on the end of ctx must not leave it open whether the
	// transaction was committed.
	tx.ctx = context.WithoutCancel(ctx)
	open := true
	defer func() {
		if open { // an error from here says that SQLite has rolled back by itself
			tx.exec(`ROLLBACK`)
		}
	}()
	if err := f(tx); err != nil {
		return db.explain(what, err)
	}
	events, err := tx.events()
	if err != nil {
		return db.explain(what, err)
	}
	if err := tx.exec(`COMMIT`); err != nil {
		return db.explain(what, err)
	}
	open = false
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

// maxPrepared bounds how many statements stay prepared; those that lists make
// up have no bound of their own.
const maxPrepared = 200

// beforeStatement is called before each statement of a write transaction; tests
// end the process in it.
var beforeStatement = func(query string) {}

// prepared returns the statement of that text. Preparing costs more than most
// statements take to run. The writer's turn guards the map.
func (tx *tx) prepared(q string) (s *sql.Stmt, release func(), err error) {
	beforeStatement(q)
	if s := tx.db.stmts[q]; s != nil {
		return s, func() {}, nil
	}
	if s, err = tx.db.conn.PrepareContext(tx.ctx, q); err != nil {
		return nil, nil, err
	}
	if len(tx.db.stmts) >= maxPrepared {
		return s, func() { s.Close() }, nil
	}
	tx.db.stmts[q] = s
	return s, func() {}, nil
}

// exec runs a statement.
func (tx *tx) exec(q string, args ...any) error {
	_, err := tx.affected(q, args...)
	return err
}

// affected is exec that returns how many rows it touched.
func (tx *tx) affected(q string, args ...any) (int64, error) {
	s, release, err := tx.prepared(q)
	if err != nil {
		return 0, err
	}
	defer release()
	res, err := s.ExecContext(tx.ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (tx *tx) query(q string, args ...any) (*sql.Rows, error) {
	s, release, err := tx.prepared(q)
	if err != nil {
		return nil, err
	}
	defer release() // the rows keep it until they are closed
	return s.QueryContext(tx.ctx, args...)
}

func (tx *tx) row(q string, args ...any) *sql.Row {
	s, release, err := tx.prepared(q)
	if err != nil {
		return tx.db.conn.QueryRowContext(tx.ctx, q, args...) // says the same error
	}
	defer release()
	return s.QueryRowContext(tx.ctx, args...)
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

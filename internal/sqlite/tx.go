package sqlite

import (
	"context"
	"database/sql"

	"github.com/agented/agented/internal/database"
)

// maxPrepared limits how many statements stay prepared; the number of list
// queries is unbounded.
const maxPrepared = 200

// Tx is a write transaction. It exists only during the call of Write that
// created it, and therefore contains the context.
type Tx struct {
	ctx       context.Context
	db        *DB
	committed func()
}

// Write runs f in the single write transaction and commits. If the context ends
// before the transaction begins, nothing is written; afterwards it is ignored.
func (db *DB) Write(ctx context.Context, f func(database.Tx) error) error {
	if err := db.takeTurn(ctx); err != nil {
		return err
	}
	defer func() { <-db.turn }()
	if err := ctx.Err(); err != nil {
		return err
	}
	// Ignore cancellation of ctx from here on: otherwise it would be unknown
	// whether the transaction was begun or committed. A statement that is
	// interrupted may have been executed.
	tx := &Tx{ctx: context.WithoutCancel(ctx), db: db}
	open := true
	defer func() {
		if open { // an error means that there is no transaction, or that SQLite has rolled it back
			_ = tx.Exec(`ROLLBACK`)
		}
	}()
	if err := tx.Exec(`BEGIN IMMEDIATE`); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Exec(`COMMIT`); err != nil {
		return err
	}
	open = false
	if tx.committed != nil {
		tx.committed()
	}
	return nil
}

// Context returns the context of the transaction, which is never cancelled.
func (tx *Tx) Context() context.Context { return tx.ctx }

// OnCommit sets the function that is called after the commit, before the next
// write transaction. It must not call the DB.
func (tx *Tx) OnCommit(f func()) { tx.committed = f }

// prepared returns the prepared statement with that text. Preparing costs more
// than most statements take to run. The writer's turn guards the map.
func (tx *Tx) prepared(q string) (s *sql.Stmt, release func(), err error) {
	if tx.db.before != nil {
		tx.db.before(q)
	}
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

// Exec executes a statement.
func (tx *Tx) Exec(q string, args ...any) error {
	_, err := tx.Affected(q, args...)
	return err
}

// Affected executes a statement and returns the number of affected rows.
func (tx *Tx) Affected(q string, args ...any) (int64, error) {
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

// Query returns the rows of a query. Close them before the next statement.
func (tx *Tx) Query(q string, args ...any) (database.Rows, error) {
	s, release, err := tx.prepared(q)
	if err != nil {
		return nil, err
	}
	defer release() // the rows use it until they are closed
	return rows(s.QueryContext(tx.ctx, args...))
}

// Row returns the first row of a query.
func (tx *Tx) Row(q string, args ...any) database.Row {
	s, release, err := tx.prepared(q)
	if err != nil {
		return tx.db.conn.QueryRowContext(tx.ctx, q, args...) // returns the same error
	}
	defer release()
	return s.QueryRowContext(tx.ctx, args...)
}

// Savepoint runs f so that its error undoes only what f has written. It returns
// the error of f, and the error of the transaction, which then has failed.
func (tx *Tx) Savepoint(f func() error) (failed, err error) {
	if err := tx.Exec(`SAVEPOINT job`); err != nil {
		return nil, err
	}
	if failed = f(); failed != nil {
		if err := tx.Exec(`ROLLBACK TO job`); err != nil {
			return failed, err
		}
	}
	return failed, tx.Exec(`RELEASE job`)
}

// ReadTx is a read transaction: its reads are consistent.
type ReadTx struct {
	ctx context.Context
	t   *sql.Tx
}

// Read runs f in a read transaction.
func (db *DB) Read(ctx context.Context, f func(database.ReadTx) error) error {
	t, err := db.r.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	return f(&ReadTx{ctx, t})
}

// Query returns the rows of a query. Close them before the next statement.
func (r *ReadTx) Query(q string, args ...any) (database.Rows, error) {
	return rows(r.t.QueryContext(r.ctx, q, args...))
}

// Row returns the first row of a query.
func (r *ReadTx) Row(q string, args ...any) database.Row {
	return r.t.QueryRowContext(r.ctx, q, args...)
}

// rows keeps the interface nil if there are no rows.
func rows(r *sql.Rows, err error) (database.Rows, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Query returns the rows of a single read statement outside of a transaction.
func (db *DB) Query(ctx context.Context, q string, args ...any) (database.Rows, error) {
	return rows(db.r.QueryContext(ctx, q, args...))
}

// Row returns the first row of a single read statement outside of a transaction.
func (db *DB) Row(ctx context.Context, q string, args ...any) database.Row {
	return db.r.QueryRowContext(ctx, q, args...)
}

// RowPrepared returns the first row of a query, with a statement that stays
// prepared on each read connection that has used it. Preparing costs more than
// most statements take to run, and keeping it costs memory: use it only for
// frequent queries with constant text.
func (db *DB) RowPrepared(ctx context.Context, q string, args ...any) database.Row {
	s, err := db.prepareHot(ctx, q)
	if err != nil {
		return db.r.QueryRowContext(ctx, q, args...) // returns the same error
	}
	return s.QueryRowContext(ctx, args...)
}

func (db *DB) prepareHot(ctx context.Context, q string) (*sql.Stmt, error) {
	if s, ok := db.hot.Load(q); ok {
		return s.(*sql.Stmt), nil
	}
	s, err := db.r.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	if first, loaded := db.hot.LoadOrStore(q, s); loaded {
		s.Close()
		s = first.(*sql.Stmt)
	}
	return s, nil
}

// texts scans rows of one text column.
func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

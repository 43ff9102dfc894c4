package postgres

import (
	"context"
	"database/sql"

	"github.com/agented/agented/internal/database"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ReadTx is a read transaction: its reads are consistent.
type ReadTx struct {
	ctx context.Context
	t   pgx.Tx
}

// Read runs f in a read transaction. If it fails because a connection of the pool
// was lost, it is repeated once with another.
func (db *DB) Read(ctx context.Context, f func(database.ReadTx) error) error {
	return db.again(ctx, func(conn *pgxpool.Conn) error {
		t, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return err
		}
		defer func() { _ = t.Rollback(context.WithoutCancel(ctx)) }()
		return f(&ReadTx{ctx, t})
	})
}

// Query returns the rows of a query. Close them before the next statement.
func (r *ReadTx) Query(q string, args ...any) (database.Rows, error) {
	args, err := values(args)
	if err != nil {
		return nil, err
	}
	got, err := r.t.Query(r.ctx, q, args...)
	if err != nil {
		return nil, err
	}
	return &rows{Rows: got}, nil
}

// Row returns the first row of a query.
func (r *ReadTx) Row(q string, args ...any) database.Row {
	got, err := r.Query(q, args...)
	return row{got, err}
}

// again runs f with a connection, and once more with a new one if the first was
// lost before f: connections that wait in the pool die with the database server.
func (db *DB) again(ctx context.Context, f func(*pgxpool.Conn) error) error {
	for try := 0; ; try++ {
		conn, err := db.acquire(ctx)
		if err != nil {
			return err
		}
		err = f(conn)
		lost := conn.Conn().IsClosed() && FaultOf(err) == database.Unreachable && ctx.Err() == nil
		conn.Release()
		if !lost || try > 0 {
			return err
		}
		db.pool.Reset() // the others are most likely lost too
	}
}

func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	select {
	case <-db.closed:
		return nil, sql.ErrConnDone
	default:
		return db.pool.Acquire(ctx)
	}
}

// Query returns the rows of a single read statement outside of a transaction.
func (db *DB) Query(ctx context.Context, q string, args ...any) (database.Rows, error) {
	args, err := values(args)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		conn, err := db.acquire(ctx)
		if err != nil {
			return nil, err
		}
		got, err := conn.Query(ctx, q, args...)
		if err == nil {
			return &rows{Rows: got, release: conn.Release}, nil
		}
		lost := conn.Conn().IsClosed() && FaultOf(err) == database.Unreachable && ctx.Err() == nil
		conn.Release()
		if !lost || try > 0 {
			return nil, err
		}
		db.pool.Reset()
	}
}

// Row returns the first row of a single read statement outside of a transaction.
func (db *DB) Row(ctx context.Context, q string, args ...any) database.Row {
	got, err := db.Query(ctx, q, args...)
	return row{got, err}
}

// RowPrepared is Row: all statements stay prepared.
func (db *DB) RowPrepared(ctx context.Context, q string, args ...any) database.Row {
	return db.Row(ctx, q, args...)
}

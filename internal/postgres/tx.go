package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/agented/agented/internal/database"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Tx is a write transaction. It exists only during the call of Write that
// created it, and therefore contains the context.
type Tx struct {
	ctx       context.Context
	db        *DB
	conn      *pgx.Conn
	id        string // of the transaction, to ask for its state
	waiting   *pgx.Batch
	failed    error // the first error: PostgreSQL executes nothing after it
	committed func()
}

// maxWaiting limits how many statements are sent together.
const maxWaiting = 200

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
	// whether the transaction was committed.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionLimit)
	defer cancel()
	tx, err := db.begin(limited)
	if err != nil {
		return err
	}
	open := true
	defer func() {
		if open {
			tx.rollback()
		}
	}()
	if err := f(tx); err != nil {
		if tx.failed != nil && FaultOf(tx.failed) != 0 {
			return tx.failed // the cause of err
		}
		return err
	}
	if err := tx.commit(); err != nil {
		return err
	}
	open = false
	if tx.committed != nil {
		tx.committed()
	}
	return nil
}

// takeTurn waits for the writer's turn. The caller releases it.
func (db *DB) takeTurn(ctx context.Context) error {
	select {
	case db.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-db.closed:
		return sql.ErrConnDone
	}
}

// retryPause is how long no new connection is opened after one has failed, so
// that callers are answered at once.
const retryPause = 300 * time.Millisecond

// begin begins a transaction in which no other server's write transaction runs. It
// connects again if the connection was lost.
func (db *DB) begin(ctx context.Context) (*Tx, error) {
	if db.before != nil {
		db.before("BEGIN")
	}
	for fresh := false; ; fresh = true {
		if db.conn == nil {
			if err := db.reconnect(ctx); err != nil {
				return nil, err
			}
			fresh = true
		}
		id, err := beginOn(ctx, db.conn)
		if err == nil {
			if db.away.CompareAndSwap(true, false) {
				db.log.Info("connected to the database again")
			}
			return &Tx{ctx: ctx, db: db, conn: db.conn, id: id, waiting: &pgx.Batch{}}, nil
		}
		lost := FaultOf(err) == database.Unreachable
		db.drop(err)
		if fresh || !lost {
			return nil, err
		}
	}
}

// beginOn begins a transaction, takes the turn, and returns the transaction's id,
// in one round trip. The lock comes before any snapshot.
func beginOn(ctx context.Context, conn *pgx.Conn) (string, error) {
	results, err := conn.PgConn().Exec(ctx, beginStatements).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 {
		return "", errors.New("the transaction has no id")
	}
	return string(last.Rows[0][0]), nil
}

const beginStatements = `BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(1095192149, hashtext(current_schema())); SELECT pg_current_xact_id()::text`

// reconnect opens the writer's connection.
func (db *DB) reconnect(ctx context.Context) error {
	if time.Since(db.failed) < retryPause {
		return db.reason
	}
	conn, err := db.connect(ctx)
	if err != nil {
		db.failed, db.reason = time.Now(), err
		if !db.away.Swap(true) {
			db.log.Warn("the database cannot be reached", "err", err)
		}
		return err
	}
	db.conn, db.failed = conn, time.Time{}
	return nil
}

// drop closes the writer's connection. The next transaction opens another.
func (db *DB) drop(cause error) {
	if db.conn == nil {
		return
	}
	closeConn(db.conn)
	db.conn = nil
	if !db.away.Swap(true) {
		db.log.Warn("the connection to the database was lost", "err", cause)
	}
}

// rollback ends the transaction without a commit.
func (tx *Tx) rollback() {
	if tx.db.conn == nil {
		return
	}
	if tx.db.before != nil {
		tx.db.before("ROLLBACK")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tx.ctx), connectTimeout)
	defer cancel()
	if tx.conn.IsClosed() {
		tx.db.drop(tx.failed)
		return
	}
	if err := exec(ctx, tx.conn, `ROLLBACK`); err != nil {
		tx.db.drop(err)
	}
}

// commit sends what waits, with COMMIT. If the connection is lost meanwhile, it
// finds out what has become of the transaction.
func (tx *Tx) commit() error {
	if tx.failed != nil {
		return tx.failed
	}
	tx.trace("COMMIT")
	tx.waiting.Queue("COMMIT")
	n := tx.waiting.Len()
	results := tx.conn.SendBatch(tx.ctx, tx.waiting)
	tx.waiting = &pgx.Batch{}
	var tag pgconn.CommandTag
	var err error
	for range n {
		if tag, err = results.Exec(); err != nil {
			break
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	switch {
	case err == nil && tag.String() == "COMMIT":
		return nil
	case err == nil:
		return errors.New("the transaction was rolled back")
	}
	tx.failed = err
	if FaultOf(err) != database.Unreachable && !tx.conn.IsClosed() {
		return err
	}
	tx.db.drop(err)
	return tx.outcome(err)
}

// outcomeLimit is how long a commit waits for the database to return.
const outcomeLimit = 10 * time.Second

// outcome returns nil if the transaction was committed although its connection was
// lost, cause if it was not, and an error of the fault Unknown if that cannot be
// found out in time.
func (tx *Tx) outcome(cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tx.ctx), outcomeLimit)
	defer cancel()
	for {
		state, err := tx.state(ctx)
		switch {
		case err != nil:
		case state == "committed":
			tx.db.log.Info("a commit whose answer was lost had been executed")
			return nil
		case state == "aborted":
			return cause
		}
		select {
		case <-ctx.Done():
			return &lostCommit{cause}
		case <-time.After(retryPause):
		}
	}
}

// state returns what the server knows of the transaction.
func (tx *Tx) state(ctx context.Context) (string, error) {
	if tx.db.conn == nil {
		if err := tx.db.reconnect(ctx); err != nil {
			return "", err
		}
	}
	var state *string
	err := tx.db.conn.QueryRow(ctx, `SELECT pg_xact_status($1::text::xid8)`, tx.id).Scan(&state)
	if err != nil {
		tx.db.drop(err)
		return "", err
	}
	if state == nil {
		return "", errors.New("the transaction is too old")
	}
	return *state, nil
}

// Context returns the context of the transaction, which the caller cannot cancel.
func (tx *Tx) Context() context.Context { return tx.ctx }

// OnCommit sets the function that is called after the commit, before the next
// write transaction. It must not call the DB.
func (tx *Tx) OnCommit(f func()) { tx.committed = f }

func (tx *Tx) trace(q string) {
	if tx.db.before != nil {
		tx.db.before(q)
	}
}

// Exec sends a statement with the next one that returns something.
func (tx *Tx) Exec(q string, args ...any) error {
	if tx.failed != nil {
		return tx.failed
	}
	tx.trace(q)
	if err := queue(tx.waiting, q, args); err != nil {
		return tx.fail(err)
	}
	if tx.waiting.Len() >= maxWaiting {
		return tx.flush()
	}
	return nil
}

// fail keeps the first error.
func (tx *Tx) fail(err error) error {
	if err != nil && tx.failed == nil {
		tx.failed = err
	}
	return err
}

// flush sends what waits.
func (tx *Tx) flush() error {
	if tx.failed != nil {
		return tx.failed
	}
	if tx.waiting.Len() == 0 {
		return nil
	}
	results := tx.conn.SendBatch(tx.ctx, tx.waiting)
	tx.waiting = &pgx.Batch{}
	return tx.fail(results.Close())
}

// Affected executes a statement and returns the number of affected rows.
func (tx *Tx) Affected(q string, args ...any) (int64, error) {
	if err := tx.Exec(q, args...); err != nil {
		return 0, err
	}
	if tx.waiting.Len() == 0 { // just sent with others
		return 0, tx.fail(errors.New("too many statements wait"))
	}
	n := tx.waiting.Len()
	results := tx.conn.SendBatch(tx.ctx, tx.waiting)
	tx.waiting = &pgx.Batch{}
	var tag pgconn.CommandTag
	var err error
	for range n {
		if tag, err = results.Exec(); err != nil {
			break
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag.RowsAffected(), tx.fail(err)
}

// Query returns the rows of a query. Close them before the next statement.
func (tx *Tx) Query(q string, args ...any) (database.Rows, error) {
	if tx.failed != nil {
		return nil, tx.failed
	}
	tx.trace(q)
	args, err := values(args)
	if err != nil {
		return nil, tx.fail(err)
	}
	before := tx.waiting.Len()
	if before == 0 {
		r, err := tx.conn.Query(tx.ctx, q, args...)
		if err != nil {
			return nil, tx.fail(err)
		}
		return &rows{Rows: r, tx: tx}, nil
	}
	tx.waiting.Queue(q, args...)
	results := tx.conn.SendBatch(tx.ctx, tx.waiting)
	tx.waiting = &pgx.Batch{}
	for range before {
		if _, err := results.Exec(); err != nil {
			results.Close()
			return nil, tx.fail(err)
		}
	}
	r, err := results.Query()
	if err != nil {
		results.Close()
		return nil, tx.fail(err)
	}
	return &rows{Rows: r, batch: results, tx: tx}, nil
}

// Row returns the first row of a query.
func (tx *Tx) Row(q string, args ...any) database.Row {
	r, err := tx.Query(q, args...)
	return row{r, err}
}

// Savepoint runs f so that its error undoes only what f has written. It returns
// the error of f, and the error of the transaction, which then has failed.
func (tx *Tx) Savepoint(f func() error) (failed, err error) {
	tx.trace("SAVEPOINT job")
	tx.waiting.Queue(`SAVEPOINT job`)
	if err := tx.flush(); err != nil {
		return nil, err
	}
	if failed = f(); failed == nil {
		failed = tx.flush()
	}
	if failed == nil {
		tx.trace("RELEASE job")
		tx.waiting.Queue(`RELEASE job`)
		return nil, nil
	}
	if tx.conn.IsClosed() || FaultOf(failed) == database.Unreachable {
		return failed, tx.fail(failed)
	}
	tx.failed, tx.waiting = nil, &pgx.Batch{}
	tx.trace("ROLLBACK TO job")
	// Not in a batch: a failed transaction prepares no statements.
	return failed, tx.fail(exec(tx.ctx, tx.conn, `ROLLBACK TO job; RELEASE job`))
}

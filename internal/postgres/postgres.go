// Package postgres is a database on a PostgreSQL server that one server of the
// program at a time writes to: one writer, a pool of readers, group commit,
// migrations, and the state of the server for checks.
//
// Write transactions are serialised by an advisory lock of the database, under
// READ COMMITTED: the lock is taken with BEGIN, so each later statement sees
// everything that was committed before. The statements of a transaction that
// return nothing are sent together with the next one that does, because round
// trips are what limits the throughput.
//
// It contains no statement of the program that uses it. Its errors are *[OpenError]
// and those of the driver, which [FaultOf] classifies; texts for people are the
// caller's.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// MaxReaders limits the read pool.
const MaxReaders = 8

// Time limits of a session. A server that freezes in a transaction loses it, so
// that others are not held up.
const (
	connectTimeout   = 5 * time.Second
	statementTimeout = 60 * time.Second
	idleTimeout      = 15 * time.Second // within a transaction
	lockTimeout      = 20 * time.Second
	transactionLimit = 2 * time.Minute
)

// Keys of the advisory locks. Those of a schema are derived from its name.
const (
	serverLock = 0x41474e54 // held by the program's server as long as it runs
	turnLock   = 0x41474e55 // held by a write transaction
)

// Format identifies the databases of a program.
type Format struct {
	Migrations fs.FS  // goose's *.sql files; the number before the first _ is the schema version
	Mark       string // a table that each of its databases has
}

// Options configure Open.
type Options struct {
	Log *slog.Logger // nil disables logging
	// Patience is how long Open waits until another server has released the
	// database: the connection of a killed server may outlive it for a moment.
	Patience time.Duration
}

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	format Format
	config *pgxpool.Config
	log    *slog.Logger
	schema string
	pool   *pgxpool.Pool

	turn   chan struct{} // the writer's turn: one write transaction with its callback at a time
	conn   *pgx.Conn     // the writer's connection, nil if lost; used only in turn
	failed time.Time     // of the last connection that could not be opened; used only in turn
	reason error         // why it could not; used only in turn
	before func(query string)
	away   atomic.Bool // the last connection of the writer was lost

	once   sync.Once
	closed chan struct{}
}

// Open connects to the database, takes the lock of the server, and migrates the
// schema. It rejects a database of a newer version or another program, and one
// that another server uses, without changing it.
func (f Format) Open(ctx context.Context, url string, o Options) (_ *DB, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	config, err := parse(url)
	if err != nil {
		return nil, err
	}
	db := &DB{format: f, config: config, log: o.Log, turn: make(chan struct{}, 1), closed: make(chan struct{})}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	latest, err := f.latest()
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(o.Patience)
	for {
		db.conn, err = db.connect(ctx)
		if e, taken := errors.AsType[*OpenError](err); !taken || e.Problem != InUse || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, openError(err)
	}
	if err := db.conn.QueryRow(ctx, `SELECT current_schema()`).Scan(&db.schema); err != nil {
		return nil, &OpenError{Problem: NoSchema, Err: err}
	}
	if err := db.migrate(ctx, latest); err != nil {
		return nil, err
	}
	db.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	return db, err
}

// parse reads a URL and adds the settings of each session. Its errors do not
// contain the URL, which may have a password.
func parse(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, &OpenError{Problem: BadURL, Err: hidden(err)}
	}
	c := config.ConnConfig
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "agented"
	}
	dialer := &net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	c.DialFunc = dialer.DialContext
	// A cancelled read interrupts its statement and keeps the connection.
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: connectTimeout}
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeCacheStatement
	c.StatementCacheCapacity = 512
	config.MaxConns, config.MinConns = MaxReaders, 0
	config.MaxConnIdleTime = 5 * time.Minute
	config.AfterConnect = prepareSession
	return config, nil
}

// hidden removes the URL from an error of the parser.
func hidden(err error) error {
	text := err.Error()
	if i := strings.Index(text, "`: "); strings.HasPrefix(text, "cannot parse `") && i > 0 {
		text = text[i+len("`: "):]
	}
	return errors.New(text)
}

// prepareSession sets the limits of a session.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	return exec(ctx, conn, fmt.Sprintf(`SET statement_timeout = %d; SET idle_in_transaction_session_timeout = %d; SET lock_timeout = %d;
		SET default_transaction_isolation = 'read committed'; SET standard_conforming_strings = on; SET bytea_output = hex`,
		statementTimeout.Milliseconds(), idleTimeout.Milliseconds(), lockTimeout.Milliseconds()))
}

// exec executes statements without parameters in one round trip.
func exec(ctx context.Context, conn *pgx.Conn, statements string) error {
	return conn.PgConn().Exec(ctx, statements).Close()
}

// connect opens a connection for the writer: it is the one that holds the lock of
// the server.
func (db *DB) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, db.config.ConnConfig)
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			closeConn(conn)
		}
	}()
	if err := prepareSession(ctx, conn); err != nil {
		return nil, err
	}
	// Work that was acknowledged must survive a crash of the database server.
	if err := exec(ctx, conn, `DO $$ BEGIN IF current_setting('synchronous_commit') = 'off' THEN SET synchronous_commit = on; END IF; END $$`); err != nil {
		return nil, err
	}
	var free, writable bool
	err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext(current_schema())), NOT pg_is_in_recovery()`, serverLock).Scan(&free, &writable)
	switch {
	case err != nil:
		return nil, err
	case !writable:
		return nil, &OpenError{Problem: Standby}
	case !free:
		return nil, &OpenError{Problem: InUse, Holder: holder(ctx, conn)}
	}
	done = true
	return conn, nil
}

// holder describes the session that holds the lock of the server.
func holder(ctx context.Context, conn *pgx.Conn) string {
	var text string
	err := conn.QueryRow(ctx, `SELECT concat_ws(' ', 'since', to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), 'from ' || host(a.client_addr))
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.granted AND l.classid = $1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1`,
		int64(serverLock)).Scan(&text)
	if err != nil {
		return ""
	}
	return text
}

// closeConn closes a connection that may no longer answer.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// Close waits for the current transaction, if any, then closes all connections.
// Later calls of other methods return an error of the fault [database.Closed].
func (db *DB) Close() error {
	db.once.Do(func() {
		db.turn <- struct{}{} // never released: no more writes
		close(db.closed)
		if db.conn != nil {
			closeConn(db.conn)
		}
		if db.pool != nil {
			db.pool.Close()
		}
	})
	return nil
}

// Trace sets a function that is called before each statement of a write
// transaction, including BEGIN and COMMIT, for tests. Nil removes it.
func (db *DB) Trace(f func(query string)) {
	db.turn <- struct{}{}
	db.before = f
	<-db.turn
}

// InTurn runs f while no write transaction runs, and its changes are visible to
// those that follow.
func (db *DB) InTurn(f func()) {
	db.turn <- struct{}{}
	f()
	<-db.turn
}

// Size returns the size of the database in bytes.
func (db *DB) Size(ctx context.Context) (n int64, err error) {
	err = db.Row(ctx, `SELECT pg_database_size(current_database())`).Scan(&n)
	return n, err
}

// Shrink does nothing: the server reuses and returns space by itself.
func (db *DB) Shrink(context.Context) (int64, error) { return 0, nil }

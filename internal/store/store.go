// Package store keeps triggers, executions, people and keys in SQL. Log lines
// are not here: they are in run-log files.
//
// An exported method is one transaction; unexported functions take a *tx or a
// querier and compose. There is one writer, so writes happen one after the
// other; readers see what was committed and never wait for the writer.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agented/agented"
	"modernc.org/sqlite"
)

// maxReaders bounds the read pool: readers that are not bounded starve the
// writer on a small machine.
const maxReaders = 4

// Options are what Open may be told.
type Options struct {
	Log       *slog.Logger // nil logs nothing
	BackupDir string       // where the copy before a migration goes; empty is beside the database
}

// DB is the open database. Its methods may be called from any goroutine.
type DB struct {
	path string
	log  *slog.Logger
	w, r *sql.DB
	lock *os.File

	turn     chan struct{} // holds the writer's turn: one write transaction with its callback at a time
	conn     *sql.Conn     // the writer's; used in turn only
	stmts    map[string]*sql.Stmt
	onChange func(agented.ExecutionEvent)

	zone   *time.Location // on whose clock budgets begin and end; nil is the machine's
	groups groups         // deliveries that wait for the writer

	hot   sync.Map               // of statements for reading by their text, *sql.Stmt; see hotStmt
	rules atomic.Pointer[string] // the version of the rules as it was last committed

	once   sync.Once     // closes
	closed chan struct{} // closed when the writer's turn comes no more
}

// Open opens the database file at path, creates it (mode 0600) when it is not
// there, and brings its schema up to date, after a copy of what was there. A
// database of a newer version, of another program, or one that another server
// has open is refused with a sentence, and is not touched.
func Open(ctx context.Context, path string, o Options) (*DB, error) {
	schema, err := fs.Sub(schemaFS, "schema/sqlite")
	if err != nil {
		return nil, err
	}
	return open(ctx, path, o, schema)
}

func open(ctx context.Context, path string, o Options, schema fs.FS) (_ *DB, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	path, err = resolve(path)
	if err != nil {
		return nil, err
	}
	// A process-wide switch that has to come before the first connection.
	// Elsewhere than on Linux it is not available, which the rule never to
	// open the file but through SQLite makes up for.
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) &&
		!errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return nil, fmt.Errorf("lock mode: %w", err)
	}
	lock, made, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	db := &DB{path: path, log: o.Log, lock: lock, turn: make(chan struct{}, 1), stmts: map[string]*sql.Stmt{}, closed: make(chan struct{})}
	defer func() {
		if err != nil {
			if made {
				os.Remove(lock.Name()) // leave nothing beside a database that is not ours
			}
			db.Close()
		}
	}()
	latest, err := latestVersion(schema)
	if err != nil {
		return nil, err
	}
	if err := admitFile(ctx, path, latest); err != nil {
		return nil, err
	}
	if db.w, err = sql.Open("sqlite", dsn(path, "immediate", false)); err != nil {
		return nil, err
	}
	db.w.SetMaxOpenConns(1)
	db.w.SetConnMaxLifetime(0)
	if err := db.migrate(ctx, o, schema, latest); err != nil {
		return nil, err
	}
	if db.conn, err = db.w.Conn(ctx); err != nil {
		return nil, err
	}
	if db.r, err = sql.Open("sqlite", dsn(path, "deferred", true)); err != nil {
		return nil, err
	}
	db.r.SetMaxOpenConns(maxReaders)
	db.r.SetMaxIdleConns(maxReaders)
	return db, db.loadRules(ctx)
}

// dsn names the file with everything a connection is set to. busy_timeout comes
// first so that the other pragmas already wait. What belongs to the file is the
// writer's to say: auto_vacuum (incremental: only when GiveBack asks, and only for
// a file that is made now) is a write, so a reader that said it would wait for its
// turn among the writers to be opened at all.
func dsn(path, txlock string, readOnly bool) string {
	q := url.Values{"_txlock": {txlock}}
	pragmas := []string{"busy_timeout(10000)"}
	if !readOnly {
		pragmas = append(pragmas, "auto_vacuum(2)", "journal_mode(WAL)", "journal_size_limit(67108864)")
	}
	pragmas = append(pragmas, "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)", "cache_size(-8000)")
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	q.Set("_dqs", "0")
	if readOnly {
		q.Set("_query_only", "1")
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// Close waits for the transaction that is under way, if any, then closes the
// file and gives the lock back. Later calls of other methods are Unavailable.
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		db.turn <- struct{}{} // kept: nobody writes any more
		close(db.closed)
		if db.r != nil {
			for _, s := range db.hot.Range {
				s.(*sql.Stmt).Close()
			}
			err = db.r.Close()
		}
		if db.conn != nil {
			for _, s := range db.stmts {
				s.Close()
			}
			err = errors.Join(err, db.conn.Close())
		}
		if db.w != nil {
			err = errors.Join(err, db.w.Close())
		}
		// By hand: a child that is just being forked holds the file a moment longer.
		_ = syscall.Flock(int(db.lock.Fd()), syscall.LOCK_UN)
		err = errors.Join(err, db.lock.Close())
	})
	return err
}

// OnChange sets the function that is told of every change of an execution,
// after its commit and in the order of commits. It must not block and must not
// call the DB. Set it before the first write.
func (db *DB) OnChange(f func(agented.ExecutionEvent)) {
	db.turn <- struct{}{}
	db.onChange = f
	<-db.turn
}

// Ping reads from the database.
func (db *DB) Ping(ctx context.Context) error {
	var n int64
	return db.explain("ping", db.r.QueryRowContext(ctx, `SELECT value FROM counter WHERE name = 'event'`).Scan(&n))
}

// CheckWrite writes to the database: it finds a full or read-only disk, which
// Ping does not.
func (db *DB) CheckWrite(ctx context.Context) error {
	return db.write(ctx, "check write", func(tx *tx) error {
		return tx.exec(`INSERT INTO setting (key, value) VALUES ('heartbeat', '1')
			ON CONFLICT (key) DO UPDATE SET value = CASE setting.value WHEN '1' THEN '0' ELSE '1' END`)
	})
}

// Path is the database file.
func (db *DB) Path() string { return db.path }

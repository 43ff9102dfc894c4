// Package sqlite is a database in one SQLite file that one process at a time
// has open: one writer, a few readers, group commit, migrations with a copy
// taken before, consistent copies of a database in use, and checks that leave
// the file unchanged.
//
// It contains no statement of the program that uses it. Its errors are
// *[FileError], *[BackupError] and those of the driver, which [FaultOf]
// classifies; texts for people are the caller's.
package sqlite

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

	"github.com/agented/agented/internal/filelock"
)

// MaxReaders limits the read pool: unlimited readers starve the writer on a
// small machine.
const MaxReaders = 4

// Format identifies the databases of a program.
type Format struct {
	ApplicationID uint32 // PRAGMA application_id, not 0
	Migrations    fs.FS  // goose's *.sql files; the number before the first _ is the schema version
}

// Options configure Open.
type Options struct {
	Log       *slog.Logger // nil disables logging
	BackupDir string       // folder for the copy before a migration; empty: next to the database
}

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	format Format
	path   string
	log    *slog.Logger
	w, r   *sql.DB
	lock   *os.File

	turn   chan struct{} // the writer's turn: one write transaction with its callback at a time
	conn   *sql.Conn     // the writer's connection; used only in turn
	stmts  map[string]*sql.Stmt
	before func(query string) // see Trace; nil: none
	hot    sync.Map           // prepared read statements by text, *sql.Stmt; see RowPrepared

	once   sync.Once     // for Close
	closed chan struct{} // closed when there are no more turns
}

// Open opens the database file at path, creates it (mode 0600) if it does not
// exist, and migrates its schema, after making a copy. It rejects a database of
// a newer version or another program, and one that another process has open,
// without changing it.
func (f Format) Open(ctx context.Context, path string, o Options) (_ *DB, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	path, err = resolve(path)
	if err != nil {
		return nil, err
	}
	if err := setLockMode(); err != nil {
		return nil, err
	}
	lock, made, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	db := &DB{
		format: f, path: path, log: o.Log, lock: lock,
		turn: make(chan struct{}, 1), stmts: map[string]*sql.Stmt{}, closed: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			if made {
				os.Remove(lock.Name()) // leave nothing next to another program's database
			}
			db.Close()
		}
	}()
	latest, err := f.latest()
	if err != nil {
		return nil, err
	}
	if err := f.admit(ctx, path, latest); err != nil {
		return nil, err
	}
	if db.w, err = sql.Open("sqlite", dsn(path, "immediate", false)); err != nil {
		return nil, err
	}
	db.w.SetMaxOpenConns(1)
	db.w.SetConnMaxLifetime(0)
	if err := db.migrate(ctx, o.BackupDir, latest); err != nil {
		return nil, err
	}
	if db.conn, err = db.w.Conn(ctx); err != nil {
		return nil, err
	}
	if db.r, err = sql.Open("sqlite", dsn(path, "deferred", true)); err != nil {
		return nil, err
	}
	db.r.SetMaxOpenConns(MaxReaders)
	db.r.SetMaxIdleConns(MaxReaders)
	return db, nil
}

// dsn returns the file name with all connection settings. busy_timeout comes
// first so that the other pragmas already wait. Only the writer sets properties
// of the file: auto_vacuum (incremental: only on Shrink, and only for a new
// file) is a write, so a reader that sets it would wait for its turn before it
// could be opened.
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
	return uri(path, q)
}

// uri returns the name of a database file with its settings.
func uri(path string, q url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// Close waits for the current transaction, if any, then closes the file and
// releases the lock. Later calls of other methods return an error of the fault
// [database.Closed].
func (db *DB) Close() error {
	var err error
	db.once.Do(func() {
		db.turn <- struct{}{} // never released: no more writes
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
		err = errors.Join(err, filelock.Release(db.lock))
	})
	return err
}

// Path returns the path of the database file, with symbolic links resolved.
func (db *DB) Path() string { return db.path }

// Readers returns the read pool, for single statements outside of a
// transaction. Its connections cannot write.
func (db *DB) Readers() *sql.DB { return db.r }

// Size returns the size in bytes of the database file and its write-ahead log.
func (db *DB) Size(context.Context) (int64, error) {
	var sum int64
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(db.path + suffix)
		switch {
		case err == nil:
			sum += info.Size()
		case suffix == "" || !errors.Is(err, fs.ErrNotExist):
			return 0, fmt.Errorf("size of the database: %w", err)
		}
	}
	return sum, nil
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

// Package store stores triggers, executions, users and keys in SQL. Log lines
// are in run-log files instead.
//
// An exported method is one transaction; unexported functions take a *tx or a
// querier and can be combined. There is one writer, so writes are serialised;
// readers see committed data and never wait for the writer.
package store

import (
	"context"
	"embed"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/postgres"
	"github.com/agented/agented/internal/sqlite"
)

//go:embed schema
var schemaFS embed.FS

// databaseFormat is the format of the database file; its application id is "AGNT".
var databaseFormat = sqlite.Format{ApplicationID: 0x41474e54, Migrations: migrations(schemaFS, "schema/sqlite")}

// postgresFormat is the format of a database on a PostgreSQL server.
var postgresFormat = postgres.Format{Migrations: migrations(schemaFS, "schema/postgres"), Mark: "execution_text"}

func migrations(schema embed.FS, dir string) fs.FS {
	sub, err := fs.Sub(schema, dir)
	if err != nil {
		panic(err) // the path is a constant
	}
	return sub
}

// Options configure Open.
type Options = sqlite.Options

// IsPostgres reports whether the argument of Open is the URL of a PostgreSQL
// database, and not the path of a SQLite file.
func IsPostgres(where string) bool {
	return strings.HasPrefix(where, "postgres://") || strings.HasPrefix(where, "postgresql://")
}

// DB is an open database. Its methods are safe for concurrent use.
type DB struct {
	engine   database.Engine
	path     string // of a SQLite file
	postgres bool

	onChange func(agented.ExecutionEvent)                  // see OnChange
	check    func(*agented.Account) agented.AccountProblem // see CheckAccounts
	zone     *time.Location                                // zone of budget periods; nil: the machine's
	groups   *database.Group[*tx]                          // deliveries and messages waiting for the writer

	rules atomic.Pointer[string] // latest committed version of the rules
	gate  sync.RWMutex           // held for writing while rules change; see writeRules

	channels atomic.Bool // there may be channels for notifications
	onNotice func()      // see OnNotice
}

// Open opens the database file at a path, creates it (mode 0600) if it does not
// exist, and migrates its schema, after making a copy; or the PostgreSQL database
// of a URL. It rejects a database of a newer version or another program, and one
// that another server has open, without changing it.
func Open(ctx context.Context, where string, o Options) (*DB, error) {
	if !IsPostgres(where) {
		return open(ctx, where, o, databaseFormat)
	}
	engine, err := postgresFormat.Open(ctx, where, postgres.Options{Log: o.Log, Patience: takeoverPatience})
	if err != nil {
		return nil, openPostgresError(err)
	}
	return prepare(ctx, engine, true)
}

// takeoverPatience is how long a start waits for the database of a server that
// was killed.
const takeoverPatience = 10 * time.Second

func open(ctx context.Context, path string, o Options, f sqlite.Format) (*DB, error) {
	engine, err := f.Open(ctx, path, o)
	if err != nil {
		return nil, openError(err)
	}
	db, err := prepare(ctx, engine, false)
	if err == nil {
		db.path = engine.Path()
	}
	return db, err
}

// prepare reads what the database keeps in memory.
func prepare(ctx context.Context, engine database.Engine, postgres bool) (*DB, error) {
	db := &DB{engine: engine, postgres: postgres}
	db.groups = database.NewGroup(db.transact)
	if err := db.refoldNames(ctx); err != nil {
		engine.Close()
		return nil, err
	}
	if err := db.loadRules(ctx); err != nil {
		engine.Close()
		return nil, err
	}
	if err := db.loadChannels(ctx); err != nil {
		engine.Close()
		return nil, err
	}
	return db, nil
}

// Close waits for the current transaction, if any, then closes the file and
// releases the lock. Later calls of other methods return Unavailable.
func (db *DB) Close() error { return db.engine.Close() }

// OnChange sets the function that receives every change of an execution after
// its commit, in the order of commits. It must not block and must not call the
// DB. Set it before the first write.
func (db *DB) OnChange(f func(agented.ExecutionEvent)) {
	db.engine.InTurn(func() { db.onChange = f })
}

// Ping reads from the database.
func (db *DB) Ping(ctx context.Context) error {
	var n int64
	return explain("ping", db.row(ctx, `SELECT value FROM counter WHERE name = 'event'`).Scan(&n))
}

// Path returns the path of the SQLite file; empty for a PostgreSQL database.
func (db *DB) Path() string { return db.path }

// Setting returns the value of a setting, or NotFound.
func (db *DB) Setting(ctx context.Context, key string) (string, error) {
	var v string
	err := db.row(ctx, `SELECT value FROM setting WHERE key = $1`, key).Scan(&v)
	if missing(err) {
		return "", agented.Errorf(agented.NotFound, "no setting %q", key)
	}
	return v, explain("setting", err)
}

// SettingDrained is the key of drain mode: while it is set, the server starts
// no executions, also after a restart. The value is JSON with since and by.
const SettingDrained = "drained"

// SetSetting sets a setting.
func (db *DB) SetSetting(ctx context.Context, key, value string) error {
	return db.write(ctx, "set setting", func(tx *tx) error {
		return tx.exec(`INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
	})
}

// fold returns the key under which a name is unique.
func fold(name string) string { return naming.Key(name) }

// byName selects by name. Two old rows can have the same name in two Unicode
// normalisations: then the one spelled like $2 comes first.
const byName = `name_key IN ($1, $2) ORDER BY CASE WHEN name_key = $2 THEN 0 ELSE 1 END LIMIT 1`

// nameKeys returns the arguments of byName.
func nameKeys(name string) []any { return []any{fold(name), strings.ToLower(name)} }

// refoldNames normalises keys that an earlier version stored without Unicode
// composition. A row keeps its key if another row has the normalised one: both
// remain usable. The history of executions keeps its keys too.
func (db *DB) refoldNames(ctx context.Context) error {
	for _, table := range []string{"trigger_", "user_", "api_key", "budget"} {
		if err := db.refold(ctx, table); err != nil {
			return explain("normalise the names in "+table, err)
		}
	}
	return nil
}

func (db *DB) refold(ctx context.Context, table string) error {
	type row struct{ id, name, key string }
	rows, err := db.query(ctx, `SELECT id, name, name_key FROM `+table+` WHERE OCTET_LENGTH(name_key) <> LENGTH(name_key)`)
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error { return scan(&r.id, &r.name, &r.key) })
	if err != nil {
		return err
	}
	for _, r := range list {
		key := fold(r.name)
		if key == r.key {
			continue
		}
		err := db.write(ctx, r.id, func(tx *tx) error {
			return tx.execNow(`UPDATE `+table+` SET name_key = $2 WHERE id = $1`, r.id, key)
		})
		if err != nil && !duplicate(err) {
			return err
		}
	}
	return nil
}

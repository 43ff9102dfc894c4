package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(pgtest.Thread), goleak.Cleanup(func(code int) {
		pgtest.End()
		os.Exit(code)
	}))
}

const noteTable = `CREATE TABLE note (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text TEXT COLLATE "C" NOT NULL UNIQUE);`

func notes(more map[int]string) Format {
	files := fstest.MapFS{"0001_note.sql": {Data: []byte("-- +goose Up\n" + noteTable)}}
	for n, q := range more {
		files[fmt.Sprintf("%04d_more.sql", n)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + q)}
	}
	return Format{Migrations: files, Mark: "note"}
}

func openURL(t *testing.T, url string) *DB {
	t.Helper()
	db, err := notes(nil).Open(t.Context(), url, Options{Patience: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func stored(t *testing.T, db *DB) (out []string) {
	t.Helper()
	rows, err := db.Query(context.Background(), `SELECT text FROM note ORDER BY text`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func insert(db *DB, texts ...string) error {
	return db.Write(context.Background(), func(tx database.Tx) error {
		for _, s := range texts {
			if err := tx.Exec(`INSERT INTO note (text) VALUES ($1)`, s); err != nil {
				return err
			}
		}
		return nil
	})
}

func wantProblem(t *testing.T, err error, want Problem) {
	t.Helper()
	if e, ok := errors.AsType[*OpenError](err); !ok || e.Problem != want {
		t.Errorf("got %v, want: %s", err, want)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	db := openURL(t, pgtest.Shared(t).Create(t))
	if err := insert(db, "b", "a", "Z", "é"); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, db); !slices.Equal(got, []string{"Z", "a", "b", "é"}) {
		t.Errorf("the order is not that of bytes: %v", got)
	}
	err := insert(db, "c", "a") // sent together
	if !IsDuplicate(err) || len(stored(t, db)) != 4 {
		t.Errorf("%v, %v", err, stored(t, db))
	}
	if err := insert(db, "nul\x00 and \xff"); err != nil {
		t.Error(err)
	}
	if got := stored(t, db); !slices.Contains(got, "nul\uFFFD and \uFFFD") {
		t.Errorf("%q", got)
	}
	stop := errors.New("stop")
	err = db.Write(t.Context(), func(tx database.Tx) error {
		if err := tx.Exec(`DELETE FROM note`); err != nil {
			return err
		}
		var n int
		if err := tx.Row(`SELECT COUNT(*) FROM note`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows, %v", n, err)
		}
		if err := tx.Row(`SELECT 1 WHERE FALSE`).Scan(&n); !errors.Is(err, sql.ErrNoRows) {
			t.Error(err)
		}
		return stop
	})
	if err != stop || len(stored(t, db)) != 5 {
		t.Errorf("rolled back: %v, %v", err, stored(t, db))
	}
	var failed error
	err = db.Write(t.Context(), func(tx database.Tx) (err error) {
		failed, err = tx.Savepoint(func() error {
			_ = tx.Exec(`INSERT INTO note (text) VALUES ('lost')`)
			return tx.Exec(`INSERT INTO note (text) VALUES ('a')`)
		})
		if err != nil {
			return err
		}
		return tx.Exec(`INSERT INTO note (text) VALUES ('kept')`)
	})
	if got := stored(t, db); err != nil || !IsDuplicate(failed) || !slices.Contains(got, "kept") || slices.Contains(got, "lost") {
		t.Errorf("savepoint: %v, %v, %v", failed, err, got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Write(ended, func(database.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	db.Close()
	if err := insert(db, "x"); FaultOf(err) != database.Closed {
		t.Error(err)
	}
	if _, err := db.Query(t.Context(), `SELECT 1`); FaultOf(err) != database.Closed {
		t.Error(err)
	}
}

// A statement of a transaction sees what was committed before it began: under
// REPEATABLE READ, the snapshot would be older than the lock.
func TestWrite_sees_the_previous_transaction(t *testing.T) {
	t.Parallel()
	db := openURL(t, pgtest.Shared(t).Create(t))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				err := db.Write(context.Background(), func(tx database.Tx) error {
					var n int
					if err := tx.Row(`SELECT COUNT(*) FROM note`).Scan(&n); err != nil {
						return err
					}
					return tx.Exec(`INSERT INTO note (text) VALUES ($1)`, fmt.Sprint(n)) // unique
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := len(stored(t, db)); n != 200 {
		t.Errorf("%d rows", n)
	}
}

func TestOpen_refusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	open := func(url string, f Format) error {
		db, err := f.Open(t.Context(), url, Options{})
		if err == nil {
			db.Close()
		}
		return err
	}
	url := c.Create(t)
	db := openURL(t, url)
	err := open(url, notes(nil))
	wantProblem(t, err, InUse)
	if e, ok := errors.AsType[*OpenError](err); !ok || !strings.Contains(e.Holder, "since 20") {
		t.Errorf("the holder is not described: %v", err)
	}
	db.Close()
	if err := open(url, notes(map[int]string{2: `CREATE TABLE more (id BIGINT PRIMARY KEY);`})); err != nil {
		t.Fatal("migrate: ", err)
	}
	wantProblem(t, open(url, notes(nil)), NewerSchema)
	wantProblem(t, open(c.Create(t), Format{Migrations: fstest.MapFS{"0001_x.sql": {Data: []byte("-- +goose Up\nCREATE TABLE x (s TEXT);")}}}), LocaleOrder)

	other := c.Create(t)
	conn, err := pgx.Connect(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE foreign_ (id BIGINT)`); err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	wantProblem(t, open(other, notes(nil)), OtherProgram)

	secret := "hunter2-hunter2"
	for _, bad := range []string{"postgres://u:" + secret + "@h:99999999/x", "postgres://u:" + secret + "@[::1/x", "postgres://u:" + secret + "@127.0.0.1:1/x"} {
		if err := open(bad, notes(nil)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
}

// Killing the database server loses nothing that was acknowledged, and the next
// transaction and the next read connect again.
func TestWrite_server_killed(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, true)
	db := openURL(t, c.URL("postgres"))
	stopped, ended := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() { close(stopped); <-ended })
	defer stop()
	var acked, unknown []string
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stopped:
				return
			default:
			}
			s := fmt.Sprintf("%06d", i)
			switch err := insert(db, s); {
			case err == nil:
				acked = append(acked, s)
			case FaultOf(err) == database.Unknown:
				unknown = append(unknown, s)
			case FaultOf(err) != database.Unreachable:
				t.Errorf("%s: %v", s, err)
			}
		}
	}()
	for range testrun.Size(2, 5, 10) {
		time.Sleep(200 * time.Millisecond) // the load continues
		c.Kill()
		if err := insert(db, "while it is away"); err == nil || FaultOf(err) != database.Unreachable && FaultOf(err) != database.Unknown {
			t.Errorf("without a server: %v", err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			var n int
			err := db.Row(t.Context(), `SELECT COUNT(*) FROM note`).Scan(&n)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the database is back, and reads fail: ", err)
			}
		}
	}
	deadline := time.Now().Add(time.Minute)
	for err := insert(db, "back"); err != nil && !IsDuplicate(err); err = insert(db, "back") {
		if time.Now().After(deadline) {
			t.Fatal("the database is back, and writes fail: ", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	got := stored(t, db)
	for _, s := range acked {
		if _, ok := slices.BinarySearch(got, s); !ok {
			t.Errorf("%s was acknowledged and is lost", s)
		}
	}
	for _, s := range got {
		_, known := slices.BinarySearch(acked, s)
		if !known && !slices.Contains(unknown, s) && s[0] == '0' {
			t.Errorf("%s was reported as failed and is stored", s)
		}
	}
	t.Logf("%d acknowledged, %d unknown", len(acked), len(unknown))
}

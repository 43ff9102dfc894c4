package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/database"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	stop := errors.New("stop")
	var order []string
	err := db.Write(t.Context(), func(tx database.Tx) error {
		tx.OnCommit(func() { order = append(order, "commit") })
		return tx.Exec(`INSERT INTO note (text) VALUES ('a')`)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx database.Tx) error {
		tx.OnCommit(func() { order = append(order, "commit of a failure") })
		return errors.Join(tx.Exec(`INSERT INTO note (text) VALUES ('b')`), stop)
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := db.Write(t.Context(), func(tx database.Tx) error { return tx.Exec(`INSERT INTO note (text) VALUES ('a')`) }); !IsDuplicate(err) {
		t.Errorf("a duplicate: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Write(ended, func(database.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	// Cancelled during the transaction: it is committed.
	during, cancel := context.WithCancel(t.Context())
	err = db.Write(during, func(tx database.Tx) error {
		cancel()
		return tx.Exec(`INSERT INTO note (text) VALUES ('c')`)
	})
	if got := stored(t, db.Readers()); err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("stored %v, error %v", got, err)
	}
	if !slices.Equal(order, []string{"commit"}) {
		t.Errorf("called %v", order)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), func(database.Tx) error { return nil }); FaultOf(err) != database.Closed {
		t.Errorf("after Close: %v", err)
	}
	if err := db.Read(t.Context(), func(database.ReadTx) error { return nil }); FaultOf(err) != database.Closed {
		t.Errorf("read after Close: %v", err)
	}
}

func TestWrite_full_disk(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var pages int
	if err := db.conn.QueryRowContext(t.Context(), `PRAGMA page_count`).Scan(&pages); err != nil {
		t.Fatal(err)
	}
	if _, err := db.conn.ExecContext(t.Context(), fmt.Sprintf(`PRAGMA max_page_count = %d`, pages+1)); err != nil {
		t.Fatal(err)
	}
	err := db.Write(t.Context(), func(tx database.Tx) error {
		return tx.Exec(`INSERT INTO note (text) VALUES ($1)`, strings.Repeat("x", 1<<20))
	})
	if FaultOf(err) != database.DiskFull {
		t.Error(err)
	}
	note(t, db, "small")
	if got := stored(t, db.Readers()); !slices.Equal(got, []string{"small"}) {
		t.Errorf("stored %d notes", len(got))
	}
}

// A read connection is opened on first use, which may be during a write: it
// must not wait.
func TestRead_during_write(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	note(t, db, "a")
	err := db.Write(t.Context(), func(tx database.Tx) error {
		if err := tx.Exec(`INSERT INTO note (text) VALUES ('b')`); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // less than SQLite waits for a lock
		defer cancel()
		var open []*sql.Conn
		for range MaxReaders {
			c, err := db.r.Conn(ctx)
			if err != nil {
				return err
			}
			open = append(open, c)
		}
		for _, c := range open {
			if _, err := c.ExecContext(ctx, `UPDATE note SET text = text`); err == nil {
				t.Error("a connection for reading wrote")
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		var n int
		if err := db.RowPrepared(ctx, `SELECT COUNT(*) FROM note`).Scan(&n); err != nil || n != 1 {
			t.Errorf("a reader sees %d notes (%v), want the committed one", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var got []string
	db.Trace(func(q string) { got = append(got, q) })
	note(t, db, "a")
	db.Trace(nil)
	note(t, db, "b")
	if want := []string{`BEGIN IMMEDIATE`, `INSERT INTO note (text) VALUES ($1)`, `COMMIT`}; !slices.Equal(got, want) {
		t.Errorf("traced %q, want %q", got, want)
	}
}

func TestGroup_independent_jobs(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	g := database.NewGroup(db.Write)
	hold, held := make(chan struct{}), make(chan struct{})
	go db.Write(context.Background(), func(database.Tx) error { close(held); <-hold; return nil })
	<-held
	await := func(ok func(jobs int, working bool) bool) {
		for !ok(g.Waiting()) {
			time.Sleep(time.Millisecond) // polling interval
		}
	}
	const n = 40
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		text := fmt.Sprint(i)
		if i%4 == 0 {
			text = "same" // one of these is the first; the others must leave no trace
		}
		wg.Go(func() {
			errs[i] = g.Do(context.Background(), func(tx database.Tx) error {
				return errors.Join(tx.Exec(`INSERT INTO note (text) VALUES ($1)`, "of "+fmt.Sprint(i)), tx.Exec(`INSERT INTO note (text) VALUES ($1)`, text))
			})
		})
		if i == 0 {
			await(func(jobs int, working bool) bool { return working && jobs == 0 }) // it waits for the writer
		}
	}
	await(func(jobs int, _ bool) bool { return jobs == n-1 })
	var statements []string
	go func() { close(hold) }()
	db.Trace(func(q string) { statements = append(statements, q) })
	wg.Wait()
	db.Trace(nil)
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			if i%4 != 0 || !IsDuplicate(err) {
				t.Errorf("job %d: %v", i, err)
			}
		}
	}
	if got := len(stored(t, db.Readers())); failed != n/4-1 || got != 2*(n-failed) {
		t.Errorf("%d failed, %d notes are stored", failed, got)
	}
	commits := 0
	for _, q := range statements {
		if q == `COMMIT` {
			commits++
		}
	}
	if commits > 2 {
		t.Errorf("%d commits for %d jobs", commits, n)
	}
}

func TestShrink(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for i := range 40 {
		note(t, db, fmt.Sprint(i, strings.Repeat("x", 1<<17)))
	}
	if err := db.Write(t.Context(), func(tx database.Tx) error { return tx.Exec(`DELETE FROM note`) }); err != nil {
		t.Fatal(err)
	}
	if given, err := db.Shrink(t.Context()); err != nil || given < 4<<20 {
		t.Errorf("it shrank by %d (%v)", given, err)
	}
	if given, err := db.Shrink(t.Context()); err != nil || given != 0 {
		t.Errorf("then by %d (%v)", given, err)
	}
}

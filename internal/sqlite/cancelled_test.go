package sqlite

import (
	"context"
	"runtime"
	"testing"

	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/testrun"
)

// A caller that cancels at any moment, as a client that disconnects does,
// leaves no transaction open, which would make all later ones fail.
func TestWrite_cancelled_caller(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	note(t, db, "a")
	touch := func(tx database.Tx) error { return tx.Exec(`UPDATE note SET text = text`) }
	for i := range testrun.Size(100, 600, 3000) {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for range i % 60 { // another moment each time
				runtime.Gosched()
			}
			cancel()
		}()
		err := db.Write(ctx, touch)
		<-gone
		if next := db.Write(t.Context(), touch); next != nil {
			t.Fatalf("round %d: after a write that answered %v: %v", i, err, next)
		}
	}
}

// The same for readers: no connection is returned with an open transaction.
func TestRead_cancelled_caller(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	read := func(r database.ReadTx) error {
		var n int
		return r.Row(`SELECT COUNT(*) FROM note`).Scan(&n)
	}
	for i := range testrun.Size(100, 600, 3000) {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for range i % 60 {
				runtime.Gosched()
			}
			cancel()
		}()
		err := db.Read(ctx, read)
		<-gone
		if next := db.Read(t.Context(), read); next != nil {
			t.Fatalf("round %d: after a read that answered %v: %v", i, err, next)
		}
	}
}

package store

import (
	"context"
	"runtime"
	"testing"
)

// A caller that goes away at any moment, as a client does that closes its
// connection, leaves no transaction open: every later one would be refused.
func TestACallerThatGoesAwayLeavesTheWriterFree(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for i := range 3000 {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for range i % 60 { // another moment each time
				runtime.Gosched()
			}
			cancel()
		}()
		err := db.CheckWrite(ctx)
		<-gone
		if next := db.CheckWrite(t.Context()); next != nil {
			t.Fatalf("round %d: after a write that answered %v: %v", i, err, next)
		}
	}
}

// The same for those who read: no connection is given back with a transaction open.
func TestAReaderThatGoesAwayLeavesItsConnectionFree(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	e := admit(t, db, "", start)
	for i := range 3000 {
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			for range i % 60 {
				runtime.Gosched()
			}
			cancel()
		}()
		_, err := db.Execution(ctx, e.ID)
		<-gone
		if _, next := db.Execution(t.Context(), e.ID); next != nil {
			t.Fatalf("round %d: after a read that answered %v: %v", i, err, next)
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// tally counts the results of a load.
type tally struct {
	done, refused, reset, eof, status, other atomic.Int64
	firstBad                                 atomic.Pointer[string]
}

func (t *tally) failed() int64 {
	return t.refused.Load() + t.reset.Load() + t.eof.Load() + t.status.Load() + t.other.Load()
}

func (t *tally) String() string {
	s := fmt.Sprintf("%d requests: %d refused, %d reset, %d cut, %d wrong answers, %d others",
		t.done.Load(), t.refused.Load(), t.reset.Load(), t.eof.Load(), t.status.Load(), t.other.Load())
	if bad := t.firstBad.Load(); bad != nil {
		s += "; the first: " + *bad
	}
	return s
}

// load runs 24 clients without a pause while f runs: half open a connection per request, half
// keep theirs.
func load(f func()) *tally {
	t := new(tally)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 24 {
		c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		wg.Go(func() {
			for ctx.Err() == nil {
				code, _, err := get(c, "/api/v1/triggers")
				t.done.Add(1)
				var bad string
				switch {
				case err == nil && code == http.StatusOK:
					continue
				case err == nil:
					t.status.Add(1)
					bad = fmt.Sprint("status ", code)
				case errors.Is(err, syscall.ECONNREFUSED):
					t.refused.Add(1)
				case errors.Is(err, syscall.ECONNRESET):
					t.reset.Add(1)
				case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
					t.eof.Add(1)
				default:
					t.other.Add(1)
				}
				if err != nil {
					bad = err.Error()
				}
				t.firstBad.CompareAndSwap(nil, &bad)
			}
		})
	}
	f()
	stop()
	wg.Wait()
	return t
}

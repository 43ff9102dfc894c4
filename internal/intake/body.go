package intake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

const (
	readTime  = 60 * time.Second // for the body of a call
	firstSize = 16 << 10         // bytes of the first buffer of a body
	bodyWait  = 10 * time.Second // for memory

	// Memory in bytes of all bodies that are being read or evaluated, and of
	// those from one network. The largest body needs nearly twice its size
	// while its buffer grows.
	bodyMemory  = 8 * webhook.MaxBody
	bodyNetwork = 2 * webhook.MaxBody
)

// read returns the body of a call. Every byte of its buffer is reserved in the
// budget before it is allocated, because the sender is not authenticated yet.
// release returns the bytes when the body is no longer used.
func (in *Intake) read(w http.ResponseWriter, r *http.Request, network string) (body []byte, release func(), err error) {
	var taken int64
	release = func() { in.bodies.release(network, taken) }
	tooLarge := agented.Errorf(agented.TooLarge, "the body is too large: the limit is %d bytes", webhook.MaxBody)
	if r.ContentLength > webhook.MaxBody {
		w.Header().Set("Connection", "close")
		return nil, release, tooLarge
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTime))
	limited := http.MaxBytesReader(w, r.Body, webhook.MaxBody)
	grow := func(to int64) error {
		ctx, cancel := context.WithTimeout(r.Context(), bodyWait)
		defer cancel()
		if in.bodies.acquire(ctx, network, to) != nil {
			w.Header().Set("Connection", "close")
			return agented.Errorf(agented.Unavailable, "too many concurrent calls: try again")
		}
		old := int64(cap(body))
		body = append(make([]byte, 0, to), body...)
		in.bodies.release(network, old)
		taken = to
		return nil
	}
	// Trust the sender's Content-Length only for a small body.
	first := int64(firstSize)
	if r.ContentLength >= 0 {
		first = min(r.ContentLength+1, first) // one more byte, to detect the end
	}
	if err := grow(first); err != nil {
		return nil, release, err
	}
	for {
		if len(body) == cap(body) {
			if err := grow(min(2*int64(cap(body)), webhook.MaxBody+1)); err != nil {
				return nil, release, err
			}
		}
		n, err := limited.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		var large *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return body, release, nil
		case errors.As(err, &large):
			return nil, release, tooLarge
		case err != nil:
			return nil, release, &ContentError{agented.Errorf(agented.Invalid, "the body ended before it was complete")}
		}
	}
}

// bodyBudget limits the memory of request bodies from unauthenticated senders,
// in total and per network.
type bodyBudget struct {
	limit   int64 // bytes in total
	network int64 // bytes per network

	mu    sync.Mutex // guards the fields below
	used  int64
	of    map[string]int64 // bytes in use by network; no entry for 0
	freed chan struct{}    // closed when bytes are released
}

func newBodyBudget(limit, network int64) *bodyBudget {
	return &bodyBudget{limit: limit, network: network, of: map[string]int64{}, freed: make(chan struct{})}
}

// acquire reserves n bytes for a network. It blocks until they are available or
// ctx is done, and returns ctx's error in that case.
func (b *bodyBudget) acquire(ctx context.Context, network string, n int64) error {
	for {
		b.mu.Lock()
		if b.used+n <= b.limit && b.of[network]+n <= b.network {
			b.used += n
			b.of[network] += n
			b.mu.Unlock()
			return nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release returns n bytes of a network to the budget.
func (b *bodyBudget) release(network string, n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.of[network] -= n; b.of[network] == 0 {
		delete(b.of, network)
	}
	close(b.freed)
	b.freed = make(chan struct{})
}

// inUse returns the reserved bytes, and the number of networks that hold some.
func (b *bodyBudget) inUse() (bytes int64, networks int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, len(b.of)
}

package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Sink is a connection to one reader. The hub calls it from one goroutine.
type Sink interface {
	// Write takes frames, whole, in bounded time: a reader that takes nothing
	// for too long is an error. It must not keep or change p.
	Write(p []byte) error
	// Flush sends what was written.
	Flush() error
}

// ErrDraining ends a stream because the server is about to stop. The reader was
// told to come back.
var ErrDraining = errors.New("hub: draining")

// flushBytes is how much is written to a reader that catches up before it is
// flushed in between.
const flushBytes = 64 << 10

// What a reader is woken for beside news.
const (
	flagDrain = 1 << iota
	flagBeat
)

// reader is the place of one connection in a stream. It holds a position and
// nothing that grows.
type reader struct {
	wake  chan struct{} // holds one token: look again
	flags atomic.Uint32
	due   atomic.Int64 // when the next heartbeat is, in Unix nanoseconds
	slot  int          // in the audience; guarded by its lock
}

func newReader(heartbeat time.Duration) *reader {
	r := &reader{wake: make(chan struct{}, 1)}
	// Readers that came at once, after a restart say, are spread over time.
	r.due.Store(time.Now().Add(heartbeat - rand.N(heartbeat/2+1)).UnixNano())
	return r
}

func (r *reader) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reader) raise(flag uint32) {
	r.flags.Or(flag)
	r.notify()
}

// audience is who follows a stream.
type audience struct {
	mu      sync.Mutex // guards readers and their slots
	readers []*reader
}

func (a *audience) join(r *reader) {
	a.mu.Lock()
	r.slot = len(a.readers)
	a.readers = append(a.readers, r)
	a.mu.Unlock()
}

func (a *audience) leave(r *reader) {
	a.mu.Lock()
	last := len(a.readers) - 1
	a.readers[r.slot] = a.readers[last]
	a.readers[r.slot].slot = r.slot
	a.readers[last] = nil
	a.readers = a.readers[:last]
	a.mu.Unlock()
}

// notify wakes everyone. It does not wait for anyone.
func (a *audience) notify() {
	a.mu.Lock()
	for _, r := range a.readers {
		r.notify()
	}
	a.mu.Unlock()
}

func (a *audience) raise(flag uint32) {
	a.mu.Lock()
	for _, r := range a.readers {
		r.raise(flag)
	}
	a.mu.Unlock()
}

// beat asks those whose heartbeat is due for it.
func (a *audience) beat(now time.Time, every time.Duration) {
	at := now.UnixNano()
	a.mu.Lock()
	for _, r := range a.readers {
		if r.due.Load() <= at {
			r.due.Store(at + int64(every))
			r.raise(flagBeat)
		}
	}
	a.mu.Unlock()
}

// outlet counts what was written to a sink and not flushed.
type outlet struct {
	sink    Sink
	pending int
}

func (o *outlet) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if o.pending > flushBytes {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.pending += len(p)
	return o.sink.Write(p)
}

func (o *outlet) flush() error {
	if o.pending == 0 {
		return nil
	}
	o.pending = 0
	return o.sink.Flush()
}

// feed is what a reader is fed from.
type feed struct {
	ring *ring
	// pull fetches frames behind a position that the ring no longer has.
	pull func(ctx context.Context, after int64) (frames []byte, to int64, err error)
	// before and idle may be nil. before is called in front of every look at the
	// ring; idle after a look that found nothing. Both may write. idle says
	// whether the stream is at its end.
	before func(o *outlet) error
	idle   func(o *outlet, pos int64) (done bool, err error)
}

// follow writes to o all that f has behind pos, until the stream is complete,
// ctx is done, the reader is cut, or the hub drains.
func (r *reader) follow(ctx context.Context, o *outlet, f *feed, pos int64) error {
	stop := context.AfterFunc(ctx, r.notify)
	defer stop()
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if r.flags.Load() != 0 {
			if err := r.answer(o); err != nil {
				return err
			}
		}
		if f.before != nil {
			if err := f.before(o); err != nil {
				return err
			}
		}
		// Only one chunk is held while the reader is waited for: a slow one must
		// not keep alive what the ring has let go.
		frames, to, at, err := f.ring.next(pos)
		switch at {
		case broken:
			return err
		case past:
			if frames, to, err = f.pull(ctx, pos); err != nil {
				return err
			}
			fallthrough
		case here:
			if err := o.write(frames); err != nil {
				return err
			}
			pos = to
			continue
		}
		if f.idle != nil {
			done, err := f.idle(o, pos)
			if err != nil {
				return err
			}
			if done {
				return o.flush()
			}
		}
		if err := o.flush(); err != nil {
			return err
		}
		<-r.wake
	}
}

// answer does what the flags ask for.
func (r *reader) answer(o *outlet) error {
	flags := r.flags.Swap(0)
	if flags&flagBeat != 0 {
		if err := o.write(heartbeatFrame); err != nil {
			return err
		}
	}
	if flags&flagDrain != 0 {
		if err := o.write(appendRetry(nil)); err != nil {
			return err
		}
		return errors.Join(ErrDraining, o.flush())
	}
	return nil
}

// appendRetry appends the farewell of a server that stops. Not everybody comes
// back in the same moment.
func appendRetry(dst []byte) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, 500+rand.N[int64](1000), 10)
	return append(dst, "\n\n"...)
}

package hub

import (
	"context"
	"errors"
	"math"
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
	flagInput // its client has sent something, or is gone
	flagCut   // it has taken nothing for too long
)

// reader is the place of one connection in a stream. It holds a position and
// nothing that grows. It has a goroutine of its own, which follows, or a
// connection that was taken over and is served by the pool.
type reader struct {
	wake  chan struct{} // of a goroutine; holds one token: look again
	taken *taken        // nil if it has a goroutine
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
	if r.taken != nil {
		r.taken.notify()
		return
	}
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

// size is how many there are.
func (a *audience) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.readers)
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
		if r.taken != nil && r.taken.stuck(at) {
			r.raise(flagCut)
		}
	}
	a.mu.Unlock()
}

// outlet counts what was written to a sink and not flushed. A connection that
// was taken over needs neither: what is written to it is sent.
type outlet struct {
	sink    Sink
	taken   *taken // instead of sink
	buf     []byte // for more than one chunk at a time; may be nil
	pending int
}

func (o *outlet) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if o.taken != nil {
		return o.taken.write(p)
	}
	if o.pending > flushBytes {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.pending += len(p)
	return o.sink.Write(p)
}

// pass writes frames that lead to a position, and returns the position that was
// reached: a connection may not take them all at once.
func (o *outlet) pass(frames []byte, to int64) (int64, error) {
	if o.taken != nil {
		return o.taken.pass(frames, to)
	}
	return to, o.write(frames)
}

// full reports whether nothing more can be written for now.
func (o *outlet) full() bool {
	return o.taken != nil && (len(o.taken.owed) > 0 || o.taken.full.Load())
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
		v, err := r.advance(ctx, o, f, &pos, true, math.MaxInt)
		if err != nil {
			return err
		}
		if err := o.flush(); err != nil {
			return err
		}
		if v == ended {
			return nil
		}
		<-r.wake
	}
}

// verdict says why a reader does not go on.
type verdict int

const (
	waits verdict = iota // for news
	again                // it has more to write, but others come first
	full                 // its connection takes no more for now
	pulls                // what follows is on disk
	ended
)

// advance writes to o what f has behind pos, which moves on: all there is, or
// budget bytes. It reads the disk only if it may pull.
func (r *reader) advance(ctx context.Context, o *outlet, f *feed, pos *int64, pull bool, budget int) (verdict, error) {
	for {
		if err := ctx.Err(); err != nil {
			return ended, context.Cause(ctx)
		}
		if r.flags.Load() != 0 {
			if err := r.answer(o); err != nil {
				return ended, err
			}
		}
		if o.full() {
			return full, nil
		}
		if f.before != nil {
			if err := f.before(o); err != nil {
				return ended, err
			}
		}
		// Only one chunk is held while the reader is waited for: a slow one must
		// not keep alive what the ring has let go.
		frames, to, at, err := f.ring.gather(*pos, o.buf)
		switch at {
		case broken:
			return ended, err
		case past:
			if !pull {
				return pulls, nil
			}
			if frames, to, err = f.pull(ctx, *pos); err != nil {
				return ended, err
			}
			fallthrough
		case here:
			if *pos, err = o.pass(frames, to); err != nil {
				return ended, err
			}
			if budget -= len(frames); budget <= 0 {
				return again, nil
			}
			continue
		}
		if f.idle != nil {
			done, err := f.idle(o, *pos)
			if err != nil || done {
				return ended, err
			}
		}
		return waits, nil
	}
}

// answer does what the flags ask for.
func (r *reader) answer(o *outlet) error {
	flags := r.flags.Swap(0)
	if flags&flagInput != 0 {
		if err := o.taken.drain(); err != nil {
			return err
		}
	}
	if flags&flagCut != 0 {
		return errStuck
	}
	if flags&flagBeat != 0 && !o.full() {
		if err := o.write(heartbeatFrame); err != nil {
			return err
		}
	}
	if flags&flagDrain != 0 {
		if o.full() {
			return ErrDraining
		}
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

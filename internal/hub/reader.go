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
	// Write writes whole frames in bounded time: it returns an error if the
	// reader stalls for too long. It must not retain or change p.
	Write(p []byte) error
	// Flush sends the written frames.
	Flush() error
}

// ErrDraining ends a stream because the server is about to stop. The reader has
// received a retry hint.
var ErrDraining = errors.New("hub: draining")

// flushBytes is how much is written to a reader that catches up before an
// intermediate flush.
const flushBytes = 64 << 10

// Reasons to wake a reader other than new frames.
const (
	flagDrain = 1 << iota
	flagBeat
	flagInput // its client has sent something, or closed the connection
	flagCut   // it has stalled for too long
	flagEnd   // its permission to read has ended
)

// reader is one connection in a stream. It holds a position and no growing
// state. It has its own goroutine in follow, or an adopted connection that the
// pool serves.
type reader struct {
	wake  chan struct{} // for a goroutine; a token means that there is work
	conn  *epollConn    // nil if it has a goroutine
	flags atomic.Uint32
	due   atomic.Int64 // time of the next heartbeat, in Unix nanoseconds
	slot  int          // index in the audience; guarded by its lock
}

func newReader(heartbeat time.Duration) *reader {
	r := &reader{wake: make(chan struct{}, 1)}
	// Spread the heartbeats of readers that connect at the same time, for
	// example after a restart.
	r.due.Store(time.Now().Add(heartbeat - rand.N(heartbeat/2+1)).UnixNano())
	return r
}

func (r *reader) notify() {
	if r.conn != nil {
		r.conn.notify()
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

// audience is the set of readers of a stream.
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

// size returns the number of readers.
func (a *audience) size() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.readers)
}

// notify wakes all readers without waiting for them.
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

// beat requests heartbeats from the readers for which one is due.
func (a *audience) beat(now time.Time, every time.Duration) {
	at := now.UnixNano()
	a.mu.Lock()
	for _, r := range a.readers {
		if r.due.Load() <= at {
			r.due.Store(at + int64(every))
			r.raise(flagBeat)
		}
		if r.conn != nil && r.conn.stuck(at) {
			r.raise(flagCut)
		}
	}
	a.mu.Unlock()
}

// outlet counts bytes that were written to a sink and not flushed. An adopted
// connection needs no flush: written bytes are sent.
type outlet struct {
	sink    Sink
	conn    *epollConn // used instead of sink
	buf     []byte     // for more than one chunk at a time; may be nil
	pending int
}

func (o *outlet) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if o.conn != nil {
		return o.conn.write(p)
	}
	if o.pending > flushBytes {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.pending += len(p)
	return o.sink.Write(p)
}

// pass writes frames up to a position, and returns the position that was
// reached, since a connection may not accept all of them.
func (o *outlet) pass(frames []byte, to int64) (int64, error) {
	if o.conn != nil {
		return o.conn.pass(frames, to)
	}
	return to, o.write(frames)
}

// full reports whether nothing more can be written at the moment.
func (o *outlet) full() bool {
	return o.conn != nil && (len(o.conn.owed) > 0 || o.conn.full.Load())
}

func (o *outlet) flush() error {
	if o.pending == 0 {
		return nil
	}
	o.pending = 0
	return o.sink.Flush()
}

// feed is the input of a reader.
type feed struct {
	ring *ring
	// pull returns frames after a position that is no longer in the ring.
	pull func(ctx context.Context, after int64) (frames []byte, to int64, err error)
	// before and idle may be nil. before is called before every read of the
	// ring; idle after a read that found nothing. Both may write. idle reports
	// whether the stream has ended.
	before func(o *outlet) error
	idle   func(o *outlet, pos int64) (done bool, err error)
}

// follow writes all frames of f after pos to o, until the stream is complete,
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

// turnResult is why a reader stops writing.
type turnResult int

const (
	waits turnResult = iota // for new frames
	again                   // it has more to write, but others have their turn first
	full                    // its connection accepts no more at the moment
	pulls                   // the following frames are on disk
	ended
)

// advance writes the frames of f after pos to o, and advances pos: all
// available ones, or up to budget bytes. It reads the disk only if pull is set.
func (r *reader) advance(ctx context.Context, o *outlet, f *feed, pos *int64, pull bool, budget int) (turnResult, error) {
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
		// Hold only one chunk while waiting for the reader: a slow one must not
		// keep memory alive that the ring has dropped.
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

// answer handles the flags.
func (r *reader) answer(o *outlet) error {
	flags := r.flags.Swap(0)
	if flags&flagInput != 0 {
		if err := o.conn.drain(); err != nil {
			return err
		}
	}
	if flags&flagEnd != 0 {
		return errRevoked
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

// appendRetry appends the last frame of a server that stops. The retry times of
// clients are spread.
func appendRetry(dst []byte) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, 500+rand.N[int64](1000), 10)
	return append(dst, "\n\n"...)
}

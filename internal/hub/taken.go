package hub

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// errStuck ends the stream of a reader that takes nothing; errGone that of one
// that has closed its end.
var (
	errStuck = errors.New("hub: the reader takes nothing")
	errGone  = errors.New("hub: the reader is gone")
)

// Failed reports whether a stream ended for a reason that lies with the server,
// and not because it stops or its reader is gone, stuck or cut off.
func Failed(err error) bool {
	return !errors.Is(err, ErrDraining) && !errors.Is(err, errStuck) && !errors.Is(err, errGone) &&
		!errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ETIMEDOUT)
}

// Handover is a connection that the hub shall serve by itself.
type Handover struct {
	// Conn is where the stream goes, a connection of the system. The hub takes a
	// descriptor of its own and closes this one.
	Conn net.Conn
	// Head is sent before the first frame.
	Head []byte
	// Patience is how long the reader may take nothing.
	Patience time.Duration
	// Done is called once, when the stream has ended: with the bytes that went
	// out behind the head, and what Serve would have returned.
	Done func(sent int64, err error)
}

// Take is Serve for a connection that costs neither a goroutine nor a buffer
// while it waits. It returns at once and gives the place back at the end, so do
// not call Close. An error means that nothing was taken. [CanTake] says for
// which connections it works.
func (s *Subscription) Take(h Handover, e *agented.Execution, start Start) error {
	p := s.topic.hub.pool
	if err := p.begin(); err != nil {
		return err
	}
	fd, err := p.poll.adopt(h.Conn)
	if err != nil {
		p.end()
		return err
	}
	h.Conn.Close()
	c := &taken{
		pool: p, sub: s, fd: fd, feed: *s.feed(), pos: int64(start.After),
		patience: h.Patience, done: h.Done, sent: -int64(len(h.Head)),
	}
	c.state.Store(stateRunning) // nobody else runs it while it is made
	s.reader.taken, s.reader.wake = c, nil
	c.owed = s.join(append([]byte(nil), h.Head...), e, start)
	if err := p.poll.watch(c); err != nil {
		c.finish(err)
		return nil
	}
	c.rest()
	return nil
}

// taken is a connection that was taken over. Whoever has brought it into
// stateRunning owns all of it that is not atomic.
type taken struct {
	pool *pool
	sub  *Subscription
	fd   int

	state atomic.Int32
	full  atomic.Bool  // the socket took no more; cleared when it does again
	since atomic.Int64 // when that began, in Unix nanoseconds; 0: it takes

	owed     []byte // has to go out before all else
	feed     feed
	pos      int64
	sent     int64
	ends     bool // once owed is out
	patience time.Duration
	done     func(int64, error)
}

// Where a taken connection stands with the pool.
const (
	stateIdle    int32 = iota
	stateQueued        // waits for its turn
	stateRunning       // has it
	stateAgain         // has it, and there was news meanwhile
	stateOver
)

// notify gives the reader a turn.
func (c *taken) notify() {
	for {
		switch s := c.state.Load(); s {
		case stateIdle:
			if c.state.CompareAndSwap(s, stateQueued) {
				c.pool.live.put(c)
				return
			}
		case stateRunning:
			if c.state.CompareAndSwap(s, stateAgain) {
				return
			}
		default:
			return
		}
	}
}

// stuck reports whether the reader has taken nothing for longer than it may.
func (c *taken) stuck(now int64) bool {
	since := c.since.Load()
	return since != 0 && now-since > int64(c.patience)
}

// turnBytes is what a reader may write before others have their turn.
const turnBytes = 64 << 10

// turn does what there is to do for the reader. The queue is where it goes if
// there is more.
func (c *taken) turn(q *queue, pull bool, o *outlet) {
	c.state.Store(stateRunning)
	o.taken = c
	if err := c.flush(); err != nil {
		c.finish(err)
		return
	}
	if c.ends {
		var err error
		if c.sub.reader.flags.Load() != 0 {
			err = c.sub.reader.answer(o)
		}
		if err != nil || len(c.owed) == 0 {
			c.finish(err)
			return
		}
		c.rest()
		return
	}
	v, err := c.sub.reader.advance(context.Background(), o, &c.feed, &c.pos, pull, turnBytes)
	switch {
	case err != nil:
		c.finish(err)
	case v == ended && len(c.owed) > 0:
		c.ends = true
		c.rest()
	case v == ended:
		c.finish(nil)
	case v == again:
		c.state.Store(stateQueued)
		q.put(c)
	case v == pulls:
		c.state.Store(stateQueued)
		c.pool.past.put(c)
	default:
		c.rest()
	}
}

// rest ends a turn.
func (c *taken) rest() {
	if !c.state.CompareAndSwap(stateRunning, stateIdle) {
		c.state.Store(stateQueued)
		c.pool.live.put(c)
	}
}

// finish ends the stream.
func (c *taken) finish(err error) {
	c.state.Store(stateOver)
	c.sub.leave()
	c.pool.poll.forget(c)
	c.sub.Close()
	c.done(max(0, c.sent), err)
	c.pool.end()
}

// write sends p, or as much of it as the socket takes, and keeps the rest.
func (c *taken) write(p []byte) error {
	if len(c.owed) > 0 || c.full.Load() {
		c.owed = append(c.owed, p...)
		return nil
	}
	n, err := c.send(p)
	if n < len(p) {
		c.owed = append(c.owed, p[n:]...)
	}
	return err
}

// flush sends what is owed.
func (c *taken) flush() error {
	if len(c.owed) == 0 || c.full.Load() {
		return nil
	}
	n, err := c.send(c.owed)
	if c.owed = c.owed[n:]; len(c.owed) == 0 {
		c.owed = nil
	}
	return err
}

// pass sends frames that lead to a position. If the socket takes only some, the
// frame that was cut is kept, and the position is behind that: the others are
// found again when the socket takes more, and cost no memory meanwhile.
func (c *taken) pass(frames []byte, to int64) (int64, error) {
	n, err := c.send(frames)
	if n == len(frames) || err != nil {
		return to, err
	}
	rest, pos := remainder(frames, n, to)
	c.owed = append(c.owed, rest...)
	return pos, nil
}

// remainder returns what is missing of the frame that was cut behind n bytes,
// and the position behind that frame. frames lead to the position to.
func remainder(frames []byte, n int, to int64) (rest []byte, pos int64) {
	end := n
	if n > 0 && !bytes.HasSuffix(frames[:n], frameEnd) {
		from := n - 1
		end = from + bytes.Index(frames[from:], frameEnd) + len(frameEnd)
	}
	if end == len(frames) {
		return frames[n:end], to
	}
	return frames[n:end], frameID(frames[end:]) - 1
}

// send writes to the socket. It does not wait; what was not taken is told about
// by the poller.
func (c *taken) send(p []byte) (sent int, err error) {
	for sent < len(p) {
		n, err := writeSocket(c.fd, p[sent:])
		c.pool.writes.Add(1)
		if n > 0 {
			sent += n
			c.sent += int64(n)
			c.since.Store(0)
		}
		switch {
		case errors.Is(err, syscall.EAGAIN):
			if c.since.Load() == 0 {
				c.since.Store(time.Now().UnixNano())
			}
			// The socket may have become free between its answer and this note of
			// it, and says so only once: so ask again.
			if !c.full.Swap(true) {
				continue
			}
			return sent, nil
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return sent, err
		}
		if n > 0 {
			c.full.Store(false)
		}
	}
	return sent, nil
}

// drain takes what the client has sent, which says nothing, and notices its end.
func (c *taken) drain() error {
	var b [512]byte
	for {
		n, err := readSocket(c.fd, b[:])
		switch {
		case n > 0 || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return nil
		default:
			return errGone
		}
	}
}

// pool serves taken connections with a few goroutines: one for each processor
// writes what is in memory, others read for those that are behind.
type pool struct {
	hub  *Hub
	poll *poller
	live queue
	past queue

	writes atomic.Int64 // to sockets

	mu      sync.Mutex // guards what follows
	none    sync.Cond  // open is 0
	started bool
	closing bool
	open    int
	begun   int // connections, ever
	seen    int // begun at the last look
	settled int // begun when memory was given back
}

func newPool(h *Hub) *pool {
	p := &pool{hub: h}
	p.none.L = &p.mu
	p.live.ready.L, p.past.ready.L = &p.live.mu, &p.past.mu
	return p
}

// begin counts a connection, and starts the goroutines for the first one.
func (p *pool) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return ErrDraining
	}
	if !p.started {
		poll, err := newPoller()
		if err != nil {
			return err
		}
		p.started, p.poll = true, poll
		p.hub.work.Go(poll.run)
		for range min(8, runtime.GOMAXPROCS(0)) {
			p.hub.work.Go(func() { p.live.serve(false) })
		}
		for range pullsAtOnce {
			p.hub.work.Go(func() { p.past.serve(true) })
		}
	}
	p.open++
	p.begun++
	return nil
}

// influx is how many new connections leave enough behind to be worth a look.
const influx = 200

// look gives memory back once a crowd has come in: net/http took many times as
// much to hear each out as it costs from then on.
func (p *pool) look() {
	p.mu.Lock()
	due := p.begun == p.seen && p.begun-p.settled >= influx
	p.seen = p.begun
	if due {
		p.settled = p.begun
	}
	p.mu.Unlock()
	if due {
		debug.FreeOSMemory()
	}
}

func (p *pool) end() {
	p.mu.Lock()
	if p.open--; p.open == 0 {
		p.none.Broadcast()
	}
	p.mu.Unlock()
}

// close waits until the last connection is gone. The hub drains: each was told
// to end, and none waits for a reader.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	for p.open > 0 {
		p.none.Wait()
	}
	if p.started {
		p.poll.close()
		p.live.close()
		p.past.close()
	}
}

// queue is who waits for a turn.
type queue struct {
	mu     sync.Mutex // guards what follows
	ready  sync.Cond
	list   []*taken
	head   int
	closed bool
}

func (q *queue) put(c *taken) {
	q.mu.Lock()
	if q.head > 0 && len(q.list) == cap(q.list) {
		n := copy(q.list, q.list[q.head:])
		clear(q.list[n:])
		q.list, q.head = q.list[:n], 0
	}
	q.list = append(q.list, c)
	q.mu.Unlock()
	q.ready.Signal()
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.ready.Broadcast()
}

// serve gives turns until the queue is closed.
func (q *queue) serve(pull bool) {
	var batch [32]*taken
	o := &outlet{buf: make([]byte, 0, turnBytes)}
	for {
		q.mu.Lock()
		for q.head == len(q.list) && !q.closed {
			q.ready.Wait()
		}
		n := copy(batch[:min(len(batch), (len(q.list)-q.head+1)/2)], q.list[q.head:])
		clear(q.list[q.head : q.head+n])
		if q.head += n; q.head == len(q.list) {
			q.list, q.head = q.list[:0], 0
		}
		closed := q.closed
		q.mu.Unlock()
		for _, c := range batch[:n] {
			c.turn(q, pull, o)
		}
		clear(batch[:n])
		runtime.Gosched() // writing does not let others in
		if n == 0 && closed {
			return
		}
	}
}

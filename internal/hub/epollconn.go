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

// errStuck ends the stream of a stalled reader; errGone that of a closed
// connection; errRevoked one that was ended by End.
var (
	errStuck   = errors.New("hub: the reader has stalled")
	errGone    = errors.New("hub: the reader has disconnected")
	errRevoked = errors.New("hub: the reader has lost its permission")
)

// Failed reports whether a stream ended because of the server, rather than
// because the server stops or the reader disconnected, stalled or lost its
// permission.
func Failed(err error) bool {
	return !errors.Is(err, ErrDraining) && !errors.Is(err, errStuck) && !errors.Is(err, errGone) && !errors.Is(err, errRevoked) &&
		!errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ETIMEDOUT)
}

// Handover is a connection to be served by the hub.
type Handover struct {
	// Conn is the connection, backed by a socket. The hub duplicates its
	// descriptor and closes it.
	Conn net.Conn
	// Head is sent before the first frame.
	Head []byte
	// Patience is how long the reader may stall.
	Patience time.Duration
	// Done is called once, when the stream has ended, with the number of bytes
	// sent after the head, and the error that Serve would have returned.
	Done func(sent int64, err error)
}

// HandOver is Serve for a connection that needs neither a goroutine nor a buffer
// while it is idle. It returns immediately and ends the subscription at the end
// of the stream, so do not call Close. If it returns an error, nothing was
// taken over. [CanHandOver] reports for which connections it works.
func (s *Subscription) HandOver(h Handover, e *agented.Execution, start Start) error {
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
	c := &epollConn{
		pool: p, sub: s, fd: fd, feed: *s.feed(), pos: int64(start.After),
		patience: h.Patience, done: h.Done, sent: -int64(len(h.Head)),
	}
	c.state.Store(stateRunning) // prevents turns during the setup
	s.reader.conn, s.reader.wake = c, nil
	c.owed = s.join(append([]byte(nil), h.Head...), e, start)
	if err := p.poll.watch(c); err != nil {
		c.finish(err)
		return nil
	}
	c.endTurn()
	return nil
}

// epollConn is an adopted connection. The goroutine that sets stateRunning owns all
// its fields that are not atomic.
type epollConn struct {
	pool *pool
	sub  *Subscription
	fd   int

	state atomic.Int32
	full  atomic.Bool  // the socket accepts no more; cleared when it does again
	since atomic.Int64 // since when, in Unix nanoseconds; 0: it accepts

	owed     []byte // bytes to be sent first
	feed     feed
	pos      int64
	sent     int64
	ends     bool // end the stream once owed is sent
	patience time.Duration
	done     func(int64, error)
}

// States of an adopted connection in the pool.
const (
	stateIdle    int32 = iota
	stateQueued        // waits for its turn
	stateRunning       // has its turn
	stateAgain         // has its turn, and there are new frames
	stateOver
)

// notify schedules a turn for the reader.
func (c *epollConn) notify() {
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

// stuck reports whether the reader has stalled for too long.
func (c *epollConn) stuck(now int64) bool {
	since := c.since.Load()
	return since != 0 && now-since > int64(c.patience)
}

// turnBytes is what a reader may write in one turn.
const turnBytes = 64 << 10

// turn does the work of the reader. The reader is added to the queue q if there
// is more.
func (c *epollConn) turn(q *queue, pull bool, o *outlet) {
	c.state.Store(stateRunning)
	o.conn = c
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
		c.endTurn()
		return
	}
	v, err := c.sub.reader.advance(context.Background(), o, &c.feed, &c.pos, pull, turnBytes)
	switch {
	case err != nil:
		c.finish(err)
	case v == ended && len(c.owed) > 0:
		c.ends = true
		c.endTurn()
	case v == ended:
		c.finish(nil)
	case v == again:
		c.state.Store(stateQueued)
		q.put(c)
	case v == pulls:
		c.state.Store(stateQueued)
		c.pool.past.put(c)
	default:
		c.endTurn()
	}
}

// endTurn ends a turn.
func (c *epollConn) endTurn() {
	if !c.state.CompareAndSwap(stateRunning, stateIdle) {
		c.state.Store(stateQueued)
		c.pool.live.put(c)
	}
}

// finish ends the stream.
func (c *epollConn) finish(err error) {
	c.state.Store(stateOver)
	c.sub.leave()
	c.pool.poll.forget(c)
	c.sub.Close()
	c.done(max(0, c.sent), err)
	c.pool.end()
}

// write sends p, or as much of it as the socket accepts, and stores the rest.
func (c *epollConn) write(p []byte) error {
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

// flush sends the stored bytes.
func (c *epollConn) flush() error {
	if len(c.owed) == 0 || c.full.Load() {
		return nil
	}
	n, err := c.send(c.owed)
	if c.owed = c.owed[n:]; len(c.owed) == 0 {
		c.owed = nil
	}
	return err
}

// pass sends frames up to a position. If the socket accepts only some of them,
// the rest of the partial frame is stored, and the position is after it: the
// other frames are found again later, and need no memory meanwhile.
func (c *epollConn) pass(frames []byte, to int64) (int64, error) {
	n, err := c.send(frames)
	if n == len(frames) || err != nil {
		return to, err
	}
	rest, pos := remainder(frames, n, to)
	c.owed = append(c.owed, rest...)
	return pos, nil
}

// remainder returns the rest of the frame that was cut after n bytes, and the
// position after that frame. frames end at the position to.
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

// send writes to the socket without blocking; the poller reports when it
// accepts more.
func (c *epollConn) send(p []byte) (sent int, err error) {
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
			// The socket may have become writable before the flag is set, and
			// the event is reported only once: try again.
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

// drain discards what the client has sent, and detects the end of the
// connection.
func (c *epollConn) drain() error {
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

// pool serves adopted connections with a few goroutines: one per processor
// writes frames from memory, others read the disk for readers that are behind.
type pool struct {
	hub  *Hub
	poll *poller
	live queue
	past queue

	writes atomic.Int64 // writes to sockets

	mu      sync.Mutex // guards the fields below
	none    sync.Cond  // signals that open is 0
	started bool
	closing bool
	open    int
	begun   int // total number of connections
	seen    int // begun at the last check
	settled int // begun when memory was last released
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

// releaseAfter is how many new connections make releasing memory worthwhile.
const releaseAfter = 200

// maintain releases memory after many connections were adopted: net/http needed
// many times as much for each as the hub does.
func (p *pool) maintain() {
	p.mu.Lock()
	due := p.begun == p.seen && p.begun-p.settled >= releaseAfter
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

// close waits until the last connection is closed. The hub is draining, so no
// connection waits for its reader.
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

// queue is the readers waiting for a turn.
type queue struct {
	mu     sync.Mutex // guards the fields below
	ready  sync.Cond
	list   []*epollConn
	head   int
	closed bool
}

func (q *queue) put(c *epollConn) {
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

// serve runs turns until the queue is closed.
func (q *queue) serve(pull bool) {
	var batch [32]*epollConn
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
		runtime.Gosched() // system calls of writeSocket do not yield
		if n == 0 && closed {
			return
		}
	}
}

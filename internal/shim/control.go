package shim

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/agented/agented"
)

// request is one line from a client. A connection may send several requests; each gets one line
// as reply, "wait" when the attempt has ended.
type request struct {
	Version int           `json:"v"`
	Verb    string        `json:"verb"` // hello, stop, wait, pause, resume
	Cause   agented.Cause `json:"cause,omitempty"`
	Until   time.Time     `json:"until,omitzero"` // end of a pause
	By      string        `json:"by,omitempty"`
	Why     string        `json:"why,omitempty"`
}

// reply is one line from the shim.
type reply struct {
	Version int    `json:"v"`
	Error   string `json:"error,omitempty"`

	Execution agented.ExecutionID `json:"execution,omitempty"` // reply to hello
	Attempt   int                 `json:"attempt,omitempty"`
	ShimPID   int                 `json:"shim_pid,omitempty"`
	ChildPID  int                 `json:"child_pid,omitempty"` // 0 until the CLI runs
	BootID    string              `json:"boot_id,omitempty"`
	LastSeq   agented.Seq         `json:"last_seq,omitempty"`
	State     string              `json:"state,omitempty"` // starting, running, ending
	Paused    *PauseState         `json:"paused,omitempty"`

	Ended *agented.Exit `json:"ended,omitempty"` // reply to wait
}

const (
	maxRequest  = 64 << 10
	maxClients  = 64
	clientQuiet = time.Minute // an idle connection is closed after this time
	answerTime  = 2 * time.Second
)

// control serves requests on the control socket.
type control struct {
	s    *shim
	l    *net.UnixListener
	done chan struct{} // closed when final is set
	all  sync.WaitGroup

	mu    sync.Mutex // guards the following fields
	child int
	open  map[net.Conn]bool // true if the connection waits for the end
	final *agented.Exit
}

// listen opens the control socket and starts serving requests.
func listen(bundle string, s *shim) (*control, error) {
	l, err := listenUnix(bundle)
	if err != nil {
		return nil, err
	}
	c := &control{s: s, l: l, done: make(chan struct{}), open: map[net.Conn]bool{}}
	c.all.Go(c.accept)
	return c, nil
}

func (c *control) accept() {
	for {
		conn, err := c.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no free descriptors
			continue
		}
		if !c.admit(conn) {
			conn.Close()
			continue
		}
		c.all.Go(func() {
			defer c.leave(conn)
			c.serve(conn)
		})
	}
}

// admit accepts connections from this user and root only, up to a limit.
func (c *control) admit(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	uid, peerErr := -1, error(nil)
	if err := raw.Control(func(fd uintptr) { uid, peerErr = peerUID(int(fd)) }); err != nil || peerErr != nil {
		return false
	}
	if uid != 0 && uid != os.Geteuid() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= maxClients || c.final != nil {
		return false
	}
	c.open[conn] = false
	return true
}

func (c *control) leave(conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
}

// running records the CLI's pid.
func (c *control) running(child int) {
	c.mu.Lock()
	c.child = child
	c.mu.Unlock()
}

func (c *control) serve(conn net.Conn) {
	lines := bufio.NewReaderSize(&io.LimitedReader{R: conn, N: maxRequest}, 512)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(clientQuiet))
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			c.answer(conn, reply{Error: "invalid request: " + err.Error()})
			return
		}
		switch r.Verb {
		case "hello":
			c.answer(conn, c.hello())
		case "stop":
			c.stop(r.Cause)
			c.answer(conn, reply{})
		case "wait":
			c.wait(conn)
			return
		case "pause", "resume":
			var answer reply
			if err := c.pause(r); err != nil {
				answer.Error = err.Error()
			}
			c.answer(conn, answer)
		default:
			c.answer(conn, reply{Error: "unknown verb " + readable(r.Verb, 40)})
		}
	}
}

func (c *control) hello() reply {
	spec := &c.s.spec
	r := reply{
		Execution: spec.Execution, Attempt: spec.Attempt, ShimPID: os.Getpid(),
		BootID: bootID(), LastSeq: c.s.log.LastSeq(), State: "starting",
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ChildPID = c.child; c.child != 0 {
		r.State = "running"
	}
	if c.s.k.ending.Load() {
		r.State = "ending"
	} else {
		r.Paused = c.s.k.paused.Load()
	}
	return r
}

func (c *control) stop(cause agented.Cause) {
	if cause == "" {
		cause = agented.CauseCancelled
	}
	select {
	case c.s.k.stops <- cause:
	default: // enough stops are pending
	}
}

// wait replies when the attempt has ended, and returns early if the client disconnects.
func (c *control) wait(conn net.Conn) {
	c.mu.Lock()
	c.open[conn] = true
	c.mu.Unlock()
	_ = conn.SetReadDeadline(time.Time{})
	left := make(chan struct{})
	go func() {
		defer close(left)
		var b [64]byte
		for {
			if _, err := conn.Read(b[:]); err != nil {
				return
			}
		}
	}()
	select {
	case <-c.done:
		c.mu.Lock()
		exit := c.final
		c.mu.Unlock()
		c.answer(conn, reply{Ended: exit})
		conn.Close()
	case <-left:
	}
	<-left
}

func (c *control) answer(conn net.Conn, r reply) {
	r.Version = Version
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(answerTime))
	_, _ = conn.Write(append(b, '\n'))
}

// ended notifies all waiting clients and closes the socket. After an error there is no exit
// record, and the clients get no reply.
func (c *control) ended(exit agented.Exit, err error) {
	c.mu.Lock()
	c.final = &exit
	for conn, waits := range c.open {
		if !waits || err != nil {
			conn.Close()
		}
	}
	c.mu.Unlock()
	close(c.done)
	c.l.Close() // removes the socket
	c.all.Wait()
}

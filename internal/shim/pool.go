package shim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A shim process can exist before it has an attempt, and may be reused after one: it waits for an
// order on the socket that it inherited. The order consists of descriptors for the folder of the
// bundle, its log, its lock and the listener of its broker if it has one, followed by the handover.
// Spawning a Go process takes longer than the rest of a start, so one shim waits in advance, and a
// shim whose attempt ended normally takes the next one. The socket ends with the server, and with
// it every waiting shim.

const (
	// orderMark is sent with the descriptors, which need at least one byte of data.
	orderMark = 'A'
	// poolMax is the maximum number of waiting shims. poolIdle is how long shims wait beyond
	// the number requested with KeepWarm.
	poolMax  = 8
	poolIdle = 10 * time.Second
	// poolDelay delays the start of the next warmShim, so that it does not slow down the attempt
	// that has just taken the last one.
	poolDelay = 100 * time.Millisecond
)

// orderPatience is the timeout for sending an order. Tests shorten it.
var orderPatience = startPatience

// warmPool are the waiting shims.
var warmPool struct {
	mu   sync.Mutex  // guards the following fields
	keep int         // number to start in advance
	idle []*warmShim // most recent last
	made int         // number being started
}

// warmShim is the server's end of a shim process.
type warmShim struct {
	conn    *net.UnixConn
	proc    *os.Process
	answers chan []byte   // lines other than readyLine; closed when the shim ends
	gone    chan struct{} // closed when the process has ended
	since   time.Time     // start of the wait; guarded by warmPool.mu
}

// KeepWarm keeps n shims waiting for the next attempts from now on; 0 ends all waiting shims.
func KeepWarm(n int) {
	warmPool.mu.Lock()
	warmPool.keep = n
	warmPool.mu.Unlock()
	if n == 0 {
		trimPool(time.Now().Add(poolIdle))
		return
	}
	for range n {
		fillPool()
	}
}

// fillPool starts a warmShim if fewer than requested are waiting.
func fillPool() {
	warmPool.mu.Lock()
	due := len(warmPool.idle)+warmPool.made < warmPool.keep
	if due {
		warmPool.made++
	}
	warmPool.mu.Unlock()
	if !due {
		return
	}
	go func() {
		s, err := newWarmShim()
		if err == nil && !s.offer() { // an attempt that needs a shim reports the error
			s.conn.Close()
		}
		warmPool.mu.Lock()
		warmPool.made--
		warmPool.mu.Unlock()
	}()
}

// takeWarm returns a waiting shim, or starts one.
func takeWarm() (s *warmShim, fresh bool, err error) {
	warmPool.mu.Lock()
	if n := len(warmPool.idle); n > 0 {
		s = warmPool.idle[n-1]
		warmPool.idle = slices.Delete(warmPool.idle, n-1, n)
	}
	warmPool.mu.Unlock()
	if s != nil {
		return s, false, nil
	}
	s, err = newWarmShim()
	return s, true, err
}

// trimPool ends surplus shims that have waited since before the given time.
func trimPool(before time.Time) {
	var over []*warmShim
	warmPool.mu.Lock()
	for len(warmPool.idle) > warmPool.keep && warmPool.idle[0].since.Before(before) {
		over = append(over, warmPool.idle[0])
		warmPool.idle = slices.Delete(warmPool.idle, 0, 1)
	}
	warmPool.mu.Unlock()
	for _, s := range over {
		s.conn.Close()
	}
}

// newWarmShim starts a shim.
func newWarmShim() (*warmShim, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	defer ours.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	proc, err := execute(&os.ProcAttr{
		Dir: "/",
		// One processor and a small heap from the start.
		Env:   []string{"GOMAXPROCS=1", "GOGC=25"},
		Files: []*os.File{null, null, null, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &warmShim{conn: conn.(*net.UnixConn), proc: proc, answers: make(chan []byte, 1), gone: make(chan struct{})}
	go s.run()
	return s, nil
}

// socketPair creates a connected pair of sockets.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("create a socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "orders"), os.NewFile(uintptr(fds[1]), "orders"), nil
}

// order sends an attempt to the shim and waits for its answer. given is the lock, and the listener
// of a broker if there is one.
func (s *warmShim) order(bundle string, log *os.File, given []*os.File, hand []byte) (answer, error) {
	var a answer
	dir, err := os.Open(bundle)
	if err != nil {
		return a, err
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(orderPatience))
	fds := []int{int(dir.Fd()), int(log.Fd())}
	for _, f := range given {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err = s.conn.WriteMsgUnix([]byte{orderMark}, unix.UnixRights(fds...), nil)
	dir.Close()
	if err != nil {
		return a, err
	}
	// The data may exceed the socket's buffer, and the shim may end before it has read
	// everything: then the write fails, and no answer follows.
	go func() { _, _ = s.conn.Write(hand) }()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case line, ok := <-s.answers:
		if !ok {
			return a, errors.New("the shim ended")
		}
		return a, json.Unmarshal(line, &a)
	case <-patience.C:
		return a, errors.New("the shim did not answer in time")
	}
}

// run reads the shim's lines until it ends.
func (s *warmShim) run() {
	in := bufio.NewReaderSize(s.conn, 512)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		if string(line) != readyLine {
			s.answers <- line
		} else if !s.offer() {
			break
		}
	}
	warmPool.mu.Lock()
	warmPool.idle = slices.DeleteFunc(warmPool.idle, func(o *warmShim) bool { return o == s })
	warmPool.mu.Unlock()
	close(s.answers)
	s.conn.Close()
	// If this process survives, it must not leave a zombie.
	_, _ = s.proc.Wait()
	close(s.gone)
}

// offer adds the shim to the waiting ones, unless there are enough.
func (s *warmShim) offer() bool {
	warmPool.mu.Lock()
	s.since = time.Now()
	ok := len(warmPool.idle) < poolMax && warmPool.keep > 0
	if ok {
		warmPool.idle = append(warmPool.idle, s)
	}
	warmPool.mu.Unlock()
	if ok {
		time.AfterFunc(poolIdle+time.Second, func() { trimPool(time.Now().Add(-poolIdle)) })
	}
	return ok
}

// end kills the shim and waits for its end.
func (s *warmShim) end() {
	_ = s.proc.Kill()
	s.conn.Close()
	<-s.gone
}

// launch sends an attempt to a shim and waits for its answer; see order.
func launch(bundle string, given []*os.File, hand []byte) (answer, error) {
	log, err := os.OpenFile(filepath.Join(bundle, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return answer{}, err
	}
	defer log.Close()
	for {
		s, fresh, err := takeWarm()
		if err != nil {
			return answer{}, err
		}
		a, err := s.order(bundle, log, given, hand)
		if err == nil {
			time.AfterFunc(poolDelay, fillPool)
			return a, nil
		}
		s.end()
		// A warmShim may have died while it waited. Without a begun record it has started nothing,
		// so another shim can take the attempt.
		if f, lookErr := Inspect(bundle); fresh || lookErr != nil || f.Begun {
			return a, fmt.Errorf("no answer from the shim (see %s): %w", logFile, err)
		}
	}
}

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

// A shim is a process before it has an attempt, and may be one after: it waits
// for an order on the socket that it was started with. The order is the folder of
// the bundle, its lock and its log, as descriptors, and then the handover. To
// start a process, and a Go program in it, takes longer than all the rest of a
// start, so one waits ahead, and one whose attempt came to a plain end takes the
// next. The socket ends with the server, and with it every shim that waits.

const (
	// orderMark goes with the descriptors, which cannot travel alone.
	orderMark = 'A'
	// spareMost is how many shims wait at most, and spareFor how long those do
	// that nobody asked to be kept.
	spareMost = 8
	spareFor  = 10 * time.Second
	// spareDelay keeps the start of the next spare out of the way of the attempt
	// that has just taken the last one.
	spareDelay = 100 * time.Millisecond
)

// spares are the shims that wait.
var spares struct {
	mu   sync.Mutex // guards what follows
	keep int        // started ahead
	idle []*spare   // the one that came last is at the end
	made int        // being started ahead
}

// spare is the server's end of a shim that it has started.
type spare struct {
	conn    *net.UnixConn
	proc    *os.Process
	answers chan []byte   // lines that are not readyLine; closed with the shim's end
	gone    chan struct{} // closed when the process is no more
	since   time.Time     // when it began to wait; guarded by spares.mu
}

// KeepSpare has n shims wait for the next attempts, from now on; 0 ends those
// that wait.
func KeepSpare(n int) {
	spares.mu.Lock()
	spares.keep = n
	spares.mu.Unlock()
	if n == 0 {
		trimSpares(time.Now().Add(spareFor))
		return
	}
	for range n {
		makeSpare()
	}
}

// makeSpare starts a spare if there are fewer than were asked for.
func makeSpare() {
	spares.mu.Lock()
	due := len(spares.idle)+spares.made < spares.keep
	if due {
		spares.made++
	}
	spares.mu.Unlock()
	if !due {
		return
	}
	go func() {
		s, err := newSpare()
		spares.mu.Lock()
		spares.made--
		spares.mu.Unlock()
		if err == nil && !s.offer() { // an error will be said by the attempt that needs one
			s.conn.Close()
		}
	}()
}

// takeSpare returns a shim that waits, or starts one.
func takeSpare() (s *spare, fresh bool, err error) {
	spares.mu.Lock()
	if n := len(spares.idle); n > 0 {
		s = spares.idle[n-1]
		spares.idle = slices.Delete(spares.idle, n-1, n)
	}
	spares.mu.Unlock()
	if s != nil {
		return s, false, nil
	}
	s, err = newSpare()
	return s, true, err
}

// trimSpares ends those that wait since before a time and were not asked to be
// kept.
func trimSpares(before time.Time) {
	var over []*spare
	spares.mu.Lock()
	for len(spares.idle) > spares.keep && spares.idle[0].since.Before(before) {
		over = append(over, spares.idle[0])
		spares.idle = slices.Delete(spares.idle, 0, 1)
	}
	spares.mu.Unlock()
	for _, s := range over {
		s.conn.Close()
	}
}

// newSpare starts a shim.
func newSpare() (*spare, error) {
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
		// One processor and a small heap from the first instruction on.
		Env:   []string{"GOMAXPROCS=1", "GOGC=25"},
		Files: []*os.File{null, null, null, theirs},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &spare{conn: conn.(*net.UnixConn), proc: proc, answers: make(chan []byte, 1), gone: make(chan struct{})}
	go s.run()
	return s, nil
}

// socketPair makes the two ends of a socket.
func socketPair() (ours, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "orders"), os.NewFile(uintptr(fds[1]), "orders"), nil
}

// order gives the shim its attempt and waits for its answer.
func (s *spare) order(bundle string, lock, log *os.File, hand []byte) (answer, error) {
	var a answer
	dir, err := os.Open(bundle)
	if err != nil {
		return a, err
	}
	rights := unix.UnixRights(int(dir.Fd()), int(lock.Fd()), int(log.Fd()))
	_, _, err = s.conn.WriteMsgUnix([]byte{orderMark}, rights, nil)
	dir.Close()
	if err != nil {
		return a, err
	}
	// More than a socket holds may have to go over, and the shim may die before it
	// has read all: then the write fails, and so does the answer.
	_ = s.conn.SetWriteDeadline(time.Now().Add(startPatience))
	go func() { _, _ = s.conn.Write(hand) }()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case line, ok := <-s.answers:
		if !ok {
			return a, errors.New("it ended")
		}
		return a, json.Unmarshal(line, &a)
	case <-patience.C:
		return a, errors.New("it took too long")
	}
}

// run hears the shim out until it ends.
func (s *spare) run() {
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
	spares.mu.Lock()
	spares.idle = slices.DeleteFunc(spares.idle, func(o *spare) bool { return o == s })
	spares.mu.Unlock()
	close(s.answers)
	s.conn.Close()
	// Should this process live on, it must not leave a zombie behind.
	_, _ = s.proc.Wait()
	close(s.gone)
}

// offer puts the shim among those that wait, unless there are enough.
func (s *spare) offer() bool {
	spares.mu.Lock()
	s.since = time.Now()
	ok := len(spares.idle) < spareMost && spares.keep > 0
	if ok {
		spares.idle = append(spares.idle, s)
	}
	spares.mu.Unlock()
	if ok {
		time.AfterFunc(spareFor+time.Second, func() { trimSpares(time.Now().Add(-spareFor)) })
	}
	return ok
}

// end kills the shim and waits for its end.
func (s *spare) end() {
	_ = s.proc.Kill()
	s.conn.Close()
	<-s.gone
}

// launch has a shim take the attempt and waits for its answer.
func launch(bundle string, lock *os.File, hand []byte) (answer, error) {
	log, err := os.OpenFile(filepath.Join(bundle, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return answer{}, err
	}
	defer log.Close()
	for {
		s, fresh, err := takeSpare()
		if err != nil {
			return answer{}, err
		}
		a, err := s.order(bundle, lock, log, hand)
		if err == nil {
			time.AfterFunc(spareDelay, makeSpare)
			return a, nil
		}
		s.end()
		// One that died while it waited is no reason not to begin: it is gone, and
		// without the mark it has started nothing.
		if f, lookErr := Inspect(bundle); fresh || lookErr != nil || f.Begun {
			return a, fmt.Errorf("no answer from the shim (%s says why): %w", logFile, err)
		}
	}
}

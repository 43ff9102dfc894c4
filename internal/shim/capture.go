package shim

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

const (
	chunkSize = 64 << 10
	// readAhead is the maximum number of chunks by which the readers of a pipe may be ahead of
	// the log: 8 MiB, so that a slow disk does not block the CLI.
	readAhead = 128
	// pace is how long output waits for more when it arrives in quick succession. A thousand
	// appends per second are enough for any reader, and a program that prints line by line does
	// not wake the shim for each line.
	pace = time.Millisecond
	// Terminal size for CLIs that run on a terminal.
	terminalRows, terminalCols = 40, 120
)

// chunk is the result of one read from a pipe or terminal.
type chunk struct {
	stream int // index of the stream
	data   []byte
	at     time.Time
	ended  bool // end of the stream
}

// outlet connects the CLI's output with the supervisor: files that it follows, or pipes that are read
// ahead.
type outlet struct {
	child [2]*os.File // the CLI's stdout and stderr; closed once it runs

	files  [2]*os.File // capture by file: the raw files, open for reading
	chunks chan chunk  // other captures: the data read
	free   chan []byte // unused read buffers
	ends   []*os.File  // the ends that are read
	open   int         // number of running readers
	all    sync.WaitGroup
}

// newOutlet creates the files, pipes or terminal.
func newOutlet(bundle string, how agented.Capture) (*outlet, error) {
	o := &outlet{}
	var err error
	switch how {
	case agented.CaptureFile:
		err = o.openFiles(bundle)
	case agented.CapturePTY:
		err = o.openTerminal()
	default:
		err = o.openPipes()
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *outlet) openFiles(bundle string) error {
	for i, name := range []string{stdoutFile, stderrFile} {
		path := bundle + "/" + name
		// O_APPEND keeps a CLI that writes through several descriptors from overwriting its own
		// output.
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		o.child[i] = f
		// Punching holes needs write access.
		if o.files[i], err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	return nil
}

func (o *outlet) openPipes() error {
	for i := range o.child {
		r, w, err := newPipe()
		if err != nil {
			return err
		}
		widenPipe(w)
		o.child[i] = os.NewFile(uintptr(w), "pipe")
		_ = unix.SetNonblock(r, true)
		o.ends = append(o.ends, os.NewFile(uintptr(r), "pipe"))
	}
	return nil
}

func (o *outlet) openTerminal() error {
	master, slave, err := pty.Open()
	if err != nil {
		return err
	}
	defer master.Close()
	o.child[0], o.child[1] = slave, slave
	if err := pty.Setsize(master, &pty.Winsize{Rows: terminalRows, Cols: terminalCols}); err != nil {
		return err
	}
	plainTerminal(int(slave.Fd()))
	// A duplicate descriptor that supports deadlines.
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_ = unix.SetNonblock(fd, true)
	o.ends = append(o.ends, os.NewFile(uintptr(fd), "terminal"))
	return nil
}

// closeChild closes the shim's copies of the CLI's ends: while they are open, a pipe does not
// end.
func (o *outlet) closeChild() {
	for i, f := range o.child {
		if f != nil {
			f.Close() // closed twice for a terminal, which is harmless
			o.child[i] = nil
		}
	}
}

func (o *outlet) close() {
	o.closeChild()
	for _, f := range o.files {
		if f != nil {
			f.Close()
		}
	}
	for _, f := range o.ends {
		f.Close()
	}
}

// read starts the readers of the pipes or the terminal.
func (o *outlet) read() {
	o.chunks = make(chan chunk, readAhead)
	o.free = make(chan []byte, readAhead+4)
	o.open = len(o.ends)
	for i, f := range o.ends {
		o.all.Go(func() { o.readOne(i, f) })
	}
}

func (o *outlet) readOne(stream int, f *os.File) {
	var last time.Time
	for {
		var buf []byte
		select {
		case buf = <-o.free:
		default:
			buf = make([]byte, chunkSize)
		}
		n, err := f.Read(buf)
		now := time.Now()
		if n > 0 {
			o.chunks <- chunk{stream: stream, data: buf[:n], at: now}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.readRest(stream, f)
			break
		}
		if err != nil { // io.EOF, or EIO after the last process closed the terminal
			break
		}
		// A terminal returns at most 4 KiB at a time and is not slowed down.
		if n < 2<<10 && now.Sub(last) < pace/2 {
			time.Sleep(pace)
		}
		last = now
	}
	o.chunks <- chunk{stream: stream, ended: true}
}

// readRest reads what is currently in the pipe. No more is expected, unless a process outside the
// tree received a copy of the pipe.
func (o *outlet) readRest(stream int, f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	for range 64 {
		buf := make([]byte, chunkSize)
		n := 0
		err := c.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) })
		if err != nil || n <= 0 {
			return
		}
		o.chunks <- chunk{stream: stream, data: buf[:n], at: time.Now()}
	}
}

// finish makes the readers end soon, even if a process still holds a pipe.
func (o *outlet) finish() {
	for _, f := range o.ends {
		_ = f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	}
}

// recycle returns a chunk's buffer to the unused ones.
func (o *outlet) recycle(c chunk) {
	if cap(c.data) == chunkSize {
		select {
		case o.free <- c.data[:chunkSize]:
		default:
		}
	}
}

// relax frees buffers that are left from a burst of output.
func (o *outlet) relax() {
	for len(o.free) > 2 {
		select {
		case <-o.free:
		default:
			return
		}
	}
}

// tail follows one raw file.
type tail struct {
	f       *os.File
	split   *splitter
	size    int64 // at the last check
	gone    int64 // bytes that were printed and then truncated
	punched int64
	failed  bool // a read has failed
}

// poll reads up to len(buf) new bytes. shrunk is true if the file became shorter than what was
// read of it.
func (t *tail) poll(buf []byte, at time.Time) (n int, shrunk bool, err error) {
	st, err := t.f.Stat()
	if err != nil {
		return 0, false, err
	}
	if st.Size() < t.split.next() {
		// A truncation (": > /dev/stdout") makes the remaining content new. Content in a hole was
		// read before.
		shrunk = true
		t.gone += t.split.next()
		from := int64(0)
		if data, err := unix.Seek(int(t.f.Fd()), 0, seekData); err == nil && t.punched > 0 {
			from = min(data, st.Size())
		} else if t.punched > 0 {
			from = st.Size()
		}
		t.gone -= from
		t.punched = 0
		t.split.restart(at, from)
	}
	t.size = st.Size()
	if t.size == t.split.next() || len(buf) == 0 {
		return 0, shrunk, nil
	}
	n, err = t.f.ReadAt(buf, t.split.next())
	if errors.Is(err, io.EOF) {
		err = nil
	}
	t.split.feed(buf[:n], at)
	return n, shrunk, err
}

// printed returns the number of bytes that the CLI has written, read or not.
func (t *tail) printed() int64 { return t.gone + max(t.size, t.split.next()) }

// release frees the disk space of raw bytes that are on disk in the log. The last bytes are kept:
// they show whether a line is incomplete.
func (t *tail) release(synced int64) {
	const block = 4096
	if to := (synced - 1) / block * block; to > t.punched {
		punch(t.f, t.punched, to)
		t.punched = to
	}
}

//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// readers is a set of connections that read event streams. One thread reads all of them, with
// epoll and a shared buffer, so that they cost little compared with the measured server.
type readers struct {
	ep    int
	mu    sync.Mutex // guards conns
	conns map[int32]*streamConn

	ready   atomic.Int64           // connections with a successful response
	ended   atomic.Int64           // connections closed by the server
	refused atomic.Int64           // responses other than 200
	answer  atomic.Pointer[string] // one of those responses
	bytes   atomic.Int64
	lines   atomic.Int64 // stamped lines of all connections
	lost    atomic.Int64 // lines missing, duplicated or out of order
	slow    atomic.Bool  // stop reading

	latMu sync.Mutex // guards lat
	lat   []uint32   // from print to read, in microseconds

	stop chan struct{}
	done chan struct{}
}

// streamConn is one connection.
type streamConn struct {
	fd       int
	answered bool
	seq      int64
	tail     []byte // the beginning of a stamp at the end of a read
}

func newReaders() (*readers, error) {
	ep, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	r := &readers{ep: ep, conns: map[int32]*streamConn{}, stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r, nil
}

// connect opens n streams with the requests that request returns, and returns when all have been
// answered.
func (r *readers) connect(addr string, n int, request func(i int) string) error {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	at := syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	base := r.ready.Load()
	deadline := time.Now().Add(time.Minute)
	for i := range n {
		// Limit the number of unanswered requests: streams are measured, not a connection storm.
		for r.ready.Load()-base < int64(i)-200 {
			if time.Now().After(deadline) {
				return fmt.Errorf("only %d of %d readers were answered within a minute", r.ready.Load()-base, n)
			}
			time.Sleep(time.Millisecond)
		}
		if err := r.open(&at, i, request(i)); err != nil {
			return fmt.Errorf("reader %d: %w", i, err)
		}
	}
	for r.ready.Load()-base < int64(n) {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d readers were answered within a minute", r.ready.Load()-base, n)
		}
		time.Sleep(time.Millisecond)
	}
	if n := r.refused.Load(); n > 0 {
		answer := "without a response"
		if a := r.answer.Load(); a != nil {
			answer = *a
		}
		return fmt.Errorf("%d readers were refused: %s", n, answer)
	}
	return nil
}

func (r *readers) open(at *syscall.SockaddrInet4, i int, request string) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Several source addresses, because one has too few ports for many readers.
	from := syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + i%8)}}
	const bindNoPort = 24 // IP_BIND_ADDRESS_NO_PORT
	err = errors.Join(
		syscall.SetsockoptInt(fd, syscall.SOL_IP, bindNoPort, 1),
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}),
		syscall.Bind(fd, &from),
		syscall.Connect(fd, at),
	)
	if err == nil {
		_, err = syscall.Write(fd, []byte(request))
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
		return err
	}
	r.mu.Lock()
	r.conns[int32(fd)] = &streamConn{fd: fd}
	r.mu.Unlock()
	return syscall.EpollCtl(r.ep, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

func (r *readers) run() {
	defer close(r.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]syscall.EpollEvent, 1024)
	buf := make([]byte, 256<<10)
	var lat []uint32
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		if r.slow.Load() {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		n, err := syscall.EpollWait(r.ep, events, 20)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
		lat = lat[:0]
		for _, ev := range events[:max(0, n)] {
			r.mu.Lock()
			c := r.conns[ev.Fd]
			r.mu.Unlock()
			if c != nil {
				lat = r.read(c, buf, lat)
			}
		}
		if len(lat) > 0 {
			r.latMu.Lock()
			r.lat = append(r.lat, lat...)
			r.latMu.Unlock()
		}
	}
}

func (r *readers) read(c *streamConn, buf []byte, lat []uint32) []uint32 {
	n, err := syscall.Read(c.fd, buf)
	if errors.Is(err, syscall.EAGAIN) {
		return lat
	}
	if n <= 0 || err != nil {
		r.drop(c)
		return lat
	}
	now := time.Now().UnixNano()
	r.bytes.Add(int64(n))
	data := buf[:n]
	if !c.answered {
		c.answered = true
		if !bytes.HasPrefix(data, []byte("HTTP/1.1 200")) {
			r.answer.CompareAndSwap(nil, new(string(data[:min(n, 300)])))
			r.refused.Add(1)
		}
		r.ready.Add(1)
	}
	if len(c.tail) > 0 {
		data = append(c.tail, data...)
		c.tail = nil
	}
	return r.scan(c, data, now, lat)
}

const stampSize = 2 + 19 + 1 + 9

// scan finds the stamps in the data.
func (r *readers) scan(c *streamConn, data []byte, now int64, lat []uint32) []uint32 {
	lines := int64(0)
	for {
		i := bytes.Index(data, []byte("t=1"))
		if i < 0 {
			c.keep(data[max(0, len(data)-2):])
			break
		}
		if len(data)-i < stampSize {
			c.keep(data[i:])
			break
		}
		at, err1 := strconv.ParseInt(string(data[i+2:i+21]), 10, 64)
		seq, err2 := strconv.ParseInt(string(data[i+22:i+31]), 10, 64)
		if err1 == nil && err2 == nil {
			if c.seq != 0 && seq != c.seq+1 {
				r.lost.Add(max(1, seq-c.seq-1))
			}
			c.seq = seq
			lines++
			lat = append(lat, uint32(max(0, (now-at)/1000)))
		}
		data = data[i+stampSize:]
	}
	r.lines.Add(lines)
	return lat
}

// keep stores what may be the beginning of a stamp. Chunk headers of a response occur between
// frames only.
func (c *streamConn) keep(b []byte) {
	if len(b) > 0 && (b[len(b)-1] == 't' || bytes.HasSuffix(b, []byte("t=")) || bytes.HasPrefix(b, []byte("t=1"))) {
		c.tail = append([]byte(nil), b...)
	}
}

func (r *readers) drop(c *streamConn) {
	r.mu.Lock()
	delete(r.conns, int32(c.fd))
	r.mu.Unlock()
	syscall.Close(c.fd)
	r.ended.Add(1)
	if !c.answered {
		r.ready.Add(1)
		r.refused.Add(1)
	}
}

// latencies returns the values measured since the last call.
func (r *readers) latencies() []float64 {
	r.latMu.Lock()
	defer r.latMu.Unlock()
	out := make([]float64, len(r.lat))
	for i, us := range r.lat {
		out[i] = float64(us) / 1000
	}
	r.lat = r.lat[:0]
	return out
}

// Close ends all streams.
func (r *readers) Close() {
	close(r.stop)
	<-r.done
	for _, c := range r.conns {
		syscall.Close(c.fd)
	}
	syscall.Close(r.ep)
}

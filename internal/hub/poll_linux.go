package hub

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CanHandOver reports whether the hub can serve a connection without net/http.
func CanHandOver(c net.Conn) bool {
	_, ok := c.(syscall.Conn)
	return ok
}

// poller notifies adopted connections when their sockets become writable, and
// when their clients send data or close the connection. It is a single epoll
// descriptor that the Go runtime polls like any other, so it needs no thread.
type poller struct {
	file *os.File
	raw  syscall.RawConn
	fd   int

	mu    sync.Mutex   // guards conns
	conns []*epollConn // by descriptor
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a poller: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make a poller: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("make a poller: %w", err), p.file.Close())
	}
	return p, nil
}

// adopt duplicates the descriptor of a connection.
func (p *poller) adopt(c net.Conn) (int, error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	fd := -1
	if e := raw.Control(func(at uintptr) { fd, err = unix.FcntlInt(at, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, fmt.Errorf("take a connection over: %w", err)
	}
	return fd, nil
}

// watch registers c, edge-triggered, so no further system calls are needed
// until the end.
func (p *poller) watch(c *epollConn) error {
	p.mu.Lock()
	for len(p.conns) <= c.fd {
		p.conns = append(p.conns, nil)
	}
	p.conns[c.fd] = c
	p.mu.Unlock()
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd),
	})
}

// forget closes c's descriptor.
func (p *poller) forget(c *epollConn) {
	p.mu.Lock()
	if c.fd < len(p.conns) && p.conns[c.fd] == c {
		p.conns[c.fd] = nil
	}
	p.mu.Unlock()
	_ = unix.Shutdown(c.fd, unix.SHUT_WR) // end the stream even if another process has a copy of the descriptor
	unix.Close(c.fd)
}

func (p *poller) run() {
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := p.raw.Read(func(uintptr) bool {
			var e error
			n, e = unix.EpollWait(p.fd, events, 0)
			return n > 0 || e != nil && !errors.Is(e, unix.EINTR)
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:max(0, n)] {
			p.mu.Lock()
			c := p.conns[e.Fd]
			p.mu.Unlock()
			if c == nil {
				continue
			}
			if e.Events&unix.EPOLLOUT != 0 {
				c.full.Store(false)
			}
			if e.Events&^unix.EPOLLOUT != 0 {
				c.sub.reader.raise(flagInput)
			} else {
				c.notify()
			}
		}
	}
}

func (p *poller) close() { p.file.Close() }

// writeSocket bypasses the Go runtime's accounting of system calls. A system
// call that takes longer than 20 µs, as a write over loopback may, loses its
// processor and must wait for another; this one never blocks.
func writeSocket(fd int, p []byte) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func readSocket(fd int, p []byte) (int, error) { return unix.Read(fd, p) }

package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// listen returns the socket to serve on. One that the supervisor itself listens
// on wins over the configured address. One that it keeps for us is used as long
// as the setting still names its address; a new one is given to it to keep.
func listen(addr config.Address, s Supervisor, n *notifier) (net.Listener, error) {
	var kept net.Listener
	stale := false // a kept socket is of no use
	for _, in := range s.Sockets {
		l, err := inherited(in)
		switch {
		case err != nil && in.Name == storedName:
			stale = true
			n.log.Warn("the kept socket cannot be used", "err", err)
		case err != nil:
			return nil, fmt.Errorf("use the inherited socket %q: %w", in.Name, err)
		case in.Name != storedName:
			if kept != nil {
				kept.Close()
				n.forget()
			}
			return l, nil
		case kept != nil || !stillAt(l.Addr(), addr):
			l.Close()
			stale = true
		default:
			kept = l
		}
	}
	if kept != nil {
		return kept, nil
	}
	if stale {
		n.forget() // else its address would go on taking connections that nobody answers
	}
	l, err := bind(addr)
	if err != nil {
		return nil, err
	}
	n.keep(l)
	return l, nil
}

// inherited makes a listener of a descriptor that the supervisor passed on.
func inherited(in Inherited) (net.Listener, error) {
	f := os.NewFile(uintptr(in.FD), in.Name)
	if f == nil {
		return nil, fmt.Errorf("descriptor %d is not open", in.FD)
	}
	defer f.Close() // the listener has a copy, which programs that we start do not get
	return net.FileListener(f)
}

// stillAt reports whether a socket bound earlier is what the setting asks for.
func stillAt(at net.Addr, want config.Address) bool {
	switch at := at.(type) {
	case *net.UnixAddr:
		info, err := os.Lstat(at.Name)
		return want.Network == "unix" && want.Path == at.Name && err == nil && info.Mode().Type() == os.ModeSocket
	case *net.TCPAddr:
		if want.Network == "unix" || want.Port != 0 && want.Port != at.Port {
			return false
		}
		addr, err := net.ResolveTCPAddr("tcp", want.Listen())
		if err != nil {
			return true // a name that is not known just now is no reason to go off the air
		}
		everywhere := len(addr.IP) == 0 || addr.IP.IsUnspecified()
		return everywhere && at.IP.IsUnspecified() || addr.IP.Equal(at.IP)
	}
	return false
}

// bind opens a new socket at the address.
func bind(addr config.Address) (net.Listener, error) {
	if addr.Network == "unix" {
		// A socket file of a server that is gone is in the way; one that
		// answers belongs to somebody.
		if c, err := net.DialTimeout("unix", addr.Path, time.Second); err == nil {
			c.Close()
			return nil, agented.Errorf(agented.Conflict, "another program listens on %s already: end it, or change AGENTED_BIND", addr)
		}
		if info, err := os.Lstat(addr.Path); err == nil && info.Mode().Type() == os.ModeSocket {
			if err := os.Remove(addr.Path); err != nil {
				return nil, fmt.Errorf("remove an old socket: %w", err)
			}
		}
	}
	l, err := net.Listen(addr.Network, addr.Listen())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, agented.Errorf(agented.Conflict, "another program listens on %s already: end it, or change AGENTED_BIND", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, agented.Errorf(agented.Denied, "this user may not listen on %s: use a port above 1023, or change AGENTED_BIND", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, agented.Errorf(agented.Invalid, "%s is not an address of this machine: change AGENTED_BIND", addr)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if addr.Network == "unix" {
		if err := os.Chmod(addr.Path, 0o600); err != nil {
			l.Close()
			return nil, fmt.Errorf("protect the socket: %w", err)
		}
	}
	return l, nil
}

// connections counts the open connections of an http.Server, so that a drain
// can wait for the last one. net/http's own Shutdown drops a request that was
// read just after it began; closing the listener first and waiting here does
// not.
type connections struct {
	mu   sync.Mutex // guards open and zero
	open map[net.Conn]bool
	zero chan struct{} // closed when nothing is open, while somebody waits
}

// opened and closed follow http.ConnState.
func (c *connections) opened(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[net.Conn]bool{}
	}
	c.open[conn] = true
}

func (c *connections) closed(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	if len(c.open) == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// count is how many connections are open.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// wait returns when no connection is open, or ctx ends.
func (c *connections) wait(ctx context.Context) error {
	c.mu.Lock()
	if len(c.open) == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

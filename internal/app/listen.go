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

// listen returns the socket to serve on. A socket on which the service manager itself listens
// takes precedence over the configured address. A socket that the service manager keeps for this
// server is used if the setting still has its address; a new socket is passed to it to keep.
func listen(addr config.Address, s Supervisor, n *notifier) (net.Listener, error) {
	var kept net.Listener
	stale := false // a kept socket was not usable
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
		n.forget() // otherwise its address would accept connections that nothing answers
	}
	l, err := bind(addr)
	if err != nil {
		return nil, err
	}
	n.storeSocket(l)
	return l, nil
}

// inherited returns a listener for a descriptor that the service manager passed.
func inherited(in Inherited) (net.Listener, error) {
	f := os.NewFile(uintptr(in.FD), in.Name)
	if f == nil {
		return nil, fmt.Errorf("descriptor %d is not open", in.FD)
	}
	defer f.Close() // the listener uses a copy, which child processes do not inherit
	return net.FileListener(f)
}

// stillAt reports whether the address of a kept socket matches the setting.
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
			return true // a temporary name resolution failure is no reason to stop listening
		}
		everywhere := len(addr.IP) == 0 || addr.IP.IsUnspecified()
		return everywhere && at.IP.IsUnspecified() || addr.IP.Equal(at.IP)
	}
	return false
}

// bind opens a new socket at the address.
func bind(addr config.Address) (net.Listener, error) {
	if addr.Network == "unix" {
		// The socket file of a server that has ended must be removed; one that answers is in use.
		if c, err := net.DialTimeout("unix", addr.Path, time.Second); err == nil {
			c.Close()
			return nil, agented.Errorf(agented.Conflict, "another program already listens on %s: stop it, or change AGENTED_BIND", addr)
		}
		if info, err := os.Lstat(addr.Path); err == nil && info.Mode().Type() == os.ModeSocket {
			if err := os.Remove(addr.Path); err != nil {
				return nil, fmt.Errorf("remove the old socket: %w", err)
			}
		}
	}
	l, err := net.Listen(addr.Network, addr.Listen())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, agented.Errorf(agented.Conflict, "another program already listens on %s: stop it, or change AGENTED_BIND", addr)
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

// connections counts the open connections of an http.Server, so that a shutdown can wait for the
// last one. The Shutdown of net/http drops a request that was read just after it began; closing
// the listener first and waiting here does not.
type connections struct {
	mu   sync.Mutex // guards open and zero
	open map[net.Conn]bool
	zero chan struct{} // if not nil, closed when no connection is open
}

// opened and closed are called on changes of http.ConnState.
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

// count returns the number of open connections.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// wait returns when no connection is open or ctx ends.
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

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

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// listen returns the socket to serve on: an inherited one wins over the
// configured address.
func listen(addr config.Address) (net.Listener, error) {
	inherited, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("use the inherited socket: %w", err)
	}
	for _, l := range inherited {
		if l != nil {
			return l, nil
		}
	}
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

package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/localsocket"
)

// localRetry is the interval for attempts to reach the local socket of a server that restarts.
const localRetry = 50 * time.Millisecond

// dialLocal connects to a local socket. The socket does not exist between two servers. If the
// address of the server accepts connections meanwhile, its service manager keeps it for the next
// server, and dialLocal waits for that one.
func dialLocal(ctx context.Context, socket, address string, within time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		conn, err := localsocket.Dial(ctx, socket)
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, os.ErrPermission):
			return nil, agented.Errorf(agented.Denied,
				"the local socket %s is for the user of the server and root: run the command as that user, or set AGENTED_API_KEY", socket).Because(err)
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED):
			return nil, err
		}
		if !accepts(ctx, address) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(localRetry):
		}
	}
}

// interrupted reports whether a connection ended before the answer.
func interrupted(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// accepts reports whether connections to the address of a server are accepted.
func accepts(ctx context.Context, address string) bool {
	network, at := "tcp", ""
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, at = "unix", path
	} else if u, err := url.Parse(address); err == nil {
		at = u.Host
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, at)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

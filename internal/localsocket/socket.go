// Package localsocket is the Unix socket on which a server knows the process of
// each caller. The kernel reports the process, so the socket needs no key.
//
// Processes of the server's user and of root may use it, except those that
// belong to an execution: an agent runs as the server's user.
package localsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
)

// Listener accepts connections and identifies their processes.
type Listener struct {
	l    *net.UnixListener
	path string
	file os.FileInfo // of the socket, to remove no other
}

// Listen opens the socket at the first of the paths at which that is possible. A
// path may be longer than the address of a socket. Sockets that exist there are
// replaced: the caller holds a lock that makes it the only server.
func Listen(paths ...string) (*Listener, error) {
	var errs []error
	for _, path := range paths {
		l, err := listen(path)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func listen(path string) (*Listener, error) {
	dir, name := filepath.Split(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s exists and is not a socket: remove it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket of an earlier server: %w", err)
		}
	}
	short, release, err := shorten(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(short, name), Net: "unix"})
	if err != nil {
		return nil, err
	}
	u.SetUnlinkOnClose(false) // its address may not be valid any more
	l := &Listener{l: u, path: path}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	if l.file, err = os.Lstat(path); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return l, nil
}

// private returns an error unless other users cannot enter the folder.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("other users can enter the folder %s (mode %04o): run chmod 700 on it", dir, info.Mode().Perm())
	}
	return nil
}

// Path returns the path of the socket.
func (l *Listener) Path() string { return l.path }

// Accept returns the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return newConn(c), nil
}

// Withdraw removes the socket, so that no process connects any more. Processes
// that have connected are still accepted.
func (l *Listener) Withdraw() error {
	if now, err := os.Lstat(l.path); err != nil || !os.SameFile(now, l.file) {
		return nil // it belongs to another server
	}
	return os.Remove(l.path)
}

// Close removes the socket and stops listening.
func (l *Listener) Close() error {
	err := l.Withdraw()
	return errors.Join(err, l.l.Close())
}

// Addr returns the address of the socket.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Conn is a connection of an identified process.
type Conn struct {
	*net.UnixConn
	uid     int
	refused error
	name    func() string
}

// newConn identifies the process immediately: the longer that takes, the more
// likely its id belongs to another process.
func newConn(c *net.UnixConn) *Conn {
	out := &Conn{UnixConn: c, uid: -1, name: func() string { return "unknown" }}
	p, err := peerOf(c)
	if err != nil {
		out.refused = refusal("the process of the connection cannot be identified: %v", err)
		return out
	}
	defer p.close()
	out.uid = p.uid
	out.name = sync.OnceValue(func() string { return userName(p.uid) })
	out.refused = admit(p, os.Geteuid())
	return out
}

// Caller returns the name of the process's user, and the reason if the process
// may not use the server.
func (c *Conn) Caller() (name string, refused error) { return c.name(), c.refused }

func userName(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || u.Username == "" {
		return "uid " + strconv.Itoa(uid)
	}
	return u.Username
}

// Dial connects to the socket at a path of any length.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	dir, name := filepath.Split(path)
	short, release, err := shorten(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(short, name))
}

// maxAddress is the longest path that is used as it is. An address can have 107
// bytes on Linux and 103 on macOS.
const maxAddress = 100

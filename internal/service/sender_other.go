//go:build !linux

package service

import (
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// notifyName names the socket on which the server speaks, in a folder that is
// open to this user only.
func notifyName() (name string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "agented-")
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(dir, "notify"), func() { _ = os.RemoveAll(dir) }, nil
}

// askSender does nothing: the kernel does not say who sends.
func askSender(*net.UnixConn) error { return nil }

func sender(*unix.SocketControlMessage) (int, bool) { return 0, false }

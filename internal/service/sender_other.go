//go:build !linux

package service

import (
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// notifyName names the notification socket, in a folder that only this user can access.
func notifyName() (name string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "agented-")
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(dir, "notify"), func() { _ = os.RemoveAll(dir) }, nil
}

// requestCredentials does nothing: this kernel does not identify the sender.
func requestCredentials(*net.UnixConn) error { return nil }

func sender(*unix.SocketControlMessage) (int, bool) { return 0, false }

package service

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// notifyName names the notification socket. It is abstract, so nothing is left of it when this
// process is killed.
func notifyName() (name string, remove func(), err error) {
	return fmt.Sprintf("@agented-%d-%016x", os.Getpid(), rand.Uint64()), func() {}, nil
}

// requestCredentials makes the kernel add the sender's credentials to each message.
func requestCredentials(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		return err
	}
	return set
}

// sender returns the sender's pid from the kernel's credentials.
func sender(m *unix.SocketControlMessage) (pid int, ok bool) {
	c, err := unix.ParseUnixCredentials(m)
	if err != nil {
		return 0, false
	}
	if c.Pid == 0 {
		return -1, true // in a pid namespace that is not visible
	}
	return int(c.Pid), true
}

package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// orders is the shim's end of the socket to the server.
type orders struct {
	conn     *net.UnixConn
	listener *os.File // of the current order's broker; nil means none, or one in the sandbox
}

// openOrders opens the socket that the process inherited.
func openOrders() (*orders, error) {
	f := os.NewFile(ordersFD, "orders")
	if f == nil {
		return nil, errNotForYou
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, errNotForYou
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errNotForYou
	}
	return &orders{conn: c}, nil
}

// next waits for an order, changes to the folder of the bundle and redirects standard error to
// its log. It returns the lock. An error means that there are no more orders.
func (o *orders) next() (lock *os.File, err error) {
	var mark [1]byte
	room := make([]byte, unix.CmsgSpace(4*4))
	n, size, _, _, err := o.conn.ReadMsgUnix(mark[:], room)
	if err != nil {
		return nil, err
	}
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(room[:size]); err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if n != 1 || mark[0] != orderMark || len(fds) != 3 && len(fds) != 4 {
		return nil, errNotForYou
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if err := unix.Fchdir(fds[0]); err != nil {
		return nil, fmt.Errorf("enter the bundle: %w", err)
	}
	if err := redirect(fds[1], int(os.Stderr.Fd())); err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	if o.listener = nil; len(fds) == 4 {
		o.listener = os.NewFile(uintptr(fds[3]), "broker")
	}
	return os.NewFile(uintptr(fds[2]), "lock"), nil
}

// Read reads the data that follows an order.
func (o *orders) Read(p []byte) (int, error) { return o.conn.Read(p) }

// reply replies to an order. The error is ignored, because the server may have ended.
func (o *orders) reply(a answer) {
	a.Version = Version
	b, _ := json.Marshal(a)
	_, _ = o.conn.Write(append(b, '\n'))
}

// ready leaves the last attempt's folder and log, and asks for another order.
func (o *orders) ready() error {
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := redirect(int(null.Fd()), int(os.Stderr.Fd())); err != nil {
		return err
	}
	_, err = o.conn.Write([]byte(readyLine))
	return err
}

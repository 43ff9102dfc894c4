//go:build !linux

package hub

import (
	"errors"
	"net"
	"syscall"
)

// CanHandOver reports whether the hub can serve a connection without net/http.
func CanHandOver(net.Conn) bool { return false }

type poller struct{}

func newPoller() (*poller, error) { return nil, errors.ErrUnsupported }

func (*poller) adopt(net.Conn) (int, error) { return 0, errors.ErrUnsupported }
func (*poller) watch(*epollConn) error      { return errors.ErrUnsupported }
func (*poller) forget(*epollConn)           {}
func (*poller) run()                        {}
func (*poller) close()                      {}

func writeSocket(int, []byte) (int, error) { return 0, syscall.ENOTSUP }
func readSocket(int, []byte) (int, error)  { return 0, syscall.ENOTSUP }

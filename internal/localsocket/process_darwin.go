package localsocket

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// peer is the process at the other end of a connection.
type peer struct{ uid, pid int }

func peerOf(c *net.UnixConn) (*peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := new(peer)
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p.uid = int(cred.Uid)
		p.pid, failed = unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	})
	return p, errors.Join(err, failed)
}

func (p *peer) close() {}

// gone is false: macOS has no pidfds. The start times are compared.
func (p *peer) gone() bool { return false }

// zombie is the state SZOMB of a process.
const zombie = 5

// look returns the entry of a process.
func look(pid int) (process, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return process{}, err
	}
	start := k.Proc.P_starttime
	return process{
		pid: pid, parent: int(k.Eproc.Ppid), start: uint64(start.Sec)*1_000_000 + uint64(start.Usec),
		name: unix.ByteSliceToString(k.Proc.P_comm[:]), ended: k.Proc.P_stat == zombie,
	}, nil
}

// marked reports whether a process was started with the variables of an
// execution, as far as its environment can be read.
func marked(pid int) bool {
	b, err := unix.SysctlRaw("kern.procargs2", pid)
	return err == nil && bytes.Contains(b, []byte("\x00"+agented.EnvExecution+"="))
}

// confined is false: macOS has no control groups.
func confined(int) bool { return false }

// hiddenProcess reports whether a process without an entry exists.
func hiddenProcess(pid int) (hidden, exists bool) {
	err := unix.Kill(pid, 0)
	return err == nil, err == nil || errors.Is(err, unix.EPERM)
}

// shorten returns a path of a folder that is short enough for the address of a
// socket, valid until release is called.
func shorten(dir string) (short string, release func(), err error) {
	if len(dir) < maxAddress-20 {
		return dir, func() {}, nil
	}
	tmp, err := os.MkdirTemp("/tmp", "ags")
	if err != nil {
		return "", nil, err
	}
	link := filepath.Join(tmp, "d")
	if err := os.Symlink(dir, link); err != nil {
		os.RemoveAll(tmp)
		return "", nil, err
	}
	return link, func() { os.RemoveAll(tmp) }, nil
}

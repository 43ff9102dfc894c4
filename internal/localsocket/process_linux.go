package localsocket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// peer is the process at the other end of a connection.
type peer struct {
	uid, pid int
	pidfd    int // -1 if the kernel has none
}

func peerOf(c *net.UnixConn) (*peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &peer{pidfd: -1}
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p.uid, p.pid = int(cred.Uid), int(cred.Pid)
		// A pidfd (Linux 6.5) never refers to another process that has the pid
		// now.
		pidfd, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		switch {
		case err == nil:
			p.pidfd = pidfd
		case !errors.Is(err, unix.ENOPROTOOPT):
			failed = fmt.Errorf("it has ended: %w", err)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *peer) close() {
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// gone reports whether the process has ended, if the kernel can tell.
func (p *peer) gone() bool {
	if p.pidfd < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// look returns the entry of a process.
func look(pid int) (process, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, err
	}
	// pid (name) state ppid …; the name may contain parentheses.
	from, to := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if from < 0 || to < from {
		return process{}, fmt.Errorf("/proc/%d/stat is damaged", pid)
	}
	fields := strings.Fields(string(b[to+1:]))
	if len(fields) < 20 {
		return process{}, fmt.Errorf("/proc/%d/stat is damaged", pid)
	}
	parent, err := strconv.Atoi(fields[1])
	start, startErr := strconv.ParseUint(fields[19], 10, 64)
	return process{
		pid: pid, parent: parent, start: start, name: string(b[from+1 : to]), ended: fields[0] == "Z" || fields[0] == "X",
	}, errors.Join(err, startErr)
}

// marked reports whether a process was started with the variables of an
// execution, as far as its environment can be read.
func marked(pid int) bool {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 4<<20))
	return bytes.HasPrefix(b, []byte(agented.EnvExecution+"=")) || bytes.Contains(b, []byte("\x00"+agented.EnvExecution+"="))
}

// confined reports whether a process is in the control group of an execution.
func confined(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && bytes.Contains(b, []byte("/"+shimName+"-"))
}

// hiddenProcess reports whether a process without a visible entry exists, and
// whether it belongs to the server's user, as the supervisors of executions do,
// which are hidden where /proc is mounted with hidepid.
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
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), func() { unix.Close(fd) }, nil
}

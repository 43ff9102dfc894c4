package shim

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/runlog"
)

// UseProgram does nothing: macOS has no memory files that can be executed.
func UseProgram(string) {}

// execute starts this program as shim.
func execute(attr *os.ProcAttr) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.StartProcess(self, []string{shimName, "shim"}, attr)
}

// settleIn does nothing: the process name comes from the arguments, code signing protects the
// memory, and macOS has no sub-reaper.
func settleIn() error { return nil }

func adoptOrphans() error { return nil }

// keepDescriptors keeps the CLI from inheriting the orders socket and the descriptors that the
// server itself inherited.
func keepDescriptors() {
	for fd := ordersFD; fd < 4096; fd++ {
		unix.CloseOnExec(fd)
	}
}

// redirect makes a descriptor a copy of another one.
func redirect(from, to int) error { return unix.Dup2(from, to) }

// bootID returns a value that changes with every boot of the machine, or "" if it is unknown.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}

func withChild(*syscall.SysProcAttr, *cgroup) {}

func preferVictim(int) {}

// allocate reserves disk space for size bytes of the file.
func allocate(f *os.File, size int64) error {
	_, err := f.WriteAt(make([]byte, size), 0)
	return err
}

// startSync does nothing: macOS has no call for it.
func startSync(*os.File) {}

// punch does nothing: raw files keep their size until the attempt is finished.
func punch(*os.File, int64, int64) {}

func widenPipe(int) {}

func newPipe() (r, w int, err error) {
	var p [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return 0, 0, err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	return p[0], p[1], nil
}

// peerUID returns the uid of the process at the other end of a Unix socket.
func peerUID(fd int) (int, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(c.Uid), nil
}

// dialUnix connects to a socket in a folder with a name of any length. An address is limited to
// 104 bytes, so a short link to the folder is used.
func dialUnix(dir, name string) (net.Conn, error) {
	if path := filepath.Join(dir, name); len(path) < 100 {
		return net.Dial("unix", path)
	}
	tmp, err := os.MkdirTemp("/tmp", "ags")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	link := filepath.Join(tmp, "b")
	if err := os.Symlink(dir, link); err != nil {
		return nil, err
	}
	return net.Dial("unix", filepath.Join(link, name))
}

// waitOptions makes wait4 non-blocking.
const waitOptions = unix.WNOHANG

// seekData makes lseek find the first bytes that are not a hole.
const seekData = 4

// plainTerminal disables the conversion of "\n" to "\r\n" and the echo of input.
func plainTerminal(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TIOCGETA)
	if err != nil {
		return
	}
	t.Oflag &^= unix.ONLCR
	t.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(fd, unix.TIOCSETA, t)
}

// watchFiles signals the channel when one of the files changes. ok is false if the system cannot
// report changes.
func watchFiles(wake chan<- struct{}, paths ...string) (stop func(), ok bool) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	stop = func() { close(quit); all.Wait() }
	for _, path := range paths {
		w, err := runlog.WatchFile(path)
		if err != nil {
			stop()
			return func() {}, false
		}
		all.Go(func() {
			defer w.Close()
			for {
				select {
				case <-quit:
					return
				case <-w.C():
				}
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		})
	}
	return stop, true
}

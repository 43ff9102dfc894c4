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

// UseProgram does nothing here: there are no files in memory to run.
func UseProgram(string) {}

// execute starts this program as shim.
func execute(attr *os.ProcAttr) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return os.StartProcess(self, []string{shimName, "shim"}, attr)
}

// settleIn has nothing to do: the name comes from the arguments, memory is
// closed to others by code signing, and there is no sub-reaper.
func settleIn() error { return nil }

// keepDescriptors keeps every descriptor from the CLI: the one that orders come
// from, and those that the server itself was given by whoever started it.
func keepDescriptors() {
	for fd := ordersFD; fd < 4096; fd++ {
		unix.CloseOnExec(fd)
	}
}

// redirect makes a descriptor another one's copy.
func redirect(from, to int) error { return unix.Dup2(from, to) }

// bootID changes with every start of the machine. It is empty if unknown.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}

func withChild(*syscall.SysProcAttr, *cgroup) {}

func preferVictim(int) {}

// allocate makes sure that size bytes of the file are on the disk.
func allocate(f *os.File, size int64) error {
	_, err := f.WriteAt(make([]byte, size), 0)
	return err
}

// startSync does nothing: there is no way to ask for that.
func startSync(*os.File) {}

// punch does nothing: the raw files keep their room until the attempt is
// finished.
func punch(*os.File, int64, int64) {}

// freeBytes is the room left for this user on the disk that holds path.
func freeBytes(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

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

// peerUID is the user on the other end of a Unix socket.
func peerUID(fd int) (int, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(c.Uid), nil
}

// dialUnix connects to a socket in a folder, however long the folder's name is:
// the address of a socket has room for 104 bytes only, so a short link leads to
// the folder.
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

// waitOptions asks wait4 not to block.
const waitOptions = unix.WNOHANG

// seekData asks lseek for where the first bytes are that are no hole.
const seekData = 4

// plainTerminal stops the terminal from changing what is printed ("\n" to
// "\r\n") and from printing what is typed: nobody types here.
func plainTerminal(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TIOCGETA)
	if err != nil {
		return
	}
	t.Oflag &^= unix.ONLCR
	t.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(fd, unix.TIOCSETA, t)
}

// watchFiles wakes the channel when one of the files changes. It says that
// something happened, not what. ok is false where the system does not tell.
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

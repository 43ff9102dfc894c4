package shim

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// settleIn sets up this process as a shim: its process name, protection of its memory from
// processes of the same user, and adoption of orphaned descendants.
func settleIn() error {
	// The process name is that of the first thread, which may be another than the current one.
	err := os.WriteFile("/proc/self/comm", []byte(shimName), 0)
	return errors.Join(err,
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		adoptOrphans())
}

func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// keepDescriptors keeps the CLI from inheriting the orders socket and the descriptors that the
// server itself inherited.
func keepDescriptors() {
	if unix.CloseRange(ordersFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	names, _ := os.ReadDir("/proc/self/fd")
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd >= ordersFD {
			unix.CloseOnExec(fd)
		}
	}
}

// redirect makes a descriptor a copy of another one.
func redirect(from, to int) error { return unix.Dup3(from, to, 0) }

// bootID returns a value that changes with every boot of the machine, and in a container with
// every start of the container, because earlier pids are then invalid. It is "" if unknown.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	id := strings.TrimSpace(string(b))
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil {
		id += " " + ns
	}
	return id
})

// withChild sets Linux attributes: the kernel kills the CLI when the thread that started it ends,
// that is, with the shim.
func withChild(a *syscall.SysProcAttr, group *cgroup) {
	a.Pdeathsig = syscall.SIGKILL
	if group != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(group.dir.Fd())
	}
}

// preferVictim makes the OOM killer choose the process before the server and its database.
func preferVictim(pid int) {
	os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
}

// allocate reserves disk space for size bytes of the file.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, size), 0)
	}
	return err
}

// startSync starts the writeback of the file. It is a hint only; Sync must follow.
func startSync(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// punch frees the disk space of the file's first bytes. Offsets stay the same.
func punch(f *os.File, from, to int64) {
	if to > from {
		unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
}

// widenPipe sets the capacity of a pipe to 1 MiB, if the system permits.
func widenPipe(fd int) { unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20) }

func newPipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	return p[0], p[1], err
}

// peerUID returns the uid of the process at the other end of a Unix socket.
func peerUID(fd int) (int, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(c.Uid), nil
}

// dialUnix connects to a socket in a folder with a name of any length; an address is limited to
// 108 bytes.
func dialUnix(dir, name string) (net.Conn, error) {
	if path := filepath.Join(dir, name); len(path) < 100 {
		return net.Dial("unix", path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return net.Dial("unix", "/proc/self/fd/"+strconv.Itoa(fd)+"/"+name)
}

// waitOptions makes wait4 non-blocking and include children of every kind.
const waitOptions = unix.WNOHANG | unix.WALL

// seekData makes lseek find the first bytes that are not a hole.
const seekData = unix.SEEK_DATA

// plainTerminal disables the conversion of "\n" to "\r\n" and the echo of input.
func plainTerminal(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Oflag &^= unix.ONLCR
	t.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// watchFiles signals the channel when one of the files changes. ok is false if the system cannot
// report changes.
func watchFiles(wake chan<- struct{}, paths ...string) (stop func(), ok bool) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return func() {}, false
	}
	for _, path := range paths {
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return func() {}, false
		}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b [4096]byte
		for {
			if _, err := f.Read(b[:]); err != nil {
				return
			}
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}()
	return func() { f.Close(); <-done }, true
}

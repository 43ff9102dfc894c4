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

// settleIn makes this process a shim to the kernel: its name tells it apart in
// a process list, nobody of the same user can read its memory, and descendants
// that lose their parent become its children.
func settleIn() error {
	// The name of the process is that of its first thread, and this is not
	// bound to be it.
	err := os.WriteFile("/proc/self/comm", []byte(shimName), 0)
	return errors.Join(err,
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0),
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

// keepDescriptors keeps every descriptor from the CLI: the one that orders come
// from, and those that the server itself was given by whoever started it.
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

// redirect makes a descriptor another one's copy.
func redirect(from, to int) error { return unix.Dup3(from, to, 0) }

// bootID changes with every start of the machine, and in a container with every
// start of that: pids of another one mean nothing. It is empty if unknown.
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

// withChild sets what only this system has: the CLI dies when the thread that
// started it does, which is when the shim does.
func withChild(a *syscall.SysProcAttr, group *cgroup) {
	a.Pdeathsig = syscall.SIGKILL
	if group != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(group.dir.Fd())
	}
}

// preferVictim makes the process the first to go when memory runs out, before
// the server and its database.
func preferVictim(pid int) {
	os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
}

// allocate makes sure that size bytes of the file are on the disk.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.WriteAt(make([]byte, size), 0)
	}
	return err
}

// startSync has the disk begin with what was written to the file. It is an advice:
// what counts is the Sync behind it.
func startSync(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// punch gives the room of the file's first bytes back. Offsets stay.
func punch(f *os.File, from, to int64) {
	if to > from {
		unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
}

// freeBytes is the room left for this user on the disk that holds path.
func freeBytes(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// widenPipe lets a pipe hold 1 MiB. Where that is refused it stays as it is.
func widenPipe(fd int) { unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20) }

func newPipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	return p[0], p[1], err
}

// peerUID is the user on the other end of a Unix socket.
func peerUID(fd int) (int, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(c.Uid), nil
}

// dialUnix connects to a socket in a folder, however long the folder's name is:
// the address of a socket has room for 108 bytes only.
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

// waitOptions asks wait4 for children of every kind, and not to block.
const waitOptions = unix.WNOHANG | unix.WALL

// seekData asks lseek for where the first bytes are that are no hole.
const seekData = unix.SEEK_DATA

// plainTerminal stops the terminal from changing what is printed ("\n" to
// "\r\n") and from printing what is typed: nobody types here.
func plainTerminal(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Oflag &^= unix.ONLCR
	t.Lflag &^= unix.ECHO
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// watchFiles wakes the channel when one of the files changes. It says that
// something happened, not what. ok is false where the system does not tell.
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

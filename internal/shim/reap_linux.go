package shim

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// process is one entry of the process table.
type process struct {
	pid, parent, group int
	start              uint64 // together with pid it identifies a process uniquely
	stopped            bool
	leaderless         bool // its first thread has exited, but others run
}

// processes reads the process table, without zombies. The kernel lists a process whose first
// thread has exited as a zombie, although its other threads run; such a process is included.
// Processes that exit during the scan are omitted.
func processes() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []process
	buf := make([]byte, 1024)
	for _, name := range names {
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		if p, ok := readStat(name, buf); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// lookUp finds one process; it returns false if there is none with that pid, or only a zombie.
func lookUp(pid int) (process, bool) {
	return readStat(strconv.Itoa(pid), make([]byte, 1024))
}

func readStat(pid string, buf []byte) (p process, ok bool) {
	// System calls, because an os.File per process would dominate the cost.
	fd, err := unix.Open("/proc/"+pid+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, false
	}
	n, err := unix.Read(fd, buf)
	unix.Close(fd)
	// The program's name is in parentheses and may contain any byte, including a parenthesis.
	at := bytes.LastIndexByte(buf[:max(n, 0)], ')')
	if err != nil || at < 0 {
		return p, false
	}
	fields := bytes.Fields(buf[at+1 : n])
	if len(fields) < 20 || fields[0][0] == 'X' {
		return p, false
	}
	number := func(i int) int {
		v, _ := strconv.Atoi(string(fields[i]))
		return v
	}
	const threads = 17 // field 20, num_threads
	if fields[0][0] == 'Z' {
		if number(threads) <= 1 {
			return p, false
		}
		p.leaderless = true
	}
	p.pid, _ = strconv.Atoi(pid)
	p.parent, p.group = number(1), number(2)
	p.stopped = fields[0][0] == 'T' || fields[0][0] == 't'
	if p.leaderless {
		p.stopped = threadsStopped(pid)
	}
	p.start, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	return p, true
}

// threadsStopped reports whether every running thread of a process is stopped.
func threadsStopped(pid string) bool {
	stopped := false
	for _, tid := range liveThreads(pid) {
		b, _ := readSome(tid+"/stat", 1024)
		at := bytes.LastIndexByte(b, ')')
		if at < 0 || at+2 >= len(b) {
			continue // it exited during the scan
		}
		switch b[at+2] {
		case 'T', 't':
			stopped = true
		case 'Z', 'X':
		default:
			return false
		}
	}
	return stopped
}

// liveThreads lists the /proc folders of a process's threads, without the first one.
func liveThreads(pid string) []string {
	entries, _ := os.ReadDir("/proc/" + pid + "/task")
	var out []string
	for _, e := range entries {
		if e.Name() != pid {
			out = append(out, "/proc/"+pid+"/task/"+e.Name())
		}
	}
	return out
}

// folder returns the /proc folder that describes the process. The first thread of a process loses
// its command line and environment when it exits; the other threads keep them.
func (p process) folder() string {
	pid := strconv.Itoa(p.pid)
	if p.leaderless {
		if threads := liveThreads(pid); len(threads) > 0 {
			return threads[0]
		}
	}
	return "/proc/" + pid
}

// family finds the descendants of this process. On Linux it needs no memory: the shim adopts
// orphans, so the process tree contains all of them.
type family struct{ root int }

func newFamily(root, _ int) *family { return &family{root: root} }

// scan does nothing on Linux.
func (f *family) scan() {}

// members lists the living descendants, parents before children.
func (f *family) members() ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	return descendants(all, []int{f.root}), nil
}

// descendants selects the descendants of the roots from the table, without the roots.
func descendants(all []process, roots []int) []process {
	in := make(map[int]bool, len(roots))
	for _, r := range roots {
		in[r] = true
	}
	var found []process
	for again := true; again; {
		again = false
		for _, p := range all {
			if in[p.parent] && !in[p.pid] {
				in[p.pid] = true
				found = append(found, p)
				again = true
			}
		}
	}
	slices.SortFunc(found, func(a, b process) int {
		if a.start != b.start {
			if a.start < b.start {
				return -1
			}
			return 1
		}
		return a.pid - b.pid
	})
	return found
}

// signal sends a signal to exactly this process, even if its pid has been reused.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		if now, ok := lookUp(p.pid); !ok || now.start != p.start {
			return unix.ESRCH
		}
		return unix.Kill(p.pid, sig)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, ok := lookUp(p.pid); !ok || now.start != p.start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// commandLine returns the command line for display.
func (p process) commandLine() string {
	dir := p.folder()
	b, _ := readSome(dir+"/cmdline", 4096)
	if b = bytes.TrimRight(b, "\x00"); len(b) == 0 {
		b, _ = readSome(dir+"/comm", 64)
		return string(bytes.TrimSpace(b))
	}
	return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
}

// marked reports whether the process was started with the variable, given as NAME=VALUE. It
// returns false if the environment cannot be read.
func (p process) marked(variable string) bool {
	b, err := os.ReadFile(p.folder() + "/environ")
	if err != nil {
		return false
	}
	return bytes.HasPrefix(b, []byte(variable+"\x00")) || bytes.Contains(b, []byte("\x00"+variable+"\x00"))
}

// onlyChild returns the pid of a process's only child; it returns 0 if it has none, several, or
// the kernel does not list them.
func onlyChild(pid int) int {
	text := strconv.Itoa(pid)
	b, _ := readSome("/proc/"+text+"/task/"+text+"/children", 64)
	fields := bytes.Fields(b)
	if len(fields) != 1 {
		return 0
	}
	child, _ := strconv.Atoi(string(fields[0]))
	return child
}

// readSome reads at most n bytes of a file.
func readSome(path string, n int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	n, err = f.Read(b)
	return b[:max(n, 0)], err
}

// treeByChildren is true: with a sub-reaper, a process without children has no descendants.
const treeByChildren = true

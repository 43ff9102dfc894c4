package shim

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// process is one line of the process table.
type process struct {
	pid, parent, group int
	start              uint64 // together with pid it names one process for ever
	stopped            bool
}

// processes reads the process table, without zombies. What ends meanwhile is
// left out.
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

// lookUp finds one process; false if there is none of that pid, or a zombie.
func lookUp(pid int) (process, bool) {
	return readStat(strconv.Itoa(pid), make([]byte, 1024))
}

func readStat(pid string, buf []byte) (p process, ok bool) {
	// Plain system calls: an os.File for each process would be most of the work.
	fd, err := unix.Open("/proc/"+pid+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, false
	}
	n, err := unix.Read(fd, buf)
	unix.Close(fd)
	// The program's name is in brackets and may hold any byte, a bracket too.
	at := bytes.LastIndexByte(buf[:max(n, 0)], ')')
	if err != nil || at < 0 {
		return p, false
	}
	fields := bytes.Fields(buf[at+1 : n])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return p, false
	}
	number := func(i int) int {
		v, _ := strconv.Atoi(string(fields[i]))
		return v
	}
	p.pid, _ = strconv.Atoi(pid)
	p.parent, p.group = number(1), number(2)
	p.stopped = fields[0][0] == 'T' || fields[0][0] == 't'
	p.start, _ = strconv.ParseUint(string(fields[19]), 10, 64)
	return p, true
}

// family keeps track of the descendants of this process. It needs no memory
// here: orphans come back to the shim, so that the tree holds all.
type family struct{ root int }

func newFamily(root, _ int) *family { return &family{root: root} }

// look has nothing to note.
func (f *family) look() {}

// members lists the living descendants, parents before children.
func (f *family) members() ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	return descendants(all, []int{f.root}), nil
}

// descendants picks from the table what descends from the roots, which are not
// part of the answer.
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

// signal sends a signal to exactly this process: not to another one that got
// its pid meanwhile.
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

// commandLine is what the process was called with, for people.
func (p process) commandLine() string {
	dir := "/proc/" + strconv.Itoa(p.pid)
	b, _ := readSome(dir+"/cmdline", 4096)
	if b = bytes.TrimRight(b, "\x00"); len(b) == 0 {
		b, _ = readSome(dir+"/comm", 64)
		return string(bytes.TrimSpace(b))
	}
	return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
}

// marked reports whether the process was started with the variable, given as
// NAME=VALUE. What cannot be read was not.
func (p process) marked(variable string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	if err != nil {
		return false
	}
	return bytes.HasPrefix(b, []byte(variable+"\x00")) || bytes.Contains(b, []byte("\x00"+variable+"\x00"))
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

// treeByChildren: with a sub-reaper, no child means no descendant.
const treeByChildren = true

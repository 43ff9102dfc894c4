package shim

import (
	"bytes"
	"slices"

	"golang.org/x/sys/unix"
)

// process is one entry of the process table.
type process struct {
	pid, parent, group int
	start              uint64 // microseconds; together with pid it identifies a process uniquely
	comm               string
	stopped            bool
}

// From sys/proc.h: SSTOP and SZOMB.
const (
	standing = 4
	zombie   = 5
)

// processes reads the process table, without zombies.
func processes() ([]process, error) {
	table, err := unix.SysctlKinfoProcSlice("kern.proc.all")
	if err != nil {
		return nil, err
	}
	all := make([]process, 0, len(table))
	for i := range table {
		if table[i].Proc.P_stat != zombie {
			all = append(all, fromKinfo(&table[i]))
		}
	}
	return all, nil
}

func fromKinfo(k *unix.KinfoProc) process {
	comm := k.Proc.P_comm[:]
	if end := bytes.IndexByte(comm, 0); end >= 0 {
		comm = comm[:end]
	}
	return process{
		pid: int(k.Proc.P_pid), parent: int(k.Eproc.Ppid), group: int(k.Eproc.Pgid),
		start: uint64(k.Proc.P_starttime.Sec)*1e6 + uint64(k.Proc.P_starttime.Usec),
		comm:  string(comm), stopped: k.Proc.P_stat == standing,
	}
}

// lookUp finds one process; it returns false if there is none with that pid, or only a zombie.
func lookUp(pid int) (process, bool) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || k.Proc.P_stat == zombie || int(k.Proc.P_pid) != pid {
		return process{}, false
	}
	return fromKinfo(k), true
}

// family tracks the descendants of this process. On macOS launchd adopts orphans, and the process
// table no longer shows their origin, so observed descendants are remembered.
type family struct {
	root, group int
	seen        map[int]uint64 // start time by pid
}

func newFamily(root, leader int) *family {
	return &family{root: root, group: leader, seen: map[int]uint64{}}
}

// scan records the current descendants of the root.
func (f *family) scan() { f.members() }

// members lists the living descendants, parents before children.
func (f *family) members() ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	living := map[int]uint64{}
	roots := []int{f.root}
	var found []process
	for _, p := range all {
		if start, ok := f.seen[p.pid]; p.pid != f.root && (ok && start == p.start || p.group == f.group) {
			living[p.pid] = p.start
			roots = append(roots, p.pid)
			found = append(found, p)
		}
	}
	for _, p := range descendants(all, roots) {
		living[p.pid] = p.start
		found = append(found, p)
	}
	f.seen = living
	return found, nil
}

// descendants selects the descendants of the roots from the table, without the roots.
func descendants(all []process, roots []int) []process {
	var found []process
	in := map[int]bool{}
	for _, r := range roots {
		in[r] = true
	}
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
	slices.SortFunc(found, func(a, b process) int { return int(int64(a.start - b.start)) })
	return found
}

// signal sends a signal to this process, if its pid has not been reused.
func (p process) signal(sig unix.Signal) error {
	if now, ok := lookUp(p.pid); !ok || now.start != p.start {
		return unix.ESRCH
	}
	return unix.Kill(p.pid, sig)
}

// commandLine returns the command line for display.
func (p process) commandLine() string {
	if args, _, ok := p.procargs(); ok && len(args) > 0 {
		return string(bytes.Join(args, []byte{' '}))
	}
	return p.comm
}

// marked reports whether the process was started with the variable, given as NAME=VALUE. It
// returns false if the environment cannot be read.
func (p process) marked(variable string) bool {
	_, env, ok := p.procargs()
	return ok && slices.ContainsFunc(env, func(e []byte) bool { return string(e) == variable })
}

// procargs reads arguments and environment: a count, the program's path, padding, then strings.
func (p process) procargs() (args, env [][]byte, ok bool) {
	b, err := unix.SysctlRaw("kern.procargs2", p.pid)
	if err != nil || len(b) < 5 {
		return nil, nil, false
	}
	count := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	b = b[4:]
	path := bytes.IndexByte(b, 0)
	if path < 0 {
		return nil, nil, false
	}
	texts := bytes.Split(bytes.TrimLeft(b[path:], "\x00"), []byte{0})
	if count > len(texts) {
		return nil, nil, false
	}
	return texts[:count], texts[count:], true
}

// treeByChildren is false: orphans do not become children of the shim.
const treeByChildren = false

// onlyChild returns 0: macOS needs a scan of the process table for that.
func onlyChild(int) int { return 0 }

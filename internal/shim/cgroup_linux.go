package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is the CLI's own control group, if the system permits one. A process cannot leave it by
// forking, so one write kills all of them.
type cgroup struct {
	path string
	dir  *os.File

	memory    int64 // memory limit in bytes; 0 means none
	processes int
}

const (
	cgroupPrefix = "agshim-"
	serverGroup  = "server" // of the server and the shims, next to the groups of attempts
)

// newCgroup creates a control group next to this process's, if its parent was delegated;
// otherwise it returns nil, and the process tree is used.
func newCgroup(name string) *cgroup {
	parent, err := ownCgroup()
	if err != nil || !delegated(parent) {
		return nil
	}
	path := filepath.Join(parent, cgroupPrefix+name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		os.Remove(path)
		return nil
	}
	return &cgroup{path: path, dir: dir}
}

// ownCgroup returns the cgroup v2 folder in which groups of attempts are created. If the unit
// puts the server into a leaf (DelegateSubgroup=server), it is the parent of that leaf, because a
// group cannot contain both processes and controlled groups.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own, found := "", false
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			own, found = path, true
		}
	}
	if !found {
		return "", errors.New("no cgroup v2")
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			path := filepath.Join(root, own)
			if filepath.Base(path) == serverGroup {
				path = filepath.Dir(path)
			}
			return path, nil
		}
	}
	return "", errors.New("cgroup v2 is not mounted")
}

// delegated reports whether the control group was delegated to this process: it belongs to this
// user, who is not root, or the service manager marked it. Root can write everywhere, which is no
// permission to change a group.
func delegated(path string) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return false
	}
	if uid := os.Geteuid(); uid != 0 {
		return int(st.Uid) == uid
	}
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		var v [8]byte
		if n, err := unix.Getxattr(path, name, v[:]); err == nil && string(v[:n]) == "1" {
			return true
		}
	}
	return false
}

func (c *cgroup) folder() string {
	if c == nil {
		return ""
	}
	return c.path
}

// kill kills every process in the group and reports whether that was possible.
func (c *cgroup) kill() bool {
	return c != nil && os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0) == nil
}

// freeze stops or resumes all processes in the group and reports whether that was possible.
func (c *cgroup) freeze(still bool, patience time.Duration) bool {
	if c == nil {
		return false
	}
	word, want := "0", "frozen 0"
	if still {
		word, want = "1", "frozen 1"
	}
	if os.WriteFile(filepath.Join(c.path, "cgroup.freeze"), []byte(word), 0) != nil {
		return false
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(c.path, "cgroup.events"))
		switch {
		case err == nil && strings.Contains(string(b), want):
			return true
		case err != nil || time.Now().After(deadline):
			if still {
				_ = os.WriteFile(filepath.Join(c.path, "cgroup.freeze"), []byte("0"), 0)
			}
			return !still
		}
	}
}

// remove deletes the group, which must be empty.
func (c *cgroup) remove() {
	if c != nil {
		c.dir.Close()
		removeCgroup(c.path)
	}
}

// removeCgroup deletes a group and the groups that the CLI created in it.
func removeCgroup(path string) {
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(path, e.Name()))
		}
	}
	unix.Rmdir(path)
}

// openCgroup opens the control group of an attempt whose shim has ended. It verifies the name,
// because everything in the group will be killed.
func openCgroup(path, name string) *cgroup {
	if filepath.Base(path) != cgroupPrefix+name || !strings.HasPrefix(path, "/sys/fs/cgroup/") {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	return &cgroup{path: path, dir: dir}
}

// pids lists the processes in the group, without nested groups.
func (c *cgroup) pids() []int {
	if c == nil {
		return nil
	}
	b, _ := os.ReadFile(filepath.Join(c.path, "cgroup.procs"))
	var pids []int
	for f := range bytes.FieldsSeq(b) {
		pid := 0
		if _, err := fmt.Sscan(string(f), &pid); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

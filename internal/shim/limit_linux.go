package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agented/agented/internal/format"
)

// limit sets the memory and process limits of the group; 0 means no limit. It returns the limits
// that the system does not support: "memory", "processes".
func (c *cgroup) limit(memory int64, processes int) (missing []string) {
	if memory == 0 && processes == 0 {
		return nil
	}
	if c != nil {
		c.enableControllers()
	}
	if memory > 0 {
		if c.set("memory.max", strconv.FormatInt(memory, 10)) {
			_ = c.set("memory.swap.max", "0") // missing without swap
			c.memory = memory
		} else {
			missing = append(missing, "memory")
		}
	}
	if processes > 0 {
		if c.set("pids.max", strconv.Itoa(processes)) {
			c.processes = processes
		} else {
			missing = append(missing, "processes")
		}
	}
	return missing
}

// enableControllers enables the controllers that limits need. It requires that the unit has a
// subgroup for the server: systemd could not restart the service in a group that contains both
// processes and controlled groups.
func (c *cgroup) enableControllers() {
	parent := filepath.Dir(c.path)
	if _, err := os.Stat(filepath.Join(parent, serverGroup)); err != nil {
		return
	}
	for _, name := range []string{"memory", "pids"} {
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+name), 0)
	}
}

// set writes a file of the group and reports whether that was possible.
func (c *cgroup) set(name, value string) bool {
	if c == nil {
		return false
	}
	f, err := os.OpenFile(filepath.Join(c.path, name), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	_, err = f.WriteString(value)
	return f.Close() == nil && err == nil
}

// event returns a counter from one of the group's event files, or 0 if there is none.
func (c *cgroup) event(file, name string) int64 {
	if c == nil {
		return 0
	}
	b, _ := os.ReadFile(filepath.Join(c.path, file))
	for line := range bytes.Lines(b) {
		if text, ok := strings.CutPrefix(string(bytes.TrimSpace(line)), name+" "); ok {
			n, _ := strconv.ParseInt(text, 10, 64)
			return n
		}
	}
	return 0
}

// reachedLimits describes the limits that were reached, in sentences without a period. killed is
// the one about memory, if the kernel has killed processes for it.
func (c *cgroup) reachedLimits() (killed string, all []string) {
	if c == nil {
		return "", nil
	}
	if n := c.event("memory.events", "oom_kill"); c.memory > 0 && n > 0 {
		killed = "the kernel killed it because the execution used more memory than its limit of " + format.Bytes(c.memory) + " (AGENTED_MAX_MEMORY)"
		all = append(all, fmt.Sprintf("The kernel killed %d of its processes, because it used more memory than its limit of %s (AGENTED_MAX_MEMORY)", n, format.Bytes(c.memory)))
	}
	if n := c.event("pids.events", "max"); c.processes > 0 && n > 0 {
		all = append(all, fmt.Sprintf("Processes could not be started %d times, because it had reached its limit of %d processes (AGENTED_MAX_PROCESSES)", n, c.processes))
	}
	return killed, all
}

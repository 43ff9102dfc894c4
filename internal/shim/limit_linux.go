package shim

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/format"
)

// cpuWeight is the limit that lowerPriority can stand in for.
const cpuWeight = "cpu weight"

// limit sets the limits of a spec for the group; 0 means no limit. It returns the limits that the
// system does not support: "memory", "processes" and cpuWeight.
func (c *cgroup) limit(s *Spec) (missing []string) {
	if s.MaxMemory == 0 && s.MaxProcesses == 0 && s.CPUWeight == 0 {
		return nil
	}
	if c != nil {
		c.enableControllers()
	}
	if s.MaxMemory > 0 {
		if c.set("memory.max", strconv.FormatInt(s.MaxMemory, 10)) {
			_ = c.set("memory.swap.max", strconv.FormatInt(s.MaxSwap, 10)) // missing without swap
			c.memory = s.MaxMemory
		} else {
			missing = append(missing, "memory")
		}
	}
	if s.MaxProcesses > 0 {
		if c.set("pids.max", strconv.Itoa(s.MaxProcesses)) {
			c.processes = s.MaxProcesses
		} else {
			missing = append(missing, "processes")
		}
	}
	if s.CPUWeight > 0 && !c.set("cpu.weight", strconv.Itoa(s.CPUWeight)) {
		missing = append(missing, cpuWeight)
	}
	return missing
}

// lowerPriority stands in for a weight below the system's default of 100 that the group could not
// hold: it raises the nice value of the CLI, which its children inherit. It returns what is still
// missing.
func lowerPriority(s *Spec, pid int, missing []string) []string {
	at := slices.Index(missing, cpuWeight)
	if at < 0 || s.CPUWeight >= 100 {
		return missing
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 minus the nice value
	if err != nil || unix.Setpriority(unix.PRIO_PROCESS, pid, min(20-raw+niceFor(s.CPUWeight), 19)) != nil {
		return missing
	}
	return slices.Delete(missing, at, at+1)
}

// niceFor returns the increase of the nice value whose share of a processor is that of a weight below 100. The
// kernel gives a process with a nice value of one more 1.25 times less.
func niceFor(weight int) int {
	return min(int(math.Round(math.Log(100/float64(weight))/math.Log(1.25))), 19)
}

// enableControllers enables the controllers that limits need. It requires that the unit has a
// subgroup for the server: systemd could not restart the service in a group that contains both
// processes and controlled groups.
func (c *cgroup) enableControllers() {
	parent := filepath.Dir(c.path)
	if _, err := os.Stat(filepath.Join(parent, serverGroup)); err != nil {
		return
	}
	for _, name := range []string{"memory", "pids", "cpu"} {
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
		killed = "the kernel killed it because the execution used more memory than its limit of " + format.Bytes(c.memory) + " (limits.memory or AGENTED_MAX_MEMORY)"
		all = append(all, fmt.Sprintf("The kernel killed %d of its processes, because it used more memory than its limit of %s (limits.memory or AGENTED_MAX_MEMORY)", n, format.Bytes(c.memory)))
	}
	if n := c.event("pids.events", "max"); c.processes > 0 && n > 0 {
		all = append(all, fmt.Sprintf("Processes could not be started %d times, because it had reached its limit of %d processes (limits.pids or AGENTED_MAX_PROCESSES)", n, c.processes))
	}
	return killed, all
}

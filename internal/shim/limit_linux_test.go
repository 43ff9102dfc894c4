package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// fakeGroup is a folder with the files of a control group in which these controllers are enabled.
func fakeGroup(t *testing.T, files map[string]string) *cgroup {
	t.Helper()
	parent := t.TempDir()
	c := &cgroup{path: filepath.Join(parent, cgroupPrefix+"x")}
	for _, dir := range []string{c.path, filepath.Join(parent, serverGroup)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	files["../cgroup.subtree_control"] = ""
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(c.path, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestLimits(t *testing.T) {
	t.Run("are_written_to_the_group", func(t *testing.T) {
		c := fakeGroup(t, map[string]string{"memory.max": "", "memory.swap.max": "", "pids.max": "", "cpu.weight": ""})
		if missing := c.limit(&Spec{MaxMemory: 2 << 30, MaxSwap: 1 << 20, MaxProcesses: 500, CPUWeight: 50}); missing != nil {
			t.Errorf("missing: %q", missing)
		}
		for name, want := range map[string]string{"memory.max": "2147483648", "memory.swap.max": "1048576", "pids.max": "500", "cpu.weight": "50"} {
			if got, _ := os.ReadFile(filepath.Join(c.path, name)); string(got) != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got, _ := os.ReadFile(filepath.Join(c.path, "../cgroup.subtree_control")); !strings.HasPrefix(string(got), "+") {
			t.Errorf("controllers: %q", got)
		}
	})
	t.Run("without_a_subgroup_of_the_server_enable_nothing", func(t *testing.T) {
		c := fakeGroup(t, map[string]string{})
		if err := os.Remove(filepath.Join(c.path, "..", serverGroup)); err != nil {
			t.Fatal(err)
		}
		if missing := c.limit(&Spec{MaxMemory: 1 << 30, MaxProcesses: 1, CPUWeight: 1}); len(missing) != 3 {
			t.Errorf("missing: %q", missing)
		}
		if got, _ := os.ReadFile(filepath.Join(c.path, "../cgroup.subtree_control")); len(got) != 0 {
			t.Errorf("controllers: %q", got)
		}
	})
	t.Run("that_were_reached_are_named", func(t *testing.T) {
		c := fakeGroup(t, map[string]string{
			"memory.max": "", "pids.max": "", "memory.events": "low 0\nmax 12\noom 1\noom_kill 3\n", "pids.events": "max 7\n",
		})
		c.limit(&Spec{MaxMemory: 64 << 20, MaxProcesses: 20})
		killed, all := c.reachedLimits()
		if !strings.Contains(killed, "64 MiB (limits.memory or AGENTED_MAX_MEMORY)") || len(all) != 2 || !strings.Contains(all[0], "3 of its processes") || !strings.Contains(all[1], "7 times") {
			t.Errorf("%q %q", killed, all)
		}
	})
	t.Run("that_the_system_cannot_hold_are_named", func(t *testing.T) {
		if c := newCgroup("probe-of-a-test"); c != nil {
			c.remove()
			t.Skip("NOT CHECKED: this process has a delegated control group")
		}
		r := newRun(t, agented.CaptureFile, "echo ran")
		r.spec.MaxMemory, r.spec.MaxProcesses = 1<<30, 100
		wantCode(t, r, r.do(), 0)
		wantLines(t, r, agented.Stdout, "ran")
		wantLines(t, r, agented.System, "Limits that are not enforced, because this system does not let the server set them: memory and processes.")
	})
	t.Run("of_the_processors_lower_the_priority", func(t *testing.T) {
		if c := newCgroup("probe-of-a-test"); c != nil {
			c.remove()
			t.Skip("NOT CHECKED: this process has a delegated control group")
		}
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Fatal(err)
		}
		for weight, more := range map[int]int{50: 3, 1: 19} {
			r := newRun(t, agented.CaptureFile, fmt.Sprintf(`until [ "$(nice)" = %d ]; do sleep 0.02; done; echo lowered`, min(20-raw+more, 19)))
			r.spec.CPUWeight, r.spec.Timeout = weight, bound
			wantCode(t, r, r.do(), 0)
			wantLines(t, r, agented.Stdout, "lowered")
			wantLines(t, r, agented.System)
		}
		r := newRun(t, agented.CaptureFile, "echo ran")
		r.spec.CPUWeight = 200
		wantCode(t, r, r.do(), 0)
		wantLines(t, r, agented.System, "Limits that are not enforced, because this system does not let the server set them: cpu weight.")
	})
}

package shim

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// adopter runs in a process of its own: it adopts the orphan of a shell, finds it, kills it and
// then finds nothing.
func adopter() int {
	fail := func(format string, args ...any) int {
		fmt.Printf(format+"\n", args...)
		return 1
	}
	if err := AdoptOrphans(); err != nil {
		return fail("adopt orphans: %v", err)
	}
	out, err := exec.Command("sh", "-c", "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		return fail("sh: %v", err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return fail("the shell printed %q", out)
	}
	pids, err := Descendants()
	if err != nil || !slices.Contains(pids, orphan) {
		return fail("the orphan %d is not among %v, %v", orphan, pids, err)
	}
	if err := syscall.Kill(orphan, syscall.SIGKILL); err != nil {
		return fail("kill: %v", err)
	}
	for end := time.Now().Add(bound); len(pids) > 0; time.Sleep(time.Millisecond) { // interval of the poll
		if pids, err = Descendants(); err != nil || time.Now().After(end) {
			return fail("after the kill: %v, %v", pids, err)
		}
	}
	return 0
}

func TestDescendants(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("NOT CHECKED: only Linux lets a process adopt orphans")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{"adopter"}
	cmd.Env = os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

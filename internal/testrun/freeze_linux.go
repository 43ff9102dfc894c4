package testrun

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Freezer is a control group whose processes the kernel can freeze, as it does
// when a container is paused or a machine is suspended. Unlike SIGSTOP, a freeze
// is not visible to the processes or to their parents.
type Freezer struct {
	t   testing.TB
	dir string
	// file, frozen and thawed are the control file and its values, state the file
	// whose content contains reached once every process is frozen.
	file, frozen, thawed, state, reached string
}

// NewFreezer creates a control group, in version 2 or version 1 of the interface,
// that is removed at the end of the test. It skips the test where the kernel or
// the permissions of this process do not allow it.
func NewFreezer(t testing.TB) *Freezer {
	t.Helper()
	for _, f := range freezers() {
		f.t = t
		dir, err := os.MkdirTemp(f.dir, "agented-test-")
		if err != nil {
			continue
		}
		f.dir = dir
		t.Cleanup(f.remove)
		if _, err := os.Stat(filepath.Join(dir, f.file)); err == nil {
			return &f
		}
	}
	t.Skip("NOT CHECKED: this process cannot create a control group with a freezer")
	return nil
}

// freezers lists the mounted hierarchies that may have a freezer.
func freezers() (out []Freezer) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer mounts.Close()
	for s := bufio.NewScanner(mounts); s.Scan(); {
		field := strings.Fields(s.Text())
		switch {
		case len(field) < 4:
		case field[2] == "cgroup2":
			out = append(out, Freezer{dir: field[1], file: "cgroup.freeze", frozen: "1", thawed: "0", state: "cgroup.events", reached: "frozen 1"})
		case field[2] == "cgroup" && strings.Contains(","+field[3]+",", ",freezer,"):
			out = append(out, Freezer{dir: field[1], file: "freezer.state", frozen: "FROZEN", thawed: "THAWED", state: "freezer.state", reached: "FROZEN"})
		}
	}
	return out
}

// Add moves processes into the group.
func (f *Freezer) Add(pids ...int) {
	f.t.Helper()
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(f.dir, "cgroup.procs"), fmt.Append(nil, pid), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// Freeze returns once every process of the group is frozen.
func (f *Freezer) Freeze() {
	f.t.Helper()
	f.write(f.frozen)
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // the interval of a poll
		b, err := os.ReadFile(filepath.Join(f.dir, f.state))
		if err != nil {
			f.t.Fatal(err)
		}
		if strings.Contains(string(b), f.reached) {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("the group was not frozen within a minute: %s", b)
		}
	}
}

// Thaw lets the processes of the group continue.
func (f *Freezer) Thaw() {
	f.t.Helper()
	f.write(f.thawed)
}

func (f *Freezer) write(value string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, f.file), []byte(value), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// remove thaws the group and removes it once its processes have exited.
func (f *Freezer) remove() {
	_ = os.WriteFile(filepath.Join(f.dir, f.file), []byte(f.thawed), 0o600)
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // the interval of a poll
		if err = os.Remove(f.dir); err == nil || os.IsNotExist(err) {
			return
		}
	}
	f.t.Errorf("remove the control group: %v", err)
}

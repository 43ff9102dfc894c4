package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// synchronised reports whether the kernel considers the clock synchronised.
func synchronised() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err != nil || state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// checkPlatform runs the checks that exist on Linux only.
func checkPlatform(ctx context.Context, o Options, holder int) []Finding {
	root := o.Root
	out := checkInotify(root)
	_, err := os.Stat(filepath.Join(root, "/run/systemd/system"))
	group, unit := cgroupOf(root, holder)
	systemd := Finding{Area: AreaSystem, Name: "systemd", Status: OK, Text: "not running; the server needs another way to start after a reboot"}
	if err == nil {
		systemd.Text = "manages this machine"
		if holder > 0 && unit == "" {
			systemd.Text += "; the server was started manually and does not start after a reboot"
		} else if unit != "" {
			systemd.Text += " and the server, as " + unit
		}
	}
	out = append(out, systemd, checkCgroup(root, group, unit))
	if systemdRuns := err == nil; systemdRuns && (root == "" || o.Systemctl != nil) {
		out = append(out, checkUnit(ctx, o, unit, strings.Contains(group, "/user@"))...)
	}
	return out
}

// Below these limits, following logs falls back to polling.
const (
	fewInstances = 16
	fewWatches   = 1024
)

func checkInotify(root string) []Finding {
	instances, ok1 := number(root, "/proc/sys/fs/inotify/max_user_instances")
	watches, ok2 := number(root, "/proc/sys/fs/inotify/max_user_watches")
	if !ok1 || !ok2 {
		return nil
	}
	f := Finding{Area: AreaSystem, Name: "inotify", Status: OK, Text: fmt.Sprintf("%d instances and %d watches per user", instances, watches)}
	switch {
	case instances < fewInstances:
		f.Status, f.Text = Warn, f.Text+": beyond that, logs are polled, which is slower"
		f.Fix = "sudo sysctl fs.inotify.max_user_instances=512"
	case watches < fewWatches:
		f.Status, f.Text = Warn, f.Text+": beyond that, logs are polled, which is slower"
		f.Fix = "sudo sysctl fs.inotify.max_user_watches=65536"
	}
	return []Finding{f}
}

// cgroupOf returns the control group of the server, or of this process if the server is unknown,
// and the name of the service unit if the server runs in one.
func cgroupOf(root string, holder int) (group, unit string) {
	who := "self"
	if holder > 0 {
		who = fmt.Sprint(holder)
	}
	b, err := os.ReadFile(filepath.Join(root, "/proc", who, "cgroup"))
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			group = path
		}
	}
	if holder <= 0 {
		return group, ""
	}
	parts := strings.Split(group, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		// user@1000.service is the manager of a user's session, not a server.
		if strings.HasSuffix(parts[i], ".service") && !strings.HasPrefix(parts[i], "user@") {
			return group, parts[i]
		}
		if strings.HasSuffix(parts[i], ".scope") {
			break
		}
	}
	return group, ""
}

func checkCgroup(root, group, unit string) Finding {
	f := Finding{Area: AreaSystem, Name: "cgroups", Status: OK}
	folder := filepath.Join(root, "/sys/fs/cgroup", group)
	if unit != "" && filepath.Base(folder) == "server" {
		folder = filepath.Dir(folder) // the leaf that DelegateSubgroup=server creates
	}
	_, err := os.Stat(filepath.Join(folder, "cgroup.procs"))
	switch {
	case group == "" || err != nil:
		f.Text = "version 2 is not available; leftover processes of an attempt are found by its process tree"
	case delegated(folder):
		f.Text = "delegated; each attempt gets a control group of its own, which contains all its processes"
	case unit != "":
		f.Status, f.Text = Warn, "not delegated to "+unit+"; leftover processes of an attempt are found by its process tree, which is less reliable"
		f.Fix = "add Delegate=yes to the [Service] section of " + unit + ", then run `systemctl daemon-reload` and restart it"
	default:
		f.Text = "not delegated, as usual outside a service; leftover processes of an attempt are found by its process tree"
	}
	return f
}

// delegated reports whether the control group was delegated to its owner: it belongs to a user
// other than root, or the service manager marked it.
func delegated(folder string) bool {
	var st unix.Stat_t
	if unix.Stat(folder, &st) != nil {
		return false
	}
	if st.Uid != 0 && unix.Access(folder, unix.W_OK) == nil {
		return true
	}
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		var v [8]byte
		if n, err := unix.Getxattr(folder, name, v[:]); err == nil && string(v[:n]) == "1" {
			return true
		}
	}
	return false
}

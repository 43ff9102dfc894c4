package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// synchronised asks the kernel whether something keeps the clock right.
func synchronised() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err != nil || state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// checkPlatform looks at what only Linux has.
func checkPlatform(ctx context.Context, o Options, holder int) []Finding {
	root := o.Root
	out := checkInotify(root)
	_, err := os.Stat(filepath.Join(root, "/run/systemd/system"))
	group, unit := cgroupOf(root, holder)
	systemd := Finding{Area: AreaSystem, Name: "systemd", Status: OK, Text: "not there; something else has to start the server after a reboot"}
	if err == nil {
		systemd.Text = "runs this machine"
		if holder > 0 && unit == "" {
			systemd.Text += "; the server was started by hand and does not come back after a reboot"
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

// Below these, following logs falls back to polling.
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
	f := Finding{Area: AreaSystem, Name: "inotify", Status: OK, Text: fmt.Sprintf("%d instances, %d watches for each user", instances, watches)}
	switch {
	case instances < fewInstances:
		f.Status, f.Text = Warn, f.Text+": with few, logs are polled, which is slower"
		f.Mend = "sudo sysctl fs.inotify.max_user_instances=512"
	case watches < fewWatches:
		f.Status, f.Text = Warn, f.Text+": with few, logs are polled, which is slower"
		f.Mend = "sudo sysctl fs.inotify.max_user_watches=65536"
	}
	return []Finding{f}
}

// cgroupOf is the control group of the server, or of this process if none is
// known, and the service that it is, if the server is one.
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
		folder = filepath.Dir(folder) // the leaf of DelegateSubgroup=server
	}
	_, err := os.Stat(filepath.Join(folder, "cgroup.procs"))
	switch {
	case group == "" || err != nil:
		f.Text = "no version 2; what an attempt leaves behind is found by its process tree"
	case delegated(folder):
		f.Text = "delegated; each attempt gets a group of its own, and nothing escapes it"
	case unit != "":
		f.Status, f.Text = Warn, "not delegated to "+unit+"; what an attempt leaves behind is found by its process tree, which is less sure"
		f.Mend = "add Delegate=yes to the [Service] section of " + unit + ", then `systemctl daemon-reload` and restart it"
	default:
		f.Text = "not delegated here, as usual outside a service; what an attempt leaves behind is found by its process tree"
	}
	return f
}

// delegated reports whether the group was handed over to whoever it belongs to:
// it is not root's, or the service manager marked it.
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

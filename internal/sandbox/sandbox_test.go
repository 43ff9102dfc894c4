package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
)

func TestCommand(t *testing.T) {
	t.Parallel()
	start := "/bwrap --die-with-parent --as-pid-1 --unshare-pid --unshare-ipc "
	devices := "--dev /dev --perms 1777 --tmpfs /dev/shm --proc /proc "
	for _, c := range []struct {
		name  string
		facts Facts
		want  string
	}{
		{
			"own folder in a hidden one",
			Facts{Hide: []string{"/data"}, Own: []Folder{{Path: "/data/work"}, {Path: "/data/bin", ReadOnly: true}}},
			"--perms 0700 --tmpfs /data --ro-bind /data/bin /data/bin --bind /data/work /data/work --remount-ro /data",
		},
		{
			"hidden folder in a visible one",
			Facts{Hide: []string{"/src/data"}, Own: []Folder{{Path: "/src"}}},
			"--perms 0700 --tmpfs /src/data --remount-ro /src/data",
		},
		{
			"hidden, own, hidden",
			Facts{Hide: []string{"/data", "/data/home/state"}, HideFiles: []string{"/data/key", "/data/home/.env"}, Own: []Folder{{Path: "/data/home"}}},
			"--perms 0700 --tmpfs /data --bind /data/home /data/home --ro-bind /dev/null /data/home/.env --perms 0700 --tmpfs /data/home/state --remount-ro /data --remount-ro /data/home/state",
		},
		{
			"a path is both",
			Facts{Hide: []string{"/data"}, Own: []Folder{{Path: "/data"}}},
			"--perms 0700 --tmpfs /data --remount-ro /data",
		},
		{
			"similar names",
			Facts{Hide: []string{"/data", "/data2"}, HideFiles: []string{"/data.key"}},
			"--perms 0700 --tmpfs /data --ro-bind /dev/null /data.key --perms 0700 --tmpfs /data2 --remount-ro /data --remount-ro /data2",
		},
	} {
		c.facts.Program, c.facts.Cgroups = "/bwrap", "/cg"
		got := strings.Join(c.facts.Command(), " ")
		if diff := cmp.Diff(start+"--bind / / --ro-bind /cg /cg "+devices+c.want+" --chdir /", got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	root := Facts{Program: "/bwrap", Root: true, Cgroups: "/cg", Hide: []string{"/root/data"}, Own: []Folder{{Path: "/root"}, {Path: "/etc", ReadOnly: true}}}.Command()
	text := strings.Join(root, " ")
	if !strings.HasPrefix(text, start+"--cap-drop ALL --cap-add ") ||
		!strings.Contains(text, "--ro-bind / / "+devices+"--ro-bind-try /proc/sys /proc/sys ") || !strings.Contains(text, "--ro-bind-try /proc/scsi /proc/scsi --bind /root /root --perms 0700 --tmpfs /root/data --remount-ro /root/data") {
		t.Errorf("as root: %s", text)
	}
	strict := Facts{
		Level: agented.SandboxStrict, Program: "/bwrap", Cgroups: "/cg", Hide: []string{"/home/u/data", "/run"}, HideFiles: []string{"/home/u/.env"},
		Replace: []Folder{{Path: "/home/u", From: "/home/u/data/e/home"}, {Path: "/tmp", From: "/home/u/data/e/tmp"}},
		Own:     []Folder{{Path: "/home/u/data/e/work"}, {Path: "/home/u/bin", ReadOnly: true}, {Path: "/home/u/.login", From: "/mnt/login"}, {Path: "/usr/bin", ReadOnly: true}},
	}
	want := start + "--unshare-net --ro-bind / / " + devices + "--bind /home/u/data/e/home /home/u --bind /mnt/login /home/u/.login --ro-bind /home/u/bin /home/u/bin " +
		"--bind /home/u/data/e/work /home/u/data/e/work --perms 0700 --tmpfs /run --bind /home/u/data/e/tmp /tmp --remount-ro /run --chdir /"
	if diff := cmp.Diff(want, strings.Join(strict.Command(), " ")); diff != "" {
		t.Errorf("strict: %s", diff)
	}
	for path, want := range map[string]string{"/home/u": "/home/u", "/home/u/data/e/work": "", "/tmp/x": "/tmp", "/usr": ""} {
		if got := strict.hides(path); got != want {
			t.Errorf("strict hides %s by %q, want %q", path, got, want)
		}
	}
	for _, name := range []string{"SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "MKNOD", "DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "SYSLOG"} {
		if slices.Contains(root, "CAP_"+name) {
			t.Errorf("root keeps CAP_%s", name)
		}
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	const mounts = `22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 8:2 / /srv rw - ext4 /dev/sdb1 rw
31 22 8:2 /agented /mnt/a\040b rw - ext4 /dev/sdb1 rw
32 22 8:2 /agented/executions /runs rw - ext4 /dev/sdb1 rw
33 22 8:2 /other /other rw - ext4 /dev/sdb1 rw
34 22 8:1 / /host rw - ext4 /dev/sda1 rw
`
	for path, want := range map[string][]string{
		"/srv/agented":    {"/mnt/a b", "/runs"},
		"/srv/agented/db": {"/mnt/a b/db"},
		"/mnt/a b/db":     {"/srv/agented/db"},
		"/home/u/data":    {"/host/home/u/data"},
		"/srv/agented2":   nil,
	} {
		if diff := cmp.Diff(want, aliases(mounts, path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, bin := filepath.Join(dir, "data"), filepath.Join(dir, "bin")
	for _, d := range []string{bin, filepath.Join(data, "work"), filepath.Join(data, "home")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{filepath.Join(bin, Program): 0o700, filepath.Join(dir, ".env"): 0o600} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	request := Request{
		Path: "relative:" + bin, Home: filepath.Join(link, "home"),
		Secret: []string{link, filepath.Join(dir, ".env"), filepath.Join(dir, "missing")},
		Own:    []Folder{{Path: filepath.Join(link, "work")}, {Path: filepath.Join(dir, "missing")}, {Path: "/"}},
	}
	f, err := Resolve(request)
	if err != nil {
		t.Fatal(err)
	}
	if f.Program != filepath.Join(bin, Program) || !slices.Contains(f.Hide, data) || !slices.Contains(f.HideFiles, filepath.Join(dir, ".env")) {
		t.Errorf("%+v", f)
	}
	if diff := cmp.Diff([]Folder{{Path: filepath.Join(data, "work")}, {Path: filepath.Join(data, "home")}}, f.Own); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string]string{link: data, filepath.Join(link, "work"): "", dir: ""} {
		if got := f.Hidden(path); got != want {
			t.Errorf("Hidden(%s) = %q, want %q", path, got, want)
		}
	}
	for name, change := range map[string]func(*Request){
		"the home folder of the server's user": func(r *Request) { r.Home = data },
		"name the folders that it needs":       func(r *Request) { r.Root = true },
		"in the root folder":                   func(r *Request) { r.Secret = []string{"/"} },
	} {
		changed := request
		change(&changed)
		if _, err := Resolve(changed); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q in it", err, name)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for printed, want := range map[string]string{
		"bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)\n": "user.max_user_namespaces",
		"bwrap: No permissions to create new namespace, likely because":                                              "kernel.unprivileged_userns_clone",
		"bwrap: setting up uid map: Permission denied":                                                               "apparmor_restrict_unprivileged_userns",
		"bwrap: Can't mount proc on /newroot/proc: Operation not permitted":                                          "systempaths=unconfined",
		"bwrap: Unknown option --perms":                                                                              "too old",
		"":                                                                                                           "agented doctor",
	} {
		if got := Explain(agented.SandboxGuard, printed); !strings.Contains(got, want) || !strings.Contains(got, "set sandbox to off") {
			t.Errorf("%q: %q, want %q in it", printed, got, want)
		}
	}
}

func TestExplain_causes_that_pass(t *testing.T) {
	t.Parallel()
	const full = "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)"
	for _, c := range []struct {
		printed string
		allowed bool
		passing bool
		want    string
	}{
		{full, false, false, "set the sysctl user.max_user_namespaces to a positive number"},
		{full, true, true, "are in use"},
		{"bwrap: Creating new namespace failed: Resource temporarily unavailable", true, true, "try again later"},
		{"bwrap: No permissions to create new namespace", true, false, "kernel.unprivileged_userns_clone"},
	} {
		if got := explain(agented.SandboxGuard, c.printed, c.allowed); got.Passing != c.passing || !strings.Contains(got.Why, c.want) {
			t.Errorf("%q with namespaces allowed %v: %+v, want %q in it", c.printed, c.allowed, got, c.want)
		}
	}
}

func TestLevels_default(t *testing.T) {
	t.Parallel()
	missing, busy := &Impossible{Level: agented.SandboxGuard, Why: "bubblewrap is not installed"}, &Impossible{Level: agented.SandboxGuard, Why: "busy", Passing: true}
	for _, c := range []struct {
		levels  Levels
		setting agented.Sandbox
		want    agented.Sandbox
		reason  string
	}{
		{Levels{Best: agented.SandboxStrict}, agented.SandboxAuto, agented.SandboxGuard, "default of the server"},
		{Levels{Best: agented.SandboxGuard, Next: missing}, agented.SandboxAuto, agented.SandboxGuard, "default of the server"},
		{Levels{Best: agented.SandboxOff, Next: missing}, agented.SandboxAuto, agented.SandboxOff, "bubblewrap is not installed"},
		{Levels{Best: agented.SandboxOff, Next: busy}, agented.SandboxAuto, agented.SandboxGuard, "default of the server"},
		{Levels{Best: agented.SandboxStrict}, agented.SandboxOff, agented.SandboxOff, "AGENTED_SANDBOX"},
		{Levels{Best: agented.SandboxOff, Next: missing}, agented.SandboxStrict, agented.SandboxStrict, "AGENTED_SANDBOX"},
	} {
		if got := c.levels.DefaultOf(c.setting); got.Level != c.want || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%+v with setting %s: %+v, want %s", c.levels, c.setting, got, c.want)
		}
	}
}

// TestExamine runs programs in place of bwrap that create no sandbox.
func TestExamine(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("sandboxes require Linux")
	}
	if got := Examine(t.Context(), Request{Path: t.TempDir(), Secret: []string{"/"}}); got.Best != agented.SandboxOff || got.Next == nil {
		t.Errorf("with the data in the root folder: %+v", got)
	}
	for name, c := range map[string]struct {
		script  string
		best    agented.Sandbox
		passing bool
		why     string
	}{
		"works":         {"exit 0", agented.SandboxStrict, false, ""},
		"forbidden":     {"echo 'bwrap: No permissions to create new namespace' >&2; exit 1", agented.SandboxOff, false, "kernel.unprivileged_userns_clone"},
		"no network":    {`case "$*" in *--unshare-net*) echo "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted" >&2; exit 1;; esac`, agented.SandboxGuard, false, "loopback"},
		"does not end":  {"exec sleep 1000", agented.SandboxOff, true, "did not end in time"},
		"cannot be run": {"\x00", agented.SandboxOff, false, "install the package bubblewrap again"},
	} {
		// Before the first of them starts: a file that another process has open for writing, which it
		// inherits between fork and exec, cannot be executed.
		dir := t.TempDir()
		text := "#!/bin/sh\n" + c.script + "\n"
		if strings.HasPrefix(c.script, "\x00") {
			text = "\x7fELF"
		}
		if err := os.WriteFile(filepath.Join(dir, Program), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if c.passing {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
				defer cancel()
			}
			got := Examine(ctx, Request{Path: dir, UID: os.Getuid(), Secret: []string{dir}})
			if got.Best != c.best || (got.Next == nil) != (c.why == "") {
				t.Fatalf("%+v, %v", got, got.Next)
			}
			if got.Next != nil && (got.Next.Passing != c.passing || !strings.Contains(got.Next.Why, c.why)) {
				t.Errorf("%+v, want %q in it", got.Next, c.why)
			}
		})
	}
}

package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/agented/agented"
)

// Request describes what an attempt needs and what it must not see. Paths may contain symbolic
// links, and may be missing.
type Request struct {
	Level   agented.Sandbox // guard or strict
	Path    string          // where bwrap is searched for; empty means the usual folders
	Root    bool            // the server runs as root
	UID     int             // user of the server
	Home    string
	Runtime string // XDG_RUNTIME_DIR, or empty

	Secret []string // files and folders of the server
	Own    []Folder // what the attempt uses
	Agent  string   // socket of an SSH agent that stays usable, or empty

	// For strict.
	HomeFrom string   // folder that is mounted on Home
	TempFrom string   // folder that is mounted on /tmp and /var/tmp
	Homes    []string // other home folders, which are hidden
	Programs []string // folders of programs, which stay visible, also in Home
}

// sockets are those of programs that start processes on request, outside of the sandbox, for the
// user who connects. A folder is hidden with everything in it.
var sockets = []string{
	"/run/systemd/private", "/run/systemd/io.systemd.Manager", "/run/dbus/system_bus_socket",
	"/run/docker.sock", "/run/docker", "/run/podman", "/run/containerd", "/run/crio", "/run/buildkit",
	"/run/snapd.socket", "/run/snapd-snap.socket", "/run/libvirt", "/run/lxd.socket", "/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket",
	"/var/lib/incus/unix.socket", "/run/incus", "/run/screen", "/run/credentials",
}

// ErrMissing is returned by Find if bubblewrap is not installed.
var ErrMissing = errors.New("bubblewrap is not installed")

// Find returns the path of bwrap.
func Find(path string) (string, error) {
	if runtime.GOOS != "linux" {
		return "", errors.New("sandboxes require Linux")
	}
	for _, dir := range append(filepath.SplitList(path), "/usr/bin", "/usr/local/bin", "/bin") {
		if !filepath.IsAbs(dir) {
			continue
		}
		if file, err := exec.LookPath(filepath.Join(dir, Program)); err == nil {
			return file, nil
		}
	}
	return "", ErrMissing
}

// missing returns the error of Resolve for an error of Find.
func missing(level agented.Sandbox, err error) error {
	why := err.Error() + ": there is no other way"
	if errors.Is(err, ErrMissing) {
		why = "bubblewrap is not installed: install the package bubblewrap, for example with apt-get install bubblewrap"
	}
	return &Impossible{Level: level, Why: why}
}

// Resolve examines the file system and returns the facts. Its errors are messages for users; an
// [Impossible] means that the machine does not provide the level.
func Resolve(r Request) (Facts, error) {
	program, err := Find(r.Path)
	if err != nil {
		return Facts{}, missing(r.Level, err)
	}
	f := Facts{Level: r.Level, Program: program, Root: r.Root}
	if info, err := os.Stat("/sys/fs/cgroup"); err == nil && info.IsDir() {
		f.Cgroups = "/sys/fs/cgroup"
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Facts{}, &Impossible{Level: r.Level, Why: "/proc/self/mountinfo cannot be read: mount /proc"}
	}
	hide := func(path string) {
		for _, p := range append([]string{path}, aliases(string(mounts), path)...) {
			switch info, err := os.Lstat(p); {
			case err != nil:
			case info.IsDir():
				f.Hide = append(f.Hide, p)
			default:
				f.HideFiles = append(f.HideFiles, p)
			}
		}
	}
	for _, path := range r.Secret {
		if p, err := filepath.EvalSymlinks(path); err == nil {
			if p == "/" {
				return Facts{}, &Impossible{Level: r.Level, Why: "the server's data is in the root folder: move it to a folder of its own"}
			}
			hide(p)
		}
	}
	for _, path := range append(sockets, "/tmp/tmux-"+strconv.Itoa(r.UID), "/run/user/"+strconv.Itoa(r.UID), r.Runtime) {
		if p, err := filepath.EvalSymlinks(path); path != "" && err == nil {
			hide(p)
		}
	}
	if r.Level == agented.SandboxStrict {
		r.strict(&f, hide)
	} else {
		r.guard()
	}
	for _, o := range r.Own {
		from := cmp.Or(o.From, o.Path)
		p, err := filepath.EvalSymlinks(from)
		if err != nil || !filepath.IsAbs(from) {
			continue // it is reported where it is used
		}
		if p == "/" {
			if f.readOnly() && o.Path != r.Home {
				return Facts{}, fmt.Errorf("sandbox "+string(r.Level)+": the agent would be able to write to every folder, because working_dir or paths contains %s: name the folders that it needs", o.Path)
			}
			continue
		}
		own := Folder{Path: p, ReadOnly: o.ReadOnly}
		if o.From != "" {
			own.Path, own.From = o.Path, p
		}
		f.Own = append(f.Own, own)
	}
	if home, err := filepath.EvalSymlinks(r.Home); err == nil {
		for _, dir := range f.Hide {
			if home == dir {
				return Facts{}, &Impossible{Level: r.Level, Why: "the server's data is in " + dir + ", the home folder of the server's user, which agents need: set AGENTED_DATA_DIR to a folder of its own"}
			}
			if within(home, dir) && r.Level != agented.SandboxStrict {
				f.Own = append(f.Own, Folder{Path: home})
			}
		}
	}
	return f, nil
}

// guard adds what stays usable at that level.
func (r *Request) guard() {
	// What is needed of the runtime folder: GnuPG's and SSH's agents.
	for _, dir := range slices.Compact([]string{"/run/user/" + strconv.Itoa(r.UID), r.Runtime}) {
		if dir != "" {
			r.Own = append(r.Own, Folder{Path: filepath.Join(dir, "gnupg")})
		}
	}
	if r.Agent != "" {
		r.Own = append(r.Own, Folder{Path: r.Agent})
	}
	if r.Root {
		r.Own = append(r.Own, Folder{Path: r.Home}, Folder{Path: "/tmp"}, Folder{Path: "/var/tmp"})
	}
}

// strict replaces the folders for files of the user and temporary files, and hides the sockets of
// services.
func (r *Request) strict(f *Facts, hide func(string)) {
	for _, o := range []Folder{{Path: r.Home, From: r.HomeFrom}, {Path: "/tmp", From: r.TempFrom}, {Path: "/var/tmp", From: r.TempFrom}} {
		at, err := filepath.EvalSymlinks(o.Path)
		if err != nil || at == "/" || o.From == "" {
			continue
		}
		if from, err := filepath.EvalSymlinks(o.From); err == nil {
			f.Replace = append(f.Replace, Folder{Path: at, From: from})
		}
	}
	for _, path := range append(r.Homes, "/run") {
		if p, err := filepath.EvalSymlinks(path); err == nil && p != "/" {
			hide(p)
		}
	}
	for _, path := range r.Programs {
		if !slices.ContainsFunc(r.Own, func(o Folder) bool { return o.Path == path }) {
			r.Own = append(r.Own, Folder{Path: path, ReadOnly: true})
		}
	}
}

// Hidden returns the path of the hidden or replaced folder that contains path, unless an own folder
// in it contains it too; otherwise "".
func (f Facts) Hidden(path string) string {
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	return f.hides(p)
}

// hides is like Hidden for a path without symbolic links.
func (f Facts) hides(path string) string {
	found := ""
	for _, m := range f.mounts() {
		if within(path, m.path) {
			if found = ""; m.kind == hideFolder || m.kind == replaced {
				found = m.path
			}
		}
	}
	return found
}

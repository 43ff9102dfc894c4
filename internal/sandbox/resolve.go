package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Request describes what an attempt needs and what it must not see. Paths may contain symbolic
// links, and may be missing.
type Request struct {
	Path    string // where bwrap is searched for; empty means the usual folders
	Root    bool   // the server runs as root
	UID     int    // user of the server
	Home    string
	Runtime string // XDG_RUNTIME_DIR, or empty

	Secret []string // files and folders of the server
	Own    []Folder // what the attempt uses
	Agent  string   // socket of an SSH agent that stays usable, or empty
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

// Missing returns the message for an error of Find.
func Missing(err error) string {
	if errors.Is(err, ErrMissing) {
		return Refusal("bubblewrap is not installed: install the package bubblewrap, for example with apt-get install bubblewrap")
	}
	return Refusal(err.Error() + ": there is no other way")
}

// Resolve examines the file system and returns the facts. Its errors are messages for users.
func Resolve(r Request) (Facts, error) {
	program, err := Find(r.Path)
	if err != nil {
		return Facts{}, errors.New(Missing(err))
	}
	f := Facts{Program: program, Root: r.Root}
	if info, err := os.Stat("/sys/fs/cgroup"); err == nil && info.IsDir() {
		f.Cgroups = "/sys/fs/cgroup"
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Facts{}, errors.New(Refusal("/proc/self/mountinfo cannot be read: mount /proc"))
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
				return Facts{}, errors.New(Refusal("the server's data is in the root folder: move it to a folder of its own"))
			}
			hide(p)
		}
	}
	for _, path := range append(sockets, "/tmp/tmux-"+strconv.Itoa(r.UID), "/run/user/"+strconv.Itoa(r.UID), r.Runtime) {
		if p, err := filepath.EvalSymlinks(path); path != "" && err == nil {
			hide(p)
		}
	}
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
	for _, o := range r.Own {
		p, err := filepath.EvalSymlinks(o.Path)
		if err != nil || !filepath.IsAbs(o.Path) {
			continue // it is reported where it is used
		}
		if p == "/" {
			if r.Root && o.Path != r.Home {
				return Facts{}, fmt.Errorf("sandbox guard: the agent would be able to write to every folder, because working_dir or paths contains %s: name the folders that it needs", o.Path)
			}
			continue
		}
		f.Own = append(f.Own, Folder{Path: p, ReadOnly: o.ReadOnly})
	}
	if home, err := filepath.EvalSymlinks(r.Home); err == nil {
		for _, dir := range f.Hide {
			if home == dir {
				return Facts{}, errors.New(Refusal("the server's data is in " + dir + ", the home folder of the server's user, which agents need: set AGENTED_DATA_DIR to a folder of its own"))
			}
			if within(home, dir) {
				f.Own = append(f.Own, Folder{Path: home})
			}
		}
	}
	return f, nil
}

// Hidden returns the path of the hidden folder that contains path, unless an own folder in it
// contains it too; otherwise "".
func (f Facts) Hidden(path string) string {
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	found := ""
	for _, m := range f.mounts() {
		if within(p, m.path) {
			if found = ""; m.kind == hideFolder {
				found = m.path
			}
		}
	}
	return found
}

// Probe creates a sandbox that runs a program which does nothing. The error is a message for
// users.
func Probe(f Facts) error {
	args := append(f.Command(), "--", "/proc/self/exe", "--version")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"LC_ALL=C"}
	var text strings.Builder
	cmd.Stderr = &text
	if err := cmd.Run(); err != nil {
		return errors.New(Explain(text.String()))
	}
	return nil
}

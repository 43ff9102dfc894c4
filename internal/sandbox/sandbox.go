// Package sandbox builds the command lines that isolate an agent's processes. On Linux it uses
// bubblewrap (bwrap), a program that starts another one in namespaces of its own.
//
// At the level guard, the processes of an attempt have their own process table, do not see the
// server's data folder except their own folders in it, and cannot connect to sockets of programs
// that would start processes outside of the sandbox. HOME and the network remain, so that logins
// and tools work.
package sandbox

import (
	"cmp"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// Program is the name of the program that creates sandboxes.
const Program = "bwrap"

// Facts describes the sandbox of one attempt. All paths are absolute, without symbolic links, and
// exist; [Resolve] makes them so.
type Facts struct {
	Level   agented.Sandbox // guard or strict
	Program string          // path of bwrap
	Root    bool            // the server runs as root: everything is read-only except Own
	Cgroups string          // where control groups are mounted; empty if they are not

	Hide      []string // folders that are empty and read-only in the sandbox, except for what is in Own
	HideFiles []string // files and sockets that cannot be opened
	Replace   []Folder // folders that are others in the sandbox, except for what is in Own
	Own       []Folder // folders that the attempt uses, also in hidden ones
}

// Folder is a folder or file that an attempt uses.
type Folder struct {
	Path     string
	From     string // what is mounted there; empty means Path itself
	ReadOnly bool
}

// readOnly reports whether everything is read-only except what is in Own and Replace.
func (f Facts) readOnly() bool { return f.Root || f.Level == agented.SandboxStrict }

// keptCapabilities are what programs of a root user need at work: to change owners and modes of
// files, to switch to other users and signal their processes, and to listen on low ports. Without
// the others they cannot mount file systems, open devices or files by handle, read other
// processes' memory, capture packets or load modules.
var keptCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// kernelFiles are the parts of /proc in which root changes settings of the whole machine without a
// capability, such as the program that handles crashes. bwrap covers only some of them.
var kernelFiles = []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/acpi", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/scsi"}

// Command returns the program and its options. The program to run inside follows after "--".
func (f Facts) Command() []string {
	args := []string{f.Program, "--die-with-parent", "--as-pid-1", "--unshare-pid", "--unshare-ipc"}
	add := func(more ...string) { args = append(args, more...) }
	if f.Root {
		add("--cap-drop", "ALL")
		for _, name := range keptCapabilities {
			add("--cap-add", name)
		}
	}
	if f.Level == agented.SandboxStrict {
		add("--unshare-net")
	}
	if f.readOnly() {
		add("--ro-bind", "/", "/")
	} else {
		add("--bind", "/", "/")
		if f.Cgroups != "" {
			add("--ro-bind", f.Cgroups, f.Cgroups)
		}
	}
	add("--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm", "--proc", "/proc")
	if f.Root {
		for _, path := range kernelFiles {
			add("--ro-bind-try", path, path)
		}
	}
	all := f.mounts()
	for _, m := range all {
		switch m.kind {
		case hideFolder:
			add("--perms", "0700", "--tmpfs", m.path)
		case hideFile:
			add("--ro-bind", "/dev/null", m.path)
		case ownReadOnly:
			add("--ro-bind", m.from, m.path)
		case own, replaced:
			add("--bind", m.from, m.path)
		}
	}
	for _, m := range all { // when the folders for the mounts below them exist
		if m.kind == hideFolder {
			add("--remount-ro", m.path)
		}
	}
	add("--chdir", "/")
	return args
}

// mount is what is mounted on a path.
type mount struct {
	path string
	kind kind
	from string // what is mounted there; empty for the kinds that hide
}

type kind int

const (
	hideFolder kind = iota // before own: where both name a path, it stays hidden
	hideFile
	replaced
	ownReadOnly
	own
)

// mounts returns what is mounted, parents before children, so that of two mounts on one line of
// folders the deeper one counts. It omits mounts that change nothing.
func (f Facts) mounts() []mount {
	var all []mount
	for _, path := range f.Hide {
		all = append(all, mount{path: path, kind: hideFolder})
	}
	for _, path := range f.HideFiles {
		all = append(all, mount{path: path, kind: hideFile})
	}
	for _, o := range f.Replace {
		all = append(all, mount{o.Path, replaced, o.From})
	}
	for _, o := range f.Own {
		m := mount{o.Path, own, cmp.Or(o.From, o.Path)}
		if o.ReadOnly {
			m.kind = ownReadOnly
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b mount) int {
		return cmp.Or(strings.Compare(a.path, b.path), cmp.Compare(a.kind, b.kind))
	})
	base := own
	if f.readOnly() {
		base = ownReadOnly
	}
	var out []mount
	for _, m := range all {
		above := base
		for _, o := range out {
			if within(m.path, o.path) {
				above = o.kind // the last one is the deepest
			}
		}
		hidden := above == hideFolder || above == hideFile || above == replaced
		same := len(out) > 0 && out[len(out)-1].path == m.path
		if same || m.kind == above && (m.from == "" || m.from == m.path) || hidden && m.kind <= hideFile {
			continue
		}
		out = append(out, m)
	}
	return out
}

// parentsFirst sorts paths, without duplicates.
func parentsFirst(paths []string) []string {
	out := slices.Clone(paths)
	slices.Sort(out)
	return slices.Compact(out)
}

// within reports whether path is dir or in it. Both are clean.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// aliases returns the other paths under which the files of a path are mounted. mounts is the
// content of /proc/self/mountinfo.
func aliases(mounts, path string) []string {
	type mount struct{ device, root, at string }
	var all []mount
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) > 5 {
			all = append(all, mount{f[2], unescape(f[3]), unescape(f[4])})
		}
	}
	// The last mount on the longest matching path is the visible one.
	var of mount
	for _, m := range all {
		if within(path, m.at) && len(m.at) >= len(of.at) {
			of = m
		}
	}
	if of.at == "" {
		return nil
	}
	inside := filepath.Join(of.root, strings.TrimPrefix(path, of.at))
	var out []string
	for _, m := range all {
		if m.device != of.device {
			continue
		}
		switch {
		case within(inside, m.root):
			rest := inside
			if m.root != "/" {
				rest = strings.TrimPrefix(inside, m.root)
			}
			if at := filepath.Join(m.at, rest); at != path {
				out = append(out, at)
			}
		case within(m.root, inside) && !within(m.at, path): // only a part of it
			out = append(out, m.at)
		}
	}
	return parentsFirst(out)
}

// unescape decodes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

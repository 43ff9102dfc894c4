// Package service runs a server under the service manager of this machine: it writes the files of
// systemd and launchd and loads them. It also contains a supervisor for machines without systemd.
package service

import (
	"embed"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/agented/agented"
)

//go:embed templates
var files embed.FS

// Manager is a service manager.
type Manager string

// The supported service managers.
const (
	Systemd Manager = "systemd"
	Launchd Manager = "launchd"
)

// Spec describes a service. All paths are absolute.
type Spec struct {
	Manager Manager
	PerUser bool          // service of one user, without root
	Socket  bool          // systemd listens with a socket unit
	Program string        // path of the binary
	EnvFile string        // path of the settings file
	Account string        // account of the service; not used with PerUser
	Home    string        // home folder of that account
	DataDir string        // data folder in a new settings file
	LogDir  string        // launchd: folder of the logs
	Listen  string        // AGENTED_BIND, for Socket
	Drain   time.Duration // AGENTED_SHUTDOWN_TIMEOUT
	CLIDirs []string      // folders of agent CLIs, searched after the usual ones
	UMask   int           // umask of the server and its agents

	Package bool // the unit belongs to a .deb or .rpm
}

// searchPath lists the folders in which the service finds agent CLIs, without CLIDirs and the
// .local/bin of its home.
func (s Spec) searchPath() []string {
	if s.Manager == Launchd {
		return []string{"/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"}
	}
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// Finds reports whether dir is on the service's PATH.
func (s Spec) Finds(dir string) bool {
	return slices.Contains(s.searchPath(), dir) || slices.Contains(s.CLIDirs, dir) || dir == filepath.Join(s.Home, ".local/bin")
}

// SearchPath returns the service's PATH without the .local/bin of its home, which comes first.
func (s Spec) SearchPath() string {
	return strings.Join(append(s.searchPath(), s.CLIDirs...), ":")
}

// UMaskOctal formats the umask for a unit file.
func (s Spec) UMaskOctal() string { return fmt.Sprintf("%04o", s.UMask) }

// System returns a system service with the usual paths.
func System(m Manager) Spec {
	s := Spec{
		Manager: m, Program: "/usr/local/bin/agented", EnvFile: "/etc/agented/agented.env",
		Account: "agented", Home: "/var/lib/agented", DataDir: "/var/lib/agented/data",
		LogDir: "/var/log/agented", Listen: "0.0.0.0:20000", Drain: 30 * time.Second, UMask: 0o077,
	}
	if m == Launchd {
		s.EnvFile = "/usr/local/etc/agented/agented.env"
	}
	return s
}

// Packaged returns the service of a .deb or .rpm. It listens on the loopback address, because
// it starts before it is configured.
func Packaged() Spec {
	s := System(Systemd)
	s.Package, s.Program, s.Listen = true, "/usr/bin/agented", "127.0.0.1:20000"
	return s
}

// packagedUnit is the unit of an installed package.
const packagedUnit = "/usr/lib/systemd/system/agented.service"

// User returns a service of the user with the given home. The program stays where it is.
func User(m Manager, home, program string) Spec {
	s := System(m)
	s.PerUser, s.Account, s.Home, s.Program = true, "", home, program
	s.EnvFile = filepath.Join(home, ".config/agented/agented.env")
	s.Listen = "127.0.0.1:20000"
	s.DataDir = filepath.Join(home, ".local/share/agented")
	s.LogDir = filepath.Join(home, "Library/Logs/agented")
	return s
}

// StopSeconds returns the stop timeout in seconds, after which the service manager kills the
// server.
func (s Spec) StopSeconds() int { return int((s.Drain + time.Second - 1).Seconds()) + 10 }

// ReloadCommand returns the command that makes the server reload its settings.
func (s Spec) ReloadCommand() string {
	switch {
	case s.Manager == Launchd && s.PerUser:
		return "launchctl kill SIGHUP gui/$(id -u)/" + Label
	case s.Manager == Launchd:
		return "sudo launchctl kill SIGHUP system/" + Label
	case s.PerUser:
		return "systemctl --user reload agented"
	}
	return "sudo systemctl reload agented"
}

// ListenStream formats the listen address for a socket unit.
func (s Spec) ListenStream() string {
	if path, ok := strings.CutPrefix(s.Listen, "unix:"); ok {
		return path
	}
	return strings.TrimPrefix(s.Listen, ":")
}

// Port returns the default port, for examples.
func (s Spec) Port() string { return "20000" }

// Label is the name of the launchd job.
const Label = "com.agented.backend"

// Unit returns the systemd service unit.
func (s Spec) Unit() string { return s.render("agented.service") }

// SocketUnit returns the systemd socket unit.
func (s Spec) SocketUnit() string { return s.render("agented.socket") }

// Plist returns the launchd job.
func (s Spec) Plist() string { return s.render("com.agented.backend.plist") }

// AccessLog is the file of standard output under launchd.
func (s Spec) AccessLog() string { return filepath.Join(s.LogDir, "backend.log") }

// ErrorLog is the file of standard error under launchd: the server's log.
func (s Spec) ErrorLog() string { return filepath.Join(s.LogDir, "backend-error.log") }

// PIDFile is the file that contains the pid of the running server.
func (s Spec) PIDFile() string { return agented.Layout{Root: s.DataDir}.ServerLock() }

// Newsyslog returns the log rotation rules for macOS.
func (s Spec) Newsyslog() string { return s.render("newsyslog.conf") }

// rotates reports whether macOS can rotate the logs: that needs root, and paths without blanks.
func (s Spec) rotates() bool {
	return s.Manager == Launchd && !s.PerUser && !strings.ContainsAny(s.LogDir+s.DataDir+s.Account, " \t#\\")
}

// newsyslogFile is the file of the log rotation rules on macOS.
const newsyslogFile = "/etc/newsyslog.d/" + Label + ".conf"

// Settings returns a new settings file.
func (s Spec) Settings() string { return s.render("agented.env") }

// Caddyfile returns an example configuration of Caddy.
func (s Spec) Caddyfile() string { return s.render("Caddyfile") }

// Nginx returns an example configuration of nginx.
func (s Spec) Nginx() string { return s.render("nginx.conf") }

func (s Spec) render(name string) string {
	t := template.Must(template.New(name).Funcs(template.FuncMap{"xml": escape}).ParseFS(files, "templates/"+name))
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		panic(err) // the templates are constant and tested
	}
	return b.String()
}

func escape(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// Check returns an error for paths that cannot be written into the files: systemd interprets
// spaces, quotes, percent signs and other characters of a command line.
func (s Spec) Check() error {
	for name, path := range map[string]string{"program": s.Program, "settings file": s.EnvFile, "home": s.Home, "data folder": s.DataDir} {
		if !filepath.IsAbs(path) {
			return agented.Errorf(agented.Invalid, "the %s %q is not an absolute path", name, path)
		}
		if s.Manager == Systemd && strings.ContainsAny(path, " \t\n\"'\\%$;#") {
			return agented.Errorf(agented.Invalid, "the %s %q has a character with a special meaning in unit files: use a path of letters, digits and ./-_", name, path)
		}
	}
	return nil
}

// Path returns where the service manager reads the file of the given name: the unit, the socket
// unit or the job.
func (s Spec) Path(name string) string {
	switch {
	case s.Manager == Launchd && s.PerUser:
		return filepath.Join(s.Home, "Library/LaunchAgents", name)
	case s.Manager == Launchd:
		return filepath.Join("/Library/LaunchDaemons", name)
	case s.PerUser:
		return filepath.Join(s.Home, ".config/systemd/user", name)
	}
	return filepath.Join("/etc/systemd/system", name)
}

// file is one file of a service.
type file struct{ path, content string }

// files lists the files that the service manager reads.
func (s Spec) files() []file {
	if s.Manager == Launchd {
		out := []file{{s.Path(Label + ".plist"), s.Plist()}}
		if s.rotates() {
			out = append(out, file{newsyslogFile, s.Newsyslog()})
		}
		return out
	}
	out := []file{{s.Path("agented.service"), s.Unit()}}
	if s.Socket {
		out = append(out, file{s.Path("agented.socket"), s.SocketUnit()})
	}
	return out
}

// String describes the service, for example "systemd service of this user".
func (s Spec) String() string {
	whose := "of this machine"
	if s.PerUser {
		whose = "of this user"
	}
	return fmt.Sprintf("%s service %s", s.Manager, whose)
}

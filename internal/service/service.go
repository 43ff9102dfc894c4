// Package service lets the supervisor of this machine run a server: it writes
// what systemd and launchd read, and has them load it.
package service

import (
	"embed"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/agented/agented"
)

//go:embed templates
var files embed.FS

// Manager is a supervisor.
type Manager string

// The supervisors that are known.
const (
	Systemd Manager = "systemd"
	Launchd Manager = "launchd"
)

// Spec is what a service is made of. All paths are absolute.
type Spec struct {
	Manager Manager
	PerUser bool          // a service of one user, without root
	Socket  bool          // systemd listens, in a unit of its own
	Program string        // the binary
	EnvFile string        // the settings
	Account string        // whom it runs as; not used if PerUser
	Home    string        // of that account
	DataDir string        // where a fresh settings file puts the data
	LogDir  string        // launchd: where the logs go
	Listen  string        // AGENTED_BIND, for Socket
	Drain   time.Duration // AGENTED_SHUTDOWN_TIMEOUT
}

// System is the service of a whole machine with the usual places.
func System(m Manager) Spec {
	s := Spec{
		Manager: m, Program: "/usr/local/bin/agented", EnvFile: "/etc/agented/agented.env",
		Account: "agented", Home: "/var/lib/agented", DataDir: "/var/lib/agented/data",
		LogDir: "/var/log/agented", Listen: "0.0.0.0:20000", Drain: 30 * time.Second,
	}
	if m == Launchd {
		s.EnvFile = "/usr/local/etc/agented/agented.env"
	}
	return s
}

// User is the service of one user, whose home is given. The program stays where
// it is.
func User(m Manager, home, program string) Spec {
	s := System(m)
	s.PerUser, s.Account, s.Home, s.Program = true, "", home, program
	s.EnvFile = filepath.Join(home, ".config/agented/agented.env")
	s.DataDir = filepath.Join(home, ".local/share/agented")
	s.LogDir = filepath.Join(home, "Library/Logs/agented")
	return s
}

// StopSeconds is how long a stop may take before the supervisor uses force.
func (s Spec) StopSeconds() int { return int((s.Drain + time.Second - 1).Seconds()) + 10 }

// ReloadCommand makes the server read its settings again.
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

// ListenStream is the address as a socket unit writes it.
func (s Spec) ListenStream() string {
	if path, ok := strings.CutPrefix(s.Listen, "unix:"); ok {
		return path
	}
	return strings.TrimPrefix(s.Listen, ":")
}

// Port is the default one, for examples.
func (s Spec) Port() string { return "20000" }

// Label is the name of the launchd job.
const Label = "com.agented.backend"

// Unit is the systemd service.
func (s Spec) Unit() string { return s.render("agented.service") }

// SocketUnit is the systemd socket.
func (s Spec) SocketUnit() string { return s.render("agented.socket") }

// Plist is the launchd job.
func (s Spec) Plist() string { return s.render("com.agented.backend.plist") }

// AccessLog is where launchd has the standard output go.
func (s Spec) AccessLog() string { return filepath.Join(s.LogDir, "backend.log") }

// ErrorLog is where launchd has the standard error go: the log of the server.
func (s Spec) ErrorLog() string { return filepath.Join(s.LogDir, "backend-error.log") }

// PIDFile holds the number of the server that runs.
func (s Spec) PIDFile() string { return agented.Layout{Root: s.DataDir}.ServerLock() }

// Newsyslog has macOS rotate the logs.
func (s Spec) Newsyslog() string { return s.render("newsyslog.conf") }

// rotates reports whether macOS can be told to rotate the logs: root alone may,
// and fields of its file are told apart by blanks.
func (s Spec) rotates() bool {
	return s.Manager == Launchd && !s.PerUser && !strings.ContainsAny(s.LogDir+s.DataDir+s.Account, " \t#\\")
}

// newsyslogFile is where macOS looks for what to rotate.
const newsyslogFile = "/etc/newsyslog.d/" + Label + ".conf"

// Settings is a fresh settings file.
func (s Spec) Settings() string { return s.render("agented.env") }

// Caddyfile is an example of a reverse proxy.
func (s Spec) Caddyfile() string { return s.render("Caddyfile") }

// Nginx is an example of a reverse proxy.
func (s Spec) Nginx() string { return s.render("nginx.conf") }

func (s Spec) render(name string) string {
	t := template.Must(template.New(name).Funcs(template.FuncMap{"xml": escape}).ParseFS(files, "templates/"+name))
	var b strings.Builder
	if err := t.Execute(&b, s); err != nil {
		panic(err) // the templates are ours, and tested
	}
	return b.String()
}

func escape(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// Check reports what cannot be written into the files: systemd takes spaces,
// quotes, percent signs and the like in a command line for something else.
func (s Spec) Check() error {
	for name, path := range map[string]string{"program": s.Program, "settings file": s.EnvFile, "home": s.Home, "data folder": s.DataDir} {
		if !filepath.IsAbs(path) {
			return agented.Errorf(agented.Invalid, "the %s %q is not an absolute path", name, path)
		}
		if s.Manager == Systemd && strings.ContainsAny(path, " \t\n\"'\\%$;#") {
			return agented.Errorf(agented.Invalid, "the %s %q has a character that a unit file takes for something else: use a plain path", name, path)
		}
	}
	return nil
}

// Path is where the supervisor looks for the file of the given name: the unit,
// the socket unit or the job.
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

// files lists what the supervisor reads.
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

// String names the service for people.
func (s Spec) String() string {
	whose := "of this machine"
	if s.PerUser {
		whose = "of this user"
	}
	return fmt.Sprintf("%s service %s", s.Manager, whose)
}

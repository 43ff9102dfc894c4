package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
)

// Installer installs the service on this machine, or prints the changes.
type Installer struct {
	Spec   Spec
	Source string    // binary to install as Spec.Program
	DryRun bool      // print only
	Out    io.Writer // receives the description of each step
	Report *Report   // receives the same for scripts; nil: none
}

// step is one change to the machine.
type step struct {
	text string
	do   func(context.Context) error
}

// Install writes the files of the service and starts or restarts it. It returns when the server
// is ready. It can be repeated, and does not change an existing settings file.
func (in Installer) Install(ctx context.Context) error {
	in.Report.begin(&in)
	if err := in.Spec.Check(); err != nil {
		return err
	}
	if err := in.allowed(); err != nil {
		return err
	}
	if err := in.packaged("start it with `sudo systemctl enable --now agented`, and upgrade it with the package manager"); err != nil {
		return err
	}
	var steps []step
	s := in.Spec
	if !s.PerUser {
		steps = append(steps, in.account()...)
	}
	if in.Source != s.Program {
		steps = append(steps, step{"copy " + in.Source + " to " + s.Program, func(context.Context) error { return copyProgram(in.Source, s.Program) }})
	}
	steps = append(steps, in.settings()...)
	if path := s.Path("agented.socket"); s.Manager == Systemd && !s.Socket && exists(path) {
		// The socket unit of an earlier installation with --socket would hold the port.
		steps = append(steps, in.command(in.systemctl("disable", "--now", "agented.socket")...),
			step{"remove " + path, func(context.Context) error { return os.Remove(path) }})
	}
	for _, f := range s.files() {
		text := "write " + f.path
		if in.DryRun {
			text += ":\n" + indent(f.content)
		}
		steps = append(steps, step{text, func(context.Context) error {
			if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
				return err
			}
			return disk.ReplaceFile(f.path, []byte(f.content), 0o644)
		}})
	}
	steps = append(steps, in.start()...)
	if err := in.run(ctx, steps); err != nil || in.DryRun {
		return err
	}
	return in.Status(ctx)
}

// Uninstall stops the server and removes the files of the service. Data, settings, the program,
// the account and running agents are kept.
func (in Installer) Uninstall(ctx context.Context) error {
	in.Report.begin(&in)
	if err := in.allowed(); err != nil {
		return err
	}
	s := in.Spec
	var steps []step
	switch s.Manager {
	case Systemd:
		for _, unit := range []string{"agented.socket", "agented.service"} {
			path := s.Path(unit)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			steps = append(steps, in.command(in.systemctl("disable", "--now", unit)...),
				step{"remove " + path, func(context.Context) error { return os.Remove(path) }})
		}
		if len(steps) > 0 {
			steps = append(steps, in.command(in.systemctl("daemon-reload")...))
		}
	case Launchd:
		if path := s.Path(Label + ".plist"); exists(path) {
			steps = append(steps, in.command("launchctl", "bootout", in.domain()+"/"+Label),
				step{"remove " + path, func(context.Context) error { return os.Remove(path) }})
			if !s.PerUser && exists(newsyslogFile) {
				steps = append(steps, step{"remove " + newsyslogFile, func(context.Context) error { return os.Remove(newsyslogFile) }})
			}
		}
	}
	if len(steps) == 0 {
		if err := in.packaged("remove it with the package manager, or stop it with `sudo systemctl disable --now agented`"); err != nil {
			return err
		}
		return agented.Errorf(agented.NotFound, "no %s is installed", s)
	}
	if err := in.run(ctx, steps); err != nil || in.DryRun {
		return err
	}
	fmt.Fprintf(in.Out, "\nThe service was removed. The data, the settings in %s and the program %s were kept", s.EnvFile, s.Program)
	if !s.PerUser {
		fmt.Fprintf(in.Out, ", as was the account %s", s.Account)
	}
	fmt.Fprintln(in.Out, ".\nRunning agents continue; the next server adopts them.")
	return nil
}

// packaged returns a Conflict with the advice if a package owns the service of this machine.
func (in Installer) packaged(advice string) error {
	if in.Spec.Manager != Systemd || in.Spec.PerUser || in.DryRun || !exists(packagedUnit) {
		return nil
	}
	return agented.Errorf(agented.Conflict, "a package has installed the service of this machine (%s): %s", packagedUnit, advice)
}

// allowed returns an error if the installation is impossible, before anything is changed.
func (in Installer) allowed() error {
	s := in.Spec
	switch {
	case in.DryRun:
		return nil
	case !s.PerUser && os.Geteuid() != 0:
		return agented.Errorf(agented.Denied, "a system service needs root: use sudo, or --user for a service of your user")
	case s.PerUser && os.Geteuid() == 0:
		return agented.Errorf(agented.Invalid, "--user installs a service of the current user, and root should not run agents: run the command as another user")
	case s.Manager == Systemd && !exists("/run/systemd/system"):
		return agented.Errorf(agented.Unavailable, "systemd does not manage this machine, so it cannot run a service: use `agented serve --supervise`")
	}
	return nil
}

// account creates the user that the server and its agents run as.
func (in Installer) account() []step {
	s := in.Spec
	_, err := user.Lookup(s.Account)
	if err == nil || s.Manager == Launchd {
		return nil // on macOS it is an existing user
	}
	return []step{in.command("useradd", "--system", "--user-group", "--home-dir", s.Home, "--no-create-home",
		"--shell", "/usr/sbin/nologin", "--comment", "Agented", s.Account)}
}

// settings creates the settings file and the folders that the service manager does not create.
func (in Installer) settings() []step {
	s := in.Spec
	var steps []step
	if !exists(s.EnvFile) {
		text := "write " + s.EnvFile
		if in.DryRun {
			text += ":\n" + indent(s.Settings())
		}
		steps = append(steps, step{text, func(context.Context) error {
			mode, folder := os.FileMode(0o600), os.FileMode(0o700)
			if !s.PerUser {
				mode, folder = 0o640, 0o750 // root writes it, the server reads it
			}
			dir := filepath.Dir(s.EnvFile)
			if !exists(dir) {
				if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.Mkdir(dir, folder), s.own(dir, 0)); err != nil {
					return err
				}
			}
			return errors.Join(disk.ReplaceFile(s.EnvFile, []byte(s.Settings()), mode), s.own(s.EnvFile, 0))
		}})
	}
	if s.Manager == Systemd {
		return steps // StateDirectory= creates the home folder
	}
	for _, dir := range []string{s.LogDir, s.DataDir} {
		if exists(dir) {
			continue
		}
		steps = append(steps, step{"create the folder " + dir, func(context.Context) error {
			return errors.Join(os.MkdirAll(dir, 0o700), s.own(dir, -1))
		}})
	}
	// launchd would create the log files too, but as root's for a daemon, and the server could
	// not reopen them.
	for _, path := range []string{s.AccessLog(), s.ErrorLog()} {
		if exists(path) {
			continue
		}
		steps = append(steps, step{"create the log " + path, func(context.Context) error {
			return errors.Join(disk.ReplaceFile(path, nil, 0o640), s.own(path, -1))
		}})
	}
	return steps
}

// own gives a file to the group of the account, and to the account itself unless root keeps it.
func (s Spec) own(path string, uid int) error {
	if s.PerUser {
		return nil
	}
	u, err := user.Lookup(s.Account)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err == nil && uid < 0 {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// start makes the service manager read the files and start the server.
func (in Installer) start() []step {
	s := in.Spec
	if s.Manager == Launchd {
		path := s.Path(Label + ".plist")
		return []step{
			{"unload an older job", func(ctx context.Context) error {
				// It fails if there is none, which is not an error.
				_ = exec.CommandContext(ctx, "launchctl", "bootout", in.domain()+"/"+Label).Run()
				return nil
			}},
			in.command("launchctl", "bootstrap", in.domain(), path),
			{"wait until the server listens on " + s.Listen, in.awaitSocket},
		}
	}
	steps := []step{in.command(in.systemctl("daemon-reload")...)}
	if s.Socket {
		// systemd opens a socket only while its service is not running; an open socket is not
		// affected.
		steps = append(steps, step{"open the socket: systemctl start agented.socket", func(ctx context.Context) error {
			if in.exec(ctx, in.systemctl("is-active", "--quiet", "agented.socket")...) == nil {
				return nil
			}
			_ = in.exec(ctx, in.systemctl("stop", "agented.service")...)
			return in.exec(ctx, in.systemctl("start", "agented.socket")...)
		}}, in.command(in.systemctl("enable", "agented.socket")...))
	}
	return append(steps,
		in.command(in.systemctl("enable", "agented.service")...),
		// Returns when the server has reported that it is ready.
		in.command(in.systemctl("restart", "agented.service")...))
}

func (in Installer) systemctl(args ...string) []string {
	if in.Spec.PerUser {
		return append([]string{"systemctl", "--user"}, args...)
	}
	return append([]string{"systemctl"}, args...)
}

func (in Installer) domain() string {
	if in.Spec.PerUser {
		return "gui/" + strconv.Itoa(os.Getuid())
	}
	return "system"
}

func (in Installer) command(args ...string) step {
	return step{"run " + strings.Join(args, " "), func(ctx context.Context) error { return in.exec(ctx, args...) }}
}

// exec runs a program of the system; its output is part of the error.
func (in Installer) exec(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out))
	if said == "" {
		said = err.Error()
	}
	text := "`" + strings.Join(args, " ") + "` failed: " + said
	if slices.Contains(args, "restart") {
		text += "\nLast log lines of the server: " + in.logs()
	}
	return agented.Errorf(agented.Internal, "%s", text).Because(err)
}

// logs returns the command that shows the server's log.
func (in Installer) logs() string {
	switch {
	case in.Spec.Manager == Launchd:
		return "tail -f " + in.Spec.ErrorLog()
	case in.Spec.PerUser:
		return "journalctl --user -u agented -f"
	}
	return "journalctl -u agented -f"
}

func (in Installer) run(ctx context.Context, steps []step) error {
	for _, st := range steps {
		fmt.Fprintln(in.Out, st.text)
		if in.DryRun {
			in.Report.did(st.text)
			continue
		}
		if err := st.do(ctx); err != nil {
			var known *agented.Error
			if errors.As(err, &known) {
				return err
			}
			return agented.Errorf(agented.Internal, "could not %s: %v", strings.SplitN(st.text, "\n", 2)[0], err).Because(err)
		}
		in.Report.did(st.text)
	}
	if in.DryRun {
		fmt.Fprintln(in.Out, "Nothing was changed.")
	}
	return nil
}

// Status prints the state of the service. It returns NotFound if none is installed and
// Unavailable if it is not running.
func (in Installer) Status(ctx context.Context) error {
	in.Report.begin(&in)
	s := in.Spec
	if s.Manager == Launchd {
		if !exists(s.Path(Label + ".plist")) {
			return agented.Errorf(agented.NotFound, "no %s is installed: run `agented service install`", s)
		}
		out, err := exec.CommandContext(ctx, "launchctl", "print", in.domain()+"/"+Label).CombinedOutput()
		if err != nil {
			return agented.Errorf(agented.Unavailable, "the job is not loaded: `launchctl bootstrap %s %s`", in.domain(), s.Path(Label+".plist")).Because(err)
		}
		for line := range strings.Lines(string(out)) {
			for _, key := range []string{"state =", "pid =", "runs =", "last exit code ="} {
				if strings.HasPrefix(strings.TrimSpace(line), key) {
					fmt.Fprintln(in.Out, strings.TrimSpace(line))
					in.Report.launchd(strings.TrimSpace(line))
				}
			}
		}
		fmt.Fprintf(in.Out, "address: %s\nlog: %s\n", s.Listen, in.logs())
		return nil
	}
	if !exists(s.Path("agented.service")) && (s.PerUser || !exists(packagedUnit)) {
		return agented.Errorf(agented.NotFound, "no %s is installed: run `agented service install`", s)
	}
	ask := in.systemctl("show", "agented.service", "--property=ActiveState,SubState,UnitFileState,MainPID,StatusText,NRestarts,NFileDescriptorStore,ActiveEnterTimestamp")
	out, err := exec.CommandContext(ctx, ask[0], ask[1:]...).Output()
	if err != nil {
		return agented.Errorf(agented.Unavailable, "systemctl failed: check that systemd is running").Because(err)
	}
	p := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		p[name] = value
	}
	in.Report.systemd(p)
	fmt.Fprintf(in.Out, "state:     %s (%s), %s at boot\n", p["ActiveState"], p["SubState"], p["UnitFileState"])
	if p["StatusText"] != "" {
		fmt.Fprintf(in.Out, "server:    %s\n", p["StatusText"])
	}
	if p["MainPID"] != "0" {
		fmt.Fprintf(in.Out, "process:   %s since %s, restarted %s times by systemd\n", p["MainPID"], p["ActiveEnterTimestamp"], p["NRestarts"])
	}
	if n := p["NFileDescriptorStore"]; n != "" && n != "0" {
		fmt.Fprintln(in.Out, "socket:    kept by systemd over restarts")
	}
	fmt.Fprintf(in.Out, "settings:  %s\nlog:       %s\n", s.EnvFile, in.logs())
	if link := filepath.Join(s.DataDir, "setup-link"); exists(link) {
		fmt.Fprintf(in.Out, "login:     no user yet; create the first one with the link in %s\n", link)
	}
	if p["ActiveState"] != "active" {
		return agented.Errorf(agented.Unavailable, "the service is %s: run `%s` to see why", p["ActiveState"], in.logs())
	}
	return nil
}

// awaitSocket returns when the server listens, because launchd does not wait for it.
func (in Installer) awaitSocket(ctx context.Context) error {
	network, addr := "tcp", in.Spec.Listen
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return agented.Errorf(agented.Unavailable, "the server does not listen on %s: see %s", addr, in.logs()).Because(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// copyProgram installs the binary by rename, so that the running one is never overwritten; macOS
// kills a program whose file is changed.
func copyProgram(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return disk.ReplaceFile(to, b, 0o755)
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ")
}

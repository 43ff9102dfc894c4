package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/service"
)

// superviseFlags are those of serve that have to do with supervision. The hidden
// ones are for the program itself.
func superviseFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Bool("supervise", false, "stay as a small parent that keeps the socket and starts the server again")
	f.Bool("detach", false, "with --supervise: go to the background once the server is ready")
	f.Bool("replace", false, "with --supervise: take the place of the server that uses the data folder")
	f.StringSlice("kept", nil, "")
	f.Int("parent-fd", 0, "")
	_ = f.MarkHidden("kept")
	_ = f.MarkHidden("parent-fd")
}

// supervise runs the server under a parent, here or in the background.
func supervise(cmd *cobra.Command) error {
	file, _ := cmd.Flags().GetString("env-file")
	sample, _ := cmd.Flags().GetBool("sample")
	detach, _ := cmd.Flags().GetBool("detach")
	replace, _ := cmd.Flags().GetBool("replace")
	values, _ := cmd.Flags().GetStringSlice("kept")
	kept, err := service.ParseKept(values)
	if err != nil {
		return err
	}
	// Settings that are wrong are said at once and not once for each try.
	c, err := config.Load(config.Options{EnvFile: file})
	if err != nil {
		return err
	}
	program, err := ownPath()
	if err != nil {
		return err
	}
	args := []string{"serve"}
	if file != "" {
		if file, err = filepath.Abs(file); err != nil {
			return err
		}
		args = append(args, "--env-file", file)
	}
	if sample {
		args = append(args, "--sample")
	}
	if _, err := config.PrepareDataDir(c.DataDir); err != nil {
		return err
	}
	settings := digest(c, args)
	if replace {
		done, err := makeRoom(cmd.Context(), c, settings)
		if err != nil || done {
			return err
		}
	}
	if detach {
		return background(cmd.Context(), c, program, args)
	}
	// The environment of this process holds secrets for the servers to come.
	undumpable := secret.Undumpable()
	masker := new(atomic.Pointer[redact.Masker])
	masker.Store(redact.New(c.Secrets()))
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	log := slog.New(redact.Handler(logHandler(c.LogFormat, level), masker))
	if undumpable != nil {
		log.Warn("the process can be inspected by other processes of this user", "err", undumpable)
	}
	p := service.Parent{
		Program: program, Args: args, State: service.StateFile{Dir: c.DataDir}, Settings: settings, Address: c.Bind.String(),
		Environ: os.Environ, Kept: kept, Stop: c.Shutdown + 10*time.Second, Log: log,
	}
	ended, err := p.Run()
	if err == nil && ended.Code != 0 {
		return exitError(ended.Code)
	}
	return err
}

// ownPath is where this program was started from: what is at that place later is
// a newer one. A link stays a link.
func ownPath() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(path)
	}
	return os.Executable()
}

// digest is a mark of the environment and the arguments that the server is
// started with: a process keeps those that it got.
func digest(c *config.Config, args []string) string {
	h := sha256.New()
	for _, row := range c.Show("", "") {
		if v, ok := os.LookupEnv(row.Name); ok {
			fmt.Fprintf(h, "%s=%q\n", row.Name, v)
		}
	}
	for _, name := range []string{"PATH", "HOME"} {
		fmt.Fprintf(h, "%s=%q\n", name, os.Getenv(name))
	}
	dir, _ := os.Getwd()
	fmt.Fprintf(h, "%q %q\n", args, dir)
	return fmt.Sprintf("%x", h.Sum(nil))[:32]
}

// makeRoom ends the server that uses our data folder, or has its parent replace
// it, in which case done is true. Nobody else is touched.
func makeRoom(ctx context.Context, c *config.Config, settings string) (done bool, err error) {
	state := service.StateFile{Dir: c.DataDir}
	s, supervised := state.Read()
	if supervised && s.Settings == settings {
		return true, restart(ctx, c)
	}
	// Better to find out before our own server is gone. While it is there, its
	// own address is taken by itself.
	if supervised && s.Address != c.Bind.String() || !supervised && !service.Locked(agented.Layout{Root: c.DataDir}.ServerLock()) {
		if err := free(c.Bind); err != nil {
			return false, err
		}
	}
	_, err = stop(ctx, c)
	if err != nil {
		return false, err
	}
	return false, free(c.Bind)
}

// free reports that an address is taken.
func free(a config.Address) error {
	if a.Network == "unix" {
		return nil // the server looks whether somebody answers
	}
	l, err := net.Listen(a.Network, a.Listen())
	if errors.Is(err, syscall.EADDRINUSE) {
		return agented.Errorf(agented.Conflict, "another program listens on %s already, and it is no server on this data folder: end it, or set AGENTED_BIND to another address", a)
	}
	if err != nil {
		return nil // the server says it better
	}
	return l.Close()
}

// stop ends the server on the data folder and, if it has one, its parent. It
// reports the process that was ended; 0 if there was none.
func stop(ctx context.Context, c *config.Config) (pid int, err error) {
	state, lock := service.StateFile{Dir: c.DataDir}, agented.Layout{Root: c.DataDir}.ServerLock()
	if s, ok := state.Read(); ok {
		if err := state.Signal(syscall.SIGTERM); err != nil && agented.KindOf(err) != agented.NotFound {
			return 0, err
		}
		pid = s.PID
	} else {
		found, held, err := service.SignalServer(lock, syscall.SIGTERM)
		if err != nil && agented.KindOf(err) != agented.NotFound {
			return 0, err
		}
		if !held {
			return 0, nil
		}
		pid = found
	}
	most := c.Shutdown + 15*time.Second
	err = poll(ctx, most, func() bool { return state.Gone() && !service.Locked(lock) })
	if errors.Is(err, errTooLong) {
		return pid, agented.Errorf(agented.Unavailable, "process %d has not ended within %s: see its log", pid, most)
	}
	return pid, err
}

var errTooLong = errors.New("it takes too long")

// poll asks until ok, for as long as most.
func poll(ctx context.Context, most time.Duration, ok func() bool) error {
	for end := time.Now().Add(most); !ok(); {
		if time.Now().After(end) {
			return errTooLong
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// restart has the parent replace the server, and itself, by what is at the
// program's path now. No connection is refused meanwhile.
func restart(ctx context.Context, c *config.Config) error {
	state := service.StateFile{Dir: c.DataDir}
	before, ok := state.Read()
	if !ok {
		return agented.Errorf(agented.NotFound, "no server is supervised on %s: start one with `agented serve --supervise`; a service is restarted by what runs it", c.DataDir)
	}
	version, err := service.Probe(before.Program)
	if err != nil {
		return agented.Errorf(agented.Invalid, "%s cannot be started, so the server that runs was left alone: put a working program there", before.Program).Because(err)
	}
	if err := state.Signal(syscall.SIGUSR2); err != nil {
		return err
	}
	most := c.Shutdown + time.Minute
	var s State
	seen := time.Now()
	err = poll(ctx, most, func() bool {
		if s, ok = state.Read(); !ok {
			// None holds the lock for a moment while the parent becomes another program.
			return time.Since(seen) > 5*time.Second
		}
		seen = time.Now()
		return s.Server != before.Server && (s.Ready || s.Failed >= 3) || s.Refusals > before.Refusals
	})
	switch {
	case err == nil && ok && s.PID == before.PID && s.Refusals > before.Refusals:
		return agented.Errorf(agented.Invalid, "%s", s.Refused)
	case !ok && (err == nil || errors.Is(err, errTooLong)):
		return agented.Errorf(agented.Unavailable, "the parent of the server has gone: start it anew with `agented serve --supervise`")
	case errors.Is(err, errTooLong), err == nil && !s.Ready:
		return agented.Errorf(agented.Unavailable, "the new server (%s) is not ready (%s); it is tried again and again: see its log", version, orElse(s.Last, "still starting"))
	case err != nil:
		return err
	}
	fmt.Fprintf(os.Stdout, "process %d serves now, version %s; it was process %d\n", s.Server, version, before.Server)
	return nil
}

// State is what a parent says of its server.
type State = service.State

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// background starts a parent that outlives this process, and returns when its
// server is ready.
func background(ctx context.Context, c *config.Config, program string, args []string) error {
	if err := free(c.Bind); err != nil {
		return err
	}
	path := filepath.Join(c.DataDir, "server.log")
	if info, err := os.Stat(path); err == nil && info.Size() > 16<<20 {
		_ = os.Rename(path, path+".1")
	}
	log, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return agented.Errorf(agented.Invalid, "the log %s cannot be written: permit it", path).Because(err)
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, append(args, "--supervise")...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	state := service.StateFile{Dir: c.DataDir}
	var s State
	gone := false
	err = poll(ctx, time.Minute, func() bool {
		select {
		case <-ended:
			gone = true
			return true
		default:
		}
		said, ok := state.Read()
		if ok && said.PID == cmd.Process.Pid {
			s = said
		}
		return s.Ready || s.Failed >= 3
	})
	if err == nil && s.Ready && !gone {
		fmt.Fprintf(os.Stdout, "serving at %s as process %d, supervised by process %d\nlog: %s\nstop it with: %s stop\n", c.Bind, s.Server, s.PID, path, program)
		return nil
	}
	if !gone {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	said := make([]byte, 4<<10)
	n, _ := log.ReadAt(said, info.Size())
	if n < len(said) {
		said = said[:n]
	}
	return agented.Errorf(agented.Unavailable, "the server does not come up. Its log, %s, begins with:\n%s", path, strings.TrimSpace(firstLines(string(said), 8)))
}

func firstLines(s string, n int) string {
	lines := strings.SplitAfterN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "")
}

// stopCommand ends the server on the data folder.
func stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop the server on the data folder; running agents go on", Args: exactArgs(), GroupID: "server",
		Long: `Stop the server on the data folder of the settings, with its parent if it has one,
and wait until it has ended. Open requests are answered first. Running agents go
on; the next server takes them over. A service is stopped by what runs it
(systemctl, launchctl), which would start it again otherwise.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := localConfig(cmd)
			if err != nil {
				return err
			}
			pid, err := stop(cmd.Context(), c)
			if err != nil {
				return err
			}
			if pid == 0 {
				fmt.Fprintf(os.Stdout, "no server is running on %s\n", c.DataDir)
				return nil
			}
			fmt.Fprintf(os.Stdout, "ended process %d\n", pid)
			return nil
		},
	}
}

// restartCommand replaces a supervised server.
func restartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restart", Short: "Replace a supervised server, after an upgrade for example", Args: exactArgs(), GroupID: "server",
		Long: `Have the parent of a server (` + "`agented serve --supervise`" + `) replace it and itself by
the program that is at its path now. No connection is refused, no request is lost,
and running agents go on. A program that cannot be started, or that does not take
the settings of the server (its ` + "`config check`" + `), changes nothing.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := localConfig(cmd)
			if err != nil {
				return err
			}
			return restart(cmd.Context(), c)
		},
	}
}

// localConfig reads the settings of the server that is meant, to find its data
// folder.
func localConfig(cmd *cobra.Command) (*config.Config, error) {
	file, _ := cmd.Flags().GetString("env-file")
	return config.Load(config.Options{EnvFile: file})
}

// childOf makes a server the child of a parent: the protocol's variables carry
// the parent's number, and its death is a reason to drain.
func childOf(cmd *cobra.Command, fd int) (ctx context.Context, ppid int) {
	ctx, cancel := context.WithCancel(cmd.Context())
	service.Outlive(fd, cancel)
	return ctx, os.Getppid()
}

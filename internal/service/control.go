package service

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// Control starts, replaces and stops the server of a data folder from another process.
type Control struct {
	DataDir  string
	Bind     config.Address // where the server listens
	Shutdown time.Duration  // timeout of the server's graceful shutdown
}

func (c Control) state() StateFile   { return StateFile{Dir: c.DataDir} }
func (c Control) serverLock() string { return agented.Layout{Root: c.DataDir}.ServerLock() }

// MakeRoom stops the server that uses the data folder, or makes its parent replace it and returns
// the result. Other servers are not affected. settings identifies those of the new server.
func (c Control) MakeRoom(ctx context.Context, settings string) (replaced *Restarted, err error) {
	s, supervised := c.state().Read()
	if supervised && s.Settings == settings {
		return c.Restart(ctx)
	}
	// Check the address before the old server is stopped. While it runs, it occupies its own
	// address.
	if supervised && s.Address != c.Bind.String() || !supervised && !Locked(c.serverLock()) {
		if err := c.free(); err != nil {
			return nil, err
		}
	}
	if _, err = c.Stop(ctx); err != nil {
		return nil, err
	}
	return nil, c.free()
}

// free returns an error if the address is in use.
func (c Control) free() error {
	if c.Bind.Network == "unix" {
		return nil // the server checks whether the socket is in use
	}
	l, err := net.Listen(c.Bind.Network, c.Bind.Listen())
	if errors.Is(err, syscall.EADDRINUSE) {
		return agented.Errorf(agented.Conflict, "another program already listens on %s, and it is not a server on this data folder: stop it, or set AGENTED_BIND to another address", c.Bind)
	}
	if err != nil {
		return nil // the server reports it with more detail
	}
	return l.Close()
}

// Stop stops the server on the data folder and its parent, if there is one. It returns the pid of
// the process that ended, or 0 if there was none.
func (c Control) Stop(ctx context.Context) (pid int, err error) {
	state, lock := c.state(), c.serverLock()
	if s, ok := state.Read(); ok {
		if err := state.Signal(syscall.SIGTERM); err != nil && agented.KindOf(err) != agented.NotFound {
			return 0, err
		}
		pid = s.PID
	} else {
		found, held, err := SignalServer(lock, syscall.SIGTERM)
		if err != nil && agented.KindOf(err) != agented.NotFound {
			return 0, err
		}
		if !held {
			return 0, nil
		}
		pid = found
	}
	most := c.Shutdown + 15*time.Second
	err = poll(ctx, most, func() bool { return state.ParentExited() && !Locked(lock) })
	if errors.Is(err, errTooLong) {
		return pid, agented.Errorf(agented.Unavailable, "process %d has not ended within %s: see its log", pid, most)
	}
	return pid, err
}

var errTooLong = errors.New("timed out")

// poll calls ok until it returns true, for at most the given time.
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

// Restarted describes a completed restart.
type Restarted struct {
	PID      int    `json:"pid"`
	Version  string `json:"version"`
	Replaced int    `json:"replaced_pid"`
	DataDir  string `json:"data_dir"`
}

// Restart makes the parent replace the server and itself with the program that is now at the
// program's path. No connection is refused meanwhile.
func (c Control) Restart(ctx context.Context) (*Restarted, error) {
	state := c.state()
	before, ok := state.Read()
	if !ok {
		return nil, agented.Errorf(agented.NotFound, "no server is supervised on %s: start one with `agented serve --supervise`, or restart the service with systemctl or launchctl", c.DataDir)
	}
	version, err := Probe(before.Program)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "%s cannot be started, so the running server was not replaced: install a working program there", before.Program).Because(err)
	}
	if err := state.Signal(syscall.SIGUSR2); err != nil {
		return nil, err
	}
	most := c.Shutdown + time.Minute
	var s State
	seen := time.Now()
	err = poll(ctx, most, func() bool {
		if s, ok = state.Read(); !ok {
			// The lock is free for a moment while the parent executes the new program.
			return time.Since(seen) > 5*time.Second
		}
		seen = time.Now()
		return s.Server != before.Server && (s.Ready || s.Failed >= 3) || s.Refusals > before.Refusals
	})
	switch {
	case err == nil && ok && s.PID == before.PID && s.Refusals > before.Refusals:
		return nil, agented.Errorf(agented.Invalid, "%s", s.Refused)
	case !ok && (err == nil || errors.Is(err, errTooLong)):
		return nil, agented.Errorf(agented.Unavailable, "the parent of the server has ended: start it again with `agented serve --supervise`")
	case errors.Is(err, errTooLong), err == nil && !s.Ready:
		return nil, agented.Errorf(agented.Unavailable, "the new server (%s) is not ready (%s); the parent keeps restarting it: see its log", version, cmp.Or(s.Last, "still starting"))
	case err != nil:
		return nil, err
	}
	return &Restarted{s.Server, version, before.Server, c.DataDir}, nil
}

// Detach starts a parent that outlives this process, and returns its state and the path of its
// log when the server is ready.
func (c Control) Detach(ctx context.Context, program string, args []string) (started State, logFile string, err error) {
	if err := c.free(); err != nil {
		return State{}, "", err
	}
	path := filepath.Join(c.DataDir, "server.log")
	if info, err := os.Stat(path); err == nil && info.Size() > 16<<20 {
		_ = os.Rename(path, path+".1")
	}
	log, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return State{}, "", agented.Errorf(agented.Invalid, "the log %s cannot be written: make it writable", path).Because(err)
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		return State{}, "", err
	}
	cmd := exec.Command(program, append(args, "--supervise")...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return State{}, "", err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	state := c.state()
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
		return s, path, nil
	}
	if !gone {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	if err != nil && !errors.Is(err, errTooLong) {
		return State{}, "", err
	}
	said := make([]byte, 4<<10)
	n, _ := log.ReadAt(said, info.Size())
	if n < len(said) {
		said = said[:n]
	}
	return State{}, "", agented.Errorf(agented.Unavailable, "the server did not start. Its log, %s, begins with:\n%s", path, strings.TrimSpace(firstLines(strings.ToValidUTF8(string(said), ""), 8)))
}

// firstLines returns the first n lines of a text.
func firstLines(s string, n int) string {
	lines := strings.SplitAfterN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "")
}

// OwnPath returns the path that this program was started from; an upgrade puts a newer program
// there. Links are not resolved.
func OwnPath() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(path)
	}
	return os.Executable()
}

package service

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/filelock"
)

// Parent is a small supervisor for machines without systemd. It runs the server as its child,
// implements systemd's notification protocol, keeps the listening socket while no server is
// running, and restarts the server without limit. It ignores other processes, unless it is
// process 1, which reaps all of them.
type Parent struct {
	Environ func() []string // environment for the server, without the protocol's variables
	Program string          // path of the server's program, resolved at each start
	Args    []string        // arguments of the server, and of a parent that replaces this one
	State   StateFile
	// Settings and Address are copied to the state.
	Settings, Address string
	Kept              []Kept        // sockets that an earlier parent passed on
	Stop              time.Duration // stop timeout, unless the server extends it
	Watch             time.Duration // interval without notification after which a ready server is aborted
	Healthy           time.Duration // a server that ran longer is restarted without delay
	Log               *slog.Logger

	conn     *net.UnixConn // notification socket
	address  string        // of conn, for NOTIFY_SOCKET
	messages chan message
	heard    chan struct{} // closed when the reader of conn has ended
	child    *child        // nil if no server is running
	quick    int           // consecutive early exits
	failed   int           // starts since a server was last ready
	last     string        // how the last of those starts ended
	refused  string        // why the last replacement was refused
	refusals int           // number of refused replacements
	want     intent
	hangup   bool // reload once the server is ready
}

// Kept is a socket that outlives the server.
type Kept struct {
	Name string
	FD   int
}

// intent is the action after the server has ended.
type intent int

const (
	serving   intent = iota // restart the server
	ending                  // exit
	replacing               // execute the program that is now at the path
)

// child is a running server.
type child struct {
	pid      int
	life     *os.File // pipe that closes when this process ends for any reason
	ready    time.Time
	check    time.Time // next check for a notification
	missed   int       // consecutive checks without a notification
	deadline time.Time // when it is killed; zero means not at all
	extended bool      // the deadline was extended because this process was frozen
	aborted  bool
}

// Ended is the result of the server when Run returns after a stop.
type Ended struct{ Code int }

// Defaults of a Parent.
const (
	defaultWatch   = 30 * time.Second
	defaultHealthy = 10 * time.Second
	slowest        = 3 * time.Second // maximum delay between two starts
	abortGrace     = 5 * time.Second // time for the goroutine dump of a server that hangs
	leftGrace      = 20 * time.Second
	// looks is the number of consecutive checks without a notification after which a server
	// counts as hanging. Checks are Watch/looks apart. However long parent and server were
	// frozen, only one check fails, so that a server that resumes has time to notify.
	looks = 4
	// late is the maximum delay of a timer in a process that was not frozen.
	late       = time.Second
	protocolFD = 3 // first inherited descriptor after the standard three
)

// pause returns the delay before the next start after the given number of consecutive early
// exits. There is none after the first.
func pause(quick int) time.Duration {
	if quick <= 0 {
		return 0
	}
	return min(50*time.Millisecond<<min(quick-1, 10), slowest)
}

// Run supervises the server until a signal stops it, and returns how the server ended.
func (p *Parent) Run() (Ended, error) {
	if p.Watch == 0 {
		p.Watch = defaultWatch
	}
	if p.Healthy == 0 {
		p.Healthy = defaultHealthy
	}
	// Before the lock is taken, because others find this process by the lock and send signals.
	signals := listenSignals()
	defer signals.close()
	lock, err := p.State.acquire()
	if err != nil {
		return Ended{}, err
	}
	// Last, because a process that waits for the lock will bind our address next.
	defer filelock.Release(lock)
	defer p.closeKept()
	if err := p.listen(); err != nil {
		return Ended{}, fmt.Errorf("open the notification socket: %w", err)
	}
	defer p.closeNotify()
	for _, k := range p.Kept {
		unix.CloseOnExec(k.FD)
	}

	// A buffer of one is enough: one pending signal triggers the reaping of all children.
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)

	p.Log.Info("supervising", "pid", os.Getpid(), "program", p.Program)
	next := time.Now() // time of the next start
	for {
		if p.child == nil && p.want == serving && !time.Now().Before(next) {
			if err := p.start(); err != nil {
				next = p.startFailed(err)
			}
		}
		timer := time.NewTimer(p.untilDue(next))
		select {
		case s := <-signals.stop:
			p.signalled(s)
		case s := <-signals.hangup:
			p.signalled(s)
		case s := <-signals.replace:
			p.signalled(s)
		case m := <-p.messages:
			p.handle(m)
		case <-died:
			if status, ok := p.reap(); ok {
				if p.want == ending {
					p.endAll()
					return Ended{Code: exitCode(status)}, nil
				}
				next = p.serverEnded(status)
			}
		case <-timer.C:
			p.overdue()
		}
		timer.Stop()
		if p.child != nil {
			continue
		}
		if p.want == replacing {
			p.prepareReplacement(signals)
		}
		switch p.want {
		case ending:
			p.endAll()
			return Ended{}, nil
		case replacing:
			err := p.execSelf() // returns only on failure
			signals.listen()
			p.Log.Error("the new program could not take over; the current one continues to supervise", "err", err)
			p.want, next = serving, time.Now()
		}
	}
}

// startFailed records that the server could not be started, and returns the time of the next start.
func (p *Parent) startFailed(err error) (next time.Time) {
	p.quick++
	next = time.Now().Add(pause(p.quick))
	p.Log.Error("the server could not be started", "err", err, "again_in", time.Until(next).Round(time.Millisecond).String())
	p.recordFailure("could not be started: " + err.Error())
	return next
}

// prepareReplacement handles the signals received so far, and sets how signals are treated until
// the new program handles them.
//
// A signal for reload or replacement would end the new program, so these are ignored: both are in
// progress. A signal to stop may end it, because no server is running.
func (p *Parent) prepareReplacement(signals parentSignals) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR2)
	signals.close()
	for _, s := range signals.received() {
		p.signalled(s)
	}
}

// closeKept closes the kept sockets.
func (p *Parent) closeKept() {
	for _, k := range p.Kept {
		_ = unix.Close(k.FD)
	}
	p.Kept = nil
}

// signalled handles a signal.
func (p *Parent) signalled(s os.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		p.want = ending
		p.terminate()
	case syscall.SIGHUP:
		// A server that is not ready would be ended by SIGHUP, and may have read the settings
		// already.
		if p.child == nil || p.child.ready.IsZero() {
			p.hangup = true
			return
		}
		_ = syscall.Kill(p.child.pid, syscall.SIGHUP)
	case syscall.SIGUSR2:
		if p.want == ending {
			return
		}
		version, err := Probe(p.Program)
		if err != nil {
			p.Log.Error("not replaced: the program does not start", "program", p.Program, "err", err)
			p.refuse(fmt.Sprintf("%s cannot be started, so the running server was not replaced: install a working program there", p.Program))
			return
		}
		if said := checkSettings(p.Program, p.Args, p.Environ()); said != "" {
			p.Log.Error("not replaced: the new program rejects the settings", "program", p.Program, "version", version, "says", said)
			p.refuse(fmt.Sprintf("version %s rejects the settings, so the running server was not replaced: fix them, then restart\n%s", version, said))
			return
		}
		p.Log.Info("replacing the server", "by", version)
		p.want = replacing
		p.terminate()
	}
}

// terminate starts the graceful shutdown of the server.
func (p *Parent) terminate() {
	if p.child == nil {
		return
	}
	if p.child.deadline.IsZero() {
		p.child.deadline = time.Now().Add(p.Stop)
	}
	_ = syscall.Kill(p.child.pid, syscall.SIGTERM)
}

// start starts the server with the kept sockets and a pipe that closes when this process ends.
func (p *Parent) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	var names []string
	for _, k := range p.Kept {
		// A copy, because os.File closes its descriptor.
		fd, err := unix.FcntlInt(uintptr(k.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			w.Close()
			return fmt.Errorf("pass on the socket %s: %w", k.Name, err)
		}
		f := os.NewFile(uintptr(fd), k.Name)
		defer f.Close()
		files, names = append(files, f), append(names, k.Name)
	}
	args := append([]string{p.Program}, p.Args...)
	args = append(args, "--parent-fd", strconv.Itoa(protocolFD+len(p.Kept)))
	process, err := os.StartProcess(p.Program, args, &os.ProcAttr{Env: p.environment(names), Files: append(files, r)})
	if err != nil {
		w.Close()
		return err
	}
	p.child = &child{pid: process.Pid, life: w}
	_ = process.Release() // reap waits for it
	p.note()
	return nil
}

// environment returns the server's environment with the protocol's variables.
func (p *Parent) environment(names []string) []string {
	var env []string
	for _, kv := range p.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID":
			continue
		}
		env = append(env, kv)
	}
	env = append(env, "NOTIFY_SOCKET="+p.address, fmt.Sprintf("WATCHDOG_USEC=%d", p.Watch.Microseconds()))
	if len(names) > 0 {
		// The server knows the pid of its parent; its own pid is not known yet.
		env = append(env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), fmt.Sprintf("LISTEN_FDS=%d", len(names)),
			"LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return env
}

// reap reaps all ended children and returns the status of the server if it was among them.
func (p *Parent) reap() (status unix.WaitStatus, server bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return status, server
		}
		if p.child != nil && pid == p.child.pid {
			status, server = ws, true
		}
	}
}

// serverEnded logs how the server ended and returns the time of the next start.
func (p *Parent) serverEnded(status unix.WaitStatus) time.Time {
	c := p.child
	p.child = nil
	c.life.Close()
	if p.want == replacing {
		p.quick = 0
		return time.Now()
	}
	how := "exit code " + strconv.Itoa(status.ExitStatus())
	if status.Signaled() {
		how = unix.SignalName(status.Signal())
	}
	if !c.ready.IsZero() && time.Since(c.ready) >= p.Healthy {
		p.quick = 0
	}
	wait := pause(p.quick)
	p.quick++
	p.Log.Error("the server has ended; restarting it", "how", how, "pid", c.pid, "ready", !c.ready.IsZero(), "in", wait.String())
	p.recordFailure("ended: " + how)
	return time.Now().Add(wait)
}

// untilDue returns the time until the next action is due.
func (p *Parent) untilDue(next time.Time) time.Duration {
	due := time.Now().Add(time.Hour)
	if p.child == nil {
		return max(time.Until(next), 0)
	}
	if d := p.child.deadline; !d.IsZero() && d.Before(due) {
		due = d
	}
	if p.watched() && p.child.check.Before(due) {
		due = p.child.check
	}
	return max(time.Until(due), 0)
}

// watched reports whether the server must send notifications.
func (p *Parent) watched() bool {
	return !p.child.ready.IsZero() && p.child.deadline.IsZero()
}

// signOfLife records a notification of the server.
func (p *Parent) signOfLife(now time.Time) {
	p.child.missed, p.child.check = 0, now.Add(p.Watch/looks)
}

// overdue aborts a server that hangs, and kills one that does not stop.
func (p *Parent) overdue() {
	c := p.child
	if c == nil {
		return
	}
	now := time.Now()
	switch over := now.Sub(c.deadline); {
	case !c.deadline.IsZero() && over > late && !c.extended:
		// Both processes or the machine were frozen: extend the server's time.
		c.deadline, c.extended = now.Add(min(over, p.Stop)), true
	case !c.deadline.IsZero() && !now.Before(c.deadline):
		if !c.aborted {
			p.Log.Error("the server does not stop: killing it", "pid", c.pid)
		}
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		c.deadline = now.Add(time.Second)
	case p.watched() && !now.Before(c.check):
		if c.missed++; c.missed < looks {
			c.check = now.Add(p.Watch / looks)
			return
		}
		p.Log.Error("the server has stopped sending notifications: aborting it with a goroutine dump", "pid", c.pid, "for", p.Watch.String())
		c.aborted, c.deadline = true, now.Add(abortGrace)
		_ = syscall.Kill(c.pid, syscall.SIGABRT)
		_ = syscall.Kill(c.pid, syscall.SIGCONT)
	}
}

// endAll terminates the remaining processes before process 1 ends. Otherwise the kernel kills
// them together with process 1, and the end of no attempt is recorded.
func (p *Parent) endAll() {
	if p.child != nil {
		p.child.life.Close()
		p.child = nil
	}
	p.State.remove()
	if os.Getpid() != 1 {
		return
	}
	if err := syscall.Kill(-1, syscall.SIGTERM); err != nil {
		return
	}
	for end := time.Now().Add(leftGrace); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		p.reap()
		if err := syscall.Kill(-1, 0); err != nil {
			return // no process is left
		}
	}
	p.Log.Error("some processes did not end in time")
}

// execSelf executes the program that is now at the path, which inherits the sockets. The process
// keeps its pid.
func (p *Parent) execSelf() error {
	args := append([]string{p.Program}, p.Args...)
	args = append(args, "--supervise")
	for _, k := range p.Kept {
		if _, err := unix.FcntlInt(uintptr(k.FD), unix.F_SETFD, 0); err != nil {
			return err
		}
		defer unix.CloseOnExec(k.FD)
		args = append(args, "--kept", fmt.Sprintf("%s=%d", k.Name, k.FD))
	}
	return syscall.Exec(p.Program, args, p.Environ())
}

// ParseKept parses the values of the --kept flag.
func ParseKept(values []string) ([]Kept, error) {
	var out []Kept
	for _, v := range values {
		name, number, _ := strings.Cut(v, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || fd < protocolFD {
			return nil, agented.Errorf(agented.Invalid, "--kept %q does not name a socket: the flag is for internal use", v)
		}
		out = append(out, Kept{Name: name, FD: fd})
	}
	return out, nil
}

// Outlive calls gone when the process at the other end of the pipe fd has ended for any reason.
// The server calls it to watch its parent.
func Outlive(fd int, gone func()) {
	unix.CloseOnExec(fd) // not inherited by agents
	life := os.NewFile(uintptr(fd), "life of the supervising process")
	go func() { // ends with the parent or with this process
		_, _ = io.Copy(io.Discard, life)
		gone()
	}()
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// recordFailure records that the server has ended or did not start.
func (p *Parent) recordFailure(how string) {
	p.failed++
	p.last = how
	p.note()
}

// refuse records why the server was not replaced, for the command that requested it.
func (p *Parent) refuse(why string) {
	p.refused, p.refusals = why, p.refusals+1
	p.note()
}

// note writes the state file for waiting commands.
func (p *Parent) note() {
	s := State{PID: os.Getpid(), Program: p.Program, Settings: p.Settings, Address: p.Address, Failed: p.failed, Last: p.last, Refused: p.refused, Refusals: p.refusals}
	if p.child != nil {
		s.Server, s.Ready = p.child.pid, !p.child.ready.IsZero()
	}
	if err := p.State.write(s); err != nil {
		p.Log.Warn("the state of the server could not be written", "err", err)
	}
}

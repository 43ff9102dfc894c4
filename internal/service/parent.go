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
)

// Parent is a small supervisor for where there is no systemd: it runs the
// server as its child, speaks systemd's protocol with it, keeps its listening
// socket while no server runs, and starts it again for ever. What the server
// started is none of its business, except as process 1, which reaps everybody.
type Parent struct {
	Environ func() []string // the environment that the server gets, beside what we add
	Program string          // of the server, looked up anew at each start
	Args    []string        // of the server, and of a parent that takes over
	State   StateFile
	// Settings and Address go into the state as they are.
	Settings, Address string
	Kept              []Kept        // sockets that an older parent has left to this one
	Stop              time.Duration // how long a stop may take, unless the server asks for more
	Watch             time.Duration // silence after which a server that was ready is ended
	Healthy           time.Duration // after which a server that dies is started again at once
	Log               *slog.Logger

	conn     *net.UnixConn // where the server speaks
	address  string        // of conn, for NOTIFY_SOCKET
	messages chan message
	heard    chan struct{} // closed when nobody listens any more
	child    *child        // nil: none runs
	quick    int           // deaths in a row that came too soon
	failed   int           // starts since one was ready
	last     string        // how the last one of those ended
	refused  string        // why it was not replaced when that was asked last
	refusals int           // how often that was so
	want     intent
	hangup   bool // reload once the server is ready
}

// Kept is a socket that outlives the server.
type Kept struct {
	Name string
	FD   int
}

// intent is what becomes of the server once it has ended.
type intent int

const (
	serving   intent = iota // start it again
	ending                  // end, too
	replacing               // become the program that is at the path now
)

// child is a server that runs.
type child struct {
	pid      int
	life     *os.File // closed by our death, whatever the kind
	ready    time.Time
	sign     time.Time // when it last said that it is well
	deadline time.Time // when it is killed; zero: not
	aborted  bool
}

// Ended is how the server ended when Run returns after a stop.
type Ended struct{ Code int }

// Defaults of a Parent.
const (
	defaultWatch   = 30 * time.Second
	defaultHealthy = 10 * time.Second
	slowest        = 3 * time.Second // between two starts
	abortGrace     = 5 * time.Second // for the dump of a server that hangs
	leftGrace      = 20 * time.Second
	protocolFD     = 3 // first descriptor that a child inherits beside its three
)

// pause is how long to wait before the start that follows the given number of
// quick deaths. The first one is for nothing.
func pause(quick int) time.Duration {
	if quick <= 0 {
		return 0
	}
	return min(50*time.Millisecond<<min(quick-1, 10), slowest)
}

// told are the signals that a Parent acts on.
var told = []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2}

// Run supervises until it is told to stop, and returns how the server ended.
func (p *Parent) Run() (Ended, error) {
	if p.Watch == 0 {
		p.Watch = defaultWatch
	}
	if p.Healthy == 0 {
		p.Healthy = defaultHealthy
	}
	// Before the lock, by which others find us to signal us.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, told...)
	defer signal.Stop(signals)
	lock, err := p.State.take()
	if err != nil {
		return Ended{}, err
	}
	// Last of all: whoever waits for the lock wants to listen on our address next.
	defer lock.Close()
	defer p.giveUp()
	if err := p.listen(); err != nil {
		return Ended{}, fmt.Errorf("open the socket on which the server speaks: %w", err)
	}
	defer p.deafen()
	for _, k := range p.Kept {
		unix.CloseOnExec(k.FD)
	}

	// A full channel of one holds all that has to be known: somebody has ended.
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)

	p.Log.Info("supervising", "pid", os.Getpid(), "program", p.Program)
	next := time.Now() // of the next start
	for {
		if p.child == nil && p.want == serving && !time.Now().Before(next) {
			if err := p.start(); err != nil {
				p.quick++
				next = time.Now().Add(pause(p.quick))
				p.Log.Error("the server could not be started", "err", err, "again_in", time.Until(next).Round(time.Millisecond).String())
				p.fell("could not be started: " + err.Error())
			}
		}
		timer := time.NewTimer(p.untilDue(next))
		select {
		case s := <-signals:
			p.signalled(s)
		case m := <-p.messages:
			p.hear(m)
		case <-died:
			if status, ok := p.reap(); ok {
				if p.want == ending {
					p.endAll()
					return Ended{Code: exitCode(status)}, nil
				}
				next = p.mourn(status)
			}
		case <-timer.C:
			p.overdue()
		}
		timer.Stop()
		if p.child != nil {
			continue
		}
		if p.want == replacing {
			// Until the new program listens to signals, one that asks for a reload or a
			// replacement would end it, and both are under way. One that asks for the
			// end may end it, as no server runs; what has come so far is still heard.
			signal.Ignore(syscall.SIGHUP, syscall.SIGUSR2)
			signal.Stop(signals)
			for len(signals) > 0 {
				p.signalled(<-signals)
			}
		}
		switch p.want {
		case ending:
			p.endAll()
			return Ended{}, nil
		case replacing:
			err := p.become() // returns only on failure
			signal.Notify(signals, told...)
			p.Log.Error("the new program could not take over; the old one goes on supervising", "err", err)
			p.want, next = serving, time.Now()
		}
	}
}

// giveUp closes the kept sockets.
func (p *Parent) giveUp() {
	for _, k := range p.Kept {
		_ = unix.Close(k.FD)
	}
	p.Kept = nil
}

// signalled does what a signal asks for.
func (p *Parent) signalled(s os.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT:
		p.want = ending
		p.terminate()
	case syscall.SIGHUP:
		// One that has not come so far would be ended by it, and may have read
		// the settings already.
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
			p.refuse(fmt.Sprintf("%s cannot be started, so the server that runs was left alone: put a working program there", p.Program))
			return
		}
		if said := checkSettings(p.Program, p.Args, p.Environ()); said != "" {
			p.Log.Error("not replaced: the settings do not suit the new program", "program", p.Program, "version", version, "says", said)
			p.refuse(fmt.Sprintf("version %s does not take the settings, so the server that runs was left alone: mend them, then restart\n%s", version, said))
			return
		}
		p.Log.Info("the server is replaced", "by", version)
		p.want = replacing
		p.terminate()
	}
}

// terminate asks the server to drain and end.
func (p *Parent) terminate() {
	if p.child == nil {
		return
	}
	if p.child.deadline.IsZero() {
		p.child.deadline = time.Now().Add(p.Stop)
	}
	_ = syscall.Kill(p.child.pid, syscall.SIGTERM)
}

// start runs the server. It gets the kept sockets, and the end of a pipe that
// tells it of our death.
func (p *Parent) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	var names []string
	for _, k := range p.Kept {
		// A copy, because a File closes what it was made of.
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
	_ = process.Release() // reap does the waiting
	p.note()
	return nil
}

// environment is ours, with what the server needs to speak to us.
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
		// The server knows whose number this is: its own is not known yet.
		env = append(env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), fmt.Sprintf("LISTEN_FDS=%d", len(names)),
			"LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return env
}

// reap takes everybody who has ended; it reports how the server did, if it was
// among them.
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

// mourn says how the server ended and returns when the next one is started.
func (p *Parent) mourn(status unix.WaitStatus) time.Time {
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
	p.Log.Error("the server has ended; it is started again", "how", how, "pid", c.pid, "ready", !c.ready.IsZero(), "in", wait.String())
	p.fell("ended: " + how)
	return time.Now().Add(wait)
}

// untilDue is how long there is nothing to do but listen.
func (p *Parent) untilDue(next time.Time) time.Duration {
	due := time.Now().Add(time.Hour)
	if p.child == nil {
		return max(time.Until(next), 0)
	}
	if d := p.child.deadline; !d.IsZero() && d.Before(due) {
		due = d
	}
	if p.watched() && p.child.sign.Add(p.Watch).Before(due) {
		due = p.child.sign.Add(p.Watch)
	}
	return max(time.Until(due), 0)
}

// watched reports whether the server has to give signs of life.
func (p *Parent) watched() bool {
	return !p.child.ready.IsZero() && p.child.deadline.IsZero()
}

// overdue ends a server that hangs or does not stop.
func (p *Parent) overdue() {
	c := p.child
	if c == nil {
		return
	}
	now := time.Now()
	switch {
	case !c.deadline.IsZero() && !now.Before(c.deadline):
		if !c.aborted {
			p.Log.Error("the server does not stop: it is killed", "pid", c.pid)
		}
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		c.deadline = now.Add(time.Second)
	case p.watched() && now.Sub(c.sign) >= p.Watch:
		p.Log.Error("the server gives no sign of life: it is ended, and says where it stands", "pid", c.pid, "for", p.Watch.String())
		c.aborted, c.deadline = true, now.Add(abortGrace)
		_ = syscall.Kill(c.pid, syscall.SIGABRT)
		_ = syscall.Kill(c.pid, syscall.SIGCONT)
	}
}

// endAll lets what is left end in order before process 1 does: the kernel kills
// it together with process 1, and then no attempt has a record of its end.
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
			return // nobody is left
		}
	}
	p.Log.Error("processes are left that did not end in time")
}

// become replaces this process with the program that is at the path now, which
// gets the sockets. The process keeps its number.
func (p *Parent) become() error {
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

// ParseKept reads the value of a --kept flag.
func ParseKept(values []string) ([]Kept, error) {
	var out []Kept
	for _, v := range values {
		name, number, _ := strings.Cut(v, "=")
		fd, err := strconv.Atoi(number)
		if err != nil || fd < protocolFD {
			return nil, agented.Errorf(agented.Invalid, "--kept %q does not name a socket: this flag is for the program itself", v)
		}
		out = append(out, Kept{Name: name, FD: fd})
	}
	return out, nil
}

// Outlive has gone called when the process at the other end of the pipe that
// the descriptor names is no more, whatever ended it. The server calls it.
func Outlive(fd int, gone func()) {
	unix.CloseOnExec(fd) // agents do not get it
	life := os.NewFile(uintptr(fd), "life of the supervising process")
	go func() { // ends with the supervising process or with this one
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

// fell notes that the server has ended, or did not even start.
func (p *Parent) fell(how string) {
	p.failed++
	p.last = how
	p.note()
}

// refuse writes down why the server stays, for whoever asked for another.
func (p *Parent) refuse(why string) {
	p.refused, p.refusals = why, p.refusals+1
	p.note()
}

// note writes down how it goes, for whoever waits.
func (p *Parent) note() {
	s := State{PID: os.Getpid(), Program: p.Program, Settings: p.Settings, Address: p.Address, Failed: p.failed, Last: p.last, Refused: p.refused, Refusals: p.refusals}
	if p.child != nil {
		s.Server, s.Ready = p.child.pid, !p.child.ready.IsZero()
	}
	if err := p.State.write(s); err != nil {
		p.Log.Warn("how the server does could not be written down", "err", err)
	}
}

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// storedName marks the listening socket that the supervisor keeps for us over a
// restart or crash.
const storedName = "agented-http"

// Supervisor is what the program that started the server offers it, in the
// protocol of systemd. The zero value is one that offers nothing.
type Supervisor struct {
	Notify   string        // datagram socket for messages, "@name" for an abstract one; empty: nobody listens
	Watchdog time.Duration // silence after which it ends the server; 0: it does not watch
	Sockets  []Inherited   // open sockets that it passed on
}

// Inherited is one socket that the supervisor passed on.
type Inherited struct {
	FD   int
	Name string // as the supervisor calls it
}

// SupervisorFrom reads the protocol's variables through getenv. Those meant for
// another process than pid do not count.
func SupervisorFrom(getenv func(string) string, pid int) Supervisor {
	s := Supervisor{Notify: getenv("NOTIFY_SOCKET")}
	mine := func(name string) bool { v := getenv(name); return v == strconv.Itoa(pid) }
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 &&
		(getenv("WATCHDOG_PID") == "" || mine("WATCHDOG_PID")) {
		s.Watchdog = time.Duration(usec) * time.Microsecond
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || !mine("LISTEN_PID") {
		return s
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	for i := range min(n, 1024) {
		in := Inherited{FD: 3 + i}
		if i < len(names) {
			in.Name = names[i]
		}
		s.Sockets = append(s.Sockets, in)
	}
	return s
}

// notifier tells the supervisor how the server does. What cannot be told is
// logged and changes nothing: the server works without.
type notifier struct {
	socket string
	log    *slog.Logger

	mu     sync.Mutex // guards status
	status string     // as told last
}

func newNotifier(s Supervisor, log *slog.Logger) *notifier {
	return &notifier{socket: s.Notify, log: log}
}

// tell sends one message of NAME=value lines, and descriptors with it.
func (n *notifier) tell(state string, fds ...int) {
	if n.socket == "" {
		return
	}
	if err := n.send(state, fds...); err != nil {
		n.log.Warn("the supervisor could not be told", "message", strings.SplitN(state, "\n", 2)[0], "err", err)
	}
}

func (n *notifier) send(state string, fds ...int) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	// A supervisor that hangs must not hang the server.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// Not WriteMsgUnix, which refuses a connected socket.
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte(state), rights, nil, 0)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// ready says that the server serves, status in words.
func (n *notifier) ready(status string) {
	n.remember(status)
	n.tell("READY=1\nSTATUS=" + status)
}

// say tells the status if it is another than before.
func (n *notifier) say(status string) {
	if n.remember(status) {
		n.tell("STATUS=" + status)
	}
}

// remember reports whether the status is a new one.
func (n *notifier) remember(status string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	changed := n.status != status
	n.status = status
	return changed
}

func (n *notifier) last() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.status
}

// stopping says that the server ends, and asks for the time that this may take:
// the setting may be longer than what the supervisor was told when installed.
func (n *notifier) stopping(status string, most time.Duration) {
	n.remember(status)
	n.tell(fmt.Sprintf("STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%d", status, (most + stopSlack).Microseconds()))
}

// stopSlack is what ends after the drain: the database, the last log lines.
const stopSlack = 10 * time.Second

// reloading says that the settings are read again; the returned function, that
// this is over and how it went.
func (n *notifier) reloading() (done func(error)) {
	n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic().Microseconds()))
	return func(err error) {
		status := n.last()
		if err != nil {
			// In one line, and not the cause: it is for the log.
			status = "settings not reloaded, the old ones stay: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		n.ready(status)
	}
}

// monotonic is the time on the clock that the supervisor compares with.
func monotonic() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// keep puts the listening socket into the supervisor's store. Its descriptor is
// borrowed and not taken with File, which would set the socket, shared with the
// next server, to blocking: a stop would then hang until somebody connects.
func (n *notifier) keep(l net.Listener) {
	sc, ok := l.(syscall.Conn)
	if !ok || n.socket == "" {
		return
	}
	raw, err := sc.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) {
			err = n.send("FDSTORE=1\nFDNAME="+storedName, int(fd))
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		n.log.Warn("the supervisor could not be given the socket: a restart will refuse connections", "err", err)
		return
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the next server answers at the same file
	}
}

// forget takes the kept sockets out of the supervisor's store, and returns when
// that is done: until then their address is taken.
func (n *notifier) forget() {
	if n.socket == "" {
		return
	}
	n.tell("FDSTOREREMOVE=1\nFDNAME=" + storedName)
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	n.tell("BARRIER=1", int(w.Fd()))
	w.Close()
	// The supervisor closes its end once it has read all that came before.
	_ = r.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = r.Read(make([]byte, 1))
}

// Limits of the watch over this server.
const (
	watchEvery = 10 * time.Second // without a watchdog to feed
	standstill = 60 * time.Second // after which a server that nobody watches ends itself
)

// watch looks, until ctx ends, whether the server still does its work.
type watch struct {
	interval time.Duration
	limit    time.Duration               // how long the check may fail; 0: the watchdog sees to it
	check    func(context.Context) error // may hang
	good     func()                      // the check passed
	abort    func()                      // it has not for the limit
	log      *slog.Logger
}

// run makes one check at a time: one that hangs is what the watch is for.
func (w watch) run(ctx context.Context) {
	results := make(chan error, 1)
	var checking bool
	start := func() {
		checking = true
		go func() {
			bounded, cancel := context.WithTimeout(ctx, w.interval)
			defer cancel()
			results <- w.check(bounded)
		}()
	}
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	passed := time.Now()
	for {
		select {
		case <-ctx.Done():
			if checking {
				select {
				case <-results:
				case <-time.After(time.Second):
				}
			}
			return
		case err := <-results:
			checking = false
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				passed = time.Now()
				w.good()
				continue
			}
			w.log.Error("the server does not do its work", "err", err, "since", time.Since(passed).Round(time.Second).String())
		case <-tick.C:
			if w.limit > 0 && time.Since(passed) >= w.limit {
				w.abort()
				return
			}
			if !checking {
				start()
			}
		}
	}
}

// watch returns the watch over this server. It asks the dispatcher and reads
// from the database: a timer would go on in a server that hangs.
func (a *App) watch() watch {
	w := watch{
		interval: watchEvery, limit: standstill, log: a.o.Log, abort: a.abort,
		check: func(ctx context.Context) error {
			if err := a.dispatch.Healthy(); err != nil {
				return err
			}
			if err := a.db.Ping(ctx); err != nil {
				return fmt.Errorf("read from the database: %w", err)
			}
			return nil
		},
		good: func() { a.notify.say(a.status()) },
	}
	if every := a.o.Supervisor.Watchdog; every > 0 && a.o.Supervisor.Notify != "" {
		w.interval, w.limit = max(every/3, 100*time.Millisecond), 0
		w.good = func() {
			a.notify.tell("WATCHDOG=1")
			a.notify.say(a.status())
		}
	}
	return w
}

// status says in words what the server does.
func (a *App) status() string {
	if a.draining.Load() {
		return a.notify.last()
	}
	status := fmt.Sprintf("serving at %s, executions running: %d", baseURL(a.config.Load(), a.listener.Addr()), a.dispatch.Running())
	if a.drained.Load() != nil {
		status += "; drained, no more are started"
	}
	return status
}

// abort ends the process the hard way, with every goroutine written to standard
// error by the runtime, as a watchdog would. Agents run on under their shims.
func (a *App) abort() {
	said := make(chan struct{})
	go func() {
		defer close(said)
		a.o.Log.Error("the server stands still: it ends itself, so that it is started again", "after", standstill.String())
	}()
	select {
	case <-said:
	case <-time.After(time.Second): // a log that nobody reads may be the reason
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
}

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

// storedName is the name of the listening socket in the descriptor store of the service manager,
// which keeps it over a restart or crash.
const storedName = "agented-http"

// Supervisor describes what the process that started the server offers, in the protocol of
// systemd. The zero value offers nothing.
type Supervisor struct {
	Notify   string        // datagram socket for notifications, "@name" for an abstract one; empty means none
	Watchdog time.Duration // interval without notification after which the server is killed; 0 means no watchdog
	Sockets  []Inherited   // open sockets that were passed
}

// Inherited is a socket that the service manager passed.
type Inherited struct {
	FD   int
	Name string // name of the socket in the service manager
}

// SupervisorFrom reads the variables of the protocol with getenv. It ignores variables for a
// process other than pid.
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

// notifier sends notifications to the service manager. Errors are logged only: the server works
// without notifications.
type notifier struct {
	socket string
	log    *slog.Logger

	mu     sync.Mutex // guards status
	status string     // last status sent
}

func newNotifier(s Supervisor, log *slog.Logger) *notifier {
	return &notifier{socket: s.Notify, log: log}
}

// notify sends a message of NAME=value lines with descriptors.
func (n *notifier) notify(state string, fds ...int) {
	if n.socket == "" {
		return
	}
	if err := n.send(state, fds...); err != nil {
		n.log.Warn("the supervisor could not be notified", "message", strings.SplitN(state, "\n", 2)[0], "err", err)
	}
}

func (n *notifier) send(state string, fds ...int) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	// A service manager that hangs must not block the server.
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	// WriteMsgUnix rejects connected sockets.
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

// ready reports that the server is ready, with a status text.
func (n *notifier) ready(status string) {
	n.remember(status)
	n.notify("READY=1\nSTATUS=" + status)
}

// sendStatus sends the status if it has changed.
func (n *notifier) sendStatus(status string) {
	if n.remember(status) {
		n.notify("STATUS=" + status)
	}
}

// remember stores the status and reports whether it has changed.
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

// stopping reports that the server stops, and extends the stop timeout, because the setting may
// be longer than the timeout at installation.
func (n *notifier) stopping(status string, most time.Duration) {
	n.remember(status)
	n.notify(fmt.Sprintf("STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%d", status, (most + stopSlack).Microseconds()))
}

// stopSlack is the time after the drain for closing the database and writing the last log lines.
const stopSlack = 10 * time.Second

// reloading reports that the settings are being reloaded; the returned function reports the
// result.
func (n *notifier) reloading() (done func(error)) {
	n.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", monotonic().Microseconds()))
	return func(err error) {
		status := n.last()
		if err != nil {
			// One line, without the cause, which belongs in the log.
			status = "settings not reloaded, the old ones stay in effect: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		n.ready(status)
	}
}

// monotonic returns the time of the clock that the service manager uses.
func monotonic() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// storeSocket passes the listening socket to the descriptor store of the service manager. It borrows the
// descriptor instead of calling File, which would set the socket, shared with the next server, to
// blocking mode: a stop would then hang until a client connects.
func (n *notifier) storeSocket(l net.Listener) {
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
		n.log.Warn("the supervisor could not store the socket: a restart will refuse connections", "err", err)
		return
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the next server uses the same file
	}
}

// forget removes the kept sockets from the descriptor store and returns when they are removed;
// until then their address is in use.
func (n *notifier) forget() {
	if n.socket == "" {
		return
	}
	n.notify("FDSTOREREMOVE=1\nFDNAME=" + storedName)
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	n.notify("BARRIER=1", int(w.Fd()))
	w.Close()
	// The service manager closes its end after it has processed all earlier messages.
	_ = r.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = r.Read(make([]byte, 1))
}

// Intervals of the self-check of the server.
const (
	watchEvery = 10 * time.Second // interval without a watchdog
	standstill = 60 * time.Second // how long a hanging server without a watchdog keeps running
)

// watch checks repeatedly whether the server works.
type watch struct {
	interval time.Duration
	limit    time.Duration               // how long the check may fail; 0 leaves this to the watchdog
	check    func(context.Context) error // the check; may hang
	good     func()                      // called after a successful check
	abort    func()                      // called when the check has failed for limit
	log      *slog.Logger
}

// run performs one check at a time, because a check may hang.
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
	// Failed rounds are counted instead of the time since the last success: a frozen process gets
	// one late round and then time for a new check.
	missed := 0
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
				passed, missed = time.Now(), 0
				w.good()
				continue
			}
			w.log.Error("the server's self-check failed", "err", err, "since", time.Since(passed).Round(time.Second).String())
		case <-tick.C:
			if missed++; w.limit > 0 && time.Duration(missed)*w.interval >= w.limit {
				w.abort()
				return
			}
			if !checking {
				start()
			}
		}
	}
}

// watch returns the self-check of this server. It checks the dispatcher and the scheduler and reads
// from the database, because a timer alone would also run in a server that hangs.
func (a *App) watch() watch {
	w := watch{
		interval: watchEvery, limit: standstill, log: a.o.Log, abort: a.abort,
		check: func(ctx context.Context) error {
			if err := errors.Join(a.dispatch.Healthy(), a.scheduler.Healthy()); err != nil {
				return err
			}
			if err := a.db.Ping(ctx); err != nil {
				return fmt.Errorf("read from the database: %w", err)
			}
			return nil
		},
		good: func() { a.notify.sendStatus(a.status()) },
	}
	if every := a.o.Supervisor.Watchdog; every > 0 && a.o.Supervisor.Notify != "" {
		w.interval, w.limit = max(every/3, 100*time.Millisecond), 0
		w.good = func() {
			a.notify.notify("WATCHDOG=1")
			a.notify.sendStatus(a.status())
		}
	}
	return w
}

// status describes the state of the server in one line.
func (a *App) status() string {
	if a.draining.Load() {
		return a.notify.last()
	}
	status := fmt.Sprintf("serving at %s, executions running: %d", baseURL(a.config.Load(), a.listener.Addr()), a.dispatch.Running())
	if a.drained.Load() != nil {
		status += "; drain mode is on"
	}
	return status
}

// abort ends the process with a dump of all goroutines to standard error, as a watchdog would.
// Agents continue under their shims.
func (a *App) abort() {
	said := make(chan struct{})
	go func() {
		defer close(said)
		a.o.Log.Error("the server hangs: aborting it, so that it is restarted", "after", standstill.String())
	}()
	select {
	case <-said:
	case <-time.After(time.Second): // the log itself may be blocked
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
}

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/config"
)

var quiet = slog.New(slog.DiscardHandler)

// manager imitates the service manager's end of the protocol.
type manager struct {
	t     *testing.T
	path  string
	conn  *net.UnixConn
	store []int // kept descriptors
}

func newManager(t *testing.T) *manager {
	t.Helper()
	// Not t.TempDir: its path may be longer than a socket's may.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, path: filepath.Join(dir, "s")}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.conn.Close()
		os.RemoveAll(dir)
		for _, fd := range m.store {
			unix.Close(fd)
		}
	})
	return m
}

// next reads one message and processes its descriptors as a real one does.
func (m *manager) next() string {
	m.t.Helper()
	buf, oob := make([]byte, 4096), make([]byte, 256)
	_ = m.conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, oobn, _, _, err := m.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		m.t.Error("no message:", err)
		return ""
	}
	text := string(buf[:n])
	var fds []int
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, c := range messages {
		got, _ := unix.ParseUnixRights(&c)
		fds = append(fds, got...)
	}
	switch {
	case strings.HasPrefix(text, "FDSTORE=1\n"):
		m.store = append(m.store, fds...)
	case strings.HasPrefix(text, "FDSTOREREMOVE=1\n"):
		for _, fd := range m.store {
			unix.Close(fd)
		}
		m.store = nil
	default:
		for _, fd := range fds {
			unix.Close(fd) // BARRIER=1 needs nothing else
		}
	}
	return text
}

// offer returns what the next server is started with.
func (m *manager) offer() Supervisor {
	s := Supervisor{Notify: m.path}
	for _, fd := range m.store {
		dup, err := unix.Dup(fd)
		if err != nil {
			m.t.Fatal(err)
		}
		s.Sockets = append(s.Sockets, Inherited{FD: dup, Name: storedName})
	}
	return s
}

func address(t *testing.T, text string) config.Address {
	t.Helper()
	a, err := config.ParseAddress(text, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serverOf binds or inherits as a server would.
func serverOf(t *testing.T, addr config.Address, s Supervisor) net.Listener {
	t.Helper()
	l, err := listen(addr, s, newNotifier(s, quiet))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListen_kept_socket_accepts(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"127.0.0.1:0", "unix:s"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			bindTo := where
			if where == "unix:s" {
				bindTo = "unix:" + filepath.Join(filepath.Dir(m.path), "s2")
			}
			addr := address(t, bindTo)
			first := serverOf(t, addr, m.offer())
			if got, want := m.next(), "FDSTORE=1\nFDNAME=agented-http"; got != want {
				t.Errorf("message = %q, want %q", got, want)
			}
			at := first.Addr()
			// A blocked Accept must end at Close: passing the socket must not make it blocking.
			accepted := make(chan error, 1)
			go func() {
				_, err := first.Accept()
				accepted <- err
			}()
			first.Close()
			select {
			case err := <-accepted:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept = %v, want net.ErrClosed", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("Accept goes on after Close: the socket blocks")
			}
			conn, err := net.Dial(at.Network(), at.String())
			if err != nil {
				t.Fatal("refused between two servers:", err)
			}
			defer conn.Close()
			second := serverOf(t, addr, m.offer())
			if second.Addr().String() != at.String() {
				t.Errorf("second server at %v, first at %v", second.Addr(), at)
			}
			go func() {
				c, err := second.Accept()
				if err == nil {
					_, _ = io.WriteString(c, "hello")
					c.Close()
				}
			}()
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			if b, err := io.ReadAll(conn); string(b) != "hello" {
				t.Errorf("answer = %q, %v", b, err)
			}
		})
	}
}

func TestListen_kept_socket_other_address(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	first := serverOf(t, address(t, "127.0.0.1:0"), m.offer())
	m.next()
	old := first.Addr().String()
	first.Close()
	offer := m.offer()
	messages := make(chan string, 3)
	go func() {
		for range 3 {
			messages <- m.next()
		}
		close(messages)
	}()
	second := serverOf(t, address(t, "127.0.0.2:0"), offer)
	if !strings.HasPrefix(second.Addr().String(), "127.0.0.2:") {
		t.Errorf("second server at %v", second.Addr())
	}
	var got []string
	for text := range messages {
		got = append(got, strings.SplitN(text, "\n", 2)[0])
	}
	if fmt.Sprint(got) != "[FDSTOREREMOVE=1 BARRIER=1 FDSTORE=1]" {
		t.Errorf("messages = %q", got)
	}
	// A child that is being started may hold a copy of the closed socket for a moment.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", old)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(end) {
			t.Fatal("the old address still takes connections")
		}
	}
}

func TestListen_inherited_socket(t *testing.T) {
	t.Parallel()
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	f, err := own.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	l := serverOf(t, address(t, "127.0.0.2:0"), Supervisor{Sockets: []Inherited{{FD: fd, Name: "agented.socket"}}})
	if l.Addr().String() != own.Addr().String() {
		t.Errorf("serves at %v, want the inherited %v", l.Addr(), own.Addr())
	}
}

func TestSupervisorFrom_pid(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7",
		"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "agented.socket:agented-http",
	}
	get := func(name string) string { return env[name] }
	s := SupervisorFrom(get, 7)
	if s.Notify != "/run/n" || s.Watchdog != 30*time.Second ||
		fmt.Sprint(s.Sockets) != "[{3 agented.socket} {4 agented-http}]" {
		t.Errorf("SupervisorFrom = %+v", s)
	}
	if s := SupervisorFrom(get, 8); s.Watchdog != 0 || s.Sockets != nil {
		t.Errorf("meant for another process, yet = %+v", s)
	}
	delete(env, "LISTEN_FDNAMES")
	if s := SupervisorFrom(get, 7); len(s.Sockets) != 2 || s.Sockets[1].Name != "" && s.Sockets[0].Name != "" {
		t.Errorf("without names = %+v", s)
	}
}

func TestNotify_ready_reload_stop(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	n := newNotifier(m.offer(), quiet)
	n.ready("serving")
	n.sendStatus("serving") // nothing new
	before := monotonic()
	n.reloading()(nil)
	n.reloading()(errors.New("line 3: no\nsense"))
	n.stopping("draining", 30*time.Second)
	if got := m.next(); got != "READY=1\nSTATUS=serving" {
		t.Errorf("ready = %q", got)
	}
	var usec int64
	if got := m.next(); !strings.HasPrefix(got, "RELOADING=1\n") {
		t.Errorf("reload = %q", got)
	} else if _, err := fmt.Sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec < before.Microseconds() {
		t.Errorf("reload = %q at %d (%v)", got, before.Microseconds(), err)
	}
	if got := m.next(); got != "READY=1\nSTATUS=serving" {
		t.Errorf("reloaded = %q", got)
	}
	m.next()
	if got := m.next(); !strings.Contains(got, "READY=1") || !strings.Contains(got, "old ones stay in effect: line 3: no sense") {
		t.Errorf("not reloaded = %q", got)
	}
	if got := m.next(); got != "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=40000000" {
		t.Errorf("stop = %q", got)
	}
}

func TestWatch_check(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var fed, aborted atomic.Int32
		hang := make(chan struct{})
		ctx, stop := context.WithCancel(t.Context())
		w := watch{
			interval: 10 * time.Second, limit: time.Minute, log: quiet,
			good: func() { fed.Add(1) }, abort: func() { aborted.Add(1) },
			check: func(context.Context) error {
				if fed.Load() == 3 {
					<-hang // and does not look at its context
				}
				return nil
			},
		}
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if fed.Load() != 3 || aborted.Load() != 0 {
			t.Errorf("after 31 s: fed %d times, aborted %d", fed.Load(), aborted.Load())
		}
		time.Sleep(58 * time.Second)
		synctest.Wait()
		if aborted.Load() != 0 {
			t.Error("aborted before 60 s of standstill")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if fed.Load() != 3 || aborted.Load() != 1 {
			t.Errorf("after 61 s of standstill: fed %d times, aborted %d", fed.Load(), aborted.Load())
		}
		stop()
		<-done
		close(hang)
	})
}

func TestWatch_with_watchdog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var fed atomic.Int32
		w := watch{
			interval: 10 * time.Second, log: quiet, good: func() { fed.Add(1) }, abort: func() { t.Error("aborted") },
			check: func(context.Context) error { return errors.New("no") },
		}
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx) }()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if fed.Load() != 0 {
			t.Error("fed although the check fails")
		}
		stop()
		<-done
	})
}

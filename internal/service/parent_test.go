//go:build linux

package service

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented/internal/testrun"
)

// The test binary also runs as the parent and its server, in processes of their own, because a
// parent reaps all children of its process.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_ROLE") {
	case "parent":
		playParent()
	case "server":
		playServer()
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(m.Run())
}

func playParent() {
	watch, _ := time.ParseDuration(os.Getenv("TEST_WATCH"))
	p := Parent{
		Program: os.Getenv("TEST_PROGRAM"), Args: []string{"serve"}, Environ: os.Environ, State: StateFile{Dir: os.Getenv("TEST_DIR")},
		Stop: 2 * time.Second, Watch: watch, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	os.Setenv("TEST_ROLE", "server")
	ended, err := p.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(ended.Code)
}

// playServer acts according to TEST_SERVER, and records each step in a file.
func playServer() {
	note := func(format string, args ...any) {
		f, err := os.OpenFile(filepath.Join(os.Getenv("TEST_DIR"), "notes"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(f, format+"\n", args...)
		f.Close()
	}
	tell := func(state string, fds ...int) {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: os.Getenv("NOTIFY_SOCKET"), Net: "unixgram"})
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		raw, _ := conn.SyscallConn()
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		_ = raw.Write(func(fd uintptr) bool { return unix.Sendmsg(int(fd), []byte(state), rights, nil, 0) != unix.EAGAIN })
	}
	hup, term := make(chan os.Signal, 4), make(chan os.Signal, 4)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(term, syscall.SIGTERM)
	note("started %d fds %q names %q", os.Getpid(), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES"))
	switch os.Getenv("TEST_SERVER") {
	case "hangs":
		tell("READY=1")
		select {}
	case "gives signs":
		go func() {
			for {
				tell("WATCHDOG=1")
				time.Sleep(50 * time.Millisecond)
			}
		}()
	case "slow to be ready":
		for { // the parent must have received the signal first
			if _, err := os.Stat(filepath.Join(os.Getenv("TEST_DIR"), "go")); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "keeps a socket":
		if os.Getenv("LISTEN_FDS") == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				panic(err)
			}
			raw, _ := l.(*net.TCPListener).SyscallConn()
			_ = raw.Control(func(fd uintptr) { tell("FDSTORE=1\nFDNAME=web", int(fd)) })
			note("listens %s", l.Addr())
		}
	case "is spoken for":
		// Another process claims that the server is ready.
		out, err := exec.Command("sh", "-c", `python3 -c 'import socket,os
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
s.sendto(b"READY=1","\0"+os.environ["NOTIFY_SOCKET"][1:])'`).CombinedOutput()
		note("spoken %v %s", err, out)
		<-term
		os.Exit(0)
	case "stops slowly":
		tell("READY=1")
		<-term
		note("stopping")
		time.Sleep(time.Second)
		os.Exit(7)
	case "ignores the stop":
		tell("READY=1")
		for range term {
			note("handledSignals to stop")
		}
	}
	tell("READY=1")
	for {
		select {
		case <-hup:
			note("reload")
		case <-term:
			tell("STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000")
			note("stop")
			if program := os.Getenv("TEST_PROGRAM"); os.Getenv("TEST_SERVER") == "takes its program away" {
				if err := os.Rename(program, program+".away"); err != nil {
					panic(err)
				}
			}
			os.Exit(7)
		}
	}
}

// parent is a running parent.
type parent struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func startParent(t *testing.T, server, program string, attr *syscall.SysProcAttr, env ...string) *parent {
	t.Helper()
	p := &parent{t: t, dir: t.TempDir()}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if program == "" {
		program = exe
	}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), "TEST_ROLE=parent", "TEST_SERVER="+server, "TEST_PROGRAM="+program, "TEST_DIR="+p.dir)
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.SysProcAttr = attr
	var log strings.Builder
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Skipf("NOT CHECKED, as this machine does not allow it: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			log.WriteString(s.Text() + "\n")
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.killServers()
		if t.Failed() {
			out.Close()
			<-done
			t.Logf("the parent's log:\n%snotes:\n%s", log.String(), strings.Join(p.notes(), "\n"))
		}
	})
	return p
}

// killServers kills the servers that have outlived their parent.
func (p *parent) killServers() {
	for _, note := range p.notes() {
		var pid int
		if n, _ := fmt.Sscanf(note, "started %d", &pid); n != 1 {
			continue
		}
		if cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(cmdline), "serve\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (p *parent) notes() []string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "notes"))
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// await polls until ok returns true.
func (p *parent) await(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("gave up waiting until %s", what)
		}
	}
}

func (p *parent) ready() State {
	p.t.Helper()
	var s State
	p.await("the server is ready", func() bool { s, _ = StateFile{p.dir}.Read(); return s.Ready })
	return s
}

func (p *parent) exit() int {
	p.t.Helper()
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func count(list []string, prefix string) (n int) {
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func TestParent_start_delay(t *testing.T) {
	t.Parallel()
	if pause(0) != 0 {
		t.Errorf("the first start waits %s", pause(0))
	}
	for n := 1; n < 10000; n++ {
		if d := pause(n); d < pause(n-1) || d <= 0 || d >= 5*time.Second {
			t.Fatalf("after %d deaths: %s", n, d)
		}
	}
	if pause(20) < time.Second {
		t.Errorf("a crash loop goes on at %s", pause(20))
	}
}

func TestParent_crash_loop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "dies")
	if err := testrun.WriteProgram(script, []byte("#!/bin/sh\necho start >> $TEST_DIR/notes\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startParent(t, "", script, nil)
	p.await("it was started six times", func() bool { return count(p.notes(), "start") >= 6 })
	s, ok := StateFile{p.dir}.Read()
	if !ok || s.Failed < 5 || s.Last != "ended: exit code 3" || s.Ready {
		t.Errorf("%+v %v", s, ok)
	}
	// A program that is temporarily missing is no reason to give up.
	if err := os.Remove(script); err != nil {
		t.Fatal(err)
	}
	p.await("it could not be started", func() bool {
		s, _ := (StateFile{p.dir}).Read()
		return strings.HasPrefix(s.Last, "could not be started")
	})
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("handledSignals to stop while none runs: exit code %d", code)
	}
}

func TestParent_passes_socket(t *testing.T) {
	t.Parallel()
	p := startParent(t, "keeps a socket", "", nil)
	first := p.ready()
	_ = syscall.Kill(first.Server, syscall.SIGKILL)
	p.await("the next one has started", func() bool { return count(p.notes(), "started") == 2 })
	notes := p.notes()
	if !strings.HasSuffix(notes[0], `fds "" names ""`) || !strings.HasSuffix(notes[2], `fds "1" names "web"`) {
		t.Errorf("%q", notes)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(notes[1], "listens "))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	p.ready()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 7 {
		t.Errorf("exit code %d, want that of the server", code)
	}
	if _, ok := (StateFile{p.dir}).Read(); ok {
		t.Error("the state is still there")
	}
}

// A process that replaces a parent waits for its lock and then listens on its address. The test
// is not parallel, so that no other test gets the same port.
func TestParent_releases_address_first(t *testing.T) {
	p := startParent(t, "keeps a socket", "", nil)
	p.ready()
	address := strings.TrimPrefix(p.notes()[1], "listens ")
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	state := StateFile{p.dir}
	for end := time.Now().Add(time.Minute); !state.ParentExited(); { // a busy loop, to react at once
		if time.Now().After(end) {
			t.Fatal("the parent does not end")
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p.exit()
}

func TestParent_watchdog(t *testing.T) {
	t.Parallel()
	p := startParent(t, "hangs", "", nil, "TEST_WATCH=300ms")
	first := p.ready()
	p.await("it was ended and the next one is there", func() bool { return count(p.notes(), "started") >= 2 })
	if syscall.Kill(first.Server, 0) == nil {
		t.Error("the one that hangs is still there")
	}
	// A stopped process cannot even handle the abort.
	second := p.ready()
	_ = syscall.Kill(second.Server, syscall.SIGSTOP)
	p.await("the stopped one was replaced", func() bool { s, _ := (StateFile{p.dir}).Read(); return s.Ready && s.Server != second.Server })
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	t.Run("of_parent_and_server_ends_neither", func(t *testing.T) {
		t.Parallel()
		p := startParent(t, "gives signs", "", nil, "TEST_WATCH=2s")
		first := p.ready()
		for range 3 {
			_ = p.cmd.Process.Signal(syscall.SIGSTOP)
			_ = syscall.Kill(first.Server, syscall.SIGSTOP)
			time.Sleep(2200 * time.Millisecond) // the freeze is longer than the watch
			_ = p.cmd.Process.Signal(syscall.SIGCONT)
			_ = syscall.Kill(first.Server, syscall.SIGCONT)
			time.Sleep(300 * time.Millisecond) // for a parent that is about to kill it
			if n := count(p.notes(), "started"); n != 1 {
				t.Fatalf("the server was started %d times", n)
			}
		}
	})
	t.Run("of_their_control_group_ends_neither", func(t *testing.T) {
		t.Parallel()
		group := testrun.NewFreezer(t)
		p := startParent(t, "gives signs", "", nil, "TEST_WATCH=2s")
		group.Add(p.cmd.Process.Pid, p.ready().Server)
		for range 2 {
			group.Freeze()
			time.Sleep(2200 * time.Millisecond) // the freeze is longer than the watch
			group.Thaw()
			time.Sleep(300 * time.Millisecond) // for a parent that is about to kill it
			if n := count(p.notes(), "started"); n != 1 {
				t.Fatalf("the server was started %d times", n)
			}
		}
	})
	t.Run("during_a_stop_leaves_the_server_its_time", func(t *testing.T) {
		t.Parallel()
		p := startParent(t, "stops slowly", "", nil)
		first := p.ready()
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		p.await("the server stops", func() bool { return count(p.notes(), "stopping") == 1 })
		_ = p.cmd.Process.Signal(syscall.SIGSTOP)
		_ = syscall.Kill(first.Server, syscall.SIGSTOP)
		time.Sleep(4 * time.Second) // longer than the stop timeout
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		_ = syscall.Kill(first.Server, syscall.SIGCONT)
		if code := p.exit(); code != 7 {
			t.Errorf("exit code %d, want that of the server", code)
		}
	})
}

func TestParent_checks_sender(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("NOT CHECKED: there is no python3")
	}
	p := startParent(t, "is spoken for", "", nil)
	p.await("somebody else has spoken", func() bool { return count(p.notes(), "spoken <nil>") == 1 })
	if s, ok := (StateFile{p.dir}).Read(); !ok || s.Ready {
		t.Errorf("%+v %v", s, ok)
	}
}

func TestParent_forwards_signals(t *testing.T) {
	t.Parallel()
	p := startParent(t, "slow to be ready", "", nil)
	p.await("it has started", func() bool { return count(p.notes(), "started") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGHUP) // would end a server that is not ready
	if err := os.WriteFile(filepath.Join(p.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.await("it was handledSignals", func() bool { return count(p.notes(), "reload") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.await("it was handledSignals again", func() bool { return count(p.notes(), "reload") == 2 })
	if n := count(p.notes(), "started"); n != 1 {
		t.Errorf("started %d times", n)
	}
}

func TestParent_failed_replacement(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "agented")
	script := "#!/bin/sh\ncase $1 in --version) echo agented 1 ;; config) ;; *) exec " + exe + " ;; esac\n"
	if err := testrun.WriteProgram(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startParent(t, "takes its program away", program, nil)
	first := p.ready()
	_ = p.cmd.Process.Signal(syscall.SIGUSR2)
	p.await("it finds no program", func() bool { s, _ := (StateFile{p.dir}).Read(); return s.Failed > 0 })
	if err := os.Rename(program+".away", program); err != nil {
		t.Fatal(err)
	}
	p.await("the next server is ready", func() bool { s, _ := (StateFile{p.dir}).Read(); return s.Ready && s.Server != first.Server })
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.await("it was handledSignals", func() bool { return count(p.notes(), "reload") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 7 {
		t.Errorf("exit code %d", code)
	}
}

// A process that finds a parent by its lock may send it a signal.
func TestParent_early_signals(t *testing.T) {
	t.Parallel()
	for range 5 {
		p := startParent(t, "", "", nil)
		state := StateFile{p.dir}
		sent := false
		for end := time.Now().Add(time.Minute); ; { // a busy loop, to react at once
			if state.Signal(syscall.SIGHUP) == nil { // NotFound until there is one
				sent = true
			}
			if s, _ := state.Read(); s.Ready && sent {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it was ended by the signal")
			}
		}
		p.await("it was handledSignals", func() bool { return count(p.notes(), "reload") > 0 })
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if code := p.exit(); code != 7 {
			t.Errorf("exit code %d", code)
		}
	}
}

func TestParent_kills_hanging_stop(t *testing.T) {
	t.Parallel()
	p := startParent(t, "ignores the stop", "", nil)
	p.ready()
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took < 2*time.Second || took > time.Minute {
		t.Errorf("took %s", took)
	}
}

func TestParent_second(t *testing.T) {
	t.Parallel()
	p := startParent(t, "", "", nil)
	s := p.ready()
	other := exec.Command(p.cmd.Path)
	other.Env = p.cmd.Env
	out, _ := other.CombinedOutput()
	if other.ProcessState.ExitCode() != 99 || !strings.Contains(string(out), "by process "+strconv.Itoa(s.PID)) {
		t.Errorf("%d: %s", other.ProcessState.ExitCode(), out)
	}
}

func TestState_free_lock(t *testing.T) {
	dir := t.TempDir()
	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() }()
	f := StateFile{dir}
	if err := os.WriteFile(f.lock(), []byte(strconv.Itoa(sleeper.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Signal(syscall.SIGTERM); err == nil {
		t.Error("a process that holds no lock was signalled")
	}
	if _, held, _ := SignalServer(f.lock(), syscall.SIGTERM); held {
		t.Error("nobody holds the lock")
	}
	if syscall.Kill(sleeper.Process.Pid, 0) != nil {
		t.Error("the stranger is gone")
	}
	if _, ok := f.Read(); ok {
		t.Error("a state without a parent was believed")
	}
}

func TestParent_as_process1(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "server")
	// Ten orphans that end, and one that continues and ends slowly.
	if err := os.WriteFile(script, []byte(`#!/bin/sh
for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'exit 4' & ) ; done
(setsid sh -c 'trap "sleep 0.3; echo record >> $TEST_DIR/notes; exit" TERM; echo working >> $TEST_DIR/notes; while :; do sleep 0.1; done' &)
trap 'echo stop >> $TEST_DIR/notes; exit 0' TERM
echo up >> $TEST_DIR/notes
while :; do sleep 0.1; done
`), 0o700); err != nil {
		t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	p := startParent(t, "", script, attr)
	p.await("all runs", func() bool { return count(p.notes(), "up") == 1 && count(p.notes(), "working") == 1 })
	p.await("nobody is left unreaped", func() bool { return zombies(p.cmd.Process.Pid) == 0 })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := p.notes(); count(n, "stop") != 1 || count(n, "record") != 1 {
		t.Errorf("%q", n)
	}
}

// zombies counts the children of a process that have ended and were not reaped.
func zombies(of int) (n int) {
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if f[0] == "Z" && f[1] == strconv.Itoa(of) {
			n++
		}
	}
	return n
}

func TestOutlive_parent_end(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	Outlive(fd, cancel)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("what this process starts would inherit it: %v %v", flags, err)
	}
	if ctx.Err() != nil {
		t.Error("too early")
	}
	w.Close()
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Error("not noticed")
	}
}

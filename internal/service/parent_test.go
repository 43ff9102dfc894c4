//go:build linux

package service

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

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
		t.Errorf("stopped while none runs: exit code %d", code)
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
	p.await("it received the hangup", func() bool { return count(p.notes(), "reload") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.exit(); code != 7 {
		t.Errorf("exit code %d", code)
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

package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// onTerminal runs a client command on a terminal and returns a function that returns the screen's
// content so far.
func onTerminal(t *testing.T, s *server, args ...string) (cmd *exec.Cmd, screen func() string) {
	t.Helper()
	cmd = exec.Command(binary, args...)
	cmd.Env, cmd.Dir = append(s.env, "TERM=xterm"), filepath.Join(s.dir, "cwd")
	tty, err := pty.Start(cmd)
	if err != nil {
		t.Skipf("there is no terminal to be had here: %v", err)
	}
	var mu sync.Mutex
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			mu.Lock()
			seen.Write(buf[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		tty.Close()
		<-done
	})
	return cmd, func() string {
		mu.Lock()
		defer mu.Unlock()
		return seen.String()
	}
}

func TestRun_interrupt_detaches(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, c := range []struct {
		name   string
		twice  bool
		status string
	}{{"once", false, "success"}, {"twice", true, "cancelled"}} {
		gate := filepath.Join(s.dir, "gate-"+c.name)
		cmd, screen := onTerminal(t, s, "run", "--", "sh", "-c", "echo up; while [ ! -e "+gate+" ]; do sleep 0.05; done")
		s.waitFor("its first line", func() bool { return strings.Contains(screen(), "up") })
		cmd.Process.Signal(syscall.SIGINT)
		s.waitFor("the way back", func() bool { return strings.Contains(screen(), "Press Ctrl-C again") })
		out := screen()
		i := strings.Index(out, "exec-")
		if i < 0 || !strings.Contains(out, "agented execution logs -f exec-") {
			t.Fatalf("the screen says %q", out)
		}
		id := out[i : i+31]
		if c.twice {
			cmd.Process.Signal(syscall.SIGINT)
		} else if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if e := s.await(id); e.Status != c.status {
			t.Errorf("%s: %+v", c.name, e)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: the command does not end", c.name)
		}
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%s: exit code %d, want 130", c.name, code)
		}
	}
}

func TestFollow_interrupted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.fire(s.trigger(sh("watched", `echo up; while [ ! -e go ]; do sleep 0.05; done`, map[string]any{"working_dir": filepath.Join(s.dir, "cwd")})))
	s.waitFor("it to run", func() bool { return len(s.lines(id)) > 0 })
	cmd := exec.Command(binary, "execution", "logs", "-f", id)
	cmd.Env, cmd.Dir = s.env, filepath.Join(s.dir, "cwd")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.waitFor("its first line", func() bool { return strings.Contains(out.String(), "up") })
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(out.String(), "continues") {
		t.Errorf("code %d, output %q", code, out.String())
	}
	if err := os.WriteFile(filepath.Join(s.dir, "cwd", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.await(id); e.Status != "success" {
		t.Errorf("execution = %+v", e)
	}
}

// lockedBuffer is a buffer that a process writes while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

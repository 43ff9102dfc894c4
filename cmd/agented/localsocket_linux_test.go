package main_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

// otherUser is a user other than the one of the tests.
const otherUser = 65534

// local runs a client command that has neither an address nor a key.
func (s *server) local(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Dir = s.keyless(), filepath.Join(s.dir, "cwd")
	return output(s.t, cmd)
}

// keyless is the environment without address and key.
func (s *server) keyless() []string {
	return slices.DeleteFunc(slices.Clone(s.env), func(v string) bool {
		return strings.HasPrefix(v, "AGENTED_URL=") || strings.HasPrefix(v, "AGENTED_API_KEY=")
	})
}

func output(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// wrapped starts a server through a shell script that ends with "$@".
func wrapped(t *testing.T, script string, env ...string) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: ANOTHER USER, which needs root")
	}
	s := prepare(t, env...)
	s.program = filepath.Join(s.dir, "wrapper")
	if err := testrun.WriteProgram(s.program, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, otherUser, otherUser)
	})
	if err != nil {
		t.Fatal(err)
	}
	// Only the owner could enter the folder of the program.
	if err := os.Chmod(filepath.Dir(binary), 0o711); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

// asOther is a command line that runs the program as another user.
func asOther() string {
	return fmt.Sprintf(`setpriv --reuid=%d --regid=%d --clear-groups --no-new-privs %s "$@"`, otherUser, otherUser, binary)
}

// attacks are commands with which an agent may try to become an administrator. Each prints LEAK if
// it succeeds. CLEAN starts a command without the variables of the execution.
var attacks = map[string]string{
	"variables unset":   `(for v in $(env | sed -n 's/^\(AGENTED_[A-Z_]*\)=.*/\1/p'); do unset $v; done; $BIN key list)`,
	"clean environment": `$CLEAN $BIN key create innocent --role admin`,
	"daemon":            `(setsid sh -c "$CLEAN $BIN key list >out 2>&1 && echo LEAK >>out; echo done >>out" >/dev/null 2>&1 &) ; while ! grep -qs done out; do sleep 0.05; done; grep LEAK out`,
	"curl":              `$CLEAN curl -sf --unix-socket $D/agented.sock http://localhost/api/v1/auth/keys`,
}

// attack runs the attacks in an execution and returns what it printed. With forget, no process of
// the execution has its variables.
func (s *server) attack(level string, forget bool) string {
	s.t.Helper()
	var script strings.Builder
	for name, text := range attacks {
		fmt.Fprintf(&script, "{ %s; } 2>&1 && echo 'LEAK: %s'\n", text, name)
	}
	found := fmt.Sprintf("HOME=%s/home XDG_RUNTIME_DIR=%s/run PATH=%s", s.dir, s.dir, os.Getenv("PATH"))
	variables := []string{"D=" + s.data(), "BIN=" + binary, "CLEAN=env -i " + found}
	command := append(append([]string{"env"}, strings.Fields(found)...), variables...)
	if forget {
		command = slices.Insert(command, 1, "-i")
	}
	return string(s.logText(s.await(s.fire(s.trigger(map[string]any{
		"name": fmt.Sprint("attacker ", level, forget), "backend": "command",
		"command": append(command, "bash", "-c", script.String()+"echo end"), "sandbox": level,
	}))).ID))
}

// hasAdmin checks that a command of the server's user acts as an administrator without a key.
func (s *server) hasAdmin() {
	s.t.Helper()
	if stdout, stderr, code := s.local("key", "list"); code != 0 {
		s.t.Errorf("key list without a key: exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestLocalSocket_agents(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"off", "guard"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			if level == "guard" {
				guardWorks(t)
			}
			s := newServer(t)
			for _, forget := range []bool{false, true} {
				text := s.attack(level, forget)
				if strings.Contains(text, "LEAK") || !strings.Contains(text, "end") {
					t.Errorf("forget=%v: it printed\n%s", forget, text)
				}
				if level == "off" && strings.Count(text, "belongs to an execution") < 2 {
					t.Errorf("forget=%v: the reason is missing:\n%s", forget, text)
				}
			}
			s.hasAdmin()
			if stdout, _, _ := s.local("key", "list"); strings.Contains(stdout, "innocent") {
				t.Error("an agent has created a key")
			}
		})
	}
}

// TestLocalSocket_hidden_processes checks that a server that does not see its supervisors, as with
// ProtectProc=invisible of the unit, refuses what runs below them.
func TestLocalSocket_hidden_processes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 || exec.Command("unshare", "-m", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc").Run() != nil {
		t.Skip("NOT TESTED: HIDDEN PROCESSES, which need root and mounts")
	}
	s := wrapped(t, fmt.Sprintf(`exec unshare -m sh -c 'mount -t proc -o hidepid=2 proc /proc && exec %s' sh "$@"`, asOther()))
	if text := s.attack("off", true); strings.Contains(text, "LEAK") || !strings.Contains(text, "belongs to an execution") || !strings.Contains(text, "end") {
		t.Errorf("it printed\n%s", text)
	}
	s.hasAdmin() // as root
	cmd := exec.Command("sh", "-c", asOther(), "sh", "key", "list")
	cmd.Env, cmd.Dir = s.keyless(), filepath.Join(s.dir, "cwd")
	if stdout, stderr, code := output(t, cmd); code != 0 {
		t.Errorf("as the user of the server: exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestLocalSocket_users(t *testing.T) {
	t.Parallel()
	t.Run("server of another user", func(t *testing.T) {
		t.Parallel()
		s := wrapped(t, "exec "+asOther())
		s.hasAdmin() // as root
	})
	t.Run("another user", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("NOT TESTED: ANOTHER USER, which needs root")
		}
		s := newServer(t)
		other := func() string {
			cmd := exec.Command("sh", "-c", asOther(), "sh", "key", "list")
			cmd.Env = slices.DeleteFunc(s.keyless(), func(v string) bool { return strings.HasPrefix(v, "AGENTED_DATA_DIR=") })
			cmd.Dir = "/"
			stdout, stderr, code := output(t, cmd)
			if code != 4 {
				t.Errorf("another user: exit code %d\n%s%s", code, stdout, stderr)
			}
			return stderr
		}
		for path, mode := range map[string]os.FileMode{filepath.Dir(binary): 0o711, s.dir: 0o711, s.dir + "/run": 0o711, s.dir + "/run/agented.json": 0o644, s.dir + "/home": 0o711} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		if text := other(); !strings.Contains(text, "run the command as that user") {
			t.Errorf("the closed folder: %s", text)
		}
		for path, mode := range map[string]os.FileMode{s.data(): 0o711, s.data() + "/agented.sock": 0o666} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		if text := other(); !strings.Contains(text, "this process runs as uid 65534") {
			t.Errorf("the open folder: %s", text)
		}
	})
}

func TestLocalSocket_restart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	path := filepath.Join(s.data(), "agented.sock")
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		s.hasAdmin()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v: %v", path, err)
		}
		// Another server on the data folder does not start, and leaves the socket alone.
		if _, stderr, code := s.cli("serve"); code == 0 || !strings.Contains(stderr, "data folder") {
			t.Errorf("a second server: exit code %d, %s", code, stderr)
		}
		s.hasAdmin()
		s.end(sig)
		if _, err := os.Lstat(path); (err == nil) != (sig == syscall.SIGKILL) {
			t.Errorf("the socket after %v: %v", sig, err)
		}
		if _, stderr, code := s.local("key", "list"); code == 0 || !strings.Contains(stderr, "agented serve") {
			t.Errorf("without a server: exit code %d, %s", code, stderr)
		}
		s.start()
	}
	s.hasAdmin()
}

func TestLocalSocket_supervised_restart(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	quit, done := make(chan struct{}), make(chan string, 1)
	go func() {
		var failed string
		for failed == "" {
			select {
			case <-quit:
				done <- failed
				return
			default:
			}
			cmd := exec.Command(binary, "trigger", "list")
			cmd.Env, cmd.Dir = s.keyless(), filepath.Join(s.dir, "cwd")
			if out, err := cmd.CombinedOutput(); err != nil {
				failed = fmt.Sprintf("%v %s", err, out)
			}
		}
		<-quit
		done <- failed
	}()
	for range 3 {
		before := s.parentState()
		if _, stderr, code := s.local("restart"); code != 0 {
			t.Fatalf("restart: %s", stderr)
		}
		s.another(before)
	}
	close(quit)
	if failed := testrun.Receive(t, done, "the commands to end"); failed != "" {
		t.Errorf("a command failed during a restart: %s", failed)
	}
}

func TestLocalSocket_long_path(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	long := filepath.Join(s.dir, strings.Repeat("a-long-name-", 12), "data")
	s.env = append(s.env, "AGENTED_DATA_DIR="+long)
	s.start()
	if info, err := os.Stat(filepath.Join(long, "agented.sock")); err != nil || info.Mode().Type() != os.ModeSocket {
		t.Fatalf("the socket in a folder of %d bytes: %v", len(long), err)
	}
	s.hasAdmin()
}

// TestLocalSocket_fallback checks that the socket is in the runtime folder where it cannot be in the
// data folder.
func TestLocalSocket_fallback(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	if err := os.MkdirAll(filepath.Join(s.data(), "agented.sock"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.hasAdmin()
	if found, _ := filepath.Glob(filepath.Join(s.dir, "run", "agented-*.sock")); len(found) != 1 {
		t.Errorf("the sockets in the runtime folder: %q", found)
	}
}

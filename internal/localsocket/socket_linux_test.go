package localsocket

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// connect returns the server's end of a connection to the listener.
func connect(t *testing.T, l *Listener) *Conn {
	t.Helper()
	client, err := Dial(t.Context(), l.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*Conn)
}

func TestListen(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"short": "d", "long": strings.Repeat("a-long-name-", 15)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), dir, "s.sock")
			old, err := Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the socket: %v %v", info, err)
			}
			// A newer server replaces the socket; the end of the older one leaves it.
			l, err := Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := old.Close(); err != nil {
				t.Error(err)
			}
			if user, _ := connect(t, l).Caller(); user == "" || user == "unknown" {
				t.Errorf("the caller is %q", user)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); err == nil {
				t.Error("the socket remains")
			}
		})
	}
}

func TestListen_alternatives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open, file, good := filepath.Join(dir, "open"), filepath.Join(dir, "file.sock"), filepath.Join(dir, "private", "s.sock")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil { // the umask would remove bits of Mkdir
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(open, "s.sock"), file); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a folder of others and a file: %v", err)
	}
	l, err := Listen(filepath.Join(open, "s.sock"), file, good)
	if err != nil || l.Path() != good {
		t.Fatalf("%v", err)
	}
	l.Close()
}

// TestAdmit_own_process checks that the server and what it started are refused.
func TestAdmit_own_process(t *testing.T) {
	t.Parallel()
	l, err := Listen(filepath.Join(t.TempDir(), "d", "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, refused := connect(t, l).Caller()
	if refused == nil || !strings.Contains(refused.Error(), "belongs to an execution") {
		t.Errorf("the server's own process: %v", refused)
	}
	for what, p := range map[string]*peer{
		"another user":           {uid: os.Geteuid() + 1, pid: os.Getpid(), pidfd: -1},
		"another pid namespace":  {uid: os.Geteuid(), pid: 0, pidfd: -1},
		"a process that is gone": {uid: os.Geteuid(), pid: 1<<22 + 7, pidfd: -1},
	} {
		if err := admit(p, os.Geteuid()); err == nil {
			t.Errorf("%s is admitted", what)
		}
	}
}

var _ net.Listener = (*Listener)(nil)

//go:build linux

package service

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
			note("received a signal to stop")
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

//go:build linux

package service

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParent_forwards_signals(t *testing.T) {
	t.Parallel()
	p := startParent(t, "slow to be ready", "", nil)
	p.await("it has started", func() bool { return count(p.notes(), "started") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGHUP) // would end a server that is not ready
	if err := os.WriteFile(filepath.Join(p.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.await("it received the hangup", func() bool { return count(p.notes(), "reload") == 1 })
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.await("it received the second hangup", func() bool { return count(p.notes(), "reload") == 2 })
	if n := count(p.notes(), "started"); n != 1 {
		t.Errorf("started %d times", n)
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
		p.await("it received the hangup", func() bool { return count(p.notes(), "reload") > 0 })
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

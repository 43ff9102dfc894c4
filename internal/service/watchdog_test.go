//go:build linux

package service

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

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

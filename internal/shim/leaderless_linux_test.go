package shim

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

// A goroutine that is locked during initialisation stays on the process's first
// thread, which leaderless needs.
func init() {
	if os.Args[0] == "stand-in" && len(os.Args) > 1 && os.Args[1] == "leaderless" {
		runtime.LockOSThread()
	}
	systemStandIns["leaderless"] = leaderless
	systemStandIns["with-leaderless"] = withLeaderless
	systemStandIns["stray"] = leaveStray
}

// leaderless runs on after its first thread has exited, as a C program does whose
// main calls pthread_exit. "deaf" ignores SIGTERM.
func leaderless(args []string) int {
	if args[0] == "deaf" {
		signal.Ignore(unix.SIGTERM)
	}
	go func() {
		for {
			if p, ok := lookUp(os.Getpid()); ok && p.leaderless {
				break
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println("leaderless")
	}()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of this thread only
	return 1
}

// withLeaderless starts a leaderless process in a session of its own, prints
// "ready" when that is one, and then exits, or waits for it, ignoring SIGTERM.
func withLeaderless(args []string) int {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	signal.Ignore(unix.SIGTERM)
	p, err := os.StartProcess(exe, []string{"stand-in", "leaderless", args[0]}, &os.ProcAttr{
		Files: []*os.File{nil, w, os.Stderr}, Sys: &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		panic(err)
	}
	if _, err := r.Read(make([]byte, 16)); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	if args[1] == "wait" {
		state, _ := p.Wait()
		fmt.Println(state)
	}
	return 0
}

// leaveStray sweeps a tree with a child that the process table does not show.
func leaveStray([]string) int {
	killPatience = 50 * time.Millisecond
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = child.Kill() }()
	t := newTree(newReaper(os.Getpid()), 1<<30, nil, redact.New(nil)) // no process has that number
	t.reap.reaped = true
	report := t.sweep(true, 0)
	fmt.Println(report.strays, report.remain)
	return 0
}

func TestLeaderlessProcess(t *testing.T) {
	t.Parallel()
	t.Run("is_ended_and_named_after_success", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "").program("with-leaderless", "deaf", "exit")
		exit := r.do()
		wantCode(t, r, exit, 0)
		wantSurvivors(t, r, exit, "stand-in leaderless deaf")
	})
	t.Run("is_ended_by_a_stop", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CapturePipe, "").program("leaderless", "plain").start()
		r.eventually("its first thread to exit", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		if exit.Cause != agented.CauseCancelled || exit.Signal != "SIGTERM" {
			t.Errorf("exit = %+v", exit)
		}
	})
	t.Run("outside_the_group_gets_sigterm", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "").program("with-leaderless", "plain", "wait")
		r.spec.Grace = bound
		r.start()
		r.eventually("the child", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		wantLines(t, r, agented.Stdout, "ready", "signal: terminated")
		wantSurvivors(t, r, exit)
	})
	t.Run("stands_still_while_paused", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CapturePipe, "").program("leaderless", "plain").start()
		r.eventually("its first thread to exit", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := r.h.Pause(PauseState{Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if p, ok := lookUp(r.h.PID()); !ok || !p.stopped {
			t.Errorf("paused process: %+v, %v", p, ok)
		}
		if err := r.h.Continue("", ""); err != nil {
			t.Fatal(err)
		}
		if p, ok := lookUp(r.h.PID()); !ok || p.stopped {
			t.Errorf("continued process: %+v, %v", p, ok)
		}
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		r.wait()
	})
	t.Run("is_found_after_its_shim_was_killed", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "").program("with-leaderless", "deaf", "wait").start()
		r.eventually("the child", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		r.killShim()
		exit := r.settle()
		if all := strings.Join(exit.Survivors, "\n"); !strings.Contains(all, "stand-in leaderless deaf") {
			t.Errorf("survivors %q", exit.Survivors)
		}
		if left := r.orphans(); len(left) != 0 {
			t.Errorf("still alive: %q", names(left, nil))
		}
	})
}

// A living process is also reported after a sweep if it is not in the process table, like a
// setuid program under hidepid.
func TestSweepReportsStrays(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "").program("stray")
	r.do()
	wantLines(t, r, agented.Stdout, "true [a process that the process table does not show]")
}

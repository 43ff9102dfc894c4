package shim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

// tickers is a process tree in which each process repeatedly writes to a file of its own: the
// leader, a child, and one that left the group.
const tickers = `tick() { while :; do echo x >>$1; sleep 0.01; done; }
tick a & setsid sh -c 'while :; do echo x >>b; sleep 0.01; done' & tick c`

func (r *run) sizes() (total int64, all bool) {
	all = true
	for _, name := range []string{"a", "b", "c"} {
		info, err := os.Stat(filepath.Join(r.spec.Dir, name))
		if err != nil || info.Size() < 4 {
			all = false
			continue
		}
		total += info.Size()
	}
	return total, all
}

func (r *run) pause(d time.Duration) {
	r.t.Helper()
	if err := r.h.Pause(PauseState{Until: time.Now().Add(d), By: "ann", Why: "lunch"}); err != nil {
		r.t.Fatalf("Pause: %v\n%s", err, r.describe())
	}
}

// inVfork reports whether a process is in uninterruptible sleep.
func inVfork(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && bytes.Contains(b, []byte(") D "))
}

// still checks that no process of the tree does anything for a while.
func (r *run) still() {
	r.t.Helper()
	before, _ := r.sizes()
	for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); {
		for _, p := range r.orphans() {
			if p.pid != r.shimPID() && !p.stopped {
				// A shell that waits in vfork for a stopped child to execute its program cannot
				// be stopped itself.
				if now, ok := lookUp(p.pid); ok && now.start == p.start && !now.stopped && !inVfork(p.pid) {
					r.t.Errorf("%d %s does not stand still", p.pid, p.commandLine())
				}
			}
		}
	}
	if after, _ := r.sizes(); after != before {
		r.t.Errorf("it wrote %d bytes while it was paused", after-before)
	}
}

func TestPause_and_continue_tree(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, tickers).start()
		r.eventually("all of the tree to tick", func() bool { _, ok := r.sizes(); return ok })
		r.pause(time.Hour)
		r.still()
		p, err := pausedNow(r.h)
		if err != nil || p == nil || p.By != "ann" || p.Why != "lunch" || time.Until(p.Until) < 59*time.Minute {
			t.Errorf("paused: %+v, %v", p, err)
		}
		if again, err := Adopt(r.bundle); err != nil {
			t.Error(err)
		} else if p, err := pausedNow(again); err != nil || p == nil || again.WasPaused() == nil {
			t.Errorf("the next server finds %+v, %v", p, err)
		}
		r.pause(2 * time.Hour) // takes the new time
		if err := r.h.Continue("bob", ""); err != nil {
			t.Fatal(err)
		}
		before, _ := r.sizes()
		r.eventually("it to go on", func() bool { n, _ := r.sizes(); return n > before+30 })
		if err := r.h.Continue("bob", ""); !errors.Is(err, ErrNotPaused) {
			t.Errorf("continued twice: %v", err)
		}
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		if exit := r.wait(); exit.Cause != agented.CauseCancelled {
			t.Errorf("it ended by %s", exit.Cause)
		}
		said := strings.Join(r.contents(agented.System), "\n")
		if want := `Paused by ann: lunch\. It is stopped at .*\nContinued by bob after \d+s\.`; !regexp.MustCompile(want).MatchString(said) {
			t.Errorf("the log says %q, want %q in it", said, want)
		}
		if err := r.h.Pause(PauseState{Until: time.Now().Add(time.Hour)}); err == nil {
			t.Error("what has ended was paused")
		}
	})
}

func TestPause_then_stop(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done`).start()
	r.eventually("it to be ready", func() bool { return len(r.contents(agented.Stdout)) > 0 })
	r.pause(time.Hour)
	began := time.Now()
	if err := r.h.Stop(agented.CauseCancelled); err != nil {
		t.Fatal(err)
	}
	exit := r.wait()
	if exit.Cause != agented.CauseCancelled || exit.Code == nil || *exit.Code != 3 || time.Since(began) > bound/2 {
		t.Errorf("ended by %s with %s after %s", exit.Cause, show(exit.Code), time.Since(began))
	}
	wantLines(t, r, agented.Stdout, "ready", "bye")
}

func TestPause_suspends_timeouts(t *testing.T) {
	t.Parallel()
	t.Run("the clocks stop", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, `echo ready; read -r x <gate; echo done`)
		if err := unix.Mkfifo(filepath.Join(r.spec.Dir, "gate"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.spec.Timeout, r.spec.Silence = 6*time.Second, 5*time.Second
		r.start()
		r.eventually("it to be ready", func() bool { return len(r.contents(agented.Stdout)) > 0 })
		r.pause(time.Hour)
		stood := time.Now()
		r.eventually("both limits to have passed", func() bool { return time.Since(stood) > 6500*time.Millisecond })
		if err := r.h.Continue("", ""); err != nil {
			t.Fatal(err)
		}
		gate, err := os.OpenFile(filepath.Join(r.spec.Dir, "gate"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(gate)
		gate.Close()
		wantCode(t, r, r.wait(), 0)
	})
	t.Run("and run again", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, `echo ready; sleep 1000`)
		r.spec.Timeout = 3 * time.Second
		r.start()
		r.pause(time.Hour)
		if err := r.h.Continue("", ""); err != nil {
			t.Fatal(err)
		}
		if exit := r.wait(); exit.Cause != agented.CauseTimeout || !strings.Contains(exit.Detail, "3s") {
			t.Errorf("ended by %s: %s", exit.Cause, exit.Detail)
		}
	})
	t.Run("it ends by itself", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, tickers).start()
		r.eventually("all of the tree to tick", func() bool { _, ok := r.sizes(); return ok })
		r.pause(300 * time.Millisecond)
		exit := r.wait()
		if exit.Cause != agented.CauseTimeout || !strings.Contains(exit.Detail, "it was paused for") || !strings.Contains(exit.Detail, "lunch") {
			t.Errorf("ended by %s: %s", exit.Cause, exit.Detail)
		}
	})
}

func TestPause_keeps_stopped_process(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `sh -c 'echo child $$; while :; do echo x >>a; sleep 0.01; done' & wait`).start()
	child := 0
	r.eventually("the child", func() bool {
		for _, l := range r.contents(agented.Stdout) {
			fmt.Sscanf(l, "child %d", &child)
		}
		return child > 0
	})
	if err := unix.Kill(child, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.eventually("it to stand still", func() bool { p, ok := lookUp(child); return ok && p.stopped })
	r.pause(time.Hour)
	if err := r.h.Continue("", ""); err != nil {
		t.Fatal(err)
	}
	if p, ok := lookUp(child); !ok || !p.stopped {
		t.Error("the pause woke it")
	}
	unix.Kill(child, unix.SIGCONT)
	r.h.Stop(agented.CauseCancelled)
	r.wait()
}

func TestPause_woken_process_and_fork_bomb(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `n=0; while [ $n -lt 8 ]; do (while :; do (echo x >>a; echo x >>b; echo x >>c); done) & n=$((n+1)); done; wait`).start()
	r.eventually("it to fork", func() bool { _, ok := r.sizes(); return ok })
	r.pause(time.Hour)
	r.still()
	unix.Kill(r.h.PID(), unix.SIGCONT)
	r.eventually("it to be stopped again", func() bool { p, ok := lookUp(r.h.PID()); return ok && p.stopped })
	r.h.Stop(agented.CauseCancelled)
	r.wait()
}

func TestPause_shim_killed(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, tickers).start()
	r.eventually("all of the tree to tick", func() bool { _, ok := r.sizes(); return ok })
	r.pause(time.Hour)
	r.killShim()
	if exit := r.settle(); exit.Cause != agented.CauseLost {
		t.Errorf("ended by %s", exit.Cause)
	}
	if left := r.orphans(); len(left) > 0 {
		t.Errorf("left over: %q", names(left, nil))
	}
}

func TestPause_old_shim(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"not supported: pause", "unknown verb pause"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(dir, socketFile))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				line, _ := bufio.NewReader(conn).ReadString('\n')
				var r request
				if json.Unmarshal([]byte(line), &r) == nil {
					b, _ := json.Marshal(reply{Version: 1, Error: answer})
					conn.Write(append(b, '\n'))
				}
				conn.Close()
			}
		}()
		h := &Handle{bundle: dir}
		err = h.Pause(PauseState{Until: time.Now().Add(time.Hour)})
		if agented.KindOf(err) != agented.Conflict || !strings.Contains(agented.Message(err), "older version") {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// pausedNow returns the current pause of the attempt, or nil.
func pausedNow(h *Handle) (*PauseState, error) {
	r, err := h.request(request{Verb: "hello"}, dialPatience)
	return r.Paused, err
}

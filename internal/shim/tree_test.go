package shim

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

func wantSurvivors(t *testing.T, r *run, exit agented.Exit, want ...string) {
	t.Helper()
	all := strings.Join(exit.Survivors, "\n")
	if len(exit.Survivors) != len(want) {
		t.Errorf("survivors %q, want %d", exit.Survivors, len(want))
	}
	said := strings.Join(r.contents(agented.System), "\n")
	for _, w := range want {
		if !strings.Contains(all, w) || !strings.Contains(said, w) {
			t.Errorf("survivors %q, log %q: want %q in both", exit.Survivors, said, w)
		}
	}
	if left := r.orphans(); len(left) != 0 {
		t.Errorf("still alive: %q", names(left, nil))
	}
}

func TestTree_leftovers_terminated(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, `
			sleep 1001 &
			setsid sleep 1002 &
			(setsid sh -c 'sleep 1003 & exit' &)
			nohup sleep 1004 >/dev/null 2>&1 &
			env -i sleep 1005 &
			trap '' TERM; sleep 1006 &
			sleep 0.1; echo done`)
		exit := r.do()
		wantCode(t, r, exit, 0)
		wantSurvivors(t, r, exit, "sleep 1001", "sleep 1002", "sleep 1003", "sleep 1004", "sleep 1005", "sleep 1006")
		if took := exit.FinishedAt.Sub(exit.StartedAt); took > bound/2 {
			t.Errorf("took %v", took)
		}
	})
}

func TestTree_survivor_names_masked(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `setsid sh -c 'sleep 1001; :' hunter2-hunter2 & sleep 0.1`)
	r.priv.Mask = []string{"hunter2-hunter2"}
	exit := r.do()
	wantSurvivors(t, r, exit, "sh -c sleep 1001; : ***", "sleep 1001")
}

func TestTree_lingering_process(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		// As "> >(tee file)" does: it outlives the shell and still prints.
		r := newRun(t, c, `(sleep 0.1; echo late) & echo early`)
		exit := r.do()
		wantCode(t, r, exit, 0)
		wantSurvivors(t, r, exit)
		wantLines(t, r, agented.Stdout, "early", "late")
		wantLines(t, r, agented.System)
	})
}

func TestTree_grandchild_holds_output(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, `(trap '' TERM HUP; while :; do echo noise; sleep 0.01; done) & sleep 0.1; exit 4`)
		exit := r.do()
		wantCode(t, r, exit, 4)
		if len(exit.Survivors) == 0 || len(r.orphans()) != 0 {
			t.Errorf("survivors %q", exit.Survivors)
		}
		if took := exit.FinishedAt.Sub(exit.StartedAt); took > bound/2 {
			t.Errorf("took %v", took)
		}
	})
}

func TestStop_outside_group(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		// The wrapper ignores SIGTERM, its child in a session of its own does not: like gemini,
		// which restarts itself.
		// The child reports ready when the wrapper ignores the signal.
		r := newRun(t, c, `setsid sh -c 'trap "echo child ends; exit 0" TERM; read x; echo ready; while :; do sleep 0.02; done' <"$1" & trap '' TERM; echo >"$1"; wait; echo wrapper ends`)
		r.spec.Args = append(r.spec.Args, "sh", newFifo(t))
		r.start()
		r.eventually("the child", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		if exit.Code == nil || *exit.Code != 0 || exit.Cause != agented.CauseCancelled {
			t.Errorf("exit = %+v", exit)
		}
		wantLines(t, r, agented.Stdout, "ready", "child ends", "wrapper ends")
		wantSurvivors(t, r, exit)
	})
}

func TestStop_daemons(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, `(trap '' TERM; setsid sh -c 'sleep 1001 & sleep 1002 & exec sleep 1003' &); echo ready; sleep 600`)
		r.spec.Grace = 500 * time.Millisecond
		r.start()
		r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 && len(r.orphans()) >= 5 })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		if exit.Signal != "SIGTERM" {
			t.Errorf("exit = %+v", exit)
		}
		wantSurvivors(t, r, exit, "sleep 1001", "sleep 1002", "sleep 1003")
	})
}

func TestTree_wrapper_killed(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, `sh -c 'echo native; while :; do sleep 0.02; done'; echo never`).start()
		r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := unix.Kill(r.h.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		if exit.Cause != agented.CauseExit || exit.Signal != "SIGKILL" || exit.Code != nil {
			t.Errorf("exit = %+v", exit)
		}
		if all := strings.Join(exit.Survivors, "\n"); !strings.Contains(all, "echo native") || len(r.orphans()) != 0 {
			t.Errorf("survivors %q", exit.Survivors)
		}
		wantLines(t, r, agented.Stdout, "native")
	})
}

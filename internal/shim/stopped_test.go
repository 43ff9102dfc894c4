package shim

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestStoppedCommand(t *testing.T) {
	t.Parallel()
	said := func(r *run) int {
		return strings.Count(strings.Join(r.contents(agented.System), "\n"), "was stopped by a signal")
	}
	t.Run("is_continued", func(t *testing.T) {
		t.Parallel()
		for _, script := range []string{
			"kill -STOP $$; echo continued",
			"sh -c 'kill -STOP $$; echo continued'; exit 0", // a wrapper that waits
		} {
			r := newRun(t, agented.CapturePipe, script)
			exit := r.do()
			wantCode(t, r, exit, 0)
			wantLines(t, r, agented.Stdout, "continued")
			if said(r) != 1 {
				t.Errorf("log: %q", r.contents(agented.System))
			}
		}
	})
	t.Run("is_ended_when_it_stops_again_and_again", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "while :; do kill -STOP $$; done")
		exit := r.do()
		if exit.Cause != agented.CauseStopped || !strings.Contains(exit.Detail, "SIGSTOP") || exit.Signal != "SIGTERM" {
			t.Errorf("exit = %+v", exit)
		}
		if said(r) != maxContinues {
			t.Errorf("log: %q", r.contents(agented.System))
		}
	})
	t.Run("ends_at_once_when_it_is_cancelled", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "echo ready; kill -STOP $$; sleep 600")
		r.spec.Grace = 10 * bound // SIGTERM alone would not reach it
		r.start()
		r.eventually("the command to stop", func() bool { p, ok := lookUp(r.h.PID()); return ok && p.stopped })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		if exit := r.wait(); exit.Signal != "SIGTERM" {
			t.Errorf("exit = %+v", exit)
		}
	})
}

func TestGrace(t *testing.T) {
	t.Parallel()
	t.Run("that_was_cut_short_is_not_said_to_be_over", func(t *testing.T) {
		t.Parallel()
		r := newRun(t, agented.CaptureFile, "").program("flood", "1000")
		r.spec.OutputCap, r.spec.Grace = 1<<20, 10*bound
		exit := r.do()
		if exit.Cause != agented.CauseOutputCap || strings.Contains(exit.Detail, "did not end within") || !strings.Contains(exit.Detail, "before its grace ended") {
			t.Errorf("exit = %+v", exit)
		}
	})
}

package shim

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

func wantCause(t *testing.T, r *run, exit agented.Exit, cause agented.Cause, detail string) {
	t.Helper()
	if exit.Cause != cause || !strings.Contains(exit.Detail, detail) {
		t.Errorf("ended by %q: %q, want %q with %q\n%s", exit.Cause, exit.Detail, cause, detail, r.describe())
	}
	if cause != agented.CauseExit {
		said := strings.Join(r.contents(agented.System), "\n")
		if !strings.Contains(said, detail) {
			t.Errorf("the log says %q, want %q in it", said, detail)
		}
	}
}

func TestTimeout_wall_clock(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "echo begun; while :; do echo tick; sleep 0.05; done")
		r.spec.Timeout = 400 * time.Millisecond
		exit := r.do()
		wantCause(t, r, exit, agented.CauseTimeout, "it ran longer than the limit of 400ms")
		if exit.Signal != "SIGTERM" {
			t.Errorf("exit = %+v", exit)
		}
		if took := exit.FinishedAt.Sub(exit.StartedAt); took < 400*time.Millisecond || took > bound/2 {
			t.Errorf("took %v", took)
		}
	})
}

func TestTimeout_silence(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "for i in 1 2 3 4 5; do sleep 0.6; printf x; done; sleep 600")
		r.spec.Silence = 2 * time.Second
		exit := r.do()
		wantCause(t, r, exit, agented.CauseSilence, "it printed nothing for 2s")
		if got := string(r.printed(agented.Stdout)); got != "xxxxx" {
			t.Errorf("printed %q", got)
		}
	})
}

func TestLimit_output_cap(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "yes 0123456789012345678901234567890123456789012345678901234567890123456789")
		r.spec.OutputCap = 1 << 20
		exit := r.do()
		wantCause(t, r, exit, agented.CauseOutputCap, "it printed more than the limit of 1 MiB")
		if n := len(r.printed(agented.Stdout)); n <= 1<<20 || n > 1<<20+overCap {
			t.Errorf("%d bytes logged", n)
		}

		// An attempt that does not end may only exceed the cap by a limited amount.
		r = newRun(t, c, "trap '' TERM; yes 01234567890123456789012345678901234567890123456789")
		r.spec.OutputCap, r.spec.Grace = 1<<20, time.Minute
		exit = r.do()
		wantCause(t, r, exit, agented.CauseOutputCap, "it printed more than")
		if n := len(r.printed(agented.Stdout)); n > 1<<20+overCap {
			t.Errorf("%d bytes logged", n)
		}
		if took := exit.FinishedAt.Sub(exit.StartedAt); took > bound/2 {
			t.Errorf("took %v", took)
		}
	})
}

func TestStop_term_then_kill(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done").start()
		r.eventually("the trap", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Fatal(err)
		}
		exit := r.wait()
		wantCause(t, r, exit, agented.CauseCancelled, "a stop was requested")
		if exit.Code == nil || *exit.Code != 7 {
			t.Errorf("exit = %+v", exit)
		}
		wantLines(t, r, agented.Stdout, "ready", "bye")

		r = newRun(t, c, "").program("deaf")
		r.spec.Grace = 300 * time.Millisecond
		r.start()
		r.eventually("the deaf one", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		for range 3 { // asking again changes nothing
			if err := r.h.Stop(agented.CauseCancelled); err != nil {
				t.Fatal(err)
			}
		}
		exit = r.wait()
		if exit.Cause != agented.CauseCancelled || exit.Signal != "SIGKILL" || !strings.Contains(exit.Detail, "did not end within 300ms of SIGTERM and was killed") {
			t.Errorf("exit = %+v", exit)
		}
	})
}

func TestShutdown_of_machine(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ready; sleep 600").start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
	if err := unix.Kill(r.shimPID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantCause(t, r, r.wait(), agented.CauseShutdown, "the machine is shutting down")

	// The CLI gets the same signal, and may be faster.
	r = newRun(t, agented.CaptureFile, "echo ready; exec sleep 600").start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
	_ = unix.Kill(r.h.PID(), unix.SIGTERM)
	_ = unix.Kill(r.shimPID(), unix.SIGTERM)
	if exit := r.wait(); exit.Cause != agented.CauseShutdown || exit.Signal != "SIGTERM" {
		t.Errorf("exit = %+v", exit)
	}
}

func TestSignals_ignored(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ready; sleep 0.3; echo end").start()
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGQUIT} {
		if err := unix.Kill(r.shimPID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, r, r.wait(), 0)
	wantLines(t, r, agented.Stdout, "ready", "end")
}

func TestDisk_guard_ends_attempt(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "sleep 600")
	r.spec.MinFree = 1 << 60
	wantCause(t, r, r.do(), agented.CauseDiskFull, "must stay free")
}

func TestLimit_disk(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		cause  agented.Cause
		detail string
	}{
		"exceeded":   {"head -c 3000000 /dev/zero >big; sleep 600", agented.CauseDiskLimit, "its files used more disk space than its limit of 2 MiB (limits.disk or AGENTED_MAX_DISK)"},
		"below":      {"head -c 1000000 /dev/zero >small; sleep 3", agented.CauseExit, ""},
		"too nested": {"i=0; while [ $i -lt 300 ]; do mkdir d && cd d || break; i=$((i+1)); done; sleep 600", agented.CauseDiskLimit, "nested too deeply"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, agented.CaptureFile, c.script)
			r.spec.Dir = t.TempDir()
			r.spec.MaxDisk, r.spec.DiskFolders = 2<<20, []string{r.spec.Dir}
			wantCause(t, r, r.do(), c.cause, c.detail)
		})
	}
}

package dispatch_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/testrun"
)

// Until resume is called, a server owns the executions of another one: it counts them, holds
// their slots, and stores requests to stop them.
func TestRecover_resumes_when_ready(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.dispatcher(nil)
	stop := h.run(first)
	gate := filepath.Join(h.layout.Root, "gate")
	waits := "echo up; while [ ! -e " + gate + " ]; do sleep 0.02; done; echo down"
	var ids []agented.ExecutionID
	for _, script := range []string{"sleep 1000", waits, waits} {
		id := h.fire(first, command("sh", "-c", script))
		h.until(id, "a process", func(e *agented.Execution) bool { return len(e.Attempts) > 0 && !e.Attempts[0].StartedAt.IsZero() })
		ids = append(ids, id)
	}
	stop()

	next := h.dispatcher(nil)
	ctx, cancel := context.WithCancel(t.Context())
	resume, err := next.Recover(ctx)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- next.Run(ctx) }()
	if got := [2]int{next.Running(), next.ToResume()}; got != [2]int{3, 3} {
		t.Errorf("works on and has yet to go on with %v, want 3 and 3", got)
	}
	if _, err := next.Cancel(ctx, ids[0], agented.Principal{Name: "somebody", Role: agented.RoleOperator}); err != nil {
		t.Fatal(err)
	}
	// A new execution ends meanwhile, which proves that there was enough time.
	if e := h.await(h.fire(next, command("true"))); e.State != agented.StateSuccess {
		t.Errorf("a new one = %+v", e)
	}
	if got := next.ToResume(); got != 3 {
		t.Errorf("%d are yet to go on with, want 3: nobody has said that the server answers", got)
	}
	paused := make(chan error, 1)
	go func() {
		_, err := next.Pause(ctx, ids[1], dispatch.Pausing{By: agented.Principal{Name: "somebody"}})
		if err == nil {
			_, err = next.Continue(ctx, ids[1], dispatch.Continuing{By: agented.Principal{Name: "somebody"}})
		}
		paused <- err
	}()
	resume()
	resume() // a second call is harmless
	if err := testrun.Receive(t, paused, "the pause"); err != nil {
		t.Errorf("a pause before the execution was gone on with: %v", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(ids[0]); e.State != agented.StateCancelled {
		t.Errorf("what was cancelled meanwhile = %+v", e)
	}
	for _, id := range ids[1:] {
		if e := h.await(id); e.State != agented.StateSuccess || e.AttemptNo != 1 || h.text(id) != "up\ndown\n" {
			t.Errorf("execution = %+v, log %q", e, h.text(id))
		}
	}
	if got := next.ToResume(); got != 0 {
		t.Errorf("%d are yet to go on with when all have ended", got)
	}
	cancel()
	if err := testrun.Receive(t, done, "the dispatcher to end"); err != nil {
		t.Error(err)
	}
}

// The start of a short attempt is recorded together with its end, which saves a commit. A longer
// one has it recorded earlier.
func TestStart_recorded(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	gate := filepath.Join(h.layout.Root, "gate")
	long := h.fire(d, command("sh", "-c", "while [ ! -e "+gate+" ]; do sleep 0.02; done"))
	e := h.until(long, "noted as started", func(e *agented.Execution) bool { return !e.StartedAt.IsZero() })
	began := e.StartedAt
	if len(e.Attempts) != 1 || !e.Attempts[0].StartedAt.Equal(began) || e.State != agented.StateRunning {
		t.Errorf("started: %+v", e)
	}
	short := h.await(h.fire(d, command("true")))
	if short.StartedAt.IsZero() || len(short.Attempts) != 1 || short.Attempts[0].StartedAt.IsZero() || short.FinishedAt.Before(short.StartedAt) {
		t.Errorf("what ended at once: %+v", short)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(long); !e.StartedAt.Equal(began) || e.State != agented.StateSuccess {
		t.Errorf("the noted start %v has become %v", began, e.StartedAt)
	}
}

// If a server ends before it has recorded a start, the time is in the bundle.
func TestRecover_start_time(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.dispatcher(nil)
	stop := h.run(first)
	gate, up := filepath.Join(h.layout.Root, "gate"), filepath.Join(h.layout.Root, "up")
	before := time.Now()
	id := h.fire(first, command("sh", "-c", "touch "+up+"; while [ ! -e "+gate+" ]; do sleep 0.02; done"))
	h.until(id, "up", func(*agented.Execution) bool { _, err := os.Stat(up); return err == nil })
	after := time.Now()
	stop()
	defer h.run(h.dispatcher(nil))()
	e := h.until(id, "noted as started", func(e *agented.Execution) bool { return !e.StartedAt.IsZero() })
	if e.StartedAt.Before(before.Add(-time.Second)) || e.StartedAt.After(after.Add(time.Millisecond)) {
		t.Errorf("began at %v, want between %v and %v", e.StartedAt, before, after)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.await(id)
}

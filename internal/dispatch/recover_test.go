package dispatch_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented"
)

// Until it is told to go on with them, a server owns what another left running:
// it counts them, holds their slots, and a wish to end one is not lost.
func TestWhatIsTakenOverWaitsUntilTheServerAnswers(t *testing.T) {
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
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-h.final(ids[1]):
		t.Errorf("an execution was decided before the server answered: %+v", e)
	default:
	}
	resume()
	resume() // once is enough, twice does no harm
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
	if err := <-done; err != nil {
		t.Error(err)
	}
}

package dispatch_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
)

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}

// runningShim waits until an execution's command runs and returns the pid of its shim.
func (h *house) runningShim(id agented.ExecutionID) int {
	h.t.Helper()
	var begun struct {
		PID int `json:"shim_pid"`
	}
	bundle := h.layout.Attempt(id, 1)
	eventually(h.t, "the start of the attempt", func() bool {
		e, err := h.db.Execution(h.t.Context(), id)
		return err == nil && len(e.Attempts) == 1 && !e.Attempts[0].StartedAt.IsZero()
	})
	b, err := os.ReadFile(filepath.Join(bundle, "begun.json"))
	if err == nil {
		err = json.Unmarshal(b, &begun)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return begun.PID
}

// warnings counts the lines of a log that contain a text.
type warnings struct {
	slog.Handler
	text string
	n    *atomic.Int32
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, w.text) {
		w.n.Add(1)
	}
	return nil
}

func TestStop(t *testing.T) {
	t.Parallel()
	by := agented.Principal{Name: "admin", Role: agented.RoleAdmin}

	t.Run("does_not_wait_for_shims_that_stand_still", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		d := h.dispatcher(nil)
		defer h.run(d)()
		var ids []agented.ExecutionID
		for range 4 {
			ids = append(ids, h.fire(d, command("sleep", "1000")))
		}
		var shims []int
		for _, id := range ids {
			pid := h.runningShim(id)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
			shims = append(shims, pid)
		}
		began := time.Now()
		for _, id := range ids {
			if _, err := d.Cancel(t.Context(), id, by); err != nil {
				t.Fatal(err)
			}
		}
		// A request waits at most 5 s for such a shim.
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("4 cancellations took %s", took)
		}
		for _, pid := range shims {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		for _, id := range ids {
			if e := h.await(id); e.State != agented.StateCancelled {
				t.Errorf("%s: state %s", id, e.State)
			}
		}
	})

	t.Run("is_repeated_until_the_attempt_has_ended", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		failed := new(atomic.Int32)
		d := h.dispatcher(func(o *dispatch.Options) {
			o.Log = slog.New(warnings{slog.DiscardHandler, "does not answer", failed})
		})
		defer h.run(d)()
		id := h.fire(d, command("sleep", "1000"))
		h.runningShim(id)
		socket := filepath.Join(h.layout.Attempt(id, 1), "ctl.sock")
		if err := os.Rename(socket, socket+".away"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Cancel(t.Context(), id, by); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a stop that fails", func() bool { return failed.Load() > 0 })
		if err := os.Rename(socket+".away", socket); err != nil {
			t.Fatal(err)
		}
		if e := h.await(id); e.State != agented.StateCancelled {
			t.Errorf("state %s", e.State)
		}
	})

	t.Run("is_left_to_the_next_server_by_one_that_ends", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		d := h.dispatcher(nil)
		end := h.run(d)
		id := h.fire(d, command("sleep", "1000"))
		pid := h.runningShim(id)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
		if _, err := d.Cancel(t.Context(), id, by); err != nil {
			t.Fatal(err)
		}
		end()
		_ = syscall.Kill(pid, syscall.SIGCONT)
		defer h.run(h.dispatcher(nil))()
		if e := h.await(id); e.State != agented.StateCancelled {
			t.Errorf("state %s", e.State)
		}
	})
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	t.Run("ignores_steps_of_the_wall_clock", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		var step atomic.Int64
		d := h.dispatcher(func(o *dispatch.Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Duration(step.Load())).Round(0) }
		})
		defer h.run(d)()
		eventually(t, "the dispatcher to be healthy", func() bool { return d.Healthy() == nil })
		for _, by := range []time.Duration{2 * time.Hour, -2 * time.Hour, 0} {
			step.Store(int64(by))
			if err := d.Healthy(); err != nil {
				t.Errorf("clock set by %s: %v", by, err)
			}
		}
	})
}

package dispatch

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
)

// Recover takes over every execution that a previous server left running, and
// decides about each what its bundle says:
//
//   - never started: nothing ran, so it is started now, as the same attempt;
//   - running: its shim is alive, so it is adopted where it stands;
//   - ended: the exit record is there, so it is finished;
//   - lost: no shim and no record, so what is left of it is ended and named,
//     and it is interrupted.
//
// It returns when each is decided; the work itself goes on under ctx, which
// must be the one that Run gets.
func (d *Dispatcher) Recover(ctx context.Context) error {
	if err := d.ReloadAgents(ctx); err != nil {
		return fmt.Errorf("read the agents: %w", err)
	}
	if err := d.ReloadBudgets(ctx); err != nil {
		return fmt.Errorf("read the budgets: %w", err)
	}
	open, err := d.o.DB.TakeOver(ctx, d.o.Node, d.now(), d.o.LeaseTTL)
	if err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	count := map[string]int{}
	for _, e := range open {
		facts, err := shim.Inspect(d.o.Layout.Attempt(e.ID, e.AttemptNo))
		first := &facts
		if err != nil {
			first = nil
			// One bundle that cannot be read must not keep the server down:
			// its own goroutine goes on trying.
			d.o.Log.Error("read a bundle", "execution", e.ID, "attempt", e.AttemptNo, "err", err)
			count["undecided"]++
		} else {
			count[strings.ReplaceAll(shim.Decide(facts).String(), " ", "_")]++
		}
		d.resume(ctx, e, first)
	}
	if len(open) > 0 {
		attrs := []any{"executions", len(open)}
		for _, verdict := range slices.Sorted(maps.Keys(count)) {
			attrs = append(attrs, verdict, count[verdict])
		}
		d.o.Log.Info("recovered what a previous server left running", attrs...)
	}
	return nil
}

// resumeAtOnce bounds how many executions are being taken up at one moment: a
// server that finds hundreds of them is ready, and answers, before it has spoken
// to every shim.
const resumeAtOnce = 16

// resume goes on with a running execution from whatever its bundle says: facts, if
// somebody has just looked, else nil.
func (d *Dispatcher) resume(ctx context.Context, e *agented.Execution, facts *shim.Facts) {
	w, ok := d.take(e.ID, e.CancelAsked)
	if !ok {
		return // it is being worked on here already
	}
	bundle := d.o.Layout.Attempt(e.ID, e.AttemptNo)
	d.attempts.Go(func() {
		defer d.drop(e.ID)
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
			select {
			case <-ctx.Done():
				return
			case d.resuming <- struct{}{}:
			}
			taken := sync.OnceFunc(func() { <-d.resuming })
			var err error
			if facts == nil {
				facts = new(shim.Facts)
				*facts, err = shim.Inspect(bundle)
			}
			if err == nil {
				err = d.resumeFrom(ctx, e, w, bundle, shim.Decide(*facts), taken)
			}
			taken()
			facts = nil
			if err == nil || ctx.Err() != nil {
				return
			}
			d.o.Log.Warn("resume", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.String())
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	})
}

// resumeFrom acts on a verdict. An error means that the bundle could not be
// used just now, or changed meanwhile: look again. It calls taken as soon as it is
// clear how the execution goes on.
func (d *Dispatcher) resumeFrom(ctx context.Context, e *agented.Execution, w *work, bundle string, verdict shim.Verdict, taken func()) error {
	switch verdict {
	case shim.NeverStarted:
		if err := os.RemoveAll(bundle); err != nil {
			return err
		}
		taken()
		d.begin(ctx, e, w)
	case shim.Running:
		h, err := shim.Adopt(bundle)
		if err != nil {
			return err
		}
		d.adopted(ctx, e, w, h, taken)
	case shim.Ended:
		exit, err := shim.ReadExit(bundle)
		if err != nil {
			return err
		}
		taken()
		d.finish(ctx, e, exit)
	case shim.Lost:
		taken()
		d.settle(ctx, e)
	}
	return nil
}

// adopted goes on with a living shim where the previous server was.
func (d *Dispatcher) adopted(ctx context.Context, e *agented.Execution, w *work, h *shim.Handle, taken func()) {
	stop := d.attach(w, h)
	d.syncPause(ctx, e, h)
	if len(e.Attempts) == 0 || e.Attempts[len(e.Attempts)-1].StartedAt.IsZero() {
		d.noteStart(ctx, e, d.knownVersion(e), d.now())
	}
	d.o.Log.Info("attempt adopted", "execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger)
	if stop {
		if err := h.Stop(agented.CauseCancelled); err != nil {
			d.o.Log.Warn("stop", "execution", e.ID, "err", err)
		}
	}
	taken()
	d.follow(ctx, e, h)
}

// settleStale takes over executions that say running, whose lease ran out long
// ago and on which nobody works.
func (d *Dispatcher) settleStale(ctx context.Context, now time.Time) error {
	stale, err := d.o.DB.TakeOverExpired(ctx, d.o.Node, now.Add(-d.o.StaleAfter), now, d.o.LeaseTTL)
	if err != nil {
		return err
	}
	for _, e := range stale {
		d.o.Log.Warn("took over a stale execution", "execution", e.ID, "attempt", e.AttemptNo)
		d.resume(ctx, e, nil)
	}
	return nil
}

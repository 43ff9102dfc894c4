package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/shim"
)

// Recover leases every execution that a previous server left running, and decides by the state of
// its bundle:
//
//   - never started: it is started, as the same attempt;
//   - running: the shim is alive, so the attempt is adopted;
//   - ended: there is an exit record, so the attempt is finished;
//   - lost: there is neither a shim nor a record, so remaining processes are
//     terminated and named, and the execution is interrupted.
//
// Recover returns when all of them are leased to this server. The caller must then call resume
// once, as soon as the server accepts requests; resume reads the bundles and contacts the shims,
// which takes time for hundreds of executions. The work continues under ctx, which must be the
// context of Run.
func (d *Dispatcher) Recover(ctx context.Context) (resume func(), err error) {
	if err := d.ReloadAgents(ctx); err != nil {
		return nil, fmt.Errorf("read the agents: %w", err)
	}
	if err := d.o.Costs.Reload(ctx); err != nil {
		return nil, fmt.Errorf("read the budgets: %w", err)
	}
	open, err := d.o.DB.TakeOver(ctx, d.o.Node, d.now(), d.o.LeaseTTL)
	if err != nil {
		return nil, fmt.Errorf("lease executions: %w", err)
	}
	works := make([]*work, len(open))
	for i, e := range open {
		works[i], _ = d.takeOver(e)
	}
	answers := make(chan struct{})
	d.attempts.Go(func() {
		select {
		case <-ctx.Done():
			for _, e := range open {
				d.drop(e.ID)
			}
		case <-answers:
			t := &tally{left: len(open), of: len(open), count: map[string]int{}, log: d.o.Log}
			for i, e := range open {
				d.resume(ctx, e, works[i], t.add)
			}
		}
	})
	return sync.OnceFunc(func() { close(answers) }), nil
}

// takeOver registers an execution that resume will continue. It returns false if this node
// already processes it.
func (d *Dispatcher) takeOver(e *agented.Execution) (*work, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running[e.ID] != nil {
		return nil, false
	}
	d.toResume.Add(1)
	w := &work{stop: e.CancelAsked, done: make(chan struct{}), found: make(chan struct{})}
	d.running[e.ID] = w
	return w, true
}

// tally collects the states found during recovery for one log line.
type tally struct {
	mu       sync.Mutex // guards the following fields
	left, of int
	count    map[string]int
	log      *slog.Logger
}

// add counts one execution by its first state.
func (t *tally) add(found string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count[strings.ReplaceAll(found, " ", "_")]++
	if t.left--; t.left > 0 {
		return
	}
	attrs := []any{"executions", t.of}
	for _, verdict := range slices.Sorted(maps.Keys(t.count)) {
		attrs = append(attrs, verdict, t.count[verdict])
	}
	t.log.Info("recovered executions of a previous server", attrs...)
}

// resumeAtOnce is the maximum number of concurrent resumptions, so that a server with hundreds of
// executions can answer requests meanwhile.
const resumeAtOnce = 16

// resume continues a leased execution from the state of its bundle. If first is not nil, it is
// called with the first state found.
func (d *Dispatcher) resume(ctx context.Context, e *agented.Execution, w *work, first func(found string)) {
	bundle := d.o.Layout.Attempt(e.ID, e.AttemptNo)
	d.attempts.Go(func() {
		defer d.drop(e.ID)
		found := sync.OnceFunc(func() { d.toResume.Add(-1); close(w.found) })
		for pause := (backoff.Backoff{Pause: 50 * time.Millisecond, Longest: 5 * time.Second}); ; {
			select {
			case <-ctx.Done():
				return
			case d.resuming <- struct{}{}:
			}
			free := sync.OnceFunc(func() { <-d.resuming })
			taken := func() { found(); free() }
			facts, err := shim.Inspect(bundle)
			if first != nil {
				what := shim.Decide(facts).String()
				if err != nil {
					what = "undecided"
				}
				first(what)
				first = nil
			}
			if err == nil {
				err = d.resumeFrom(ctx, e, w, bundle, shim.Decide(facts), taken)
			}
			free()
			if err == nil || ctx.Err() != nil {
				return
			}
			// A bundle that cannot be read delays this execution only.
			d.o.Log.Warn("resume", "execution", e.ID, "attempt", e.AttemptNo, "err", err, "retry_in", pause.Pause.String())
			if pause.Wait(ctx) != nil {
				return
			}
		}
	})
}

// resumeFrom acts on the state of a bundle. An error means that the bundle could not be used now,
// or changed meanwhile, and must be read again. It calls taken as soon as it is decided how the
// execution continues.
func (d *Dispatcher) resumeFrom(ctx context.Context, e *agented.Execution, w *work, bundle string, verdict shim.BundleState, taken func()) error {
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

// adopted continues an attempt whose shim is alive.
func (d *Dispatcher) adopted(ctx context.Context, e *agented.Execution, w *work, h *shim.Handle, taken func()) {
	d.attach(e.ID, w, h)
	d.syncPause(ctx, e, h)
	if len(e.Attempts) == 0 || e.Attempts[len(e.Attempts)-1].StartedAt.IsZero() {
		d.noteStart(ctx, e, d.knownVersion(e), d.levelOfBundle(e), h.Begun())
	}
	d.o.Log.Info("attempt adopted", "execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger)
	taken()
	d.follow(ctx, e, h, func() {})
}

// settleStale leases executions recorded as running whose lease expired long ago and that no node
// processes.
func (d *Dispatcher) settleStale(ctx context.Context, now time.Time) error {
	stale, err := d.o.DB.TakeOverExpired(ctx, d.o.Node, now.Add(-d.o.StaleAfter), now, d.o.LeaseTTL)
	if err != nil {
		return err
	}
	for _, e := range stale {
		w, ok := d.takeOver(e)
		if !ok {
			continue
		}
		d.o.Log.Warn("took over a stale execution", "execution", e.ID, "attempt", e.AttemptNo)
		d.resume(ctx, e, w, nil)
	}
	return nil
}

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
// It returns when each is leased to this server and none can be taken by anybody
// else. Looking at them begins when the caller says so by calling resume, once, as
// soon as the server answers: hundreds of bundles are hundreds of files to read and
// of shims to speak to. The work goes on under ctx, which must be the one that Run
// gets.
func (d *Dispatcher) Recover(ctx context.Context) (resume func(), err error) {
	if err := d.ReloadAgents(ctx); err != nil {
		return nil, fmt.Errorf("read the agents: %w", err)
	}
	if err := d.ReloadBudgets(ctx); err != nil {
		return nil, fmt.Errorf("read the budgets: %w", err)
	}
	open, err := d.o.DB.TakeOver(ctx, d.o.Node, d.now(), d.o.LeaseTTL)
	if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
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

// takeOver takes an execution with which this node will go on by resume. It
// answers false if this node is at it already.
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

// tally says in one line of the log what a server found when it had looked at all.
type tally struct {
	mu       sync.Mutex // guards what follows
	left, of int
	count    map[string]int
	log      *slog.Logger
}

// add counts one execution by what was found of it at first.
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
	t.log.Info("recovered what a previous server left running", attrs...)
}

// resumeAtOnce bounds how many executions are being taken up at one moment: a
// server that finds hundreds of them answers, before it has spoken to every shim.
const resumeAtOnce = 16

// resume goes on with a running execution, which this server has taken, from
// whatever its bundle says. It tells first, unless that is nil, what it finds when
// it looks for the first time.
func (d *Dispatcher) resume(ctx context.Context, e *agented.Execution, w *work, first func(found string)) {
	bundle := d.o.Layout.Attempt(e.ID, e.AttemptNo)
	d.attempts.Go(func() {
		defer d.drop(e.ID)
		found := sync.OnceFunc(func() { d.toResume.Add(-1); close(w.found) })
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
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
			// One bundle that cannot be read keeps nothing but itself waiting.
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
		d.noteStart(ctx, e, d.knownVersion(e), h.Begun())
	}
	d.o.Log.Info("attempt adopted", "execution", e.ID, "attempt", e.AttemptNo, "trigger", e.Trigger)
	if stop {
		if err := h.Stop(agented.CauseCancelled); err != nil {
			d.o.Log.Warn("stop", "execution", e.ID, "err", err)
		}
	}
	taken()
	d.follow(ctx, e, h, func() {})
}

// settleStale takes over executions that say running, whose lease ran out long
// ago and on which nobody works.
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

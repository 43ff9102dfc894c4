// Package costs watches what running executions cost, and pauses them at their ceilings and budgets.
package costs

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// Parameters of reading the cost of a running attempt from its log.
const (
	interval         = 500 * time.Millisecond // minimum time between two reads
	fallbackInterval = 5 * time.Second
	pauseRetry       = time.Minute // delay after a failed pause
	maxLine          = 8 << 20     // maximum bytes of a line that is reassembled from parts; the cost of a longer one is ignored
)

// Options configures a Guard.
type Options struct {
	DB       *store.DB
	Layout   agented.Layout
	Prices   *agented.Prices                      // for CLIs that report tokens without a cost; if nil, such costs are unknown
	Notified func(b agented.Budget, reached bool) // reached is false for the warning level and true for the limit; may be nil
	Now      func() time.Time                     // nil means time.Now
	Log      *slog.Logger
}

// Guard knows the cost of the running executions of one node, and their limits.
type Guard struct {
	o       Options
	budgets atomic.Pointer[[]agented.Budget]

	mu      sync.Mutex // guards running and the meters in it
	running map[agented.ExecutionID]*meter
}

// Attempt is a running attempt whose cost is watched.
type Attempt struct {
	Execution *agented.Execution
	Backend   string
	Model     string // requested model, for CLIs that do not report it
	Text      *printed.Text
	// Pause pauses the execution and asks. The end of the pause is not set.
	Pause func(context.Context, agented.Pause) error
}

// meter is the known cost of a running execution.
type meter struct {
	trigger agented.TriggerID
	account agented.AccountID
	before  float64 // of the earlier attempts
	usd     float64 // of the current attempt
	ceiling float64 // 0 means none
	changed bool    // a user has set another ceiling in this attempt
	free    bool    // a user has continued it beyond its budgets
	blind   string  // model whose usage cannot be priced, or empty
	trusted bool    // a user has continued it although its cost is unknown

	again time.Time // time of the next try to pause after a failure; used by Watch only
}

// New returns a guard without budgets; Reload reads them.
func New(o Options) *Guard {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Guard{o: o, running: map[agented.ExecutionID]*meter{}}
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (g *Guard) now() time.Time { return g.o.Now().UTC().Truncate(time.Microsecond) }

// NewMeter returns a meter with the prices of the server.
func (g *Guard) NewMeter(model string) *agentcli.Meter { return agentcli.NewMeter(model, g.o.Prices) }

// Price computes the cost of usage whose cost the CLI does not report.
func (g *Guard) Price(model string, u agented.Usage) (usd float64, ok bool) {
	usd, _, ok = g.o.Prices.Estimate(model, u)
	return usd, ok
}

// Begin counts the current attempt of an execution until Forget is called. It must be called before
// Watch.
func (g *Guard) Begin(e *agented.Execution) {
	b := &meter{trigger: e.Trigger, ceiling: e.Snapshot.CeilingUSD}
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo {
			b.account = a.Account
		} else if a.Usage.CostUSD != nil {
			b.before += *a.Usage.CostUSD
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running[e.ID] = b
}

// Forget ends what Begin began. Afterwards the recorded cost of the attempt counts.
func (g *Guard) Forget(id agented.ExecutionID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, id)
}

// Watch pauses an attempt and asks for a decision when the cost of the execution reaches its
// ceiling, or the limit of a hard budget that pauses. It reads nothing while there is neither. It
// returns when ctx ends.
func (g *Guard) Watch(ctx context.Context, a Attempt) {
	defer a.Text.Close()
	e := a.Execution
	g.mu.Lock()
	b := g.running[e.ID]
	g.mu.Unlock()
	cli, ok := registry.ByName(a.Backend)
	if b == nil || !ok {
		return
	}
	g.readCeiling(ctx, e.ID, b)
	f := &follower{g: g, a: &a, cli: cli, meter: g.NewMeter(a.Model)}
	var changed <-chan struct{}
	if watch, err := runlog.Watch(g.o.Layout.Execution(e.ID)); err == nil {
		defer watch.Close()
		changed = watch.C()
	}
	poll, bundle := fallbackInterval, g.o.Layout.Attempt(a.Execution.ID, a.Execution.AttemptNo)
	if spec, err := shim.ReadSpec(bundle); err == nil && spec.Broker {
		f.broker, poll = &brokerMeter{bundle: bundle, prices: g.o.Prices}, brokerInterval
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if g.limited(b) {
			if err := f.readNew(ctx); err != nil {
				g.o.Log.Debug("read the cost of an attempt", "execution", e.ID, "err", err)
			}
			g.pauseAtLimit(ctx, &a, b, f)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// readCeiling reads the ceiling that a user has set for the execution, if any.
func (g *Guard) readCeiling(ctx context.Context, id agented.ExecutionID, b *meter) {
	usd, set, err := g.o.DB.Ceiling(ctx, id)
	if err != nil || !set {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !b.changed { // by SetCeiling
		// What the user was asked is not stored.
		b.ceiling, b.trusted = usd, true
	}
}

// limited reports whether a ceiling or a budget limits the execution.
func (g *Guard) limited(b *meter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return b.ceiling > 0 || !b.free && len(g.pausing(b)) > 0
}

// pausing lists the pausing budgets that count the execution. The caller holds the lock.
func (g *Guard) pausing(b *meter) []agented.Budget {
	var out []agented.Budget
	if book := g.budgets.Load(); book != nil {
		for _, x := range *book {
			if x.Enabled && x.Hard && x.Pause && x.Counts(b.trigger, b.account) {
				out = append(out, x)
			}
		}
	}
	return out
}

// pauseAtLimit pauses the execution if its cost has reached a limit.
func (g *Guard) pauseAtLimit(ctx context.Context, a *Attempt, b *meter, f *follower) {
	e := a.Execution
	g.mu.Lock()
	b.usd, b.blind = f.spent()
	spent, ceiling := b.before+b.usd, b.ceiling
	blind := b.blind
	if b.trusted || b.ceiling <= 0 && b.free {
		blind = ""
	}
	var over *agented.Budget
	if !b.free {
		for _, x := range g.pausing(b) {
			if now := g.now(); now.Before(x.Since) || !now.Before(x.Until) {
				x.Spent = 0 // the period has ended
			}
			for _, other := range g.running {
				if x.Counts(other.trigger, other.account) {
					x.Spent += other.usd
				}
			}
			if x.Reached() {
				over = &x
			}
		}
	}
	g.mu.Unlock()
	now := g.now()
	if now.Before(b.again) {
		return
	}
	p := f.question(spent, ceiling, blind, over)
	if p == nil {
		return
	}
	p.At = now
	p.Reason = a.Text.Mask(p.Reason)
	if fresh, err := g.o.DB.Execution(ctx, e.ID); err != nil || fresh.Pause != nil || fresh.CancelAsked || fresh.State != agented.StateRunning {
		return
	}
	if err := a.Pause(ctx, *p); err != nil && ctx.Err() == nil {
		g.o.Log.Warn("pause an execution that has reached its cost limit", "execution", e.ID, "err", err, "retry_in", pauseRetry.String())
		b.again = now.Add(pauseRetry)
	}
}

// SetCeiling changes the ceiling of a running execution. unpriced accepts models without a price,
// whose use the ceiling does not count.
func (g *Guard) SetCeiling(id agented.ExecutionID, usd float64, unpriced bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.running[id]; b != nil {
		b.ceiling, b.changed, b.trusted = usd, true, b.trusted || unpriced
	}
}

// AllowBudgets lets a running execution exceed its budgets.
func (g *Guard) AllowBudgets(id agented.ExecutionID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.running[id]; b != nil {
		b.free, b.trusted = true, true
	}
}

// Reload reloads the budgets after a change of them or of what was spent, and notifies about
// budgets that have reached their warning level or their limit.
func (g *Guard) Reload(ctx context.Context) error {
	list, err := g.o.DB.Budgets(ctx, g.now())
	if err != nil {
		return err
	}
	g.budgets.Store(&list)
	if !slices.ContainsFunc(list, func(b agented.Budget) bool { return b.Enabled && (b.Reached() || b.WarnReached()) }) {
		return nil
	}
	reached, err := g.o.DB.TakeBudgetNotices(ctx, g.now())
	for _, b := range reached {
		g.o.Log.Warn("budget", "name", b.Name, "reached", b.Reached, "says", b.Sentence())
		if g.o.Notified != nil {
			g.o.Notified(b.Budget, b.Reached)
		}
	}
	return err
}

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// Parameters of reading the cost of a running attempt from its log.
const (
	costInterval         = 500 * time.Millisecond // minimum time between two reads
	costFallbackInterval = 5 * time.Second
	costRetry            = time.Minute // delay after a failed pause
	maxCostLine          = 8 << 20     // maximum bytes of a line that is reassembled from parts; the cost of a longer one is ignored
)

// costMeter is the known cost of a running execution. The dispatcher's lock guards it.
type costMeter struct {
	trigger agented.TriggerID
	account agented.AccountID
	before  float64 // of the earlier attempts
	usd     float64 // of the current attempt
	ceiling float64 // 0 means none
	free    bool    // a user has continued it beyond its budgets
	blind   string  // model whose usage cannot be priced, or empty
	trusted bool    // a user has continued it although its cost is unknown

	again time.Time // time of the next try to pause after a failure; used by the cost guard only
}

// watchCost starts watching the cost of a running attempt. The returned function stops it and must
// be called.
func (d *Dispatcher) watchCost(ctx context.Context, e *agented.Execution, h *shim.Handle) (end func()) {
	name := backendOf(e)
	if name == agented.BackendCommand {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	d.attempts.Go(func() { d.guardCost(ctx, e, name, h) })
	return cancel
}

// guardCost pauses an attempt and asks for a decision when the cost of the execution reaches its
// ceiling, or the limit of a hard budget that pauses. It reads nothing while there is neither. It
// returns when ctx ends.
func (d *Dispatcher) guardCost(ctx context.Context, e *agented.Execution, name string, h *shim.Handle) {
	b := &costMeter{trigger: e.Trigger, ceiling: e.Snapshot.CeilingUSD}
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo {
			b.account = a.Account
		} else if a.Usage.CostUSD != nil {
			b.before += *a.Usage.CostUSD
		}
	}
	if usd, set, err := d.o.DB.Ceiling(ctx, e.ID); err == nil && set {
		b.ceiling, b.trusted = usd, true
	}
	d.mu.Lock()
	w := d.running[e.ID]
	if w != nil {
		w.costMeter = b
	}
	d.mu.Unlock()
	if w == nil {
		return
	}
	cli, ok := registry.ByName(name)
	if !ok {
		return
	}
	f := &follower{d: d, e: e, text: d.Printed(e), cli: cli, meter: agentcli.NewMeter(specOf(e).Model, d.o.Prices)}
	defer f.text.Close()
	var changed <-chan struct{}
	if watch, err := runlog.Watch(d.o.Layout.Execution(e.ID)); err == nil {
		defer watch.Close()
		changed = watch.C()
	}
	tick := time.NewTicker(costFallbackInterval)
	defer tick.Stop()
	for {
		if d.costLimited(b) {
			if err := f.readNew(ctx); err != nil {
				d.o.Log.Debug("read the cost of an attempt", "execution", e.ID, "err", err)
			}
			d.pauseAtLimit(ctx, e, h, b, f)
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
		case <-time.After(costInterval):
		}
	}
}

// costLimited reports whether a ceiling or a budget limits the execution.
func (d *Dispatcher) costLimited(b *costMeter) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.ceiling > 0 || !b.free && len(d.pausing(b)) > 0
}

// pausing lists the pausing budgets that count the execution. The caller holds the lock.
func (d *Dispatcher) pausing(b *costMeter) []agented.Budget {
	var out []agented.Budget
	if book := d.budgets.Load(); book != nil {
		for _, x := range *book {
			if x.Enabled && x.Hard && x.Pause && x.Counts(b.trigger, b.account) {
				out = append(out, x)
			}
		}
	}
	return out
}

// pauseAtLimit pauses the execution if its cost has reached a limit.
func (d *Dispatcher) pauseAtLimit(ctx context.Context, e *agented.Execution, h *shim.Handle, b *costMeter, f *follower) {
	d.mu.Lock()
	b.usd, b.blind = f.cost, f.meter.Unpriced()
	spent, ceiling := b.before+b.usd, b.ceiling
	blind := b.blind
	if b.trusted || b.ceiling <= 0 && b.free {
		blind = ""
	}
	var over *agented.Budget
	if !b.free {
		for _, x := range d.pausing(b) {
			if now := d.now(); now.Before(x.Since) || !now.Before(x.Until) {
				x.Spent = 0 // the period has ended
			}
			for _, w := range d.running {
				if w.costMeter != nil && x.Counts(w.costMeter.trigger, w.costMeter.account) {
					x.Spent += w.costMeter.usd
				}
			}
			if x.Reached() {
				over = &x
			}
		}
	}
	d.mu.Unlock()
	now := d.now()
	if now.Before(b.again) {
		return
	}
	p := agented.Pause{At: now, Until: now.Add(d.pauseFor())}
	switch {
	case ceiling > 0 && spent >= ceiling:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionCeiling, spent, ceiling
		p.Reason = fmt.Sprintf("the cost has reached %s and the ceiling is %s: continue it with a higher ceiling, or cancel it", agented.Dollars(spent), agented.Dollars(ceiling))
		if like := f.meter.Like(); like != "" {
			p.Reason += fmt.Sprintf(" (an estimate: model %q has no price, that of %s was used)", f.meter.Model(), like)
		}
	case over != nil:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionBudget, over.Spent, over.Limit
		p.Reason = over.Sentence() + ": continue it anyway, or cancel it"
	case blind != "" && ceiling > 0:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionCeiling, spent, ceiling
		p.Reason = fmt.Sprintf("model %q has no price, so the ceiling of %s cannot be enforced: add the price to the file of AGENTED_PRICES, or continue it with a ceiling_usd of 0 (none) or another value to accept that, or cancel it",
			blind, agented.Dollars(ceiling))
	case blind != "":
		p.Question, p.SpentUSD = agented.QuestionBudget, spent
		p.Reason = fmt.Sprintf("model %q has no price, so its budgets cannot be enforced: add the price to the file of AGENTED_PRICES, continue it to accept that, or cancel it", blind)
	default:
		return
	}
	p.Reason = f.text.Mask(p.Reason)
	if fresh, err := d.o.DB.Execution(ctx, e.ID); err != nil || fresh.Pause != nil || fresh.CancelAsked || fresh.State != agented.StateRunning {
		return
	}
	if _, err := d.pauseHere(ctx, e, h, p); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("pause an execution that has reached its cost limit", "execution", e.ID, "err", err, "retry_in", costRetry.String())
		b.again = now.Add(costRetry)
	}
}

// setCeiling changes the ceiling of a running execution.
func (d *Dispatcher) setCeiling(id agented.ExecutionID, usd float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.running[id]; w != nil && w.costMeter != nil {
		w.costMeter.ceiling, w.costMeter.trusted = usd, true
	}
}

// allowBudgets lets a running execution exceed its budgets.
func (d *Dispatcher) allowBudgets(id agented.ExecutionID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.running[id]; w != nil && w.costMeter != nil {
		w.costMeter.free, w.costMeter.trusted = true, true
	}
}

// follower reads the log of a running attempt from its first line.
type follower struct {
	d     *Dispatcher
	e     *agented.Execution
	text  *printed.Text
	cli   agentcli.CLI
	meter *agentcli.Meter
	last  agented.Seq
	begun bool
	open  runlog.Joiner
	whole *agented.Usage // for a session that reports its total usage: the usage before this attempt
	cost  float64        // known cost of the attempt so far
}

// readNew reads the lines printed since the last call.
func (f *follower) readNew(ctx context.Context) error {
	r, err := runlog.OpenReader(f.d.o.Layout.Execution(f.e.ID))
	if errors.Is(err, agented.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	if !f.begun {
		spec, err := shim.ReadSpec(f.d.o.Layout.Attempt(f.e.ID, f.e.AttemptNo))
		if err != nil {
			return err
		}
		f.begun, f.last, f.open = true, max(spec.FirstSeq-1, 0), runlog.Joiner{Max: maxCostLine}
	}
	if err := r.SeekAfter(f.last); err != nil {
		return err
	}
	var batch []agented.LogLine
	for ctx.Err() == nil {
		if batch, err = r.Next(batch[:0], 1000, 4<<20); err != nil {
			return err
		}
		if len(batch) == 0 {
			break
		}
		f.text.Refresh(f.e.AttemptNo)
		for _, l := range batch {
			f.last = l.Seq
			if l.Attempt == f.e.AttemptNo && l.Stream == agented.Stdout {
				if line, ok := f.open.Add(l.Part, l.Stream, f.text.Line(ctx, &l)); ok {
					f.meter.Add(agentcli.Decode(f.cli, l.Stream, line))
				}
			}
		}
	}
	f.add(ctx)
	return nil
}

// add computes the cost of the attempt.
func (f *follower) add(ctx context.Context) {
	u := f.meter.Usage()
	if u.CumulativeSession {
		if f.whole == nil {
			before, err := f.d.o.DB.SessionTotal(ctx, backendOf(f.e), f.meter.Session())
			if err != nil {
				return
			}
			f.whole = &before
		}
		u = u.Since(*f.whole)
	}
	if u.CostUSD != nil {
		f.cost = *u.CostUSD
	} else if usd, _, ok := f.d.o.Prices.Estimate(f.meter.Model(), u); ok {
		f.cost = usd
	}
}

// price computes the cost of an attempt whose CLI does not report it.
func (d *Dispatcher) price(_, model string, u agented.Usage) (float64, bool) {
	usd, _, ok := d.o.Prices.Estimate(model, u)
	return usd, ok
}

// ReloadBudgets reloads the budgets for the cost guard, and notifies about budgets that have reached
// their warning level or their limit.
func (d *Dispatcher) ReloadBudgets(ctx context.Context) error {
	list, err := d.o.DB.Budgets(ctx, d.now())
	if err != nil {
		return err
	}
	d.budgets.Store(&list)
	if !slices.ContainsFunc(list, func(b agented.Budget) bool { return b.Enabled && (b.Reached() || b.WarnReached()) }) {
		return nil
	}
	reached, err := d.o.DB.TakeBudgetNotices(ctx, d.now())
	for _, b := range reached {
		d.o.Log.Warn("budget", "name", b.Name, "reached", b.Reached, "says", b.Sentence())
		if d.o.Observe.Budget != nil {
			d.o.Observe.Budget(b.Budget, b.Reached)
		}
	}
	return err
}

// checkBudgets is called after the end of an attempt was recorded.
func (d *Dispatcher) checkBudgets(ctx context.Context) {
	if err := d.ReloadBudgets(ctx); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("check the budgets", "err", err)
	}
}

// BudgetsChanged makes the dispatcher check executions that wait for a budget again.
func (d *Dispatcher) BudgetsChanged(ctx context.Context) error {
	d.Wake()
	return d.ReloadBudgets(ctx)
}

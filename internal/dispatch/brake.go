package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
)

// How a running attempt's log is looked at for what it costs.
const (
	brakePace   = 500 * time.Millisecond // between two looks at most so often
	brakeAnyway = 5 * time.Second
	brakeAgain  = time.Minute // after a pause that failed
	brakeLine   = 8 << 20     // bytes of a line that is put together from parts; a longer one says nothing about cost
)

// bill is what a running execution costs, as far as that is known. The
// dispatcher's lock guards it.
type bill struct {
	trigger agented.TriggerID
	account agented.AccountID
	before  float64 // of the attempts before
	usd     float64 // of the attempt that runs
	ceiling float64 // 0: none
	free    bool    // somebody said that it may go on beyond budgets

	again time.Time // when to try to pause it again after that failed; the brake's own
}

// braked begins to watch what a running attempt costs. What it returns ends
// that, and must be called.
func (d *Dispatcher) braked(ctx context.Context, e *agented.Execution, h *shim.Handle) (end func()) {
	name := backendOf(e)
	if name == agented.BackendCommand {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	d.attempts.Go(func() { d.brake(ctx, e, name, h) })
	return cancel
}

// brake pauses an attempt and asks when the execution's cost comes to its
// ceiling, or to that of a hard budget which wants it so. While there is neither
// it reads nothing. It returns when ctx ends.
func (d *Dispatcher) brake(ctx context.Context, e *agented.Execution, name string, h *shim.Handle) {
	b := &bill{trigger: e.Trigger, ceiling: e.Snapshot.CeilingUSD}
	for _, a := range e.Attempts {
		if a.Number == e.AttemptNo {
			b.account = a.Account
		} else if a.Usage.CostUSD != nil {
			b.before += *a.Usage.CostUSD
		}
	}
	if usd, set, err := d.o.DB.Ceiling(ctx, e.ID); err == nil && set {
		b.ceiling = usd
	}
	d.mu.Lock()
	w := d.running[e.ID]
	if w != nil {
		w.bill = b
	}
	d.mu.Unlock()
	if w == nil {
		return
	}
	f := &follower{d: d, e: e, meter: backend.NewMeter(name, specOf(e).Model, d.o.Prices)}
	var changed <-chan struct{}
	if watch, err := runlog.Watch(d.o.Layout.Execution(e.ID)); err == nil {
		defer watch.Close()
		changed = watch.C()
	}
	tick := time.NewTicker(brakeAnyway)
	defer tick.Stop()
	for {
		if d.brakeNeeded(b) {
			if err := f.look(ctx); err != nil {
				d.o.Log.Debug("look at what an attempt costs", "execution", e.ID, "err", err)
			}
			d.pull(ctx, e, h, b, f.cost)
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
		case <-time.After(brakePace):
		}
	}
}

// brakeNeeded reports whether anything bounds the execution.
func (d *Dispatcher) brakeNeeded(b *bill) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.ceiling > 0 || !b.free && len(d.pausing(b)) > 0
}

// pausing lists the budgets that pause what the bill is of. The lock is held.
func (d *Dispatcher) pausing(b *bill) []agented.Budget {
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

// pull pauses the execution if it has come to a bound.
func (d *Dispatcher) pull(ctx context.Context, e *agented.Execution, h *shim.Handle, b *bill, usd float64) {
	d.mu.Lock()
	b.usd = usd
	spent, ceiling := b.before+b.usd, b.ceiling
	var over *agented.Budget
	if !b.free {
		for _, x := range d.pausing(b) {
			if now := d.now(); now.Before(x.Since) || !now.Before(x.Until) {
				x.Spent = 0 // of a period that is over
			}
			for _, w := range d.running {
				if w.bill != nil && x.Counts(w.bill.trigger, w.bill.account) {
					x.Spent += w.bill.usd
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
		p.Reason = fmt.Sprintf("its cost has come to %s and the ceiling is %s: continue it with a higher one, or end it", agented.Dollars(spent), agented.Dollars(ceiling))
	case over != nil:
		p.Question, p.SpentUSD, p.LimitUSD = agented.QuestionBudget, over.Spent, over.Limit
		p.Reason = over.Sentence() + ": continue it all the same, or end it"
	default:
		return
	}
	if fresh, err := d.o.DB.Execution(ctx, e.ID); err != nil || fresh.Pause != nil || fresh.CancelAsked || fresh.State != agented.StateRunning {
		return
	}
	if _, err := d.standStill(ctx, e, h, p); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("pause an execution that costs too much", "execution", e.ID, "err", err, "retry_in", brakeAgain.String())
		b.again = now.Add(brakeAgain)
	}
}

// setCeiling gives a running execution another ceiling.
func (d *Dispatcher) setCeiling(id agented.ExecutionID, usd float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.running[id]; w != nil && w.bill != nil {
		w.bill.ceiling = usd
	}
}

// allowBudgets lets a running execution go on beyond budgets.
func (d *Dispatcher) allowBudgets(id agented.ExecutionID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.running[id]; w != nil && w.bill != nil {
		w.bill.free = true
	}
}

// follower reads the log of a running attempt from its first line on.
type follower struct {
	d     *Dispatcher
	e     *agented.Execution
	meter *backend.Meter
	last  agented.Seq
	begun bool
	open  map[agented.Stream]*bytes.Buffer // lines of which the end has not come yet
	whole *agented.Usage                   // of a session that counts itself as a whole: what it had counted before
	cost  float64                          // of the attempt so far, as far as it is known
}

// look reads what was printed since the last look.
func (f *follower) look(ctx context.Context) error {
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
		f.begun, f.last, f.open = true, max(spec.FirstSeq-1, 0), map[agented.Stream]*bytes.Buffer{}
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
		for _, l := range batch {
			f.last = l.Seq
			if l.Attempt == f.e.AttemptNo && l.Stream == agented.Stdout {
				f.take(l)
			}
		}
	}
	f.add(ctx)
	return nil
}

func (f *follower) take(l agented.LogLine) {
	if l.Part == agented.PartWhole {
		f.meter.Line(l.Stream, l.Content)
		return
	}
	b := f.open[l.Stream]
	if b == nil {
		b = new(bytes.Buffer)
		f.open[l.Stream] = b
	}
	if l.Part == agented.PartFirst {
		b.Reset()
	}
	b.Write(l.Content[:min(len(l.Content), brakeLine-min(brakeLine, b.Len()))])
	if l.Part == agented.PartLast {
		f.meter.Line(l.Stream, b.Bytes())
		delete(f.open, l.Stream)
	}
}

// add works out what the attempt has cost.
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
	} else if usd, ok := f.d.o.Prices.Cost(f.meter.Model(), u); ok {
		f.cost = usd
	}
}

// metered is a reader of an attempt's lines that also adds up what they say of
// its use.
type metered struct {
	backend.Reader
	meter *backend.Meter
}

// Line implements backend.Reader.
func (m metered) Line(stream agented.Stream, content []byte) {
	m.Reader.Line(stream, content)
	m.meter.Line(stream, content)
}

// price works out what an attempt cost whose CLI does not say it.
func (d *Dispatcher) price(_, model string, u agented.Usage) (float64, bool) {
	return d.o.Prices.Cost(model, u)
}

// ReloadBudgets reads the budgets anew, for the brake, and tells of those that
// have come near their limits or reached them.
func (d *Dispatcher) ReloadBudgets(ctx context.Context) error {
	list, err := d.o.DB.Budgets(ctx, d.now())
	if err != nil {
		return err
	}
	d.budgets.Store(&list)
	if !slices.ContainsFunc(list, func(b agented.Budget) bool { return b.Enabled && (b.Reached() || b.Near()) }) {
		return nil
	}
	told, err := d.o.DB.TellBudgets(ctx, d.now())
	for _, b := range told {
		d.o.Log.Warn("budget", "name", b.Name, "reached", b.Reached, "says", b.Sentence())
		if d.o.Observe.Budget != nil {
			d.o.Observe.Budget(b.Budget, b.Reached)
		}
	}
	return err
}

// spentSome is called when an attempt's end has been written down.
func (d *Dispatcher) spentSome(ctx context.Context) {
	if err := d.ReloadBudgets(ctx); err != nil && ctx.Err() == nil {
		d.o.Log.Warn("look at the budgets", "err", err)
	}
}

// BudgetsChanged lets what waits for a budget be looked at again.
func (d *Dispatcher) BudgetsChanged(ctx context.Context) error {
	d.Wake()
	return d.ReloadBudgets(ctx)
}

package dispatch

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// maxIdle bounds how long the claim loop sleeps. Nothing depends on it for
// timeliness: it is the rhythm in which the loop shows that it is alive.
const maxIdle = 20 * time.Second

// fullAgain is how often a node whose slots are all taken looks at what is due,
// which then is only told why it waits. A slot that becomes free wakes it at once.
const fullAgain = 250 * time.Millisecond

// claimLoop takes whatever is due, then sleeps until something can be: a
// wake-up, or the next scheduled time.
func (d *Dispatcher) claimLoop(ctx context.Context) error {
	d.setAlive(&ctx)
	defer d.setAlive(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := time.Duration(0) // after a failure of the store
	for {
		select {
		case <-ctx.Done():
			return errDraining
		case <-d.wake:
		case <-timer.C:
		}
		if pause > 0 { // a wake-up must not turn a failing store into a busy loop
			select {
			case <-ctx.Done():
				return errDraining
			case <-time.After(pause):
			}
		}
		d.beat.Store(time.Now().UnixNano())
		wait, err := d.claimAll(ctx)
		switch {
		case ctx.Err() != nil:
			return errDraining
		case err != nil:
			pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
			d.o.Log.Error("claim", "err", err, "retry_in", pause.String())
			timer.Reset(0)
		default:
			pause = 0
			timer.Reset(wait)
		}
	}
}

// claimAll claims until nothing more can be claimed and returns how long the
// loop may sleep.
func (d *Dispatcher) claimAll(ctx context.Context) (time.Duration, error) {
	for {
		now := d.now()
		full := d.Running() >= int(d.limit.Load())
		if since := now.Sub(d.full); full && since >= 0 && since < fullAgain {
			return fullAgain - since, nil
		}
		due, next, err := d.o.DB.Due(ctx, now)
		if err != nil {
			return 0, err
		}
		if !due {
			return d.until(next), nil
		}
		if reason := d.drained.Load(); reason != nil {
			return d.until(next), d.o.DB.SayWhyWaiting(ctx, *reason, now)
		}
		if d.noRoom(ctx) {
			return diskAgain, nil
		}
		if d.full = (time.Time{}); full {
			d.full = now
		}
		e, err := d.o.DB.Claim(ctx, d.o.Node, int(d.limit.Load()), now, d.o.LeaseTTL)
		if err != nil {
			return 0, err
		}
		if e == nil { // all slots are taken, or what was due waits for something else now
			_, next, err := d.o.DB.Due(ctx, d.now())
			return d.until(next), err
		}
		d.claimed(ctx, e, now)
	}
}

// claimed begins with what was claimed.
func (d *Dispatcher) claimed(ctx context.Context, e *agented.Execution, now time.Time) {
	if d.o.Observe.Claimed != nil {
		d.o.Observe.Claimed(now.Sub(e.ScheduledAt))
	}
	d.launch(ctx, e)
}

// alive returns the context of the claim loop, nil if it does not run; it goes on
// running until leave is called.
func (d *Dispatcher) alive() (ctx context.Context, leave func()) {
	d.live.RLock()
	if d.liveCtx != nil {
		ctx = *d.liveCtx
	}
	return ctx, d.live.RUnlock
}

func (d *Dispatcher) setAlive(ctx *context.Context) {
	d.live.Lock()
	d.liveCtx = ctx
	d.live.Unlock()
}

// claimAtOnce asks for a claim in the transaction that admits an execution, if
// that could be started now; nil leaves it to the claim loop. Whoever waits for
// the first line waits for one commit less.
func (d *Dispatcher) claimAtOnce(ctx context.Context) *store.ClaimRequest {
	if ctx == nil || ctx.Err() != nil || d.drained.Load() != nil || d.o.Reserve > 0 && d.Disk().Low {
		return nil
	}
	limit := int(d.limit.Load())
	if d.Running() >= limit {
		return nil
	}
	return &store.ClaimRequest{Node: d.o.Node, Limit: limit, TTL: d.o.LeaseTTL}
}

// until is how long the loop may sleep when next is what comes next; zero is
// nothing.
func (d *Dispatcher) until(next time.Time) time.Duration {
	if next.IsZero() {
		return maxIdle
	}
	return min(max(next.Sub(d.now()), 0), maxIdle)
}

// launch starts the work on a claimed execution. When its last attempt has just
// been written down, it waits until that is put away.
func (d *Dispatcher) launch(ctx context.Context, e *agented.Execution) {
	w, ok := d.take(e.ID, e.CancelAsked)
	d.attempts.Go(func() {
		for !ok {
			select {
			case <-ctx.Done():
				return // nothing ran yet: the next server begins it
			case <-w.done:
			}
			w, ok = d.take(e.ID, d.asked(w))
		}
		defer d.drop(e.ID)
		// Who asked for the end between the claim and this found nobody to stop.
		// The start does not wait for the answer.
		d.attempts.Go(func() {
			if asked, err := d.o.DB.CancelAsked(ctx, e.ID); err == nil && asked {
				d.stop(e.ID)
			}
		})
		d.begin(ctx, e, w)
	})
}

// renewLoop keeps the leases of this node, and settles what nobody owns.
func (d *Dispatcher) renewLoop(ctx context.Context) error {
	tick := time.NewTicker(d.o.LeaseTTL / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errDraining
		case <-tick.C:
		}
		now := d.now()
		if d.Running() > 0 {
			if err := d.o.DB.RenewLeases(ctx, d.o.Node, now, d.o.LeaseTTL); err != nil && ctx.Err() == nil {
				d.o.Log.Error("renew leases", "err", err)
			}
		}
		if err := d.settleStale(ctx, now); err != nil && ctx.Err() == nil {
			d.o.Log.Error("settle stale executions", "err", err)
		}
	}
}

package dispatch

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// maxIdle is the maximum sleep of the claim loop. It bounds how often the loop shows that it is
// alive; due executions wake it earlier.
const maxIdle = 20 * time.Second

// fullAgain is how often a node without free slots looks for due executions, to record why they
// wait. A slot that becomes free wakes the loop at once.
const fullAgain = 250 * time.Millisecond

// claimLoop claims everything that is due, then sleeps until the next wake-up or the next
// scheduled time.
func (d *Dispatcher) claimLoop(ctx context.Context) error {
	d.setAlive(&ctx)
	defer d.setAlive(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := time.Duration(0) // set after a failure of the store
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
		d.beat.Store(int64(d.uptime()))
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

// claimAll claims until nothing more can be claimed and returns how long the loop may sleep.
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
			return d.until(next), d.o.DB.SetWaitReason(ctx, *reason, now)
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
		if e == nil { // no slot is free, or all due executions wait for something else
			_, next, err := d.o.DB.Due(ctx, d.now())
			return d.until(next), err
		}
		d.claimed(ctx, e, now)
	}
}

// claimed starts a claimed execution.
func (d *Dispatcher) claimed(ctx context.Context, e *agented.Execution, now time.Time) {
	if d.o.Observe.Claimed != nil {
		d.o.Observe.Claimed(now.Sub(e.ScheduledAt))
	}
	d.launch(ctx, e)
}

// alive returns the context of the claim loop, or nil if the loop is not running. The loop keeps
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

// claimAtOnce returns a claim request for the transaction that admits an execution, if it could
// be started now; otherwise nil, and the claim loop claims it. This saves a commit before the
// first log line.
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

// until returns how long the loop may sleep if next is the next scheduled time; the zero time
// means none.
func (d *Dispatcher) until(next time.Time) time.Duration {
	if next.IsZero() {
		return maxIdle
	}
	return min(max(next.Sub(d.now()), 0), maxIdle)
}

// launch starts the work on a claimed execution. If the end of its previous attempt is still
// being processed, it waits for that first.
func (d *Dispatcher) launch(ctx context.Context, e *agented.Execution) {
	w, ok := d.register(e.ID, e.CancelAsked)
	d.attempts.Go(func() {
		for !ok {
			select {
			case <-ctx.Done():
				return // nothing ran yet: the next server starts it
			case <-w.done:
			}
			w, ok = d.register(e.ID, d.asked(w))
		}
		defer d.drop(e.ID)
		// A stop that was requested between the claim and this point found no running work. The
		// start does not wait for the check.
		d.attempts.Go(func() {
			if asked, err := d.o.DB.CancelAsked(ctx, e.ID); err == nil && asked {
				d.Stop(e.ID)
			}
		})
		d.begin(ctx, e, w)
	})
}

// renewLoop renews the leases of this node, and settles executions without an owner.
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

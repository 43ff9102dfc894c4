package dispatch

import (
	"context"
	"time"

	"github.com/agented/agented"
)

// maxIdle bounds how long the claim loop sleeps. Nothing depends on it for
// timeliness: it is the rhythm in which the loop shows that it is alive.
const maxIdle = 20 * time.Second

// claimLoop takes whatever is due, then sleeps until something can be: a
// wake-up, or the next scheduled time.
func (d *Dispatcher) claimLoop(ctx context.Context) error {
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
		if reason := d.drained.Load(); reason != nil {
			due, err := d.o.DB.HasDue(ctx, now)
			if err == nil && due {
				err = d.o.DB.SayWhyWaiting(ctx, *reason, now)
			}
			if err != nil {
				return 0, err
			}
			break
		}
		if due, err := d.o.DB.HasDue(ctx, now); err == nil && due && d.noRoom(ctx) {
			return diskAgain, nil
		}
		e, err := d.o.DB.Claim(ctx, d.o.Node, int(d.limit.Load()), now, d.o.LeaseTTL)
		if err != nil {
			return 0, err
		}
		if e == nil {
			break
		}
		if d.o.Observe.Claimed != nil {
			d.o.Observe.Claimed(now.Sub(e.ScheduledAt))
		}
		d.launch(ctx, e)
	}
	next, ok, err := d.o.DB.NextDue(ctx, d.now())
	if err != nil {
		return 0, err
	}
	if !ok {
		return maxIdle, nil
	}
	return min(max(next.Sub(d.now()), 0), maxIdle), nil
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
		if asked, err := d.o.DB.CancelAsked(ctx, e.ID); err == nil && asked {
			d.stop(e.ID)
		}
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

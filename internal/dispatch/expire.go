package dispatch

import (
	"context"
	"time"
)

// How the sweep of messages goes.
const (
	expireEvery = time.Minute // what another process stored wakes nobody here
	expireBatch = 500         // messages in one transaction
)

// expireLoop marks messages whose time to live has run out. It sleeps until the
// next one's does.
func (d *Dispatcher) expireLoop(ctx context.Context) error {
	for {
		wait := d.expire(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errDraining
		case <-timer.C:
		case <-d.lapse:
			timer.Stop()
		}
	}
}

// expire marks all that has expired, and returns how long to wait for more.
func (d *Dispatcher) expire(ctx context.Context) time.Duration {
	for {
		lapsed, err := d.o.DB.ExpireMessages(ctx, d.now(), expireBatch)
		if err != nil {
			if ctx.Err() == nil {
				d.o.Log.Error("mark expired messages", "err", err)
			}
			return expireEvery
		}
		for _, l := range lapsed {
			if d.o.Observe.Expired != nil {
				d.o.Observe.Expired(l.Owner, l.Seq)
			}
		}
		if len(lapsed) > 0 {
			d.o.Log.Info("messages expired", "count", len(lapsed))
		}
		if len(lapsed) < expireBatch {
			break
		}
	}
	next, err := d.o.DB.NextExpiry(ctx)
	if err != nil || next.IsZero() {
		return expireEvery
	}
	return min(max(next.Sub(d.now()), time.Millisecond), expireEvery)
}

// wakeExpiry tells the sweep that a message may expire before it looks again.
func (d *Dispatcher) wakeExpiry() {
	select {
	case d.lapse <- struct{}{}:
	default:
	}
}

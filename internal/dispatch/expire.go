package dispatch

import (
	"context"
	"time"
)

// Parameters of the expiry of messages.
const (
	expireEvery = time.Minute // messages stored by another process do not wake the loop
	expireBatch = 500         // messages per transaction
)

// expireLoop marks messages as expired when their time to live ends. It sleeps until the next
// expiry.
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

// expire marks expired messages and returns the time until the next expiry.
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

// wakeExpiry wakes the loop after a message with an expiry was stored.
func (d *Dispatcher) wakeExpiry() {
	select {
	case d.lapse <- struct{}{}:
	default:
	}
}

// Package backoff waits between attempts, twice as long each time.
package backoff

import (
	"context"
	"time"
)

// Backoff is a growing pause between attempts.
type Backoff struct {
	Pause   time.Duration // the next pause
	Longest time.Duration // the maximum pause
}

// Wait waits for the next pause and doubles it. It returns the error of ctx if ctx ends first.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Pause)
	defer timer.Stop()
	b.Pause = min(2*b.Pause, b.Longest)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

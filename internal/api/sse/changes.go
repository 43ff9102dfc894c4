package sse

import (
	"context"
	"sync"
	"time"

	"github.com/agented/agented/internal/hub"
)

// changesEvery limits how often one stream receives the same change event.
const changesEvery = time.Second

// Change is the name of a list that can change. It is also the event name in
// the stream.
type Change string

// The lists.
const (
	ChangedDeliveries    Change = "delivery"
	ChangedTicks         Change = "tick"
	ChangedTriggers      Change = "trigger"
	ChangedAccounts      Change = "account"
	ChangedAgents        Change = "agent"
	ChangedBudgets       Change = "budget"
	ChangedConversations Change = "conversation"
	ChangedMembers       Change = "member"
)

var changeKinds = []Change{
	ChangedDeliveries, ChangedTicks, ChangedTriggers, ChangedAccounts, ChangedAgents, ChangedBudgets, ChangedConversations, ChangedMembers,
}

// Changes counts the changes of lists, and wakes subscribers. A change costs
// almost nothing without subscribers.
type Changes struct {
	mu     sync.Mutex // guards the fields below
	counts map[Change]int64
	wake   chan struct{} // closed at the next change; nil without subscribers
}

// Notify records that a list changed.
func (c *Changes) Notify(what Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[Change]int64{}
	}
	c.counts[what]++
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// since returns the lists that changed since seen, updates seen, and returns a
// channel that is closed at the next change.
func (c *Changes) since(seen map[Change]int64) (changed []Change, wake <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range changeKinds {
		if c.counts[k] != seen[k] {
			seen[k] = c.counts[k]
			changed = append(changed, k)
		}
	}
	if c.wake == nil {
		c.wake = make(chan struct{})
	}
	return changed, c.wake
}

// withChanges returns a sink that also receives change events. Call end before
// the sink's connection is released.
func (c *Changes) withChanges(ctx context.Context, sink hub.Sink) (out hub.Sink, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	shared := &lockedSink{sink: sink}
	seen := map[Change]int64{}
	_, wake := c.since(seen) // report changes from now on
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			var changed []Change
			changed, wake = c.since(seen)
			var frames []byte
			for _, k := range changed {
				frames = append(append(append(frames, "event: "...), k...), "\ndata: {}\n\n"...)
			}
			if len(frames) > 0 && shared.send(frames) != nil {
				return // the hub detects the error
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(changesEvery):
			}
		}
	}()
	return shared, func() { cancel(); <-done }
}

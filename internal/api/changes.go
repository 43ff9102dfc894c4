package api

import (
	"context"
	"sync"
	"time"

	"github.com/agented/agented/internal/hub"
)

// changesEvery bounds how often one stream is told that the same list changed:
// a storm of calls is one word a second.
const changesEvery = time.Second

// change names a list whose readers want to know that it is another one. The
// name is the event of the stream.
type change string

// The lists.
const (
	changedDeliveries    change = "delivery"
	changedTicks         change = "tick"
	changedTriggers      change = "trigger"
	changedAccounts      change = "account"
	changedAgents        change = "agent"
	changedBudgets       change = "budget"
	changedConversations change = "conversation"
	changedMembers       change = "member"
)

var changeKinds = []change{
	changedDeliveries, changedTicks, changedTriggers, changedAccounts, changedAgents, changedBudgets, changedConversations, changedMembers,
}

// changes counts what happened to lists, and wakes who waits for that. Telling
// costs next to nothing when nobody does.
type changes struct {
	mu     sync.Mutex // guards what follows
	counts map[change]int64
	wake   chan struct{} // closed at the next change; nil while nobody waits
}

// tell notes that a list changed.
func (c *changes) tell(what change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[change]int64{}
	}
	c.counts[what]++
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// since returns the kinds that changed since seen, which it brings up to date,
// and what is closed at the next change.
func (c *changes) since(seen map[change]int64) (changed []change, wake <-chan struct{}) {
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

// withChanges makes a sink that is also told which lists changed. end must be
// called before the sink's connection is left.
func (c *changes) withChanges(ctx context.Context, sink hub.Sink) (out hub.Sink, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	shared := &sharedSink{sink: sink}
	seen := map[change]int64{}
	_, wake := c.since(seen) // what changes from here on is told
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			var changed []change
			changed, wake = c.since(seen)
			var frames []byte
			for _, k := range changed {
				frames = append(append(append(frames, "event: "...), k...), "\ndata: {}\n\n"...)
			}
			if len(frames) > 0 && shared.send(frames) != nil {
				return // the hub will notice
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

// TicksChanged notes that the ticker decided due times.
func (s *Server) TicksChanged() { s.changes.tell(changedTicks) }

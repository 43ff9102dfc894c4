// Package hub carries what happens to whoever watches: the lines of run logs
// and the changes of executions, as frames of server-sent events.
//
// Lines are on disk before the hub sees them. It follows the log of each
// execution that somebody reads, encodes what is new once, keeps the last
// stretch of it, and wakes the readers. A reader is a position and nothing
// else: what it has not yet taken it finds in that stretch, and when it is
// further behind, on disk. So a reader that is slow, or many of them, cost
// nothing that grows, and nobody who prints waits for one who reads.
package hub

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

// Options is what a Hub works with.
type Options struct {
	// Layout is where the run logs are.
	Layout agented.Layout
	// Masker returns what masks secrets that became known after a line was
	// written. It is asked for each batch; it and its answer may be nil. A
	// changed set of secrets must be another Masker.
	Masker func() *redact.Masker
	// Encode appends the JSON object of an execution, without prompt and result,
	// for the stream of all executions.
	Encode func(dst []byte, e *agented.Execution) []byte
	// Changed returns the executions that changed behind a change's number, in
	// order, each as it is now; store.DB.ChangedSince.
	Changed func(ctx context.Context, after int64, limit int) ([]agented.ExecutionEvent, error)
	// LastEvent returns the number of the latest change; store.DB.LastEventSeq.
	LastEvent func(ctx context.Context) (int64, error)
	// Heartbeat is the time between two heartbeats of a stream, 10 s if 0. One
	// comes at most a second later.
	Heartbeat time.Duration
	// Log is where trouble is written; nil is nowhere.
	Log *slog.Logger
}

// Hub is safe for concurrent use. Run must be running for heartbeats to be
// sent.
type Hub struct {
	o       Options
	log     *slog.Logger
	history *history
	events  *events
	readers atomic.Int64

	pool *pool
	kick chan struct{} // somebody follows something: Run may not sleep
	work sync.WaitGroup

	mu     sync.Mutex // guards topics, closed, and what topics say it guards
	topics map[agented.ExecutionID]*topic
	closed bool
}

// New returns a Hub.
func New(o Options) *Hub {
	if o.Heartbeat <= 0 {
		o.Heartbeat = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{
		o: o, log: o.Log, history: newHistory(), kick: make(chan struct{}, 1),
		topics: map[agented.ExecutionID]*topic{},
	}
	h.events = newEvents(h)
	h.pool = newPool(h)
	return h
}

// Readers is the number of streams that are being served.
func (h *Hub) Readers() int64 { return h.readers.Load() }

// Topics is the number of executions that are followed.
func (h *Hub) Topics() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.topics)
}

func (h *Hub) masker() *redact.Masker {
	if h.o.Masker == nil {
		return nil
	}
	return h.o.Masker()
}

// Publish tells the readers of a change. The store calls it after each commit,
// in order. It takes microseconds and never waits for a reader or a disk.
func (h *Hub) Publish(e agented.ExecutionEvent) {
	h.mu.Lock()
	t := h.topics[e.Execution.ID]
	h.mu.Unlock()
	if t != nil {
		t.offer(e.Execution)
	}
	h.events.publish(e)
}

// active wakes Run. Called with or without h.mu.
func (h *Hub) active() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// start starts to follow t, once. It reports false when the hub is closed.
func (h *Hub) start(t *topic) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if !t.started {
		t.started = true
		var ctx context.Context
		ctx, t.stop = context.WithCancel(context.Background())
		h.work.Go(func() { t.run(ctx) })
	}
	return true
}

// forget makes the next reader begin with a new topic.
func (h *Hub) forget(t *topic) {
	h.mu.Lock()
	if h.topics[t.id] == t {
		delete(h.topics, t.id)
	}
	h.mu.Unlock()
}

// tick is how often Run looks after streams while there are any.
const tick = time.Second

// Run sends heartbeats and lets go of what nobody needs. When ctx is done it
// drains: every stream ends after a hint when to come back, and Run returns when
// nothing is followed any more.
func (h *Hub) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			h.Drain()
			h.pool.close()
			h.work.Wait()
			return nil
		case <-h.kick:
		case <-timer.C:
		}
		if h.look(time.Now()) {
			timer.Reset(min(tick, h.o.Heartbeat/4))
		}
	}
}

// look does what is due, and reports whether there is anything to look after.
func (h *Hub) look(now time.Time) bool {
	h.mu.Lock()
	topics := make([]*topic, 0, len(h.topics))
	for _, t := range h.topics {
		topics = append(topics, t)
	}
	h.mu.Unlock()
	for _, t := range topics {
		t.audience.beat(now, h.o.Heartbeat)
		t.ring.trim(now.Add(-ringAge))
		t.closeIdle(now.Add(-time.Second), false)
	}
	h.events.look(now)
	h.pool.look()
	h.history.trim(now.Add(-cacheAge))
	return len(topics) > 0 || h.events.followed() || !h.history.empty()
}

// Drain ends all streams, and those that are asked for from now on, after a hint
// when to come back. It does not wait for them. Run does it when it ends; a
// server that wants its streams to end earlier calls it before.
func (h *Hub) Drain() {
	h.mu.Lock()
	h.closed = true
	var stops []context.CancelFunc
	var topics []*topic
	for _, t := range h.topics {
		topics = append(topics, t)
		if t.stop != nil {
			stops = append(stops, t.stop)
		}
	}
	h.mu.Unlock()
	for _, t := range topics {
		t.audience.raise(flagDrain)
	}
	h.events.drain()
	for _, stop := range stops {
		stop()
	}
}

// Package hub streams the lines of run logs and the changes of executions to
// readers, as frames of server-sent events.
//
// Lines are on disk before the hub reads them. It follows the log of each
// execution that has readers, encodes new lines once, keeps the most recent
// part in memory, and wakes the readers. A reader is only a position: lines
// that it has not received are in that part or, if it is further behind, on
// disk. So slow or numerous readers need no growing memory, and a process that
// prints never waits for a reader.
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

// Options configures a Hub.
type Options struct {
	// Layout gives the location of the run logs.
	Layout agented.Layout
	// Masker returns the masker for secrets that became known after a line was
	// written. It is called for each batch; it may be nil and may return nil. A
	// changed set of secrets must be another Masker.
	Masker func() *redact.Masker
	// Encode appends the JSON object of an execution, without prompt and result,
	// for the stream of all executions.
	Encode func(dst []byte, e *agented.Execution) []byte
	// Changed returns the executions that changed after a change's number, in
	// order, each with its current state; store.DB.ChangedSince.
	Changed func(ctx context.Context, after int64, limit int) ([]agented.ExecutionEvent, error)
	// LastEvent returns the number of the latest change; store.DB.LastEventSeq.
	LastEvent func(ctx context.Context) (int64, error)
	// Heartbeat is the time between two heartbeats of a stream, 10 s if 0. A
	// heartbeat is late by at most a second.
	Heartbeat time.Duration
	// Log receives errors; may be nil.
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
	kick chan struct{} // wakes Run when there are readers
	work sync.WaitGroup

	mu     sync.Mutex // guards topics, closed, and the fields of topics that name it
	topics map[topicKey]*topic
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
		topics: map[topicKey]*topic{},
	}
	h.events = newEvents(h)
	h.pool = newPool(h)
	return h
}

// Readers returns the number of open streams.
func (h *Hub) Readers() int64 { return h.readers.Load() }

// Topics returns the number of followed executions.
func (h *Hub) Topics() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for key := range h.topics {
		if key.annotated && h.topics[topicKey{id: key.id}] != nil {
			continue
		}
		n++
	}
	return n
}

func (h *Hub) masker() *redact.Masker {
	if h.o.Masker == nil {
		return nil
	}
	return h.o.Masker()
}

// Publish notifies the readers of a change. The store calls it after each
// commit, in order. It takes microseconds and never waits for a reader or a
// disk.
func (h *Hub) Publish(e agented.ExecutionEvent) {
	h.mu.Lock()
	t, annotated := h.topics[topicKey{id: e.Execution.ID}], h.topics[topicKey{e.Execution.ID, true}]
	h.mu.Unlock()
	if t != nil {
		t.offer(e.Execution)
	}
	if annotated != nil {
		annotated.offer(e.Execution)
	}
	h.events.publish(e)
}

// active wakes Run. It may be called with or without h.mu.
func (h *Hub) active() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// start starts following t, once. It returns false if the hub is closed.
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

// forget makes the next reader start a new topic.
func (h *Hub) forget(t *topic) {
	h.mu.Lock()
	if h.topics[t.key()] == t {
		delete(h.topics, t.key())
	}
	h.mu.Unlock()
}

// tick is the interval of Run's periodic work while there are streams.
const tick = time.Second

// Run sends heartbeats and releases unused resources. When ctx is done it
// drains: every stream ends after a retry hint, and Run returns when nothing is
// followed any more.
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
		if h.maintain(time.Now()) {
			timer.Reset(min(tick, h.o.Heartbeat/4))
		}
	}
}

// maintain performs periodic work, and reports whether there is more.
func (h *Hub) maintain(now time.Time) bool {
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
	h.events.maintain(now)
	h.pool.maintain()
	h.history.trim(now.Add(-cacheAge))
	return len(topics) > 0 || h.events.followed() || !h.history.empty()
}

// Drain ends all current and future streams after a retry hint. It does not
// wait for them. Run calls it when it ends; a server that ends its streams
// earlier calls it before.
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

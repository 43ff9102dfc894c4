package hub

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/agented/agented"
)

// Limits of the stream of all executions.
const (
	pendingEvents = 1024 // between two runs of its goroutine; beyond it restarts from the store
	pullEvents    = 100  // at once, for one reader that is behind
)

// events is the stream of changes of all executions. Publish pushes changes;
// readers that are behind pull from the store.
type events struct {
	hub      *Hub
	audience audience

	mu     sync.Mutex // guards the fields below and those of now; never held during I/O
	now    *eventRun  // nil without readers
	closed bool
}

// eventRun is a period with readers.
type eventRun struct {
	ring    ring
	refs    int
	pending []agented.ExecutionEvent
	lost    bool // pending was full: some changes were dropped
	poke    chan struct{}
	stop    context.CancelFunc
}

func newEvents(h *Hub) *events { return &events{hub: h} }

func (v *events) followed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now != nil
}

// maintain performs periodic work.
func (v *events) maintain(now time.Time) {
	v.audience.beat(now, v.hub.o.Heartbeat)
	v.mu.Lock()
	run := v.now
	v.mu.Unlock()
	if run != nil {
		run.ring.trim(now.Add(-ringAge))
	}
}

// publish passes a change to the readers.
func (v *events) publish(e agented.ExecutionEvent) {
	v.mu.Lock()
	run := v.now
	if run == nil {
		v.mu.Unlock()
		return
	}
	if len(run.pending) < pendingEvents {
		run.pending = append(run.pending, e)
	} else {
		run.lost = true
	}
	v.mu.Unlock()
	select {
	case run.poke <- struct{}{}:
	default:
	}
}

// join returns the current run, and starts one if there are no readers yet;
// false while the hub drains.
func (v *events) join() (*eventRun, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return &eventRun{}, false
	}
	if v.now == nil {
		ctx, stop := context.WithCancel(context.Background())
		run := &eventRun{poke: make(chan struct{}, 1), stop: stop}
		v.now = run
		v.hub.work.Go(func() { v.run(ctx, run) })
		v.hub.active()
	}
	v.now.refs++
	return v.now, true
}

func (v *events) leave(run *eventRun) {
	v.mu.Lock()
	run.refs--
	last := run.refs == 0
	if last && v.now == run {
		v.now = nil
	}
	v.mu.Unlock()
	if last {
		run.stop()
	}
}

func (v *events) drain() {
	v.mu.Lock()
	v.closed = true
	run := v.now
	v.mu.Unlock()
	v.audience.raise(flagDrain)
	if run != nil {
		run.stop()
	}
}

// run appends published changes to the ring until ctx is done.
func (v *events) run(ctx context.Context, run *eventRun) {
	err := v.collect(ctx, run)
	if err == nil || ctx.Err() != nil {
		return
	}
	v.hub.log.Error("could not follow the changes of executions", "err", err)
	v.mu.Lock()
	if v.now == run {
		v.now = nil // the next reader starts a new run
	}
	v.mu.Unlock()
	run.ring.fail(fmt.Errorf("follow the changes of executions: %w", err))
	v.audience.notify()
}

func (v *events) collect(ctx context.Context, run *eventRun) error {
	if err := v.begin(ctx, run); err != nil {
		return err
	}
	pause := time.NewTimer(pace)
	defer pause.Stop()
	var batch []agented.ExecutionEvent
	var frames []byte
	for {
		v.mu.Lock()
		batch, run.pending = run.pending, batch[:0]
		lost := run.lost
		run.lost = false
		v.mu.Unlock()

		switch {
		case lost:
			if err := v.begin(ctx, run); err != nil {
				return err
			}
		case len(batch) > 0:
			frames = v.add(run, batch, frames[:0])
			if !sleep(ctx, pause, pace) {
				return nil
			}
		}
		clear(batch) // prompts and results are large
		select {
		case <-ctx.Done():
			return nil
		case <-run.poke:
		}
	}
}

// add encodes a batch once, into frames, and wakes the readers.
func (v *events) add(run *eventRun, batch []agented.ExecutionEvent, frames []byte) []byte {
	had, _ := run.ring.end()
	last := had
	for _, e := range batch {
		// Changes up to the position are part of what readers behind it have
		// pulled.
		if e.Seq > last {
			frames = v.frame(frames, e)
			last = e.Seq
		}
	}
	if last > had {
		run.ring.add(last, frames, time.Now())
		v.audience.notify()
	}
	if cap(frames) > maxScratch {
		return nil
	}
	return frames
}

// begin sets the ring to the store's current position. Changes have been
// collected since before the position is read, so none is lost.
func (v *events) begin(ctx context.Context, run *eventRun) error {
	last, err := v.hub.o.LastEvent(ctx)
	if err != nil {
		return err
	}
	run.ring.begin(last)
	v.audience.notify()
	return nil
}

func (v *events) frame(dst []byte, e agented.ExecutionEvent) []byte {
	dst = append(dst, "id: "...)
	dst = strconv.AppendInt(dst, e.Seq, 10)
	dst = append(dst, "\nevent: execution\ndata: "...)
	dst = v.hub.o.Encode(dst, shown(e.Execution, v.hub.masker()))
	return append(dst, "\n\n"...)
}

// EventsStart is how a stream of all executions begins.
type EventsStart struct {
	// After is the number of the last change that the reader has received.
	After int64
	// Now starts with future changes; After is ignored.
	Now bool
}

// ServeEvents writes the changes of all executions to sink: a position event,
// and each execution with its state after a change. A reader that is behind
// receives the latest state of what changed, and not every state in between. It
// returns ErrDraining when the server stops, the cause of ctx, or the error of
// the sink or of the store.
func (h *Hub) ServeEvents(ctx context.Context, sink Sink, start EventsStart) error {
	v := h.events
	r := newReader(h.o.Heartbeat)
	v.audience.join(r)
	defer v.audience.leave(r)
	h.readers.Add(1)
	defer h.readers.Add(-1)
	o := &outlet{sink: sink}
	run, ok := v.join()
	if !ok {
		r.raise(flagDrain)
		return r.answer(o)
	}
	defer v.leave(run)

	pos, err := h.o.LastEvent(ctx)
	if err != nil {
		return err
	}
	// A position that the store never reached is from before a backup was
	// restored: the reader would wait for a change that was sent long ago.
	if !start.Now {
		pos = min(start.After, pos)
	}
	b := append([]byte(": connected\n\n"), retryFrame...)
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, pos, 10)
	b = append(b, "\nevent: position\ndata: {\"id\":"...)
	b = strconv.AppendInt(b, pos, 10)
	b = append(b, "}\n\n"...)
	if err := o.write(b); err != nil {
		return err
	}
	pull := func(ctx context.Context, after int64) ([]byte, int64, error) {
		return v.pull(ctx, &run.ring, after)
	}
	return r.follow(ctx, o, &feed{ring: &run.ring, pull: pull}, pos)
}

// pull returns the changes after a position that is no longer in the ring.
func (v *events) pull(ctx context.Context, ring *ring, after int64) (frames []byte, to int64, err error) {
	// The store's answer contains everything up to here, since it is queried
	// later.
	end, _ := ring.end()
	changed, err := v.hub.o.Changed(ctx, after, pullEvents)
	if err != nil {
		return nil, after, err
	}
	to = after
	for _, e := range changed {
		frames = v.frame(frames, e)
		to = e.Seq
	}
	if len(changed) < pullEvents {
		// The changes in between were replaced by later changes of the same
		// executions.
		to = max(to, end)
	}
	return frames, to, nil
}

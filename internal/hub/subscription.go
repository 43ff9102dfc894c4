package hub

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// Subscription is a reader's place in the stream of one execution.
type Subscription struct {
	topic  *topic
	reader *reader
	sent   *state // state that the reader received last
}

// Start is how a stream begins.
type Start struct {
	// After is the position: lines with a number above it are sent. 0 means the
	// whole log.
	After agented.Seq
	// Skipped is how many earlier lines are omitted, if the reader should be
	// notified.
	Skipped int64
	// Note is a sentence about the position, for the first status event.
	Note string
	// Notice is a sentence in place of lines that cannot be read any more.
	Notice string
}

// Subscribe subscribes to an execution. No change that is published from now on
// is lost, so subscribe first, then get the execution from
// [Subscription.Latest] or the store and pass it to [Subscription.Serve]. Call
// Close at the end.
func (h *Hub) Subscribe(id agented.ExecutionID) *Subscription { return h.SubscribeAnnotated(id, nil) }

// SubscribeAnnotated is like Subscribe, but lines have the fields that an annotator adds. annotate
// returns a new one; it is nil for none. Readers of annotated lines share their encoding among each
// other only, so that the others do not wait for it. All subscriptions of an execution must add the
// same fields.
func (h *Hub) SubscribeAnnotated(id agented.ExecutionID, annotate func() Annotator) *Subscription {
	key := topicKey{id, annotate != nil}
	h.mu.Lock()
	t := h.topics[key]
	if t == nil {
		t = &topic{hub: h, id: id, dir: h.o.Layout.Execution(id), annotate: annotate, poke: make(chan struct{}, 1)}
		h.topics[key] = t
		h.active()
	}
	t.refs++
	h.mu.Unlock()
	return &Subscription{topic: t, reader: newReader(h.o.Heartbeat)}
}

// Latest returns the latest published execution, without prompt and result, if
// it is already followed and not final; otherwise nil: read the store.
func (s *Subscription) Latest() *agented.Execution {
	if e := s.topic.latest.Load(); e != nil && !e.State.Final() {
		return e
	}
	return nil
}

// Close ends the subscription. The last one stops following the log.
func (s *Subscription) Close() {
	h, t := s.topic.hub, s.topic
	h.mu.Lock()
	t.refs--
	var stop context.CancelFunc
	if t.refs == 0 {
		if h.topics[t.key()] == t {
			delete(h.topics, t.key())
		}
		stop = t.stop
	}
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Serve writes the stream of e to sink: the status with the position, every
// line after it, later changes, and, after the last line of a final execution,
// complete. e must be read after Subscribe.
//
// It returns nil after complete, ErrDraining when the server stops, the cause
// of ctx, or the error of the sink or of the log.
func (s *Subscription) Serve(ctx context.Context, sink Sink, e *agented.Execution, start Start) error {
	b := s.join(nil, e, start)
	defer s.leave()
	o := &outlet{sink: sink}
	if err := o.write(b); err != nil {
		return err
	}
	return s.reader.follow(ctx, o, s.feed(), int64(start.After))
}

// End ends the stream of a subscription that was handed over with
// [Subscription.HandOver], because its reader has lost its permission. It returns
// immediately, and does nothing after the stream has ended.
func (s *Subscription) End() { s.reader.raise(flagEnd) }

func (s *Subscription) feed() *feed {
	return &feed{ring: &s.topic.ring, pull: s.pull, before: s.changes, idle: s.complete}
}

// join adds the reader to the audience, and appends the first frames of its
// stream.
func (s *Subscription) join(b []byte, e *agented.Execution, start Start) []byte {
	t := s.topic
	t.offer(e)
	t.hub.readers.Add(1)
	t.audience.join(s.reader)
	if !t.hub.start(t) {
		s.reader.raise(flagDrain)
	}
	s.sent = t.first()
	b = append(b, retryFrame...)
	b = s.sent.first(b, int64(start.After), start.Note)
	if start.Skipped > 0 {
		b = s.sent.notice(b, time.Now(), skippedText(t.id, start.Skipped))
	}
	if start.Notice != "" {
		b = s.sent.notice(b, time.Now(), start.Notice)
	}
	return b
}

func (s *Subscription) leave() {
	s.topic.audience.leave(s.reader)
	s.topic.hub.readers.Add(-1)
}

func skippedText(id agented.ExecutionID, n int64) string {
	lines := fmt.Sprintf("%d earlier lines are", n)
	if n == 1 {
		lines = "1 earlier line is"
	}
	return fmt.Sprintf("%s not shown here. Add ?after=0 for all, or get them from /api/v1/executions/%s/log or …/log.txt.", lines, id)
}

func (s *Subscription) pull(_ context.Context, after int64) (frames []byte, to int64, err error) {
	t := s.topic
	frames, to, err = t.hub.history.read(t, after, t.hub.masker())
	if err == nil && to == after {
		end, _ := t.ring.end()
		err = fmt.Errorf("the run log of %s has no lines after %d, but had %d before", t.id, after, end)
	}
	return frames, to, err
}

// changes sends a new state to the reader, unless it is final: that follows the
// last line.
func (s *Subscription) changes(o *outlet) error {
	now := s.topic.state.Load()
	if now == nil || now == s.sent || now.end != nil {
		return nil
	}
	return s.sendState(o, now)
}

func (s *Subscription) sendState(o *outlet, now *state) error {
	if now.event < s.sent.event {
		return nil // the reader began with something newer
	}
	had := s.sent
	s.sent = now
	if now.fields == had.fields {
		return nil
	}
	return o.write(now.changed(nil))
}

// complete ends the stream of a final execution whose lines were all sent.
func (s *Subscription) complete(o *outlet, pos int64) (bool, error) {
	now := s.topic.state.Load()
	if now == nil || now.end == nil {
		return false, nil
	}
	// The state was stored after the last line was added, so check again: lines
	// may have been added between the two checks.
	end, open := s.topic.ring.end()
	if !open || pos < end {
		return false, nil
	}
	if err := s.sendState(o, now); err != nil {
		return false, err
	}
	var b []byte
	if from := max(pos, end); from < now.last {
		b = now.notice(b, time.Now(), fmt.Sprintf("The log ends early: lines %d to %d are missing.", from+1, now.last))
	}
	return true, o.write(now.complete(b))
}

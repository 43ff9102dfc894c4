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
	said   *state // what the reader was last told
}

// Start says how a stream begins.
type Start struct {
	// After is the position: lines with a number above it are sent. Empty is 0,
	// the whole log.
	After agented.Seq
	// Skipped is how many earlier lines are left out, if the reader shall be
	// told.
	Skipped int64
	// Note is a sentence on the position, for the first status event.
	Note string
	// Notice is a sentence in place of lines that cannot be read any more.
	Notice string
}

// Subscribe takes a place at an execution. From here on no change that is
// published is lost, so subscribe, then take the execution from
// [Subscription.Latest] or the store and hand it to [Subscription.Serve]. Close
// gives the place back.
func (h *Hub) Subscribe(id agented.ExecutionID) *Subscription {
	h.mu.Lock()
	t := h.topics[id]
	if t == nil {
		t = &topic{hub: h, id: id, dir: h.o.Layout.Execution(id), poke: make(chan struct{}, 1)}
		h.topics[id] = t
		h.active()
	}
	t.refs++
	h.mu.Unlock()
	return &Subscription{topic: t, reader: newReader(h.o.Heartbeat)}
}

// Latest is the execution as it was published last, without prompt and result, if
// somebody follows it already and it is not final; otherwise nil: ask the store.
func (s *Subscription) Latest() *agented.Execution {
	if e := s.topic.latest.Load(); e != nil && !e.State.Final() {
		return e
	}
	return nil
}

// Close gives the place back. The last one to leave ends the following of the
// log.
func (s *Subscription) Close() {
	h, t := s.topic.hub, s.topic
	h.mu.Lock()
	t.refs--
	var stop context.CancelFunc
	if t.refs == 0 {
		if h.topics[t.id] == t {
			delete(h.topics, t.id)
		}
		stop = t.stop
	}
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// Serve writes the stream of e to sink: the status with the position, every
// line behind it, later changes, and, after the last line of a final execution,
// complete. e is the execution as it was after Subscribe.
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

func (s *Subscription) feed() *feed {
	return &feed{ring: &s.topic.ring, pull: s.pull, before: s.changes, idle: s.complete}
}

// join makes the reader one of the audience, and appends what its stream begins
// with.
func (s *Subscription) join(b []byte, e *agented.Execution, start Start) []byte {
	t := s.topic
	t.offer(e)
	t.hub.readers.Add(1)
	t.audience.join(s.reader)
	if !t.hub.start(t) {
		s.reader.raise(flagDrain)
	}
	s.said = t.first()
	b = append(b, retryFrame...)
	b = s.said.first(b, int64(start.After), start.Note)
	if start.Skipped > 0 {
		b = s.said.notice(b, time.Now(), skippedText(t.id, start.Skipped))
	}
	if start.Notice != "" {
		b = s.said.notice(b, time.Now(), start.Notice)
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
	return fmt.Sprintf("%s not shown here. Follow with ?after=0 for all, or get them from /api/v1/executions/%s/log or …/log.txt.", lines, id)
}

func (s *Subscription) pull(_ context.Context, after int64) (frames []byte, to int64, err error) {
	t := s.topic
	frames, to, err = t.hub.history.read(t, after, t.hub.masker())
	if err == nil && to == after {
		end, _ := t.ring.end()
		err = fmt.Errorf("the run log of %s has nothing behind line %d, and was at line %d before", t.id, after, end)
	}
	return frames, to, err
}

// changes tells the reader of a new state, unless it is the end: that comes
// behind the last line.
func (s *Subscription) changes(o *outlet) error {
	now := s.topic.state.Load()
	if now == nil || now == s.said || now.end != nil {
		return nil
	}
	return s.say(o, now)
}

func (s *Subscription) say(o *outlet, now *state) error {
	if now.event < s.said.event {
		return nil // the reader began with something newer
	}
	had := s.said
	s.said = now
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
	// The state was stored after the last line was added, so look once more:
	// lines may have come between the two looks.
	end, open := s.topic.ring.end()
	if !open || pos < end {
		return false, nil
	}
	if err := s.say(o, now); err != nil {
		return false, err
	}
	var b []byte
	if from := max(pos, end); from < now.last {
		b = now.notice(b, time.Now(), fmt.Sprintf("The log ends early: lines %d to %d are missing.", from+1, now.last))
	}
	return true, o.write(now.complete(b))
}

package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Limits of following a log.
const (
	batchLines   = 512
	batchContent = 48 << 10
	// pace is the shortest time between two small batches: the output of a busy
	// program in that time is sent as one batch. Each reader adds to it, so
	// that thousands of readers get several lines per write, and a single line
	// is sent immediately however many readers there are. The addition is twice
	// the cost of a write to a socket, so one stream uses at most half a
	// processor.
	pace        = 4 * time.Millisecond
	pacePerHead = 20 * time.Microsecond
	maxPace     = 250 * time.Millisecond
)

// paceFor returns the pace for a number of readers.
func paceFor(readers int) time.Duration {
	return min(max(pace, time.Duration(readers)*pacePerHead), maxPace)
}

// topicKey identifies a topic.
type topicKey struct {
	id        agented.ExecutionID
	annotated bool
}

// An Annotator appends fields to the objects of a log's lines. It is called for every line in order,
// from one goroutine at a time.
type Annotator interface {
	// Append appends the fields of a line, each after a comma. It must not retain the line.
	Append(dst []byte, l *agented.LogLine) []byte
}

// topic is one execution that has readers.
type topic struct {
	hub *Hub
	id  agented.ExecutionID
	dir string

	annotate func() Annotator // nil: lines are sent as they are

	ring     ring
	audience audience
	latest   atomic.Pointer[agented.Execution] // latest known execution
	state    atomic.Pointer[state]             // set once all lines before it are in the ring
	poke     chan struct{}                     // signals that latest has changed

	refs    int                // subscriptions; guarded by hub.mu
	started bool               // guarded by hub.mu
	stop    context.CancelFunc // ends run; guarded by hub.mu

	idleMu sync.Mutex // guards idle and ended
	idle   []*openLog
	ended  bool
}

func (t *topic) key() topicKey { return topicKey{t.id, t.annotate != nil} }

// annotator returns a new annotator, or nil.
func (t *topic) annotator() Annotator {
	if t.annotate == nil {
		return nil
	}
	return t.annotate()
}

// offer updates the latest execution, unless a newer one is known.
func (t *topic) offer(e *agented.Execution) {
	for {
		had := t.latest.Load()
		if had != nil && had.EventSeq >= e.EventSeq {
			return
		}
		if t.latest.CompareAndSwap(had, e) {
			break
		}
	}
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// run follows the log until ctx is done or the log cannot be read any more.
func (t *topic) run(ctx context.Context) {
	defer t.closeIdle(time.Time{}, true)
	err := t.followLog(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	t.hub.log.Error("could not follow a run log", "execution", t.id, "err", err)
	t.hub.forget(t)
	t.ring.fail(fmt.Errorf("follow the run log: %w", err))
	t.audience.notify()
}

// first returns the state that a stream begins with. Readers share it until
// something changes.
func (t *topic) first() *state {
	latest := t.latest.Load()
	if now := t.state.Load(); now != nil && now.event == latest.EventSeq && now.end == nil {
		return now
	}
	return newState(shown(latest, t.hub.masker()))
}

// announce publishes e to the readers, once the lines before it are in the
// ring.
func (t *topic) announce(e *agented.Execution) {
	had := t.state.Load()
	if had != nil && had.event == e.EventSeq {
		return
	}
	s := newState(shown(e, t.hub.masker()))
	if had != nil && had.fields == s.fields && had.end == nil && s.end == nil {
		return // nothing visible to a reader has changed
	}
	t.state.Store(s)
	t.audience.notify()
}

func (t *topic) followLog(ctx context.Context) error {
	var log *runlog.Reader
	var next time.Time // time of the next batch
	pause := time.NewTimer(pace)
	defer pause.Stop()
	watch := growth{dir: t.dir}
	annotator := t.annotator()
	closeAll := func() {
		watch.close()
		if log != nil {
			log.Close()
			log = nil
		}
	}
	defer closeAll()

	e := t.latest.Load()
	if !e.State.Final() {
		// Watch before reading, so that lines written in between wake the
		// goroutine.
		if err := watch.open(); err != nil {
			return err
		}
	}
	log, last, err := t.openAtEnd()
	if err != nil {
		return err
	}
	t.ring.begin(last)
	t.announce(e)
	t.audience.notify()

	done := e.State.Final()
	if done {
		closeAll()
	}
	for {
		// Loaded before the log is read to its end: a final execution's log is
		// complete before its state is published.
		e := t.latest.Load()
		if !done {
			if err := watch.open(); err != nil {
				return err
			}
			if log == nil {
				if log, err = t.open(); err != nil {
					return err
				}
			}
			if log != nil {
				if err := t.drain(ctx, log, annotator, pause, &next); err != nil {
					return err
				}
			}
		}
		t.announce(e)
		if e.State.Final() && !done {
			done = true
			closeAll()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.c():
		case <-watch.poll():
		case <-t.poke:
		}
	}
}

// growth waits for a log to grow, or for its folder to appear: a pending
// execution may have none yet.
type growth struct {
	dir    string
	w      *runlog.Watcher
	inside bool // w watches the log itself
	blind  bool // there is nothing that can be watched
}

// open watches the log, or its nearest existing ancestor folder. Call it again
// after each wake-up.
func (g *growth) open() error {
	if g.inside {
		return nil
	}
	w, err := runlog.Watch(g.dir)
	inside := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		if g.w != nil {
			return nil
		}
		w, err = runlog.WatchFile(g.dir)
	}
	g.blind = errors.Is(err, fs.ErrNotExist)
	if g.blind {
		return nil
	}
	if err != nil {
		return err
	}
	g.close()
	g.w, g.inside = w, inside
	return nil
}

func (g *growth) c() <-chan struct{} {
	if g.w == nil {
		return nil
	}
	return g.w.C()
}

func (g *growth) poll() <-chan time.Time {
	if !g.blind {
		return nil
	}
	return time.After(250 * time.Millisecond)
}

func (g *growth) close() {
	if g.w != nil {
		g.w.Close()
	}
	g.w, g.inside, g.blind = nil, false, false
}

// open opens the log at its beginning; nil if there is none.
func (t *topic) open() (*runlog.Reader, error) {
	r, err := runlog.OpenReader(t.dir)
	if errors.Is(err, agented.NotFound) {
		return nil, nil
	}
	return r, err
}

// openAtEnd opens the log after its last line. Earlier lines are history.
func (t *topic) openAtEnd() (*runlog.Reader, int64, error) {
	r, err := t.open()
	if r == nil {
		return nil, 0, err
	}
	last, err := r.LastSeq()
	if err == nil {
		err = r.SeekAfter(last)
	}
	if err != nil {
		r.Close()
		return nil, 0, err
	}
	return r, int64(last), nil
}

// drain publishes the available lines of the log. Small batches keep their
// pace: next is when the next one may be sent.
func (t *topic) drain(ctx context.Context, log *runlog.Reader, a Annotator, pause *time.Timer, next *time.Time) error {
	s := scratches.Get().(*scratch)
	defer s.release()
	for {
		if d := time.Until(*next); d > 0 && !sleep(ctx, pause, d) {
			return nil
		}
		var err error
		if s.lines, err = log.Next(s.lines[:0], batchLines, batchContent); err != nil {
			return err
		}
		if len(s.lines) == 0 {
			return nil
		}
		t.publish(s, t.hub.masker(), a)
		if len(s.frames) > batchContent/4 {
			continue
		}
		*next = time.Now().Add(paceFor(t.audience.size()))
		if log.ReleaseBuffer() {
			return nil // a later change wakes the goroutine
		}
	}
}

// sleep waits for d; false when ctx is done. The caller owns the timer, so that
// a batch allocates none.
func sleep(ctx context.Context, timer *time.Timer, d time.Duration) bool {
	timer.Reset(d)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// publish encodes a batch of lines once and wakes the readers.
func (t *topic) publish(s *scratch, m *redact.Masker, a Annotator) {
	s.frames = s.frames[:0]
	s.encode(m, a)
	t.ring.add(int64(s.lines[len(s.lines)-1].Seq), s.frames, time.Now())
	t.audience.notify()
}

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

// Bounds of following a log.
const (
	batchLines   = 512
	batchContent = 48 << 10
	// pace is the shortest time between two small batches: what a busy program
	// prints meanwhile goes out as one. Each reader adds its share, so that a crowd
	// of thousands gets lines by the handful, in one write each, and a line that
	// comes alone goes out at once whatever the crowd. The share is twice what a
	// write to a socket costs, so one stream takes half a processor at most.
	pace        = 4 * time.Millisecond
	pacePerHead = 20 * time.Microsecond
	maxPace     = 250 * time.Millisecond
)

// paceFor is the pace of an audience of that many.
func paceFor(readers int) time.Duration {
	return min(max(pace, time.Duration(readers)*pacePerHead), maxPace)
}

// topic is one execution that somebody follows.
type topic struct {
	hub *Hub
	id  agented.ExecutionID
	dir string

	ring     ring
	audience audience
	latest   atomic.Pointer[agented.Execution] // as last heard of
	state    atomic.Pointer[state]             // set once all lines before it are in the ring
	poke     chan struct{}                     // latest has changed

	refs    int                // subscriptions; guarded by hub.mu
	started bool               // guarded by hub.mu
	stop    context.CancelFunc // ends run; guarded by hub.mu

	idleMu sync.Mutex // guards idle and ended
	idle   []*openLog
	ended  bool
}

// offer takes an execution as it is now, unless something newer is known.
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

// run follows the log until ctx is done or the log cannot be read on.
func (t *topic) run(ctx context.Context) {
	defer t.closeIdle(time.Time{}, true)
	err := t.followLog(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	t.hub.log.Error("follow a run log", "execution", t.id, "err", err)
	t.hub.forget(t)
	t.ring.fail(fmt.Errorf("follow the run log: %w", err))
	t.audience.notify()
}

// first is the state that a stream begins with. Readers that come when nothing
// has changed share it.
func (t *topic) first() *state {
	latest := t.latest.Load()
	if now := t.state.Load(); now != nil && now.event == latest.EventSeq && now.end == nil {
		return now
	}
	return newState(shown(latest, t.hub.masker()))
}

// announce makes e what readers are told, once the lines before it are in the
// ring.
func (t *topic) announce(e *agented.Execution) {
	had := t.state.Load()
	if had != nil && had.event == e.EventSeq {
		return
	}
	s := newState(shown(e, t.hub.masker()))
	if had != nil && had.fields == s.fields && had.end == nil && s.end == nil {
		return // nothing that a reader sees has changed
	}
	t.state.Store(s)
	t.audience.notify()
}

func (t *topic) followLog(ctx context.Context) error {
	var log *runlog.Reader
	var next time.Time // of a batch
	pause := time.NewTimer(pace)
	defer pause.Stop()
	watch := growth{dir: t.dir}
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
		// Watched before it is looked at: what is written in between wakes.
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
		// complete before anybody hears that it is final.
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
				if err := t.drain(ctx, log, pause, &next); err != nil {
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

// growth wakes when a log grows, or when the folder that it will be in appears:
// an execution that waits for its turn may have none yet.
type growth struct {
	dir    string
	w      *runlog.Watcher
	inside bool // w watches the log itself
	blind  bool // there is nothing that could be watched
}

// open watches as near to the log as there is a folder. Call it again after
// each wake-up.
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

// open opens the log at its beginning; nil while there is none.
func (t *topic) open() (*runlog.Reader, error) {
	r, err := runlog.OpenReader(t.dir)
	if errors.Is(err, agented.NotFound) {
		return nil, nil
	}
	return r, err
}

// openAtEnd opens the log behind its last line. Lines before it are history.
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

// drain publishes what the log has now. Small batches keep their pace: next is
// when the one after the last may go.
func (t *topic) drain(ctx context.Context, log *runlog.Reader, pause *time.Timer, next *time.Time) error {
	s := scratches.Get().(*scratch)
	defer s.release()
	for {
		if d := time.Until(*next); d > 0 && !rest(ctx, pause, d) {
			return nil
		}
		var err error
		if s.lines, err = log.Next(s.lines[:0], batchLines, batchContent); err != nil {
			return err
		}
		if len(s.lines) == 0 {
			return nil
		}
		t.publish(s, t.hub.masker())
		if len(s.frames) > batchContent/4 {
			continue
		}
		*next = time.Now().Add(paceFor(t.audience.size()))
		if log.Rest() {
			return nil // whatever comes wakes us
		}
	}
}

// rest waits for d; false when ctx is done. The timer is the caller's, so that a
// batch costs none.
func rest(ctx context.Context, timer *time.Timer, d time.Duration) bool {
	timer.Reset(d)
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// publish encodes a batch of lines once and wakes the readers.
func (t *topic) publish(s *scratch, m *redact.Masker) {
	s.frames = s.frames[:0]
	s.encode(m)
	t.ring.add(int64(s.lines[len(s.lines)-1].Seq), s.frames, time.Now())
	t.audience.notify()
}

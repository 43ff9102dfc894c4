package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

// ledger is the part of a store that the events need: the current state of each
// execution by the number of its latest change.
type ledger struct {
	mu   sync.Mutex
	now  map[agented.ExecutionID]*agented.Execution
	seq  int64
	fail error
	hub  *Hub
	// commits is held during commit and publication, as in the store.
	commits sync.Mutex
}

func newLedger(t *testing.T, o Options) *ledger {
	l := &ledger{now: map[agented.ExecutionID]*agented.Execution{}}
	o.Changed, o.LastEvent = l.changed, l.last
	o.Encode = func(dst []byte, e *agented.Execution) []byte {
		return fmt.Appendf(dst, `{"id":%q,"event":%d}`, e.ID, e.EventSeq)
	}
	s := newScene(t, Options{})
	l.hub = s.newHub(o)
	return l
}

func (l *ledger) changed(_ context.Context, after int64, limit int) (out []agented.ExecutionEvent, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.now {
		if e.EventSeq > after {
			out = append(out, agented.ExecutionEvent{Seq: e.EventSeq, Execution: e})
		}
	}
	slices.SortFunc(out, func(a, b agented.ExecutionEvent) int { return int(a.Seq - b.Seq) })
	return out[:min(len(out), limit)], l.fail
}

func (l *ledger) last(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.fail
}

func (l *ledger) commit(id string) int64 {
	l.commits.Lock()
	defer l.commits.Unlock()
	l.mu.Lock()
	l.seq++
	e := &agented.Execution{ID: agented.ExecutionID(id), EventSeq: l.seq}
	l.now[e.ID] = e
	l.mu.Unlock()
	l.hub.Publish(agented.ExecutionEvent{Seq: e.EventSeq, Execution: e})
	return e.EventSeq
}

func (l *ledger) serve(ctx context.Context, sink Sink, start EventsStart) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- l.hub.ServeEvents(ctx, sink, start) }()
	return func() error { return <-done }
}

func TestServeEvents_now(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Options{})
	l.commit("a")
	l.commit("b")
	sink := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	wait := l.serve(ctx, sink, EventsStart{Now: true})
	sink.until(t, "the position", has("position"))
	l.commit("a")
	l.commit("c")
	events := sink.until(t, "the changes", func(e []event) bool { return e[len(e)-1].id == "4" })
	if events[0].comment != "connected" {
		t.Errorf("the stream begins with %+v", events[0])
	}
	var got []string
	for _, e := range events[2:] {
		got = append(got, e.name+" "+e.id+" "+e.data)
	}
	want := []string{`position 2 {"id":2}`, `execution 3 {"id":"a","event":3}`, `execution 4 {"id":"c","event":4}`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	cancel()
	wait()
}

func TestServeEvents_resume(t *testing.T) {
	t.Parallel()
	const changes, ids, readers = 20_000, 300, 8
	l := newLedger(t, Options{})
	random := testrun.Rand(t)
	var work sync.WaitGroup
	for range readers {
		rand := testrun.Fork(random)
		work.Go(func() {
			pos := int64(0)
			latest := map[string]int64{} // latest change of each execution that the reader has received
			for pos < changes {
				sink := newMemory()
				sink.limit = 300 + rand.IntN(100_000)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rand.IntN(200))*time.Millisecond)
				err := l.serve(ctx, sink, EventsStart{After: pos})()
				cancel()
				if !errors.Is(err, errCut) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
				for _, e := range parse(sink.bytes) {
					if e.name != "execution" {
						continue
					}
					n, _ := strconv.ParseInt(e.id, 10, 64)
					if n <= pos {
						t.Errorf("change %d came behind position %d", n, pos)
						return
					}
					var x struct {
						ID    string
						Event int64
					}
					if err := json.Unmarshal([]byte(e.data), &x); err != nil || x.Event != n {
						t.Errorf("change %d has the data %s", n, e.data)
						return
					}
					pos, latest[x.ID] = n, n
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			for id, e := range l.now {
				if latest[string(id)] != e.EventSeq {
					t.Errorf("%s is known as of %d, and changed at %d", id, latest[string(id)], e.EventSeq)
					return
				}
			}
		})
	}
	for range changes {
		l.commit("exec " + strconv.Itoa(random.IntN(ids)))
	}
	work.Wait()
}

func TestServeEvents_pull(t *testing.T) {
	t.Parallel()
	// The goroutine of the events is slower: it waits between two batches, and
	// at most pendingEvents changes are kept meanwhile.
	l := newLedger(t, Options{})
	sink := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	wait := l.serve(ctx, sink, EventsStart{})
	sink.until(t, "the position", has("position"))
	for i := range 4 * pendingEvents {
		l.commit(strconv.Itoa(i))
	}
	want := strconv.Itoa(4 * pendingEvents)
	events := sink.until(t, "the last change", func(e []event) bool { return e[len(e)-1].id == want })
	next := int64(0)
	for _, e := range events {
		if e.name == "execution" {
			if next++; e.id != strconv.FormatInt(next, 10) {
				t.Fatalf("change %s stands where %d belongs", e.id, next)
			}
		}
	}
	cancel()
	wait()
}

func TestServeEvents_position_before_restore(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Options{})
	l.commit("a")
	sink := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	wait := l.serve(ctx, sink, EventsStart{After: 5000})
	sink.until(t, "the position", func(e []event) bool { return has("position")(e) && e[len(e)-1].id == "1" })
	l.commit("a")
	sink.until(t, "a change", has("execution"))
	cancel()
	wait()
}

func TestServeEvents_failing_store(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Options{})
	broken := errors.New("disk on fire")
	l.mu.Lock()
	l.fail = broken
	l.mu.Unlock()
	if err := l.serve(t.Context(), newMemory(), EventsStart{After: 1})(); !errors.Is(err, broken) {
		t.Fatalf("ServeEvents = %v", err)
	}
	l.mu.Lock()
	l.fail = nil
	l.mu.Unlock()
	sink := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	wait := l.serve(ctx, sink, EventsStart{})
	sink.until(t, "the position", has("position"))
	l.commit("a")
	sink.until(t, "a change", has("execution"))
	cancel()
	wait()
}

func TestServeEvents_drain(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Options{})
	sink := newMemory()
	wait := l.serve(t.Context(), sink, EventsStart{Now: true})
	sink.until(t, "the position", has("position"))
	l.hub.Drain()
	if err := wait(); !errors.Is(err, ErrDraining) {
		t.Fatalf("ServeEvents = %v", err)
	}
	late := newMemory()
	if err := l.serve(t.Context(), late, EventsStart{Now: true})(); !errors.Is(err, ErrDraining) {
		t.Fatalf("ServeEvents while draining = %v", err)
	}
	if !strings.HasPrefix(string(late.bytes), "retry: ") {
		t.Errorf("no hint when to come back: %q", late.bytes)
	}
}

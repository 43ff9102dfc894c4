package hub

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/testrun"
)

func TestServe(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 3, 1, "")
	sink := newMemory()
	wait := s.serve(t.Context(), sink, Start{})
	sink.until(t, "three lines", func(e []event) bool { return len(seqs(t, e)) == 3 })
	s.change(func(e *agented.Execution) { e.CancelAsked = true })
	sink.until(t, "the change", func(e []event) bool { return strings.Contains(e[len(e)-1].data, `"cancel_requested":true`) })
	s.write(w, 2, 2, "")
	s.finish(w.LastSeq())
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	events := sink.events()
	wantRun(t, seqs(t, events), 1, 5)
	if e := events[1]; e.name != "status" || e.id != "0" || !strings.Contains(e.data, `"status":"running"`) {
		t.Errorf("the stream begins with %+v", e)
	}
	last := events[len(events)-1]
	want := `{"status":"success","exit_code":0,"error_message":"","duration_ms":1500,"finished_at":"2026-01-02T03:04:06.500000Z"}`
	if last.name != "complete" || last.id != "6" || last.data != want {
		t.Errorf("the stream ends with %+v", last)
	}
	for i, e := range events {
		if e.data != "" && !json.Valid([]byte(e.data)) {
			t.Errorf("data is not JSON: %q", e.data)
		}
		if e.name == "status" && i != 1 && e.id != "" {
			t.Errorf("a later status has the id %q", e.id)
		}
	}
}

func TestServe_every_position(t *testing.T) {
	t.Parallel()
	const n = 300 // more than two blocks
	for _, sealed := range []bool{false, true} {
		s := newScene(t, Options{})
		w := s.writer()
		s.write(w, n, 9, strings.Repeat("x", 100))
		w.Close()
		s.finish(n)
		if sealed {
			if err := runlog.Seal(s.layout.Execution(s.id)); err != nil {
				t.Fatal(err)
			}
		}
		for after := range n + 1 {
			sink := newMemory()
			if err := s.serve(t.Context(), sink, Start{After: agented.Seq(after)})(); err != nil {
				t.Fatalf("after %d: %v", after, err)
			}
			events := sink.events()
			wantRun(t, seqs(t, events), int64(after)+1, n)
			if e := events[1]; e.id != strconv.Itoa(after) {
				t.Fatalf("position %q, want %d", e.id, after)
			}
			if e := events[len(events)-1]; e.name != "complete" || e.id != strconv.Itoa(n+1) {
				t.Fatalf("after %d the stream ends with %+v", after, e)
			}
		}
	}
}

func TestServe_reconnecting_readers(t *testing.T) {
	t.Parallel()
	const readers = 20
	total := testrun.Size[agented.Seq](2000, 10_000, 20_000)
	s := newScene(t, Options{})
	w := s.writer()
	random := testrun.Rand(t)
	var work sync.WaitGroup
	for range readers {
		rand := testrun.Fork(random)
		work.Go(func() {
			pos := int64(0)
			for {
				// Cut at a random place: in a batch, in a replay, or while
				// idle.
				sink := newMemory()
				sink.limit = 500 + rand.IntN(400_000)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Millisecond)
				err := s.serve(ctx, sink, Start{After: agented.Seq(pos)})()
				cancel()
				got := seqs(t, parse(sink.bytes))
				if len(got) > 0 {
					wantRun(t, got, pos+1, pos+int64(len(got)))
					pos += int64(len(got))
				}
				if t.Failed() {
					return
				}
				if err == nil {
					if pos != int64(total) {
						t.Errorf("complete after line %d", pos)
					}
					return
				}
				if !errors.Is(err, errCut) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
					return
				}
			}
		})
	}
	for w.LastSeq() < total {
		s.write(w, min(1+random.IntN(100), int(total-w.LastSeq())), 1+random.IntN(20), "")
		if random.IntN(10) == 0 {
			runtime.Gosched()
		}
	}
	s.finish(total)
	work.Wait()
}

func TestServe_restarted_server(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 1000, 7, "")
	pos := int64(0)
	for range 5 {
		sink := newMemory()
		ctx, cancel := context.WithCancel(t.Context())
		wait := s.serve(ctx, sink, Start{After: agented.Seq(pos)})
		want := int64(w.LastSeq())
		sink.until(t, "all lines", func([]event) bool { return int64(len(seqs(t, sink.events()))) >= want-pos })
		s.write(w, 100, 3, "")
		cancel()
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		got := seqs(t, sink.events())
		wantRun(t, got, pos+1, pos+int64(len(got)))
		pos += int64(len(got))
		h := s.newHub(Options{})
		s.mu.Lock()
		s.hub = h
		s.mu.Unlock()
	}
	s.finish(w.LastSeq())
	sink := newMemory()
	if err := s.serve(t.Context(), sink, Start{After: agented.Seq(pos)})(); err != nil {
		t.Fatal(err)
	}
	wantRun(t, seqs(t, sink.events()), pos+1, int64(w.LastSeq()))
}

func TestServe_pending_execution(t *testing.T) {
	t.Parallel()
	for _, parent := range []bool{true, false} {
		s := newScene(t, Options{})
		s.change(func(e *agented.Execution) { e.State, e.AttemptNo = agented.StatePending, 0 })
		gone := s.layout.Execution(s.id)
		if !parent {
			gone = s.layout.Executions()
		}
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		sink := newMemory()
		wait := s.serve(t.Context(), sink, Start{})
		sink.until(t, "the status", has("status"))
		s.change(func(e *agented.Execution) { e.State, e.AttemptNo = agented.StateRunning, 1 })
		sink.until(t, "running", func(e []event) bool { return strings.Contains(e[len(e)-1].data, `"running"`) })
		if err := os.MkdirAll(s.layout.Execution(s.id), 0o700); err != nil {
			t.Fatal(err)
		}
		w := s.writer()
		s.write(w, 10, 1, "")
		sink.until(t, "ten lines", func(e []event) bool { return len(seqs(t, e)) == 10 })
		s.finish(10)
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServe_never_ran(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	s.change(func(e *agented.Execution) {
		e.State, e.Reason = agented.StateCancelled, "cancelled by ann"
	})
	sink := newMemory()
	if err := s.serve(t.Context(), sink, Start{})(); err != nil {
		t.Fatal(err)
	}
	events := sink.events()
	last := events[len(events)-1]
	if last.name != "complete" || last.id != "1" || !strings.Contains(last.data, `"exit_code":null`) || !strings.Contains(last.data, `"duration_ms":null`) {
		t.Errorf("the stream ends with %+v", last)
	}
}

func TestServe_truncated_log(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 5, 5, "")
	sink := newMemory()
	wait := s.serve(t.Context(), sink, Start{})
	s.finish(9)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	events := sink.events()
	wantRun(t, seqs(t, events), 1, 5)
	said := events[len(events)-2]
	if said.name != "log" || said.id != "" || strings.Contains(said.data, `"seq"`) || !strings.Contains(said.data, "lines 6 to 9 are missing") {
		t.Errorf("the gap is said as %+v", said)
	}
	if last := events[len(events)-1]; last.name != "complete" || last.id != "10" {
		t.Errorf("the stream ends with %+v", last)
	}
}

func TestServe_skipped_lines(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 50, 50, "")
	s.finish(50)
	sink := newMemory()
	if err := s.serve(t.Context(), sink, Start{After: 40, Skipped: 40})(); err != nil {
		t.Fatal(err)
	}
	events := sink.events()
	wantRun(t, seqs(t, events), 41, 50)
	said := events[2]
	if said.name != "log" || said.id != "" || strings.Contains(said.data, `"seq"`) ||
		!strings.Contains(said.data, `"stream":"system"`) || !strings.Contains(said.data, "40 earlier lines") {
		t.Errorf("what was left out is said as %+v", said)
	}
}

func TestServe_drain(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 5, 5, "")
	sink := newMemory()
	wait := s.serve(t.Context(), sink, Start{})
	sink.until(t, "the lines", func(e []event) bool { return len(seqs(t, e)) == 5 })
	s.hub.Drain()
	if err := wait(); !errors.Is(err, ErrDraining) {
		t.Fatalf("Serve = %v", err)
	}
	late := newMemory()
	if err := s.serve(t.Context(), late, Start{})(); !errors.Is(err, ErrDraining) {
		t.Fatalf("Serve while draining = %v", err)
	}
	for _, m := range []*memory{sink, late} {
		if at := strings.LastIndex(string(m.bytes), "retry: "); at < 0 || string(m.bytes[at:]) == string(retryFrame) {
			t.Errorf("no hint when to come back in %.500q", m.bytes)
		}
	}
}

func TestServe_heartbeats(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{Heartbeat: 40 * time.Millisecond})
	sink := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	wait := s.serve(ctx, sink, Start{})
	sink.until(t, "three heartbeats", func(events []event) bool {
		n := 0
		for _, e := range events {
			if e.comment == "heartbeat" {
				n++
			}
		}
		return n >= 3
	})
	cancel()
	wait()
}

func TestServe_masks_later_secrets(t *testing.T) {
	t.Parallel()
	var masker atomic.Pointer[redact.Masker]
	s := newScene(t, Options{Masker: masker.Load})
	w := s.writer()
	s.write(w, 3, 1, "hunter2hunter2")
	s.finish(3)
	for _, learned := range []bool{false, true} {
		if learned {
			masker.Store(redact.New([]string{"hunter2hunter2"}))
		}
		sink := newMemory()
		if err := s.serve(t.Context(), sink, Start{})(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(sink.bytes), "hunter2"); got == learned {
			t.Errorf("learned %v, shown %v", learned, got)
		}
	}
}

func TestServe_masks_reasons(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"hunter2hunter2"})
	s := newScene(t, Options{Masker: func() *redact.Masker { return m }})
	sink := newMemory()
	wait := s.serve(t.Context(), sink, Start{})
	sink.until(t, "the status", has("status"))
	s.change(func(e *agented.Execution) { e.Reason = "waits for hunter2hunter2" })
	sink.until(t, "the reason", func(e []event) bool { return strings.Contains(e[len(e)-1].data, "waits for "+redact.Mask) })
	s.change(func(e *agented.Execution) { e.State, e.Error = agented.StateFailed, "no hunter2hunter2" })
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if text := string(sink.bytes); strings.Contains(text, "hunter2") || !strings.Contains(text, "no "+redact.Mask) {
		t.Errorf("got %s", text)
	}
}

func TestServe_damaged_log(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 20_000, 100, strings.Repeat("x", 50))
	w.Close()
	path := filepath.Join(s.layout.Execution(s.id), "log")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 5000), 300_000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s.finish(20_000)
	sink := newMemory()
	if err := s.serve(t.Context(), sink, Start{})(); err == nil {
		t.Fatal("a damaged log was read to its end")
	}
	got := seqs(t, parse(sink.bytes))
	wantRun(t, got, 1, int64(len(got)))
	if has("complete")(parse(sink.bytes)) {
		t.Error("it completed all the same")
	}
}

func TestSubscription_last_close(t *testing.T) {
	t.Parallel()
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 5, 5, "")
	ctx, cancel := context.WithCancel(t.Context())
	a, b := newMemory(), newMemory()
	waitA, waitB := s.serve(ctx, a, Start{}), s.serve(ctx, b, Start{})
	a.until(t, "lines", func(e []event) bool { return len(seqs(t, e)) == 5 })
	b.until(t, "lines", func(e []event) bool { return len(seqs(t, e)) == 5 })
	if n, r := s.hub.Topics(), s.hub.Readers(); n != 1 || r != 2 {
		t.Errorf("%d topics, %d readers", n, r)
	}
	cancel()
	waitA()
	waitB()
	if n, r := s.hub.Topics(), s.hub.Readers(); n != 0 || r != 0 {
		t.Errorf("%d topics, %d readers are left", n, r)
	}
	// goleak detects a follower that is still running.
}

// stuck is a reader that receives the beginning of a stream and then stalls.
type stuck struct {
	began chan struct{}
	end   chan struct{}
	n     int
}

func (k *stuck) Write([]byte) error {
	if k.n++; k.n < 3 {
		return nil
	}
	if k.n == 3 {
		close(k.began)
	}
	<-k.end
	return errCut
}
func (k *stuck) Flush() error { return nil }

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Not parallel: it measures the memory of the process.
func TestServe_stalled_readers(t *testing.T) {
	const readers, lines = 200, 200_000
	s := newScene(t, Options{})
	w := s.writer()
	s.write(w, 1000, 100, strings.Repeat("x", 80))
	before := heap()
	end := make(chan struct{})
	var waits []func() error
	for i := range readers {
		k := &stuck{began: make(chan struct{}), end: end}
		start := Start{}
		if i%2 == 1 {
			start.After = agented.Seq(i * 4) // each at another position
		}
		waits = append(waits, s.serve(context.Background(), k, start))
		<-k.began
	}
	live := newMemoryCount()
	wait := s.serve(context.Background(), live, Start{After: 1000})
	s.write(w, lines, 50, strings.Repeat("x", 80))
	s.finish(w.LastSeq())
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	if live.lines != lines {
		t.Errorf("the reader who reads got %d lines, want %d", live.lines, lines)
	}
	grown := heap() - before
	t.Logf("%d readers that do not read, %d lines (%d MB of log): the heap grew by %d KiB", readers, lines, w.Size()>>20, grown>>10)
	if grown > 12<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	close(end)
	for _, wait := range waits {
		wait()
	}
}

// count is a sink that counts log events.
type count struct{ lines, bytes int }

func newMemoryCount() *count { return &count{} }

func (c *count) Write(p []byte) error {
	c.bytes += len(p)
	c.lines += strings.Count(string(p), "event: log\n")
	return nil
}
func (c *count) Flush() error { return nil }

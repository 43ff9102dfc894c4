package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// event is one parsed server-sent event; comments have only text.
type event struct {
	id, name, data, comment string
}

// parse reads whole frames.
func parse(frames []byte) (out []event) {
	for frame := range bytes.SplitSeq(frames, []byte("\n\n")) {
		if len(frame) == 0 {
			continue
		}
		var e event
		for line := range strings.SplitSeq(string(frame), "\n") {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "":
				e.comment = value
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				e.data = value
			}
		}
		out = append(out, e)
	}
	return out
}

// memory is a sink that stores the frames, and can be limited.
type memory struct {
	mu      sync.Mutex
	changed chan struct{}
	bytes   []byte
	flushed int
	limit   int // bytes until a write fails; 0 means no limit
}

var errCut = errors.New("cut")

func newMemory() *memory { return &memory{changed: make(chan struct{})} }

func (m *memory) Write(p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 && len(m.bytes)+len(p) > m.limit {
		return errCut
	}
	m.bytes = append(m.bytes, p...)
	return nil
}

func (m *memory) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushed = len(m.bytes)
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *memory) events() []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return parse(m.bytes[:m.flushed])
}

// until waits until the flushed frames satisfy ok.
func (m *memory) until(t testing.TB, what string, ok func([]event) bool) []event {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		m.mu.Lock()
		events, changed := parse(m.bytes[:m.flushed]), m.changed
		m.mu.Unlock()
		if ok(events) {
			return events
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("waited in vain for %s; got %d events: %.2000q", what, len(events), events)
		}
	}
}

func has(name string) func([]event) bool {
	return func(events []event) bool {
		for _, e := range events {
			if e.name == name {
				return true
			}
		}
		return false
	}
}

// seqs returns the ids of the log events that have one.
func seqs(t testing.TB, events []event) (out []int64) {
	t.Helper()
	for _, e := range events {
		if e.name != "log" || e.id == "" {
			continue
		}
		var line struct {
			Seq     int64
			Content string
		}
		if err := json.Unmarshal([]byte(e.data), &line); err != nil {
			t.Fatalf("data %q: %v", e.data, err)
		}
		if strconv.FormatInt(line.Seq, 10) != e.id {
			t.Fatalf("id %s and seq %d differ", e.id, line.Seq)
		}
		if want := fmt.Sprintf("line %d", line.Seq); !strings.HasPrefix(line.Content, want) {
			t.Fatalf("line %d has the content %.60q", line.Seq, line.Content)
		}
		out = append(out, line.Seq)
	}
	return out
}

// wantRun fails unless got is from, from+1 … to.
func wantRun(t testing.TB, got []int64, from, to int64) {
	t.Helper()
	if int64(len(got)) != to-from+1 {
		t.Errorf("got %d lines, want %d to %d", len(got), from, to)
		return
	}
	for i, n := range got {
		if n != from+int64(i) {
			t.Errorf("line %d stands where %d belongs", n, from+int64(i))
			return
		}
	}
}

// hubFixture is a data folder with a hub and one execution.
type hubFixture struct {
	testing.TB
	layout agented.Layout
	hub    *Hub
	id     agented.ExecutionID
	mu     sync.Mutex
	now    agented.Execution
}

func newScene(t testing.TB, o Options) *hubFixture {
	t.Helper()
	s := &hubFixture{TB: t, layout: agented.Layout{Root: t.TempDir()}}
	s.id = agented.ExecutionID(agented.NewID("exec", time.Now()))
	if err := os.MkdirAll(s.layout.Execution(s.id), 0o700); err != nil {
		t.Fatal(err)
	}
	s.now = agented.Execution{ID: s.id, State: agented.StateRunning, AttemptNo: 1, EventSeq: 1, Backend: "command"}
	s.hub = s.newHub(o)
	return s
}

func (s *hubFixture) newHub(o Options) *Hub {
	o.Layout = s.layout
	h := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	s.Cleanup(func() {
		cancel()
		<-done
	})
	return h
}

// execution returns the execution as in the store.
func (s *hubFixture) execution() *agented.Execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.now
	return &e
}

// change commits a change and publishes it.
func (s *hubFixture) change(f func(e *agented.Execution)) {
	s.mu.Lock()
	f(&s.now)
	s.now.EventSeq++
	e := s.now
	h := s.hub
	s.mu.Unlock()
	h.Publish(agented.ExecutionEvent{Seq: e.EventSeq, Execution: &e})
}

func (s *hubFixture) finish(last agented.Seq) {
	s.change(func(e *agented.Execution) {
		code := 0
		e.State, e.LastSeq, e.ExitCode = agented.StateSuccess, last, &code
		e.StartedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		e.FinishedAt = e.StartedAt.Add(1500 * time.Millisecond)
	})
}

func (s *hubFixture) writer() *runlog.Writer {
	s.Helper()
	w, err := runlog.OpenWriter(s.layout.Execution(s.id), time.Now())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { w.Close() })
	return w
}

// write appends n lines with their numbers, at most batch per write.
func (s *hubFixture) write(w *runlog.Writer, n, batch int, pad string) {
	for n > 0 {
		recs := make([]runlog.Record, min(n, batch))
		for i := range recs {
			text := fmt.Sprintf("line %d %s", int(w.LastSeq())+i+1, pad)
			recs[i] = runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte(text)}}
		}
		if err := w.Append(recs); err != nil {
			s.Error(err)
			return
		}
		n -= len(recs)
	}
}

// serve runs Serve in another goroutine; wait returns its result.
func (s *hubFixture) serve(ctx context.Context, sink Sink, start Start) (wait func() error) {
	s.mu.Lock()
	h := s.hub
	s.mu.Unlock()
	sub := h.Subscribe(s.id)
	done := make(chan error, 1)
	go func() {
		err := sub.Serve(ctx, sink, s.execution(), start)
		sub.Close()
		done <- err
	}()
	return func() error {
		s.Helper()
		select {
		case err := <-done:
			return err
		case <-time.After(2 * time.Minute):
			s.Fatal("the stream did not end")
			return nil
		}
	}
}

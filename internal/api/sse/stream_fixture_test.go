package sse

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// streamFixture is a server with nothing but the streams, and one execution.
type streamFixture struct {
	*testing.T
	streams *Streams
	layout  agented.Layout
	server  *httptest.Server
	id      agented.ExecutionID
	stop    func()                // ends the hub
	conns   map[net.Conn]*os.File // second descriptors of the connections, to cut them with
	secrets atomic.Pointer[redact.Masker]
	plain   atomic.Bool // net/http keeps the connections

	commits sync.Mutex // held over commit and publication, as the store does
	mu      sync.Mutex // guards now
	now     agented.Execution
}

// bothWays runs a test where the hub takes connections over, and where net/http
// keeps them.
func bothWays(t *testing.T, test func(t *testing.T, s *streamFixture)) {
	t.Parallel()
	for name, plain := range map[string]bool{"taken over": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStreamFixture(t)
			if plain {
				s.plain.Store(true)
			}
			test(t, s)
		})
	}
}

// cut breaks all connections.
func (s *streamFixture) cut() {
	s.server.CloseClientConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.conns {
		_ = syscall.Shutdown(int(f.Fd()), syscall.SHUT_RDWR)
		f.Close()
	}
	clear(s.conns)
}

func newStreamFixture(t *testing.T) *streamFixture {
	t.Helper()
	s := &streamFixture{T: t, layout: agented.Layout{Root: t.TempDir()}, conns: map[net.Conn]*os.File{}}
	s.id = agented.ExecutionID(agented.NewID("exec", time.Now()))
	if err := os.MkdirAll(s.layout.Execution(s.id), 0o700); err != nil {
		t.Fatal(err)
	}
	s.now = agented.Execution{
		ID: s.id, Trigger: "trg-x", State: agented.StateRunning, AttemptNo: 1, EventSeq: 1,
		Backend: "command", CreatedAt: time.Now(),
	}
	s.streams = &Streams{Layout: s.layout, Execution: s.execution, ReplayLimit: 500, Masker: s.secrets.Load}
	s.restart()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/executions/{id}/stream", func(w http.ResponseWriter, r *http.Request) { s.at().ServeStream(w, r) })
	mux.HandleFunc("GET /api/v1/executions/{id}/log", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // an ordinary request has minutes
		s.at().ServeLog(w, r)
	})
	mux.HandleFunc("GET /api/v1/executions/{id}/log.txt", func(w http.ResponseWriter, r *http.Request) { s.at().ServeText(w, r) })
	mux.HandleFunc("GET /api/v1/events/stream", func(w http.ResponseWriter, r *http.Request) { s.at().ServeEvents(w, r) })
	s.server = httptest.NewUnstartedServer(mux)
	s.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if s.plain.Load() {
			return ctx
		}
		if f, err := c.(*net.TCPConn).File(); err == nil {
			s.mu.Lock()
			s.conns[c] = f
			s.mu.Unlock()
		}
		return rest.WithConn(ctx, c)
	}
	// A connection that net/http closes stays open for its client as long as the
	// second descriptor does.
	s.server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state != http.StateClosed {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if f := s.conns[c]; f != nil {
			delete(s.conns, c)
			f.Close()
		}
	}
	// Streams outlive these.
	s.server.Config.ReadTimeout = 300 * time.Millisecond
	s.server.Config.WriteTimeout = 300 * time.Millisecond
	// Without these the read timeout counts from the connection's begin, and
	// while it is idle: a busy machine would be cut before it asks.
	s.server.Config.ReadHeaderTimeout, s.server.Config.IdleTimeout = time.Minute, time.Minute
	s.server.Start()
	t.Cleanup(func() {
		s.stop()
		s.cut()
		s.server.Close()
	})
	return s
}

func (s *streamFixture) at() *Streams {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *s.streams
	return &c
}

// restart gives the streams a new hub, as a new server would have.
func (s *streamFixture) restart() {
	if s.stop != nil {
		s.stop()
	}
	h := hub.New(hub.Options{
		Layout: s.layout, Masker: s.secrets.Load, Encode: encode, LastEvent: s.lastEvent, Changed: s.changed,
		Heartbeat: 400 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.Run(ctx)
	}()
	s.stop = func() {
		cancel()
		<-done
	}
	s.mu.Lock()
	s.streams.Hub = h
	s.mu.Unlock()
}

func (s *streamFixture) execution(_ context.Context, id agented.ExecutionID) (*agented.Execution, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.id {
		return nil, agented.Errorf(agented.NotFound, "there is no execution %s", id)
	}
	e := s.now
	return &e, nil
}

func (s *streamFixture) lastEvent(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.EventSeq, nil
}

func (s *streamFixture) changed(_ context.Context, after int64, _ int) ([]agented.ExecutionEvent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.EventSeq <= after {
		return nil, nil
	}
	e := s.now
	return []agented.ExecutionEvent{{Seq: e.EventSeq, Execution: &e}}, nil
}

func (s *streamFixture) change(f func(e *agented.Execution)) {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	f(&s.now)
	s.now.EventSeq++
	e := s.now
	h := s.streams.Hub
	s.mu.Unlock()
	h.Publish(agented.ExecutionEvent{Seq: e.EventSeq, Execution: &e})
}

func (s *streamFixture) finish(last agented.Seq) {
	s.change(func(e *agented.Execution) {
		code := 0
		e.State, e.LastSeq, e.ExitCode = agented.StateSuccess, last, &code
		e.StartedAt, e.FinishedAt = time.Now().Add(-time.Second), time.Now()
	})
}

func (s *streamFixture) writer() *runlog.Writer {
	w, err := runlog.OpenWriter(s.layout.Execution(s.id), time.Now())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { w.Close() })
	return w
}

// write appends n lines that say their numbers.
func (s *streamFixture) write(w *runlog.Writer, n int) {
	recs := make([]runlog.Record, n)
	for i := range recs {
		text := fmt.Sprintf("line %d", int(w.LastSeq())+i+1)
		recs[i] = runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte(text)}}
	}
	if err := w.Append(recs); err != nil {
		s.Error(err)
	}
}

func (s *streamFixture) url(what string) string {
	return s.server.URL + "/api/v1/executions/" + string(s.id) + "/" + what
}

// get asks and reads the whole answer.
func (s *streamFixture) get(method, url string, header ...string) (*http.Response, string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, url, nil)
	if err != nil {
		s.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.server.Client().Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp, string(body)
}

// message is what an EventSource hands to its listeners.
type message struct{ name, data, id string }

// eventSource does what the standard says an EventSource does: it parses, keeps
// the last id, reconnects after the retry time, and stops permanently on
// anything but 200 with the right type.
type eventSource struct {
	client *http.Client
	url    string
	lastID string
	retry  time.Duration
	on     func(message)
	opens  int
	status int // of the last answer
}

func (c *eventSource) run(ctx context.Context) error {
	c.retry = 10 * time.Millisecond
	for {
		again, err := c.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(c.retry, 20*time.Millisecond)): // tests are in a hurry
		}
	}
}

func (c *eventSource) once(ctx context.Context) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if c.lastID != "" {
		req.Header.Set("Last-Event-ID", c.lastID)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	c.opens++
	c.status = resp.StatusCode
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return false, nil
	}
	in := bufio.NewReader(resp.Body)
	var m message
	id := c.lastID
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return true, err // an unfinished event is thrown away
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			c.lastID = id
			if m.data != "" {
				m.id = id
				c.on(m)
			}
			m = message{}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			m.name = value
		case "data":
			m.data = value
		case "id":
			id = value
		case "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				return false, fmt.Errorf("retry %q", value)
			}
			c.retry = time.Duration(ms) * time.Millisecond
		}
	}
}

// follower checks that lines come once and in order.
type follower struct {
	next     int64
	complete string
	problem  error
}

func (f *follower) take(m message) {
	switch m.name {
	case "log":
		var line struct {
			Seq     int64
			Content string
		}
		err := json.Unmarshal([]byte(m.data), &line)
		if err != nil || line.Seq != f.next || m.id != strconv.FormatInt(line.Seq, 10) || line.Content != "line "+m.id {
			f.problem = errors.Join(f.problem, fmt.Errorf("want line %d, got id %s, %s (%v)", f.next, m.id, m.data, err))
			return
		}
		f.next++
	case "complete":
		f.complete = m.id
	}
}

// encode appends an execution to an event of the stream of all executions.
func encode(dst []byte, e *agented.Execution) []byte {
	return fmt.Appendf(dst, `{"id":%q,"status":%q,"reason":%q}`, e.ID, e.State, e.Reason)
}

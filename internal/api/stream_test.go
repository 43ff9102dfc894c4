package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// streamScene is a server with nothing but the streams, and one execution.
type streamScene struct {
	*testing.T
	streams *Streams
	layout  agented.Layout
	server  *httptest.Server
	id      agented.ExecutionID
	stop    func()     // ends the hub
	conns   []*os.File // second descriptors of the connections, to cut them with
	secrets atomic.Pointer[redact.Masker]
	plain   atomic.Bool // net/http keeps the connections

	commits sync.Mutex // held over commit and publication, as the store does
	mu      sync.Mutex // guards now
	now     agented.Execution
}

// bothWays runs a test where the hub takes connections over, and where net/http
// keeps them.
func bothWays(t *testing.T, test func(t *testing.T, s *streamScene)) {
	t.Parallel()
	for name, plain := range map[string]bool{"taken over": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStreamScene(t)
			if plain {
				s.plain.Store(true)
			}
			test(t, s)
		})
	}
}

// cut breaks all connections.
func (s *streamScene) cut() {
	s.server.CloseClientConnections()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.conns {
		_ = syscall.Shutdown(int(f.Fd()), syscall.SHUT_RDWR)
		f.Close()
	}
	s.conns = nil
}

func newStreamScene(t *testing.T) *streamScene {
	t.Helper()
	s := &streamScene{T: t, layout: agented.Layout{Root: t.TempDir()}}
	s.id = agented.ExecutionID(agented.NewID("exec", time.Now()))
	if err := os.MkdirAll(s.layout.Execution(s.id), 0o700); err != nil {
		t.Fatal(err)
	}
	s.now = agented.Execution{
		ID: s.id, Trigger: "trg-x", State: agented.StateRunning, AttemptNo: 1, EventSeq: 1,
		Backend: "command", Prompt: "PROMPT", Result: "RESULT", CreatedAt: time.Now(),
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
			s.conns = append(s.conns, f)
			s.mu.Unlock()
		}
		return context.WithValue(ctx, connKey{}, c)
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

func (s *streamScene) at() *Streams {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *s.streams
	return &c
}

// restart gives the streams a new hub, as a new server would have.
func (s *streamScene) restart() {
	if s.stop != nil {
		s.stop()
	}
	h := hub.New(hub.Options{
		Layout: s.layout, Masker: s.secrets.Load, Encode: EncodeExecution, LastEvent: s.lastEvent, Changed: s.changed,
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

func (s *streamScene) execution(_ context.Context, id agented.ExecutionID) (*agented.Execution, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.id {
		return nil, agented.Errorf(agented.NotFound, "there is no execution %s", id)
	}
	e := s.now
	return &e, nil
}

func (s *streamScene) lastEvent(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.EventSeq, nil
}

func (s *streamScene) changed(_ context.Context, after int64, _ int) ([]agented.ExecutionEvent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.EventSeq <= after {
		return nil, nil
	}
	e := s.now
	return []agented.ExecutionEvent{{Seq: e.EventSeq, Execution: &e}}, nil
}

func (s *streamScene) change(f func(e *agented.Execution)) {
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

func (s *streamScene) finish(last agented.Seq) {
	s.change(func(e *agented.Execution) {
		code := 0
		e.State, e.LastSeq, e.ExitCode = agented.StateSuccess, last, &code
		e.StartedAt, e.FinishedAt = time.Now().Add(-time.Second), time.Now()
	})
}

func (s *streamScene) writer() *runlog.Writer {
	w, err := runlog.OpenWriter(s.layout.Execution(s.id), time.Now())
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { w.Close() })
	return w
}

// write appends n lines that say their numbers.
func (s *streamScene) write(w *runlog.Writer, n int) {
	recs := make([]runlog.Record, n)
	for i := range recs {
		text := fmt.Sprintf("line %d", int(w.LastSeq())+i+1)
		recs[i] = runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte(text)}}
	}
	if err := w.Append(recs); err != nil {
		s.Error(err)
	}
}

func (s *streamScene) url(what string) string {
	return s.server.URL + "/api/v1/executions/" + string(s.id) + "/" + what
}

// get asks and reads the whole answer.
func (s *streamScene) get(method, url string, header ...string) (*http.Response, string) {
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
// the last id, comes back after the time it was told, and stops for good on
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

func TestReadersComeBackThroughCutsAndRestartsAndSeeEveryLineOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		const readers, total = 20, 10_000
		w := s.writer()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var work sync.WaitGroup
		opens := atomic.Int64{}
		for i := range readers {
			work.Go(func() {
				f := &follower{next: 1}
				c := &eventSource{client: &http.Client{Transport: &http.Transport{}}, url: s.url("stream?after=0"), on: f.take}
				if i%2 == 1 {
					time.Sleep(rand.N(200 * time.Millisecond)) // they do not all come at once
				}
				if err := c.run(ctx); err != nil || f.problem != nil {
					t.Error(err, f.problem)
				}
				if f.next != total+1 || f.complete != strconv.Itoa(total+1) || c.status != http.StatusNoContent {
					t.Errorf("ended with status %d at line %d, complete %q", c.status, f.next-1, f.complete)
				}
				c.client.CloseIdleConnections()
				opens.Add(int64(c.opens))
			})
		}
		for n := 0; n < total; n += 50 {
			s.write(w, 50)
			if n%2000 == 0 {
				s.cut()
			}
			if n == total/2 {
				s.restart()
			}
			if n%500 == 0 {
				time.Sleep(2 * time.Millisecond) // a pace, not a wait
			}
		}
		s.finish(total)
		work.Wait()
		t.Logf("%d connections", opens.Load())
	})
}

func TestWhereAStreamBegins(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		s.streams.ReplayLimit = 10
		w := s.writer()
		s.write(w, 50)
		s.finish(50)
		for _, c := range []struct {
			name, query, header string
			from                int // first line; 0 is none
			position            string
			says                string
		}{
			{"nothing named", "", "", 41, "40", "40 earlier lines"},
			{"all", "?after=0", "", 1, "0", ""},
			{"query", "?after=20", "", 21, "20", ""},
			{"header", "", "30", 31, "30", ""},
			{"the header wins", "?after=0", "45", 46, "45", ""},
			{"the header wins with 0", "?after=20", "0", 1, "0", ""},
			{"the end", "?after=50", "", 0, "50", ""},
			{"beyond complete", "?after=77", "", 0, "50", "beyond the last line"},
		} {
			header := []string{}
			if c.header != "" {
				header = []string{"Last-Event-ID", c.header}
			}
			resp, body := s.get(http.MethodGet, s.url("stream"+c.query), header...)
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: status %d", c.name, resp.StatusCode)
				continue
			}
			if !strings.HasPrefix(body, "retry: 1000\n\nid: "+c.position+"\nevent: status\ndata: {") {
				t.Errorf("%s: begins with %.200q", c.name, body)
			}
			if first := strings.Index(body, `"seq":`); c.from == 0 && first >= 0 || c.from > 0 && !strings.HasPrefix(body[max(0, first):], fmt.Sprintf(`"seq":%d,`, c.from)) {
				t.Errorf("%s: the first line is in %.400q", c.name, body)
			}
			if !strings.Contains(body, c.says) {
				t.Errorf("%s: %q is not said in %.400q", c.name, c.says, body)
			}
			if !strings.Contains(body, "id: 51\nevent: complete\n") || strings.Count(body, "event: status") != 1 {
				t.Errorf("%s: it does not complete as it should: %.2000q", c.name, body)
			}
		}
	})
}

// After a restart all readers come at once.
func TestOnlyTheFirstReaderOfAnExecutionThatRunsAsksTheStore(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		var asked atomic.Int64
		s.streams.Execution = func(ctx context.Context, id agented.ExecutionID) (*agented.Execution, error) {
			asked.Add(1)
			return s.execution(ctx, id)
		}
		open := func(store int64, status string) *bufio.Reader {
			t.Helper()
			resp, err := s.server.Client().Get(s.url("stream"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			body := bufio.NewReader(resp.Body)
			for {
				line, err := body.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(line, "data: ") {
					if !strings.Contains(line, status) || asked.Load() != store {
						t.Errorf("begins with %q, and the store was asked %d times, want %q and %d", line, asked.Load(), status, store)
					}
					return body
				}
			}
		}
		first := open(1, `"attempt":1`)
		s.change(func(e *agented.Execution) { e.AttemptNo = 2 })
		second := open(1, `"attempt":2`)
		s.finish(0)
		for _, body := range []*bufio.Reader{first, second} {
			if b, err := io.ReadAll(body); err != nil || !strings.Contains(string(b), "event: complete") {
				t.Errorf("%q, %v", b, err)
			}
		}
		open(2, `"success"`)
	})
}

func TestHeadersAndRefusalsOfAStream(t *testing.T) {
	t.Parallel()
	s := newStreamScene(t)
	w := s.writer()
	s.write(w, 5)
	s.finish(5)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		resp, body := s.get(method, s.url("stream"))
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", method, name, got)
			}
		}
		if resp.StatusCode != http.StatusOK || (body == "") != (method == http.MethodHead) {
			t.Errorf("%s: %d %q", method, resp.StatusCode, body)
		}
	}
	other := agented.NewID("exec", time.Now())
	for _, c := range []struct {
		url, lastID string
		status      int
	}{
		{s.url("stream"), "6", http.StatusNoContent},
		{s.url("stream?after=6"), "", http.StatusNoContent},
		{s.url("stream"), "x", http.StatusBadRequest},
		{s.url("stream"), "-1", http.StatusBadRequest},
		{s.url("stream?after="), "", http.StatusBadRequest},
		{s.url("stream?after=1.5"), "", http.StatusBadRequest},
		{s.url("stream?after=99999999999999999999"), "", http.StatusBadRequest},
		{s.server.URL + "/api/v1/events/stream?after=x", "", http.StatusBadRequest},
		{s.server.URL + "/api/v1/executions/" + other + "/stream", "", http.StatusNotFound},
		{s.server.URL + "/api/v1/executions/..%2f..%2fetc/stream", "", http.StatusNotFound},
	} {
		header := []string{}
		if c.lastID != "" {
			header = []string{"Last-Event-ID", c.lastID}
		}
		resp, body := s.get(http.MethodGet, c.url, header...)
		if resp.StatusCode != c.status {
			t.Errorf("%s (%s): %d, want %d", c.url, c.lastID, resp.StatusCode, c.status)
		}
		if c.status >= 400 && (resp.Header.Get("Content-Type") != "application/problem+json" || !json.Valid([]byte(body))) {
			t.Errorf("%s: not a problem: %s", c.url, body)
		}
	}
	if n := s.streams.Hub.Topics(); n != 0 {
		t.Errorf("%d topics are left", n)
	}
}

func TestAPositionBeyondARunningLogWaitsAndSaysSo(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		w := s.writer()
		s.write(w, 5)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := make(chan message, 100)
		c := &eventSource{client: s.server.Client(), url: s.url("stream"), lastID: "7", on: func(m message) { got <- m }}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = c.run(ctx)
		}()
		if m := <-got; m.id != "7" || !strings.Contains(m.data, "beyond the last line so far, 5") {
			t.Errorf("the stream begins with %+v", m)
		}
		s.write(w, 4)
		if m := <-got; m.name != "log" || m.id != "8" {
			t.Errorf("the next is %+v", m)
		}
		cancel()
		<-done
	})
}

func TestAStreamOutlivesTheServersTimeoutsAndBeats(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		resp, err := s.server.Client().Get(s.url("stream"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		in := bufio.NewReader(resp.Body)
		for beats := 0; beats < 3; {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("after %d heartbeats: %v", beats, err)
			}
			if line == ": heartbeat\n" {
				beats++
			}
		}
	})
}

func TestAReaderThatTakesNothingIsCut(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		s.streams.patience = 200 * time.Millisecond
		w := s.writer()
		s.write(w, 200_000)
		conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /api/v1/executions/%s/stream?after=0 HTTP/1.1\r\nHost: x\r\n\r\n", s.id)
		eventually(t, "the reader to be served", func() bool { return s.streams.Hub.Readers() == 1 })
		eventually(t, "the reader to be cut", func() bool { return s.streams.Hub.Readers() == 0 })
	})
}

// eventually polls until ok, for at most 20 seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestTheServerNoticesThatAClientIsGone(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url("stream"), nil)
		resp, err := s.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.streams.Hub.Readers(); n != 1 {
			t.Errorf("%d readers", n)
		}
		cancel()
		resp.Body.Close()
		eventually(t, "the reader to be gone", func() bool { return s.streams.Hub.Readers() == 0 && s.streams.Hub.Topics() == 0 })
	})
}

func TestStreamsEndWhenTheServerDrains(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		var bodies []io.ReadCloser
		for _, url := range []string{s.url("stream"), s.server.URL + "/api/v1/events/stream"} {
			resp, err := s.server.Client().Get(url)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, resp.Body)
		}
		s.streams.Hub.Drain()
		for _, b := range bodies {
			text, err := io.ReadAll(b)
			b.Close()
			if err != nil || !strings.Contains(string(text[max(0, len(text)-20):]), "retry: ") {
				t.Errorf("%v, the stream ends with %q", err, text[max(0, len(text)-60):])
			}
		}
		resp, body := s.get(http.MethodGet, s.url("stream"))
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, "retry: ") {
			t.Errorf("while draining: %d %q", resp.StatusCode, body)
		}
	})
}

func TestChangesOfExecutionsHaveNoPromptAndResume(t *testing.T) {
	t.Parallel()
	s := newStreamScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan message, 10_000)
	c := &eventSource{client: s.server.Client(), url: s.server.URL + "/api/v1/events/stream", on: func(m message) { got <- m }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.run(ctx)
	}()
	if m := <-got; m.name != "position" || m.id != "1" || m.data != `{"id":1}` {
		t.Errorf("the stream begins with %+v", m)
	}
	last := int64(1)
	for i := range 300 {
		s.change(func(e *agented.Execution) { e.Reason = strconv.Itoa(i) })
		if i%50 == 0 {
			s.cut()
		}
	}
	for last < 301 {
		m := <-got
		if m.name == "position" {
			continue
		}
		n, _ := strconv.ParseInt(m.id, 10, 64)
		if m.name != "execution" || n <= last {
			t.Fatalf("behind %d came %+v", last, m)
		}
		last = n
		var v struct {
			ID     string `json:"id"`
			Reason string `json:"reason"`
		}
		if err := json.Unmarshal([]byte(m.data), &v); err != nil || v.ID != string(s.id) {
			t.Fatalf("%s: %v", m.data, err)
		}
		if strings.Contains(m.data, "PROMPT") || strings.Contains(m.data, "RESULT") || v.Reason != strconv.FormatInt(n-2, 10) {
			t.Fatalf("change %d: %s", n, m.data)
		}
	}
	cancel()
	<-done
}

func TestCurlFollowsToTheEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamScene) {
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("curl is not installed, so it is not tried")
		}
		w := s.writer()
		s.write(w, 100)
		cmd := exec.CommandContext(t.Context(), curl, "-sN", "--max-time", "30", s.url("stream?after=0"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(out)
		read := func(stop string) (n int) {
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatalf("before %q: %v", stop, err)
				}
				if strings.HasPrefix(line, "event: log") {
					n++
				}
				if strings.Contains(line, stop) {
					return n
				}
			}
		}
		// The second half is written only once the first has come out of curl.
		if n := read(`"line 100"`); n != 100 {
			t.Errorf("%d lines", n)
		}
		s.write(w, 100)
		s.finish(200)
		if n := read("event: complete"); n != 100 {
			t.Errorf("%d lines more", n)
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("curl: %v", err)
		}
	})
}

package sse

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

func TestStream_resumes_after_cuts_and_restarts(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
		const readers, total = 20, 10_000
		w := s.writer()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var work sync.WaitGroup
		opens := atomic.Int64{}
		random := testrun.Rand(t)
		for i := range readers {
			pause := time.Duration(random.Int64N(int64(200 * time.Millisecond)))
			work.Go(func() {
				f := &follower{next: 1}
				c := &eventSource{client: &http.Client{Transport: &http.Transport{}}, url: s.url("stream?after=0"), on: f.take}
				if i%2 == 1 {
					time.Sleep(pause) // they do not all connect at once
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

// A busy server may answer after its write timeout, and then closes the
// connection without an answer.
func TestLateAnswer(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
		w := s.writer()
		s.write(w, 3)
		s.finish(3)
		var asked atomic.Int64
		s.streams.Execution = func(ctx context.Context, id agented.ExecutionID) (*agented.Execution, error) {
			if asked.Add(1) == 1 {
				time.Sleep(s.server.Config.WriteTimeout * 3 / 2) // the time is what is tested
			}
			return s.execution(ctx, id)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := &eventSource{client: s.server.Client(), url: s.url("stream"), lastID: "4", on: func(message) {}}
		if err := c.run(ctx); err != nil || c.status != http.StatusNoContent || asked.Load() != 2 {
			t.Errorf("err %v, status %d, %d requests; want 204 for the second", err, c.status, asked.Load())
		}
	})
}

func TestStream_start(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
		s.streams.ReplayLimit = 10
		w := s.writer()
		s.write(w, 50)
		s.finish(50)
		for _, c := range []struct {
			name, query, header string
			from                int // first line; 0 means none
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

// After a restart all clients connect at once.
func TestStream_store_reads(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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

func TestStream_headers_and_errors(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
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

func TestStream_position_beyond_end(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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
		if m := testrun.Receive(t, got, "the event"); m.id != "7" || !strings.Contains(m.data, "beyond the last line so far, 5") {
			t.Errorf("the stream begins with %+v", m)
		}
		s.write(w, 4)
		if m := testrun.Receive(t, got, "the event"); m.name != "log" || m.id != "8" {
			t.Errorf("the next is %+v", m)
		}
		cancel()
		testrun.Receive(t, done, "the client to end")
	})
}

func TestStream_timeouts_and_heartbeats(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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

func TestStream_stalled_client(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestStream_disconnected_client(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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

func TestStream_drain(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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

func TestEventsStream_resumes(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan message, 10_000)
	c := &eventSource{client: s.server.Client(), url: s.server.URL + "/api/v1/events/stream", on: func(m message) { got <- m }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.run(ctx)
	}()
	if m := testrun.Receive(t, got, "the event"); m.name != "position" || m.id != "1" || m.data != `{"id":1}` {
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
		m := testrun.Receive(t, got, "the event")
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
		if v.Reason != strconv.FormatInt(n-2, 10) {
			t.Fatalf("change %d: %s", n, m.data)
		}
	}
	cancel()
	testrun.Receive(t, done, "the client to end")
}

func TestStream_curl(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
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
		// The second half is written only after curl has printed the first.
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

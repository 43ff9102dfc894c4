package sse

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// eventLine is a line with its events, as the API sends it.
type eventLine struct {
	Seq     int64  `json:"seq"`
	Content string `json:"content"`
	Events  []struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
		Tool string `json:"tool"`
	} `json:"events"`
}

func (l eventLine) String() string {
	var kinds []string
	for _, e := range l.Events {
		kinds = append(kinds, strings.TrimSpace(e.Kind+" "+e.Tool+e.Text))
	}
	return fmt.Sprintf("%d [%s]", l.Seq, strings.Join(kinds, ", "))
}

// eventPage returns the lines of a page and the response.
func (s *streamFixture) eventPage(query string) ([]eventLine, string) {
	s.Helper()
	resp, body := s.get(http.MethodGet, s.url("log"+query))
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("log%s: %d %s", query, resp.StatusCode, body)
	}
	var p struct{ Lines []eventLine }
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		s.Fatalf("log%s: %v in %.300s", query, err, body)
	}
	return p.Lines, body
}

func wantLines(t *testing.T, got []eventLine, want ...string) {
	t.Helper()
	var texts []string
	for _, l := range got {
		texts = append(texts, l.String())
	}
	if a, b := strings.Join(texts, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

// printedByGemini are lines with and without an object of the CLI.
var printedByGemini = []string{
	`{"type":"init","session_id":"s","model":"m"}`,
	"\x1b[2Ksome noise " + `{"type":"message","role":"assistant","content":"Hello"}`,
	"no object",
	`{"type":"tool_use","tool_name":"edit","tool_id":"1","parameters":{"path":"a"}}`,
	`{"type":"something_new"}`,
	`{"no":"type"}`,
	`{"type":"result","status":"success"}`,
}

var eventsOfGemini = []string{"1 [session]", "2 [message Hello]", "3 []", "4 [tool_call edit]", "5 [unknown]", "6 [unknown]", "7 [result]"}

func TestLogEvents_page(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	s.change(func(e *agented.Execution) { e.Backend = "gemini" })
	w := s.writer()
	s.append(w, agented.Stdout, printedByGemini...)
	s.append(w, agented.Stderr, printedByGemini[1])
	s.append(w, agented.System, printedByGemini[1])
	lines, _ := s.eventPage("?events=true")
	wantLines(t, lines, append(append([]string{}, eventsOfGemini...), "8 []", "9 []")...)
	for i, l := range lines[:7] {
		if l.Content != printedByGemini[i] {
			t.Errorf("content %q", l.Content)
		}
	}
	if _, body := s.eventPage(""); strings.Contains(body, `"events"`) {
		t.Errorf("events without events=true: %s", body)
	}
	s.change(func(e *agented.Execution) { e.Backend = agented.BackendCommand })
	if _, body := s.eventPage("?events=true"); strings.Contains(body, `"events"`) {
		t.Errorf("events of a command: %s", body)
	}
}

func TestLogEvents_backend_of_the_attempt(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	s.change(func(e *agented.Execution) {
		e.Backend = "gemini"
		e.Attempts = []agented.Attempt{{Number: 1, Backend: "gemini"}, {Number: 2, Backend: "codex"}}
	})
	w := s.writer()
	for attempt := 1; attempt <= 2; attempt++ {
		for _, text := range []string{`{"type":"init"}`, `{"type":"turn.started"}`} {
			rec := runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: attempt, Stream: agented.Stdout, Content: []byte(text)}}
			if err := w.Append([]runlog.Record{rec}); err != nil {
				t.Fatal(err)
			}
		}
	}
	lines, _ := s.eventPage("?events=true")
	wantLines(t, lines, "1 [session]", "2 [unknown]", "3 [unknown]", "4 [turn]")
}

// pieces appends a line in pieces of the given size.
func (s *streamFixture) pieces(w *runlog.Writer, text string, size int) {
	s.Helper()
	for part := agented.PartFirst; text != ""; part = agented.PartMiddle {
		n := min(size, len(text))
		if n == len(text) {
			part = agented.PartLast
		}
		rec := runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Part: part, Content: []byte(text[:n])}}
		if err := w.Append([]runlog.Record{rec}); err != nil {
			s.Fatal(err)
		}
		text = text[n:]
	}
}

func TestLogEvents_split_line(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	s.change(func(e *agented.Execution) { e.Backend = "gemini" })
	secret := "a-secret-that-became-known"
	w := s.writer()
	s.append(w, agented.Stdout, printedByGemini[0])
	s.pieces(w, `{"type":"message","role":"assistant","content":"Hello `+secret+`"}`, 30)
	s.append(w, agented.Stdout, printedByGemini[6])
	s.secrets.Store(redact.New([]string{secret}))
	want := []string{"1 [session]", "2 []", "3 []", "4 []", "5 [result]"}
	for _, query := range []string{"?events=true", "?events=true&limit=1"} {
		var got []eventLine
		for after := int64(0); ; {
			lines, body := s.eventPage(fmt.Sprintf("%s&after=%d", query, after))
			if strings.Contains(body, secret) {
				t.Errorf("%s: a page has the secret: %s", query, body)
			}
			if len(lines) == 0 {
				break
			}
			got = append(got, lines...)
			after = lines[len(lines)-1].Seq
		}
		if len(got) != 5 || len(got[3].Events) != 1 || got[3].Events[0].Kind != "message" || !strings.HasPrefix(got[3].Events[0].Text, "Hello ") {
			t.Errorf("%s: %v", query, got)
		}
		got[3].Events = nil
		wantLines(t, got, want...)
	}
}

func TestLogEvents_line_that_is_too_long(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	s.change(func(e *agented.Execution) { e.Backend = "gemini" })
	w := s.writer()
	s.pieces(w, `{"type":"message","role":"assistant","content":"`+strings.Repeat("x", maxEventLine)+`"}`, runlog.MaxLine)
	s.append(w, agented.Stdout, printedByGemini[6])
	wantLines(t, mustPage(s, "?events=true&after=4"), "5 []", "6 [result]")
	wantLines(t, mustPage(s, "?events=true"), "1 []", "2 []", "3 []", "4 []")
}

func mustPage(s *streamFixture, query string) []eventLine {
	lines, _ := s.eventPage(query)
	return lines
}

func TestLogEvents_stream(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
		s.change(func(e *agented.Execution) { e.Backend = "gemini" })
		w := s.writer()
		s.append(w, agented.Stdout, printedByGemini[:3]...)
		with, without := make(chan eventLine, 100), make(chan eventLine, 100)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		listen := func(query string, to chan eventLine) *eventSource {
			c := &eventSource{client: s.server.Client(), url: s.url("stream" + query), on: func(m message) {
				if m.name != "log" {
					return
				}
				var l eventLine
				if err := json.Unmarshal([]byte(m.data), &l); err != nil {
					t.Errorf("%v: %s", err, m.data)
				}
				to <- l
			}}
			go func() {
				_ = c.run(ctx)
				close(to)
			}()
			return c
		}
		listen("?after=0&events=true", with)
		listen("?after=0", without)
		var got []eventLine
		for range 3 {
			got = append(got, <-with)
			if l := <-without; l.Events != nil {
				t.Errorf("events without events=true: %v", l)
			}
		}
		s.append(w, agented.Stdout, printedByGemini[3:]...)
		for range 4 {
			got = append(got, <-with)
			if l := <-without; l.Events != nil {
				t.Errorf("events without events=true: %v", l)
			}
		}
		wantLines(t, got, eventsOfGemini...)
		s.finish(7)
		for range with {
		}
		for range without {
		}
	})
}

// A page does not keep more than one line, however long the log is.
func TestLogEvents_memory(t *testing.T) {
	s := newStreamFixture(t)
	s.change(func(e *agented.Execution) { e.Backend = "gemini" })
	w := s.writer()
	text := `{"type":"message","role":"assistant","content":"` + strings.Repeat("x", 500) + `"}`
	var batch []string
	for range 4000 {
		batch = append(batch, text)
	}
	s.append(w, agented.Stdout, batch...)
	v := s.at().events(s.id)().(*lineEvents)
	log, err := runlog.OpenReader(s.layout.Execution(s.id))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	out := bufio.NewWriter(io.Discard)
	if last, err := s.at().writeLines(out, log, s.id, logQuery{limit: maxLines, events: true}); err != nil || last != 4000 {
		t.Fatalf("%d, %v", last, err)
	}
	l := agented.LogLine{Attempt: 1, Stream: agented.Stdout, Content: []byte(text)}
	var dst []byte
	for range 100 {
		if dst = v.Append(dst[:0], &l); len(dst) < 500 || len(dst) > 1000 {
			t.Fatalf("%d bytes", len(dst))
		}
	}
	if n := v.open.Len(agented.Stdout); n != 0 {
		t.Errorf("%d bytes are kept", n)
	}
}

package sse

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

type logPageOf struct {
	Lines []struct {
		Seq     int64  `json:"seq"`
		Stream  string `json:"stream"`
		Content string `json:"content"`
	} `json:"lines"`
	NextAfter int64 `json:"next_after"`
}

func (s *streamFixture) lines(query string) (p logPageOf) {
	s.Helper()
	resp, body := s.get(http.MethodGet, s.url("log"+query))
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("log%s: %d %s", query, resp.StatusCode, body)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		s.Fatalf("log%s: %v in %.300s", query, err, body)
	}
	return p
}

func (s *streamFixture) append(w *runlog.Writer, stream agented.Stream, contents ...string) {
	s.Helper()
	for _, c := range contents {
		rec := runlog.Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: stream, Content: []byte(c)}}
		if err := w.Append([]runlog.Record{rec}); err != nil {
			s.Fatal(err)
		}
	}
}

func TestLog_pages(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	if p := s.lines(""); len(p.Lines) != 0 || p.Lines == nil || p.NextAfter != 0 {
		t.Errorf("without a log: %+v", p)
	}
	w := s.writer()
	s.write(w, 1200)
	after, pages, next := int64(0), 0, int64(1)
	for {
		p := s.lines(fmt.Sprintf("?after=%d", after))
		if len(p.Lines) == 0 {
			if p.NextAfter != after {
				t.Errorf("at the end next_after is %d", p.NextAfter)
			}
			break
		}
		pages++
		for _, l := range p.Lines {
			if l.Seq != next || l.Content != fmt.Sprintf("line %d", next) {
				t.Fatalf("want line %d, got %+v", next, l)
			}
			next++
		}
		after = p.NextAfter
	}
	if pages != 3 || next != 1201 {
		t.Errorf("%d pages up to line %d", pages, next-1)
	}
	if p := s.lines("?limit=7&after=1000"); len(p.Lines) != 7 || p.Lines[0].Seq != 1001 || p.NextAfter != 1007 {
		t.Errorf("got %+v", p)
	}
	for _, bad := range []string{"?limit=0", "?limit=5001", "?limit=x", "?after=-1", "?after=x", "?stream=stdin"} {
		if resp, body := s.get(http.MethodGet, s.url("log"+bad)); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, bad[1:5]) {
			t.Errorf("log%s: %d %s", bad, resp.StatusCode, body)
		}
	}
}

func TestLog_one_stream(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	w := s.writer()
	for i := range 100 {
		s.append(w, agented.Stdout, fmt.Sprint("out ", i))
		if i%10 == 0 {
			s.append(w, agented.Stderr, fmt.Sprint("err ", i))
		}
	}
	p := s.lines("?stream=stderr")
	if len(p.Lines) != 10 || p.NextAfter != 110 {
		t.Errorf("%d lines, next_after %d", len(p.Lines), p.NextAfter)
	}
	for _, l := range p.Lines {
		if l.Stream != "stderr" {
			t.Errorf("got %+v", l)
		}
	}
	// The last line of the page is the last one examined.
	if p := s.lines("?stream=stderr&limit=2"); len(p.Lines) != 2 || p.NextAfter != p.Lines[1].Seq {
		t.Errorf("got %+v", p)
	}
}

func TestLog_huge_lines(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	w := s.writer()
	for range 12 {
		s.append(w, agented.Stdout, strings.Repeat("x", 1<<20))
	}
	seen, after, pages := 0, int64(0), 0
	for seen < 12 && pages < 12 {
		p := s.lines(fmt.Sprintf("?after=%d", after))
		seen += len(p.Lines)
		after = p.NextAfter
		pages++
	}
	if seen != 12 || pages != 3 {
		t.Errorf("%d lines in %d pages", seen, pages)
	}
}

func TestLogText_ranges(t *testing.T) {
	t.Parallel()
	s := newStreamFixture(t)
	if resp, body := s.get(http.MethodGet, s.url("log.txt")); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("without a log: %d %q", resp.StatusCode, body)
	}
	w := s.writer()
	s.append(w, agented.Stdout, "one", "two \xff")
	s.append(w, agented.System, "not printed")
	s.append(w, agented.Stderr, "three")
	const text = "one\ntwo \xff\nthree\n"
	resp, body := s.get(http.MethodGet, s.url("log.txt"))
	if body != text || resp.ContentLength != int64(len(text)) {
		t.Errorf("got %q", body)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
		"Content-Disposition": `inline; filename="` + string(s.id) + `.txt"`,
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if resp, body := s.get(http.MethodGet, s.url("log.txt"), "Range", "bytes=4-8"); resp.StatusCode != http.StatusPartialContent || body != text[4:9] {
		t.Errorf("range: %d %q", resp.StatusCode, body)
	}
	if resp, body := s.get(http.MethodGet, s.url("log.txt"), "Range", "bytes=-6"); resp.StatusCode != http.StatusPartialContent || body != "three\n" {
		t.Errorf("suffix: %d %q", resp.StatusCode, body)
	}
	if resp, _ := s.get(http.MethodGet, s.url("log.txt"), "Range", "bytes=400-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("beyond the end: %d", resp.StatusCode)
	}
	if resp, body := s.get(http.MethodHead, s.url("log.txt")); resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(text)) || body != "" {
		t.Errorf("HEAD: %d %d %q", resp.StatusCode, resp.ContentLength, body)
	}
	other := agented.NewID("exec", time.Now())
	for _, what := range []string{"log", "log.txt"} {
		if resp, _ := s.get(http.MethodGet, s.server.URL+"/api/v1/executions/"+other+"/"+what); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s of nobody: %d", what, resp.StatusCode)
		}
	}
}

func TestLog_masks_later_secrets(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-hunter2"
	s := newStreamFixture(t)
	w := s.writer()
	var text strings.Builder
	for i := range 12_000 {
		line := fmt.Sprintf("%d %s", i, strings.Repeat("y", i%50))
		if i%3 == 0 {
			line += secret + "z"
		}
		s.append(w, agented.Stdout, line)
		text.WriteString(line + "\n")
	}
	s.secrets.Store(redact.New([]string{secret}))
	for _, l := range s.lines("?limit=5000").Lines {
		if strings.Contains(l.Content, secret) || l.Seq == 1 && l.Content != "0 "+redact.Mask+"z" {
			t.Fatalf("got %q", l.Content)
		}
	}
	want := strings.ReplaceAll(text.String(), secret, strings.Repeat("*", len(secret)))
	if _, body := s.get(http.MethodGet, s.url("log.txt")); body != want {
		t.Error("the text is not what it was with the secrets blanked")
	}
	// Ranges that begin and end inside a secret.
	at := strings.Index(text.String()[40_000:], secret) + 40_000
	for cut := range len(secret) {
		from, to := at+cut, at+33_000
		_, body := s.get(http.MethodGet, s.url("log.txt"), "Range", fmt.Sprintf("bytes=%d-%d", from, to))
		if body != want[from:to+1] {
			t.Errorf("bytes %d to %d show another text", from, to)
		}
	}
}

func TestLog_removed_by_retention(t *testing.T) {
	bothWays(t, func(t *testing.T, s *streamFixture) {
		s.finish(40)
		s.change(func(e *agented.Execution) { e.LogRemovedAt = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) })
		const want = "The log was removed by retention on 2026-03-04 05:06 UTC."
		_, body := s.get(http.MethodGet, s.url("log"))
		var page struct {
			Lines []any  `json:"lines"`
			Note  string `json:"note"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || page.Lines == nil || len(page.Lines) != 0 || page.Note != want {
			t.Errorf("%v in %s", err, body)
		}
		if resp, body := s.get(http.MethodGet, s.url("log.txt")); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, want) {
			t.Errorf("log.txt: %d %s", resp.StatusCode, body)
		}
		for _, from := range []string{"", "?after=0", "?after=7"} {
			_, body := s.get(http.MethodGet, s.url("stream"+from)) // the stream ends
			if !strings.Contains(body, want) || !strings.Contains(body, "event: complete") || strings.Contains(body, "ends early") {
				t.Errorf("stream%s: %s", from, body)
			}
		}
	})
}

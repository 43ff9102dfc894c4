package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Limits of one page of log lines. next_after continues after any of them.
const (
	defaultLines = 500
	maxLines     = 5000
	maxLookedAt  = 200_000 // lines examined when only one stream is requested
	maxLogBytes  = 4 << 20 // bytes of content examined; a single line may be larger
)

// ServeLog returns lines of a log: GET /api/v1/executions/{id}/log.
func (s *Streams) ServeLog(w http.ResponseWriter, r *http.Request) {
	id, ok := s.id(w, r)
	if !ok {
		return
	}
	q, err := readLogQuery(r)
	var e *agented.Execution
	if err == nil {
		e, err = s.Execution(r.Context(), id)
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	log, err := runlog.OpenReader(s.Layout.Execution(id))
	if errors.Is(err, agented.NotFound) {
		log, err = nil, nil // nothing was printed yet
	}
	if err == nil && log != nil {
		defer log.Close()
		err = log.SeekAfter(agented.Seq(q.after))
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, 32<<10)
	fmt.Fprint(out, `{"lines":[`)
	next := q.after
	if log != nil {
		if next, err = s.writeLines(out, log, id, q); err != nil {
			s.log().Error("could not read a log", "execution", id, "err", err)
			// The response has begun: cut the connection, so that the client
			// detects the incomplete response.
			panic(http.ErrAbortHandler)
		}
	}
	fmt.Fprintf(out, `],"next_after":%d`, next)
	if text := Removed(e); text != "" {
		fmt.Fprintf(out, `,"note":%q`, text) // plain ASCII, so Go's quoting is valid JSON
	}
	fmt.Fprint(out, "}\n")
	_ = out.Flush() // the client is gone
}

type logQuery struct {
	after  int64
	limit  int
	stream agented.Stream // empty: all
	events bool           // with the events of a CLI's lines
}

func readLogQuery(r *http.Request) (q logQuery, err error) {
	in := r.URL.Query()
	q.limit = defaultLines
	if text := in.Get("after"); text != "" {
		if q.after, err = number(text, "query.after"); err != nil {
			return q, err
		}
	}
	if text := in.Get("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 || q.limit > maxLines {
			return q, rest.BadRequest("query.limit", "must be from 1 to "+strconv.Itoa(maxLines))
		}
	}
	q.stream, q.events = agented.Stream(in.Get("stream")), in.Get("events") == "true"
	if q.stream != "" && !q.stream.Valid() {
		return q, rest.BadRequest("query.stream", "must be stdout, stderr or system, or left out for all")
	}
	return q, nil
}

// writeLines writes the lines that q selects as JSON objects, and returns the
// last line that it examined.
func (s *Streams) writeLines(out *bufio.Writer, log *runlog.Reader, id agented.ExecutionID, q logQuery) (last int64, err error) {
	last = q.after
	m := s.masker()
	var lines []agented.LogLine
	var object, masked []byte
	written, seen, content := 0, 0, 0
	var events hub.Annotator
	if q.events {
		events = s.events(id)()
	}
	for written < q.limit && seen < maxLookedAt && content < maxLogBytes {
		if lines, err = log.Next(lines[:0], min(q.limit-written, 512), 0); err != nil || len(lines) == 0 {
			return last, err
		}
		for i := range lines {
			l := &lines[i]
			if content >= maxLogBytes {
				break
			}
			seen++
			last = int64(l.Seq)
			content += len(l.Content) + 1
			if q.stream != "" && l.Stream != q.stream {
				continue
			}
			if !m.Empty() {
				masked = m.MaskLine(masked[:0], l.Content)
				l.Content = masked
			}
			object = object[:0]
			if written > 0 {
				object = append(object, ',')
			}
			if events != nil {
				object = hub.AppendAnnotated(object, l, events)
			} else {
				object = hub.AppendLine(object, l)
			}
			if _, err := out.Write(object); err != nil {
				return last, nil // the client is gone
			}
			written++
		}
	}
	return last, nil
}

// ServeText returns the output byte for byte: GET
// /api/v1/executions/{id}/log.txt. The size is fixed when the request starts,
// so that clients can request ranges of a growing log.
func (s *Streams) ServeText(w http.ResponseWriter, r *http.Request) {
	id, ok := s.id(w, r)
	if !ok {
		return
	}
	e, err := s.Execution(r.Context(), id)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	var content io.ReadSeeker = bytes.NewReader(nil)
	text, err := runlog.OpenText(s.Layout.Execution(id))
	switch {
	case errors.Is(err, agented.NotFound) && Removed(e) != "":
		rest.Fail(w, r, agented.Errorf(agented.NotFound, "%s", Removed(e)))
		return
	case errors.Is(err, agented.NotFound): // nothing was printed yet
	case err != nil:
		rest.Fail(w, r, err)
		return
	default:
		defer text.Close()
		content = text
		if m := s.masker(); !m.Empty() {
			content = redact.NewReader(text, text.Size(), m)
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", `inline; filename="`+string(id)+`.txt"`)
	var modified time.Time
	if e.State.Final() {
		modified = e.FinishedAt
	}
	s.ServeContent(w, r, modified, content)
}

// ServeContent serves a file with support for ranges. The caller sets its type and its name. A large
// file over a slow connection takes time; only stalled clients are cut.
func (s *Streams) ServeContent(w http.ResponseWriter, r *http.Request, modified time.Time, content io.ReadSeeker) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	sink := s.sink(w)
	_ = sink.control.SetReadDeadline(time.Time{})
	http.ServeContent(&patientWriter{w, sink}, r, "", modified, content)
}

// patientWriter sets a new deadline for each write.
type patientWriter struct {
	http.ResponseWriter
	sink *httpSink
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.sink.extend(); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// Package sse serves server-sent events: the stream of an execution, the stream
// of all executions, changes of lists, and feeds of stored rows. A stream is a
// position, so a client that reconnects resumes where it was. The package also
// serves the pages and the text of a log.
package sse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Streams serves run logs and the two event streams. Its handlers read the
// execution's id from the path value "id"; callers are authorised before.
type Streams struct {
	Hub    *hub.Hub
	Layout agented.Layout
	// Execution returns one execution, or NotFound.
	Execution func(ctx context.Context, id agented.ExecutionID) (*agented.Execution, error)
	// Running returns the running executions whose last lines the stream of all
	// executions contains; may be nil.
	Running func(ctx context.Context) ([]agented.ExecutionID, error)
	// ReplayLimit is how many lines a stream without a position starts with; 0
	// means all.
	ReplayLimit int
	// Masker returns the masker for secrets that became known after a line was
	// written. It may be nil and may return nil.
	Masker func() *redact.Masker
	// Log receives errors; may be nil.
	Log *slog.Logger

	// Changes and Feeds wake the streams of lists and of stored rows; without
	// Changes, no changes of lists are sent.
	Changes *Changes
	Feeds   *Feeds

	patience time.Duration // 0 means writeTimeout
}

// writeTimeout is how long a client may stall before its connection is cut. The
// client then resumes from its position.
const writeTimeout = 30 * time.Second

// ServeStream streams one execution: GET /api/v1/executions/{id}/stream.
func (s *Streams) ServeStream(w http.ResponseWriter, r *http.Request) {
	id, ok := s.id(w, r)
	if !ok {
		return
	}
	after, named, err := Position(r)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	// Subscribe before reading the execution, so that no change is missed.
	var annotate func() hub.Annotator
	if r.URL.Query().Get("events") == "true" {
		annotate = s.events(id)
	}
	sub := s.Hub.SubscribeAnnotated(id, annotate)
	taken := false
	defer func() {
		if !taken {
			sub.Close()
		}
	}()
	e := sub.Latest()
	if e == nil {
		if e, err = s.Execution(r.Context(), id); err != nil {
			rest.Fail(w, r, err)
			return
		}
	}
	if e.State.Final() && named && after == int64(e.LastSeq)+1 {
		// The client has received complete. 204 ends an EventSource
		// permanently.
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	start, err := s.start(e, after, named)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	if taken = s.handOver(w, r, sub, e, start); taken {
		return
	}
	s.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
		return sub.Serve(ctx, sink, e, start)
	})
}

// handOver hands the connection to the hub, where an idle stream needs neither a
// goroutine nor buffers. It returns false, and has done nothing, if the request
// does not support that.
func (s *Streams) handOver(w http.ResponseWriter, r *http.Request, sub *hub.Subscription, e *agented.Execution, start hub.Start) bool {
	c, ok := rest.Conn(r)
	if !ok || r.TLS != nil || r.ProtoMajor != 1 || r.Method == http.MethodHead || !hub.CanHandOver(c) {
		return false
	}
	head := streamHead(w.Header())
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	path := r.URL.Path
	end, endBy := rest.HandOver(r)
	err = sub.HandOver(hub.Handover{
		Conn: conn, Head: head, Patience: s.wait(),
		Done: func(sent int64, err error) {
			if err != nil && hub.Failed(err) {
				s.log().Error("stream", "path", path, "err", err)
			}
			end(sent)
		},
	}, e, start)
	if err != nil {
		// The client resumes from its position.
		s.log().Warn("could not start a stream", "path", path, "err", err)
		conn.Close()
		end(0)
		sub.Close()
		return true
	}
	endBy(sub.End)
	return true
}

// streamHead returns the head of a response that ends with its connection.
func streamHead(h http.Header) []byte {
	setStreamHeaders(h)
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&b) // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}

func setStreamHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no") // disables buffering in nginx
}

// start determines where a stream begins.
func (s *Streams) start(e *agented.Execution, after int64, named bool) (hub.Start, error) {
	if text := Removed(e); text != "" {
		return hub.Start{After: e.LastSeq, Notice: text}, nil
	}
	last, err := logEnd(s.Layout.Execution(e.ID))
	if err != nil {
		return hub.Start{}, err
	}
	if e.State.Final() {
		last = max(last, int64(e.LastSeq))
	}
	switch {
	case !named:
		skipped := max(0, last-int64(s.ReplayLimit))
		if s.ReplayLimit <= 0 {
			skipped = 0
		}
		return hub.Start{After: agented.Seq(skipped), Skipped: skipped}, nil
	case after <= last:
		return hub.Start{After: agented.Seq(after)}, nil
	case e.State.Final():
		return hub.Start{
			After: agented.Seq(last),
			Note:  fmt.Sprintf("Position %d is beyond the last line, %d.", after, last),
		}, nil
	}
	return hub.Start{
		After: agented.Seq(after),
		Note:  fmt.Sprintf("Position %d is beyond the last line so far, %d: waiting for later lines.", after, last),
	}, nil
}

// Removed returns a notice if retention removed an execution's log, otherwise
// "".
func Removed(e *agented.Execution) string {
	if e.LogRemovedAt.IsZero() {
		return ""
	}
	return "The log was removed by retention on " + e.LogRemovedAt.UTC().Format("2006-01-02 15:04") + " UTC."
}

// logEnd returns the number of a log's last line; 0 without a log.
func logEnd(dir string) (int64, error) {
	l, err := runlog.OpenReader(dir)
	if errors.Is(err, agented.NotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer l.Close()
	last, err := l.LastSeq()
	return int64(last), err
}

// ServeEvents streams the changes of all executions: GET /api/v1/events/stream.
func (s *Streams) ServeEvents(w http.ResponseWriter, r *http.Request) {
	after, named, err := Position(r)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
		if r.URL.Query().Get("lines") == "true" && s.Running != nil {
			with, end := s.withLines(ctx, sink)
			defer end()
			sink = with
		}
		if r.URL.Query().Get("changes") == "true" && s.Changes != nil {
			with, end := s.Changes.withChanges(ctx, sink)
			defer end()
			sink = with
		}
		return s.Hub.ServeEvents(ctx, sink, hub.EventsStart{After: after, Now: !named})
	})
}

// resumeParams are query parameters, without case and punctuation, in which
// clients that cannot set headers repeat the id of the last event.
var resumeParams = []string{"lasteventid", "evslasteventid"}

// resumeParam returns the last value of such a parameter and its name.
func resumeParam(q url.Values) (name, value string) {
	for key, values := range q {
		plain := strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
		if slices.Contains(resumeParams, plain) && len(values) > 0 && values[len(values)-1] != "" {
			return key, values[len(values)-1]
		}
	}
	return "", ""
}

// Position returns where a stream resumes. The header takes precedence, then
// the parameters of polyfills, then after: an EventSource repeats the original
// URL and adds the id of the last event.
func Position(r *http.Request) (after int64, named bool, err error) {
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		after, err = number(text, "header.Last-Event-ID")
		return after, true, err
	}
	q := r.URL.Query()
	if name, text := resumeParam(q); text != "" {
		after, err = number(text, "query."+name)
		return after, true, err
	}
	if q.Has("after") {
		after, err = number(q.Get("after"), "query.after")
		return after, true, err
	}
	return 0, false, nil
}

// number parses a position; an invalid one is a 400.
func number(text, where string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || text[0] == '+' {
		return 0, rest.BadRequest(where, "must be the number of a line or change: 0 or more, digits only")
	}
	return int64(n), nil
}

// stream responds with an event stream that serve writes.
func (s *Streams) stream(w http.ResponseWriter, r *http.Request, serve func(context.Context, hub.Sink) error) {
	setStreamHeaders(w.Header())
	if r.Method == http.MethodHead {
		return
	}
	sink := s.sink(w)
	// A stream has none of the limits of an ordinary request. The server
	// detects a closed connection by reading, which must not run into a
	// deadline.
	if err := sink.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		rest.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
	err := serve(r.Context(), sink)
	switch {
	case err == nil, errors.Is(err, hub.ErrDraining), r.Context().Err() != nil, sink.failed:
	default:
		// The first byte is sent, so a problem response is not possible. The
		// client resumes from its position.
		s.log().Error("stream", "path", r.URL.Path, "err", err)
	}
}

// httpSink writes to a connection of net/http.
type httpSink struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
	deadline time.Time
	failed   bool
}

func (s *Streams) sink(w http.ResponseWriter) *httpSink {
	return &httpSink{w: w, control: http.NewResponseController(w), patience: s.wait()}
}

// wait returns how long a client may stall.
func (s *Streams) wait() time.Duration {
	if s.patience > 0 {
		return s.patience
	}
	return writeTimeout
}

func (k *httpSink) Write(p []byte) error {
	if err := k.extend(); err != nil {
		return err
	}
	_, err := k.w.Write(p)
	k.failed = k.failed || err != nil
	return err
}

func (k *httpSink) Flush() error {
	if err := k.extend(); err != nil {
		return err
	}
	err := k.control.Flush()
	k.failed = k.failed || err != nil
	return err
}

// extend renews the write deadline. Setting a deadline costs more than reading
// the clock, so it is renewed only after a good part has passed.
func (k *httpSink) extend() error {
	now := time.Now()
	if k.deadline.Sub(now) > k.patience*3/4 {
		return nil
	}
	k.deadline = now.Add(k.patience)
	err := k.control.SetWriteDeadline(k.deadline)
	if errors.Is(err, http.ErrNotSupported) {
		return nil // a recorder in a test
	}
	k.failed = k.failed || err != nil
	return err
}

// id validates the execution's id, which becomes the name of a folder.
func (s *Streams) id(w http.ResponseWriter, r *http.Request) (agented.ExecutionID, bool) {
	id := r.PathValue("id")
	if !agented.ValidID("exec", id) {
		rest.Fail(w, r, agented.Errorf(agented.NotFound, "there is no such execution"))
		return "", false
	}
	return agented.ExecutionID(id), true
}

func (s *Streams) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Streams) masker() *redact.Masker {
	if s.Masker == nil {
		return nil
	}
	return s.Masker()
}

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// Streams answers what is read of a run log, and the two event streams. Its
// handlers take the execution's id from the path value "id"; who may call them
// is decided before.
type Streams struct {
	Hub    *hub.Hub
	Layout agented.Layout
	// Execution reads one execution; NotFound if there is none.
	Execution func(ctx context.Context, id agented.ExecutionID) (*agented.Execution, error)
	// Running lists what runs, for the last lines in the stream of all
	// executions; nil: there are none.
	Running func(ctx context.Context) ([]agented.ExecutionID, error)
	// ReplayLimit is how many lines a stream that names no position starts with;
	// 0 is all.
	ReplayLimit int
	// Masker returns what masks secrets that became known after a line was
	// written. It and its answer may be nil.
	Masker func() *redact.Masker
	// Log is where trouble is written; nil is nowhere.
	Log *slog.Logger
	// Fail answers with the problem that an error is. Nil is a plain one.
	Fail func(w http.ResponseWriter, r *http.Request, err error)

	changes  *changes      // nil: nobody tells of lists that change
	patience time.Duration // 0 is writeTimeout
}

// EncodeExecution appends an execution as the stream of all executions shows
// it: without prompt and result. It is the hub's Options.Encode.
func EncodeExecution(dst []byte, e *agented.Execution) []byte {
	b, err := json.Marshal(viewExecution(e, false))
	if err != nil {
		// Only a number that JSON cannot write: no cost is infinite.
		return append(dst, "{}"...)
	}
	return append(dst, b...)
}

// writeTimeout is how long a reader may take nothing before its connection is
// cut. Its client comes back to where it was.
const writeTimeout = 30 * time.Second

// ServeStream streams one execution: GET /api/v1/executions/{id}/stream.
func (s *Streams) ServeStream(w http.ResponseWriter, r *http.Request) {
	id, ok := s.id(w, r)
	if !ok {
		return
	}
	after, named, err := position(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// Subscribed before the execution is read, so that no change falls between.
	sub := s.Hub.Subscribe(id)
	taken := false
	defer func() {
		if !taken {
			sub.Close()
		}
	}()
	e := sub.Latest()
	if e == nil {
		if e, err = s.Execution(r.Context(), id); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if e.State.Final() && named && after == int64(e.LastSeq)+1 {
		// It has seen complete. 204 is what ends an EventSource for good.
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	start, err := s.start(e, after, named)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if taken = s.take(w, r, sub, e, start); taken {
		return
	}
	s.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
		return sub.Serve(ctx, sink, e, start)
	})
}

// take gives the connection to the hub, where it costs less while it waits than
// net/http can make it: no goroutine and no buffers. It reports false, and has
// done nothing, if that does not work for this request.
func (s *Streams) take(w http.ResponseWriter, r *http.Request, sub *hub.Subscription, e *agented.Execution, start hub.Start) bool {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok || r.TLS != nil || r.ProtoMajor != 1 || r.Method == http.MethodHead || !hub.CanTake(c) {
		return false
	}
	head := streamHead(w.Header())
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	end, path := requestOf(r).handOver(), r.URL.Path
	err = sub.Take(hub.Handover{
		Conn: conn, Head: head, Patience: s.wait(),
		Done: func(sent int64, err error) {
			if err != nil && hub.Failed(err) {
				s.log().Error("stream", "path", path, "err", err)
			}
			end(sent)
		},
	}, e, start)
	if err != nil {
		// The client comes back to where it was.
		s.log().Warn("a stream could not be begun", "path", path, "err", err)
		conn.Close()
		end(0)
		sub.Close()
	}
	return true
}

// streamHead is the head of an answer that ends with its connection.
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
	h.Set("X-Accel-Buffering", "no") // nginx: pass on at once
}

// start finds where a stream begins.
func (s *Streams) start(e *agented.Execution, after int64, named bool) (hub.Start, error) {
	if text := removed(e); text != "" {
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
		Note:  fmt.Sprintf("Position %d is beyond the last line so far, %d: waiting for lines behind it.", after, last),
	}, nil
}

// removed says that retention took an execution's log; empty if it did not.
func removed(e *agented.Execution) string {
	if e.LogRemovedAt.IsZero() {
		return ""
	}
	return "The log was removed by retention on " + e.LogRemovedAt.UTC().Format("2006-01-02 15:04") + " UTC."
}

// logEnd is the number of a log's last line; 0 without a log.
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
	after, named, err := position(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, sink hub.Sink) error {
		if r.URL.Query().Get("lines") == "true" && s.Running != nil {
			with, end := s.withLines(ctx, sink)
			defer end()
			sink = with
		}
		if r.URL.Query().Get("changes") == "true" && s.changes != nil {
			with, end := s.changes.withChanges(ctx, sink)
			defer end()
			sink = with
		}
		return s.Hub.ServeEvents(ctx, sink, hub.EventsStart{After: after, Now: !named})
	})
}

// position reads where a stream shall resume. The header wins: an EventSource
// repeats the address it was given, and says in the header how far it came.
func position(r *http.Request) (after int64, named bool, err error) {
	if text := r.Header.Get("Last-Event-ID"); text != "" {
		after, err = number(text, "header.Last-Event-ID")
		return after, true, err
	}
	if q := r.URL.Query(); q.Has("after") {
		after, err = number(q.Get("after"), "query.after")
		return after, true, err
	}
	return 0, false, nil
}

// number reads a position; what is wrong with it is a 400.
func number(text, where string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || text[0] == '+' {
		return 0, badRequest(where, "must be the number of a line or change: 0 or more, digits only")
	}
	return int64(n), nil
}

func badRequest(where, message string) error {
	return &Problem{
		Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: where + ": " + message,
		Errors: []ProblemField{{Location: where, Message: message}},
	}
}

// stream answers with an event stream that serve writes.
func (s *Streams) stream(w http.ResponseWriter, r *http.Request, serve func(context.Context, hub.Sink) error) {
	setStreamHeaders(w.Header())
	if r.Method == http.MethodHead {
		return
	}
	sink := s.sink(w)
	// A stream outlives every limit of an ordinary request. The server notices
	// by reading that a client is gone, which must not run into a deadline.
	if err := sink.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusOK)
	err := serve(r.Context(), sink)
	switch {
	case err == nil, errors.Is(err, hub.ErrDraining), r.Context().Err() != nil, sink.failed:
	default:
		// The first byte is out, so there is no problem to answer with. The
		// client comes back to where it was.
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

// wait is how long a reader may take nothing.
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

// extend gives the reader its time. Setting a deadline costs more than looking
// at the clock, so it is done when a good part of it is used up.
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

// id reads and checks the execution's id: it becomes the name of a folder.
func (s *Streams) id(w http.ResponseWriter, r *http.Request) (agented.ExecutionID, bool) {
	id := r.PathValue("id")
	if !agented.ValidID("exec", id) {
		s.fail(w, r, agented.Errorf(agented.NotFound, "there is no such execution"))
		return "", false
	}
	return agented.ExecutionID(id), true
}

func (s *Streams) fail(w http.ResponseWriter, r *http.Request, err error) {
	if s.Fail != nil {
		s.Fail(w, r, err)
		return
	}
	p := problemOf(err)
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	if r.Method == http.MethodHead {
		return
	}
	if b, err := json.Marshal(p); err == nil {
		_, _ = w.Write(b) // the asker is gone
	}
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

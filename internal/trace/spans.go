package trace

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

type contextKey struct{}

// From returns the span in ctx, or the zero Context.
func From(ctx context.Context) Context {
	c, _ := ctx.Value(contextKey{}).(Context)
	return c
}

// Middleware creates a span for each request except health checks and metrics. It continues the
// trace of a traceparent header. For a nil tracer it returns next.
func (t *Tracer) Middleware(next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/health/") || r.URL.Path == "/metrics" {
			next.ServeHTTP(w, r)
			return
		}
		parent := ParseParent(r.Header.Get("Traceparent"))
		s := Span{Context: Context{Trace: parent.Trace, Span: newSpan()}, Parent: parent.Span, Kind: 2, Start: time.Now()}
		if parent == (Context{}) {
			random := newSpan()
			s.Trace = traceOf(string(random[:]) + string(s.Span[:]))
		}
		out := &noted{ResponseWriter: w}
		defer func() {
			route := pattern(r.URL.Path)
			if out.status == 0 {
				out.status = http.StatusOK
			}
			s.End, s.Name = time.Now(), r.Method+" "+route
			s.Attrs = map[string]string{
				"http.request.method": r.Method, "http.route": route, "http.response.status_code": strconv.Itoa(out.status),
				"agented.request.id": w.Header().Get("X-Request-Id"),
			}
			if out.status >= 500 {
				s.Error = http.StatusText(out.status)
			}
			t.Add(s)
		}()
		next.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), contextKey{}, s.Context)))
	})
}

// noted records the status of a response.
type noted struct {
	http.ResponseWriter
	status int
}

func (n *noted) WriteHeader(status int) {
	if n.status == 0 && status >= 200 {
		n.status = status
	}
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// pattern replaces the ids in a path, so that spans of one route have one name.
func pattern(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if prefix, rest, ok := strings.Cut(p, "-"); ok && len(rest) == 26 && prefix != "" || len(p) > 64 {
			parts[i] = "{id}"
		}
	}
	if len(parts) > 8 {
		parts = append(parts[:8], "…")
	}
	return strings.Join(parts, "/")
}

// Fired records the request that an execution comes from, so that both are in one trace.
func (t *Tracer) Fired(ctx context.Context, ids ...agented.ExecutionID) {
	c := From(ctx)
	if t == nil || c == (Context{}) {
		return
	}
	t.link(c, ids...)
}

func (t *Tracer) link(c Context, ids ...agented.ExecutionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		if _, there := t.links[id]; there {
			continue // a repeated request: the first one counts
		}
		t.links[id] = c
		t.order = append(t.order, id)
	}
	for len(t.order) > maxLinks {
		delete(t.links, t.order[0])
		t.order = t.order[1:]
	}
}

// Delivered creates a span for a delivery that was evaluated since began.
func (t *Tracer) Delivered(ctx context.Context, id agented.DeliveryID, verdict agented.DeliveryVerdict, began time.Time, fired []agented.ExecutionID) {
	if t == nil {
		return
	}
	parent := From(ctx)
	s := Span{
		Context: Context{Trace: parent.Trace, Span: spanOf(string(id))}, Parent: parent.Span, Name: "delivery", Kind: 5,
		Start: began, End: time.Now(),
		Attrs: map[string]string{"agented.delivery.id": string(id), "agented.delivery.verdict": string(verdict)},
	}
	if parent == (Context{}) {
		s.Trace = traceOf(string(id))
	}
	t.Add(s)
	t.link(s.Context, fired...)
}

// Changed creates spans of attempts and executions that have ended. Call it from the store's
// OnChange.
func (t *Tracer) Changed(ev agented.ExecutionEvent, now time.Time) {
	if t == nil || ev.Execution == nil {
		return
	}
	e := ev.Execution
	t.mu.Lock()
	run, running := t.attempts[e.ID]
	if e.State == agented.StateRunning {
		if !running || run.number != e.AttemptNo {
			at := now
			if e.AttemptNo == 1 && !e.StartedAt.IsZero() {
				at = e.StartedAt
			}
			t.attempts[e.ID] = begun{e.AttemptNo, at}
		}
		t.mu.Unlock()
		return
	}
	delete(t.attempts, e.ID)
	parent, linked := t.links[e.ID]
	if e.State.Final() {
		delete(t.links, e.ID)
	}
	t.mu.Unlock()
	if !running && !e.State.Final() {
		return
	}
	if !linked {
		parent = Context{Trace: traceOf(string(e.ID))}
		if e.Cause != nil && e.Cause.Delivery != "" { // from before a restart
			parent = Context{Trace: traceOf(string(e.Cause.Delivery)), Span: spanOf(string(e.Cause.Delivery))}
		}
	}
	own := Context{Trace: parent.Trace, Span: spanOf(string(e.ID))}
	attrs := map[string]string{
		"agented.execution.id": string(e.ID), "agented.trigger.id": string(e.Trigger), "agented.backend": e.Backend,
		"agented.source": string(e.Source), "agented.status": string(e.State),
	}
	failed := ""
	if e.State.Final() && e.State != agented.StateSuccess {
		failed = e.Reason
		if failed == "" {
			failed = string(e.State)
		}
	}
	if running {
		name := fmt.Sprintf("%s.%d", e.ID, run.number)
		of := map[string]string{"agented.attempt": strconv.Itoa(run.number)}
		for k, v := range attrs {
			of[k] = v
		}
		t.Add(Span{Context: Context{own.Trace, spanOf(name)}, Parent: own.Span, Name: "attempt", Kind: 1, Start: run.at, End: now, Attrs: of, Error: failed})
	}
	if e.State.Final() {
		end := e.FinishedAt
		if end.IsZero() {
			end = now
		}
		t.Add(Span{Context: own, Parent: parent.Span, Name: "execution", Kind: 1, Start: e.CreatedAt, End: end, Attrs: attrs, Error: failed})
	}
}

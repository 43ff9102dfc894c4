package trace_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// received is a span as a collector decodes it.
type received struct {
	TraceID    string `json:"traceId"`
	SpanID     string `json:"spanId"`
	Parent     string `json:"parentSpanId"`
	Name       string
	Kind       int
	Start      string `json:"startTimeUnixNano"`
	End        string `json:"endTimeUnixNano"`
	Attributes []struct {
		Key   string
		Value struct{ StringValue string }
	}
	Status struct {
		Code    int
		Message string
	}
}

func (r received) attr(key string) string {
	for _, a := range r.Attributes {
		if a.Key == key {
			return a.Value.StringValue
		}
	}
	return ""
}

// collector receives spans, by name, and the last request.
func collector(t *testing.T, got map[string]received, raw *strings.Builder) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Key") != "a b" {
			t.Errorf("%s %s %v", r.Method, r.URL.Path, r.Header)
		}
		body, _ := io.ReadAll(r.Body)
		raw.Write(body)
		var doc struct {
			ResourceSpans []struct {
				Resource struct {
					Attributes []struct {
						Key   string
						Value struct{ StringValue string }
					}
				}
				ScopeSpans []struct{ Spans []received }
			}
		}
		if err := json.Unmarshal(body, &doc); err != nil || len(doc.ResourceSpans) != 1 {
			t.Errorf("%v in %s", err, body)
			return
		}
		if a := doc.ResourceSpans[0].Resource.Attributes; a[0].Key != "service.name" || a[0].Value.StringValue != "agented-test" {
			t.Errorf("resource %+v", a)
		}
		for _, s := range doc.ResourceSpans[0].ScopeSpans[0].Spans {
			if len(s.TraceID) != 32 || len(s.SpanID) != 16 || s.Start > s.End || len(s.Start) != 19 {
				t.Errorf("span %+v", s)
			}
			got[s.Name] = s
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func tracer(t *testing.T, endpoint string) *trace.Tracer {
	t.Helper()
	tr, err := trace.New(trace.Options{
		Endpoint: endpoint, Service: "agented-test", Headers: "X-Key=a%20b",
		Mask:   func(s string) string { return strings.ReplaceAll(s, "hush-hush", "***") },
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// flush stops the tracer, which sends all queued spans.
func flush(tr *trace.Tracer) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tr.Run(ctx)
}

func TestTrace_request_to_execution(t *testing.T) {
	got, raw := map[string]received{}, new(strings.Builder)
	tr := tracer(t, collector(t, got, raw))
	now := time.Now().UTC()
	id := agented.ExecutionID(agented.NewID("exec", now))
	dlv := agented.DeliveryID(agented.NewID("dlv", now))
	h := tr.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req-1")
		tr.Delivered(r.Context(), dlv, agented.VerdictAccepted, time.Now(), []agented.ExecutionID{id})
		w.WriteHeader(http.StatusAccepted)
	}))
	req := httptest.NewRequest("POST", "/hooks/trig-01jdc4q7zv8m3k2n5p6r7s8t9w", nil)
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	h.ServeHTTP(httptest.NewRecorder(), req)
	tr.Middleware(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/health/readiness", nil))

	e := agented.Execution{ID: id, Backend: "claude", State: agented.StateRunning, AttemptNo: 1, CreatedAt: now, StartedAt: now}
	tr.Changed(agented.ExecutionEvent{Execution: &e}, now)
	failed := e
	failed.State, failed.Reason, failed.FinishedAt = agented.StateFailed, "the key hush-hush was refused", now.Add(time.Second)
	tr.Changed(agented.ExecutionEvent{Execution: &failed}, now.Add(time.Second))
	flush(tr)

	const traceID = "0af7651916cd43dd8448eb211c80319c"
	request, delivery, execution, attempt := got["POST /hooks/{id}"], got["delivery"], got["execution"], got["attempt"]
	for _, s := range []received{request, delivery, execution, attempt} {
		if s.TraceID != traceID {
			t.Errorf("%q is in trace %s", s.Name, s.TraceID)
		}
	}
	if request.Parent != "b7ad6b7169203331" || delivery.Parent != request.SpanID || execution.Parent != delivery.SpanID || attempt.Parent != execution.SpanID {
		t.Errorf("parents: %+v", got)
	}
	if request.Kind != 2 || request.attr("http.response.status_code") != "202" || request.attr("agented.request.id") != "req-1" {
		t.Errorf("request %+v", request)
	}
	if execution.attr("agented.execution.id") != string(id) || execution.Status.Code != 2 || attempt.attr("agented.attempt") != "1" || delivery.attr("agented.delivery.id") != string(dlv) {
		t.Errorf("execution %+v, attempt %+v, delivery %+v", execution, attempt, delivery)
	}
	if strings.Contains(raw.String(), "hush") || !strings.Contains(execution.Status.Message, "was refused") {
		t.Errorf("not masked, or nothing left: %s", raw)
	}
	if len(got) != 4 {
		t.Errorf("%d spans: %+v", len(got), got)
	}
}

func TestTrace_after_restart(t *testing.T) {
	now := time.Now().UTC()
	id, dlv := agented.ExecutionID(agented.NewID("exec", now)), agented.DeliveryID(agented.NewID("dlv", now))
	got, raw := map[string]received{}, new(strings.Builder)
	endpoint := collector(t, got, raw)
	before := tracer(t, endpoint)
	before.Delivered(t.Context(), dlv, agented.VerdictAccepted, now, []agented.ExecutionID{id})
	flush(before)
	after := tracer(t, endpoint)
	after.Changed(agented.ExecutionEvent{Execution: &agented.Execution{
		ID: id, State: agented.StateSuccess, CreatedAt: now, FinishedAt: now, Cause: &agented.Origin{Kind: agented.SourceWebhook, Delivery: dlv},
	}}, now)
	flush(after)
	if got["execution"].TraceID != got["delivery"].TraceID || got["execution"].Parent != got["delivery"].SpanID || got["execution"].Status.Code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestTracer_drops_spans(t *testing.T) {
	tr := tracer(t, "http://127.0.0.1:1") // nothing listens there
	began := time.Now()
	for range 5000 {
		tr.Add(trace.Span{Name: "x", Start: began, End: began})
	}
	if took := time.Since(began); took > 30*time.Second || tr.Dropped() != 5000-2048 {
		t.Errorf("took %s, %d dropped", took, tr.Dropped())
	}
	flush(tr)
	if tr.Dropped() != 5000 {
		t.Errorf("%d dropped, and none arrived", tr.Dropped())
	}
}

func TestTracer_without_endpoint(t *testing.T) {
	tr, err := trace.New(trace.Options{})
	if tr != nil || err != nil {
		t.Fatalf("%v %v", tr, err)
	}
	h := http.NewServeMux()
	if tr.Middleware(h) != http.Handler(h) {
		t.Error("a tracer that is off stands in the way of requests")
	}
	tr.Add(trace.Span{})
	tr.Fired(t.Context(), "exec-1")
	tr.Delivered(t.Context(), "dlv-1", "", time.Now(), nil)
	tr.Changed(agented.ExecutionEvent{}, time.Now())
	tr.Run(t.Context())
	for _, o := range []trace.Options{{Endpoint: "localhost:4318"}, {Endpoint: "http://a", Headers: "novalue"}, {Endpoint: "http://a", Headers: "a=b%0d%0a"}} {
		if _, err := trace.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("00-00000000000000000000000000000000-b7ad6b7169203331-01")
	f.Add("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Fuzz(func(t *testing.T, header string) {
		c := trace.ParseParent(header)
		if (c.Trace == [16]byte{}) != (c.Span == [8]byte{}) {
			t.Errorf("half a context of %q", header)
		}
		if c != (trace.Context{}) && len(header) < 55 {
			t.Errorf("%q is too short for a context", header)
		}
	})
}

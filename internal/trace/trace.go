// Package trace exports spans of the server's work to an OpenTelemetry collector over OTLP/HTTP
// in JSON. It is off unless an endpoint is set; a nil Tracer does nothing.
package trace

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
)

const (
	queueSize = 2048
	batchSize = 256
	batchTime = 5 * time.Second
	sendTime  = 10 * time.Second
	lastTime  = 2 * time.Second // for the remaining spans at shutdown
	maxLinks  = 10000           // executions whose request is remembered
)

// Options configures a Tracer.
type Options struct {
	Endpoint string // base URL, as OTEL_EXPORTER_OTLP_ENDPOINT: /v1/traces is added
	// TracesEndpoint is a full URL, as in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT; it takes precedence
	// over Endpoint.
	TracesEndpoint string
	Protocol       string              // as OTEL_EXPORTER_OTLP_PROTOCOL: empty, http/json or http/protobuf
	Attributes     string              // as OTEL_RESOURCE_ATTRIBUTES: name=value, separated by commas, URL-encoded
	Service        string              // service.name
	Version        string              // service.version
	Headers        string              // name=value, separated by commas, URL-encoded
	Mask           func(string) string // masks secrets; nil leaves texts unchanged
	Log            *slog.Logger
	Client         *http.Client // nil uses a client of its own
}

// Tracer collects and sends spans. It never blocks: spans that do not fit into its queue are
// dropped and counted.
type Tracer struct {
	o          Options
	url        string
	headers    http.Header
	attributes map[string]string // of this server, besides its name and version
	queue      chan Span
	dropped    atomic.Int64

	mu       sync.Mutex // guards the following fields
	links    map[agented.ExecutionID]Context
	order    []agented.ExecutionID
	attempts map[agented.ExecutionID]begun
}

// begun is a running attempt.
type begun struct {
	number int
	at     time.Time
}

// Context identifies a span; the zero Context identifies none.
type Context struct {
	Trace [16]byte
	Span  [8]byte
}

// Span is a timed operation.
type Span struct {
	Context
	Parent [8]byte
	Name   string
	Kind   int // 1 internal, 2 server, 5 consumer
	Start  time.Time
	End    time.Time
	Attrs  map[string]string
	Error  string // error message; empty if it succeeded
}

// New returns a tracer, or nil if no endpoint is set. It sends nothing before Run.
func New(o Options) (*Tracer, error) {
	to, name := o.TracesEndpoint, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	if to == "" && o.Endpoint != "" {
		to, name = strings.TrimSuffix(o.Endpoint, "/")+"/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT"
	}
	if to == "" {
		return nil, nil
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, agented.Errorf(agented.Invalid, "%s is not a valid address: use http://HOST:4318", name)
	}
	switch o.Protocol {
	case "", "http/json", "http/protobuf":
	case "grpc":
		return nil, agented.Errorf(agented.Invalid, "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which is not supported: set it to http/json, and the endpoint to the collector's HTTP port, usually 4318")
	default:
		return nil, agented.Errorf(agented.Invalid, "OTEL_EXPORTER_OTLP_PROTOCOL is unknown: set it to http/json")
	}
	attributes, err := pairs("OTEL_RESOURCE_ATTRIBUTES", o.Attributes)
	if err != nil {
		return nil, err
	}
	t := &Tracer{
		o: o, url: to, headers: http.Header{}, attributes: attributes,
		queue: make(chan Span, queueSize), links: map[agented.ExecutionID]Context{}, attempts: map[agented.ExecutionID]begun{},
	}
	headers, err := pairs("OTEL_EXPORTER_OTLP_HEADERS", o.Headers)
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		t.headers.Set(name, value)
	}
	if t.o.Client == nil {
		t.o.Client = &http.Client{Timeout: sendTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if t.o.Mask == nil {
		t.o.Mask = func(s string) string { return s }
	}
	if t.o.Log == nil {
		t.o.Log = slog.New(slog.DiscardHandler)
	}
	return t, nil
}

// pairs parses name=value pairs, separated by commas, with URL-encoded values.
func pairs(setting, text string) (map[string]string, error) {
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || err != nil || name == "" || strings.ContainsAny(name+value, "\r\n") {
			return nil, agented.Errorf(agented.Invalid, "%s is invalid: write name=value, separated by commas", setting)
		}
		out[name] = value
	}
	return out, nil
}

// resource lists the attributes of this server. The name in the settings takes precedence over a
// service.name among the others.
func (t *Tracer) resource() []attribute {
	out := []attribute{text("service.name", t.o.Service), text("service.version", t.o.Version)}
	for _, name := range slices.Sorted(maps.Keys(t.attributes)) {
		if name != "service.name" && name != "service.version" {
			out = append(out, text(name, t.attributes[name]))
		}
	}
	return out
}

// Dropped returns the number of spans that were not sent.
func (t *Tracer) Dropped() int64 {
	if t == nil {
		return 0
	}
	return t.dropped.Load()
}

// Add queues an ended span.
func (t *Tracer) Add(s Span) {
	if t == nil {
		return
	}
	select {
	case t.queue <- s:
	default:
		t.dropped.Add(1)
	}
}

// Run sends spans until ctx ends, then the remaining ones, within a few seconds.
func (t *Tracer) Run(ctx context.Context) {
	if t == nil {
		return
	}
	tick := time.NewTicker(batchTime)
	defer tick.Stop()
	var batch []Span
	// The server is stopping: a collector that hangs must not delay it.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTime, cancel) })()
	flush := func() {
		if len(batch) == 0 {
			return
		}
		if err := t.send(sending, batch); err != nil {
			t.dropped.Add(int64(len(batch)))
			t.o.Log.Warn("traces could not be sent", "err", err, "spans", len(batch), "dropped", t.dropped.Load())
		}
		batch = batch[:0]
	}
	for {
		select {
		case s := <-t.queue:
			if batch = append(batch, s); len(batch) >= batchSize {
				flush()
			}
		case <-tick.C:
			flush()
		case <-ctx.Done():
			for {
				select {
				case s := <-t.queue:
					batch = append(batch, s)
					continue
				default:
				}
				flush()
				return
			}
		}
	}
}

// send posts one batch.
func (t *Tracer) send(ctx context.Context, batch []Span) error {
	body, err := json.Marshal(t.encode(batch))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, values := range t.headers {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.o.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered %s", resp.Status)
	}
	return nil
}

// The format of OTLP in JSON.
type (
	attribute struct {
		Key   string `json:"key"`
		Value struct {
			String string `json:"stringValue"`
		} `json:"value"`
	}
	status struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
	span struct {
		TraceID    string      `json:"traceId"`
		SpanID     string      `json:"spanId"`
		Parent     string      `json:"parentSpanId,omitempty"`
		Name       string      `json:"name"`
		Kind       int         `json:"kind"`
		Start      string      `json:"startTimeUnixNano"`
		End        string      `json:"endTimeUnixNano"`
		Attributes []attribute `json:"attributes,omitempty"`
		Status     status      `json:"status"`
	}
	scope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	resource struct {
		Attributes []attribute `json:"attributes"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	export struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
)

func text(key, value string) attribute {
	a := attribute{Key: key}
	a.Value.String = value
	return a
}

func (t *Tracer) encode(batch []Span) export {
	spans := make([]span, len(batch))
	for i, s := range batch {
		out := span{
			TraceID: hex.EncodeToString(s.Trace[:]), SpanID: hex.EncodeToString(s.Span[:]), Name: t.o.Mask(s.Name), Kind: s.Kind,
			Start: strconv.FormatInt(s.Start.UnixNano(), 10), End: strconv.FormatInt(s.End.UnixNano(), 10),
		}
		if s.Parent != ([8]byte{}) {
			out.Parent = hex.EncodeToString(s.Parent[:])
		}
		for key, value := range s.Attrs {
			if value != "" {
				out.Attributes = append(out.Attributes, text(key, t.o.Mask(value)))
			}
		}
		if s.Error != "" {
			out.Status = status{Code: 2, Message: t.o.Mask(s.Error)}
		}
		spans[i] = out
	}
	return export{ResourceSpans: []resourceSpans{{
		Resource:   resource{Attributes: t.resource()},
		ScopeSpans: []scopeSpans{{Scope: scope{Name: "agented", Version: t.o.Version}, Spans: spans}},
	}}}
}

// newSpan returns a new random span id.
func newSpan() (id [8]byte) {
	rand.Read(id[:])
	return id
}

// traceOf derives the trace id of an object from its id: the same after restarts.
func traceOf(id string) (out [16]byte) {
	sum := sha256.Sum256([]byte(id))
	copy(out[:], sum[:])
	return out
}

// spanOf derives the span id of an object from its id: the same after restarts.
func spanOf(id string) (out [8]byte) {
	sum := sha256.Sum256([]byte(id))
	copy(out[:], sum[16:])
	return out
}

// ParseParent parses a W3C traceparent header; it returns the zero Context for an invalid one.
func ParseParent(header string) Context {
	var c Context
	parts := strings.Split(header, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || parts[0] == "00" && len(parts) != 4 ||
		len(parts[1]) != 32 || len(parts[2]) != 16 || len(parts[3]) != 2 || header != strings.ToLower(header) {
		return Context{}
	}
	for _, p := range []struct {
		text string
		into []byte
	}{{parts[0], make([]byte, 1)}, {parts[1], c.Trace[:]}, {parts[2], c.Span[:]}, {parts[3], make([]byte, 1)}} {
		if _, err := hex.Decode(p.into, []byte(p.text)); err != nil {
			return Context{}
		}
	}
	if c.Trace == ([16]byte{}) || c.Span == ([8]byte{}) {
		return Context{}
	}
	return c
}

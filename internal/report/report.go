// Package report sends the server's error log records to a service that accepts Sentry's envelope
// format. It is off unless an address is set.
package report

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

const (
	queueSize = 64
	sendTime  = 10 * time.Second
	maxText   = 8 << 10
	maxPause  = time.Hour
	lastTime  = 2 * time.Second // for the remaining reports at shutdown
)

// Options configures a Reporter.
type Options struct {
	DSN     string // https://KEY@HOST/PROJECT
	Release string
	Server  string       // name of this server
	Log     *slog.Logger // logs problems of the reporter; must not lead back to it
	Client  *http.Client // nil uses a client of its own
	Every   time.Duration
	Burst   int
}

// Reporter sends errors. It never blocks: reports that do not fit into its queue or exceed the
// rate are dropped and counted.
type Reporter struct {
	o       Options
	url     string
	auth    string
	queue   chan event
	limit   *rate.Limiter
	dropped atomic.Int64
}

// event contains the used fields of Sentry's event.
type event struct {
	ID          string            `json:"event_id"`
	Timestamp   string            `json:"timestamp"`
	Level       string            `json:"level"`
	Platform    string            `json:"platform"`
	Logger      string            `json:"logger"`
	Release     string            `json:"release,omitempty"`
	ServerName  string            `json:"server_name,omitempty"`
	Message     map[string]string `json:"message"`
	Tags        map[string]string `json:"tags,omitempty"`
	Extra       map[string]string `json:"extra,omitempty"`
	Fingerprint []string          `json:"fingerprint"`
	Exception   map[string]any    `json:"exception,omitempty"`
}

// New returns a reporter, or nil if no DSN is set. It sends nothing before Run.
func New(o Options) (*Reporter, error) {
	if o.DSN == "" {
		return nil, nil
	}
	bad := agented.Errorf(agented.Invalid, "SENTRY_DSN is invalid: use the form https://KEY@HOST/PROJECT, as the service shows it")
	u, err := url.Parse(o.DSN)
	if err != nil || u.Host == "" || u.User == nil || u.User.Username() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, bad
	}
	at := strings.LastIndexByte(u.Path, '/')
	if at < 0 || u.Path[at+1:] == "" {
		return nil, bad
	}
	if o.Every == 0 {
		o.Every, o.Burst = 6*time.Second, 20
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: sendTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reporter{
		o: o, queue: make(chan event, queueSize), limit: rate.NewLimiter(rate.Every(o.Every), o.Burst),
		url:  fmt.Sprintf("%s://%s%s/api/%s/envelope/", u.Scheme, u.Host, u.Path[:at], u.Path[at+1:]),
		auth: "Sentry sentry_version=7, sentry_client=agented/1, sentry_key=" + u.User.Username(),
	}, nil
}

// Dropped returns the number of errors that were not sent.
func (r *Reporter) Dropped() int64 {
	if r == nil {
		return 0
	}
	return r.dropped.Load()
}

// Handler passes records on to next and reports errors. It must come after the handler that masks
// secrets. For a nil reporter it returns next.
func (r *Reporter) Handler(next slog.Handler) slog.Handler {
	if r == nil {
		return next
	}
	return &handler{Handler: next, r: r}
}

type handler struct {
	slog.Handler
	r     *Reporter
	attrs []slog.Attr
	group string
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithAttrs(attrs)
	c.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], prefixed(h.group, attrs)...)
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.Handler = h.Handler.WithGroup(name)
	c.group = h.group + name + "."
	return &c
}

func prefixed(group string, attrs []slog.Attr) []slog.Attr {
	if group == "" {
		return attrs
	}
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = slog.Attr{Key: group + a.Key, Value: a.Value}
	}
	return out
}

func (h *handler) Handle(ctx context.Context, rec slog.Record) error {
	if rec.Level >= slog.LevelError {
		h.r.add(h.event(rec))
	}
	return h.Handler.Handle(ctx, rec)
}

// event converts a record to a report.
func (h *handler) event(rec slog.Record) event {
	var id [16]byte
	rand.Read(id[:])
	e := event{
		ID: hex.EncodeToString(id[:]), Timestamp: rec.Time.UTC().Format(time.RFC3339Nano), Level: "error", Platform: "go",
		Logger: "agented", Release: h.r.o.Release, ServerName: h.r.o.Server,
		Message: map[string]string{"formatted": format.Clip(rec.Message, maxText)}, Tags: map[string]string{}, Extra: map[string]string{},
	}
	if rec.Level > slog.LevelError {
		e.Level = "fatal"
	}
	where := ""
	if rec.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{rec.PC}).Next()
		where = frame.Function
	}
	e.Fingerprint = []string{rec.Message, where}
	cause := ""
	take := func(a slog.Attr) bool {
		value := format.Clip(a.Value.Resolve().String(), maxText)
		switch a.Key {
		case "execution", "attempt", "trigger", "delivery", "request", "backend", "schedule":
			e.Tags[a.Key] = value
		default:
			if a.Key == "err" {
				cause = value
			}
			e.Extra[a.Key] = value
		}
		return true
	}
	for _, a := range h.attrs {
		take(a)
	}
	rec.Attrs(func(a slog.Attr) bool { return take(prefixed(h.group, []slog.Attr{a})[0]) })
	if cause != "" {
		e.Exception = map[string]any{"values": []any{map[string]any{"type": e.Message["formatted"], "value": cause, "module": where}}}
	}
	return e
}

// add queues a report unless the rate is exceeded.
func (r *Reporter) add(e event) {
	if !r.limit.Allow() {
		r.dropped.Add(1)
		return
	}
	select {
	case r.queue <- e:
	default:
		r.dropped.Add(1)
	}
}

// Run sends reports until ctx ends, then the remaining ones, within a few seconds.
func (r *Reporter) Run(ctx context.Context) {
	if r == nil {
		return
	}
	// A report that is being sent at the end may take longer.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastTime, cancel) })()
	var until time.Time // end of the pause that the service requested
	send := func(e event) {
		if time.Now().Before(until) {
			r.dropped.Add(1)
			return
		}
		pause, err := r.send(sending, e)
		if err != nil {
			r.dropped.Add(1)
			r.o.Log.Warn("an error could not be reported", "err", err, "dropped", r.dropped.Load())
		}
		until = time.Now().Add(pause)
	}
	for {
		select {
		case e := <-r.queue:
			send(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-r.queue:
					send(e)
					continue
				default:
				}
				return
			}
		}
	}
}

// send posts one envelope. pause is how long the service asks the reporter to wait.
func (r *Reporter) send(ctx context.Context, e event) (pause time.Duration, err error) {
	payload, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"event_id":%q,"sent_at":%q}`+"\n"+`{"type":"event","length":%d,"content_type":"application/json"}`+"\n",
		e.ID, time.Now().UTC().Format(time.RFC3339), len(payload))
	b.Write(payload)
	b.WriteByte('\n')
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, &b)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-sentry-envelope")
	req.Header.Set("X-Sentry-Auth", r.auth)
	resp, err := r.o.Client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode == http.StatusTooManyRequests {
		pause = time.Minute
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			pause = min(time.Duration(n)*time.Second, maxPause)
		}
	}
	if resp.StatusCode/100 != 2 {
		return pause, fmt.Errorf("the service answered %s", resp.Status)
	}
	return 0, nil
}

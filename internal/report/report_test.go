package report_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/report"
	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// got is an event as the service decodes it.
type got struct {
	Auth    string
	ID      string            `json:"event_id"`
	Level   string            `json:"level"`
	Release string            `json:"release"`
	Message map[string]string `json:"message"`
	Tags    map[string]string `json:"tags"`
	Extra   map[string]string `json:"extra"`
	Raw     string            `json:"-"`
}

// service is a receiver of envelopes that validates their format.
func service(t *testing.T, status int, header http.Header) (dsn string, events chan got) {
	t.Helper()
	events = make(chan got, 200)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/sub/api/42/envelope/" || r.Header.Get("Content-Type") != "application/x-sentry-envelope" {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		}
		in := bufio.NewReader(r.Body)
		var head struct {
			ID string `json:"event_id"`
		}
		var item struct {
			Type   string `json:"type"`
			Length int    `json:"length"`
		}
		for _, into := range []any{&head, &item} {
			line, err := in.ReadBytes('\n')
			if err != nil || json.Unmarshal(line, into) != nil {
				t.Errorf("envelope line %q: %v", line, err)
			}
		}
		payload := make([]byte, item.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			t.Errorf("payload of %d bytes: %v", item.Length, err)
		}
		e := got{Auth: r.Header.Get("X-Sentry-Auth"), Raw: string(payload)}
		if err := json.Unmarshal(payload, &e); err != nil || item.Type != "event" || e.ID != head.ID || len(e.ID) != 32 {
			t.Errorf("event %q %q: %v", item.Type, e.ID, err)
		}
		for k, v := range header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		events <- e
	}))
	t.Cleanup(srv.Close)
	return strings.Replace(srv.URL, "://", "://public@", 1) + "/sub/42", events
}

// run runs a reporter until the test ends or stop is called.
func run(t *testing.T, o report.Options) (r *report.Reporter, stop func()) {
	t.Helper()
	o.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	r, err := report.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return r, stop
}

func TestReporter_masks_errors(t *testing.T) {
	dsn, events := service(t, 200, nil)
	r, _ := run(t, report.Options{DSN: dsn, Release: "agented@1.2.3"})
	var masker atomic.Pointer[redact.Masker]
	masker.Store(redact.New([]string{"hush-hush-0123456789"}))
	var text bytes.Buffer
	log := slog.New(redact.Handler(r.Handler(slog.NewTextHandler(&text, nil)), &masker)).With("execution", "exec-1")
	log.Warn("not this one")
	log.Error("settle", "attempt", 2, "err", errors.New("token hush-hush-0123456789 was refused"))
	e := testrun.Receive(t, events, "the event")
	if e.Message["formatted"] != "settle" || e.Level != "error" || e.Release != "agented@1.2.3" || e.Tags["execution"] != "exec-1" || e.Tags["attempt"] != "2" {
		t.Errorf("event %+v", e)
	}
	if strings.Contains(e.Raw, "hush") || !strings.Contains(e.Extra["err"], "was refused") {
		t.Errorf("not masked, or nothing left: %s", e.Raw)
	}
	if !strings.Contains(e.Auth, "sentry_key=public") || !strings.Contains(e.Auth, "sentry_version=7") {
		t.Errorf("auth %q", e.Auth)
	}
	if !strings.Contains(text.String(), "msg=settle") || !strings.Contains(text.String(), "not this one") {
		t.Errorf("the log lost something: %s", text.String())
	}
	log.Log(t.Context(), slog.LevelError+4, "panic", "stack", "goroutine 1\nmain.go:3")
	if e := testrun.Receive(t, events, "the panic"); e.Level != "fatal" || !strings.Contains(e.Extra["stack"], "main.go:3") {
		t.Errorf("a panic arrives as %+v", e)
	}
}

func TestReporter_storm(t *testing.T) {
	block := make(chan struct{})
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		<-block
	}))
	defer srv.Close()
	r, stop := run(t, report.Options{DSN: strings.Replace(srv.URL, "://", "://k@", 1) + "/1", Every: time.Hour, Burst: 5})
	log := slog.New(r.Handler(slog.NewTextHandler(io.Discard, nil)))
	began := time.Now()
	for i := range 10000 {
		log.Error(fmt.Sprintf("error %d", i))
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("10000 errors took %s", took)
	}
	if d := r.Dropped(); d != 9995 {
		t.Errorf("%d dropped, want 9995", d)
	}
	close(block)
	stop()
	if n := calls.Load(); n != 5 {
		t.Errorf("%d reports were sent, want 5", n)
	}
}

// lines sends written lines to a channel.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestReporter_rate_limited(t *testing.T) {
	dsn, events := service(t, 429, http.Header{"Retry-After": {"60"}})
	said := make(lines, 10)
	r, stop := run(t, report.Options{DSN: dsn, Log: slog.New(slog.NewTextHandler(said, nil))})
	log := slog.New(r.Handler(slog.NewTextHandler(io.Discard, nil)))
	log.Error("one")
	testrun.Receive(t, events, "the event")
	if line := testrun.Receive(t, said, "the log"); !strings.Contains(line, "429") {
		t.Errorf("the log says %q", line)
	}
	log.Error("two")
	log.Error("three")
	stop()
	if len(events) != 0 || r.Dropped() != 3 {
		t.Errorf("%d more were sent, %d dropped", len(events), r.Dropped())
	}
}

func TestReporter_address(t *testing.T) {
	r, err := report.New(report.Options{})
	if r != nil || err != nil {
		t.Errorf("%v %v", r, err)
	}
	h := slog.NewTextHandler(io.Discard, nil)
	if r.Handler(h) != slog.Handler(h) || r.Dropped() != 0 {
		t.Error("a reporter that is off changes the log")
	}
	r.Run(t.Context())
	for _, dsn := range []string{"x", "https://host/1", "https://key@host", "https://key@host/", "ftp://key@host/1"} {
		if _, err := report.New(report.Options{DSN: dsn}); err == nil || strings.Contains(err.Error(), "key@host") {
			t.Errorf("%q: %v", dsn, err)
		}
	}
}

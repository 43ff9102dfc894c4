package api_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/metrics"
)

func TestReadiness(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	check := func(status int, body string) {
		t.Helper()
		a := g.do(agented.RoleNone, "GET", "/health/readiness", "").want(status)
		if strings.TrimSpace(a.body) != body {
			t.Errorf("body %s, want %s", a.body, body)
		}
	}
	check(200, `{"status":"ok"}`)
	sick := errors.New("the loop hangs at /secret/place")
	g.work.sick.Store(&sick)
	check(503, `{"check":"dispatcher","status":"unavailable"}`)
	g.work.sick.Store(nil)
	check(200, `{"status":"ok"}`)
	g.api.Drain()
	check(503, `{"check":"draining","status":"unavailable"}`)
	g.do(agented.RoleNone, "GET", "/health/liveness", "").want(200)

	b := start(t, settings{})
	b.db.Close()
	if a := b.do(agented.RoleNone, "GET", "/health/readiness", "").want(503); !strings.Contains(a.body, `"store"`) {
		t.Errorf("body %s", a.body)
	}
	if a := b.do(agented.RoleNone, "GET", "/health/liveness", "").want(200); strings.TrimSpace(a.body) != `{"status":"ok"}` {
		t.Errorf("body %s", a.body)
	}
}

func TestMetrics_names(t *testing.T) {
	t.Parallel()
	collected := metrics.New("1.2.3-test")
	g := start(t, settings{options: func(o *api.Options) { o.Metrics = collected }})
	collected.Claimed(30 * time.Millisecond)
	collected.AttemptEnded("claude", agented.StateSuccess, time.Minute)
	id := agented.ExecutionID(g.execution())
	dir := g.layout.Execution(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 123), 0o600); err != nil {
		t.Fatal(err)
	}
	ended := &agented.Execution{ID: id, State: agented.StateSuccess, AttemptNo: 1, LastSeq: 7}
	collected.Changed(agented.ExecutionEvent{Seq: 1, Execution: ended}, g.layout)
	collected.Changed(agented.ExecutionEvent{Seq: 2, Execution: &agented.Execution{ID: id, State: agented.StateRunning, AttemptNo: 1, LastSeq: 9}}, g.layout)
	g.do(agented.RoleNone, "GET", "/nothing/at/all", "").want(404)
	g.do(agented.RoleNone, "BREW", "/api/v1/triggers", "").want(405)

	a := g.do(agented.RoleViewer, "GET", "/metrics", "").want(200)
	for _, want := range []string{
		`agented_executions{status="pending"} 1`, `agented_executions{status="interrupted"} 0`, `agented_attempts_running 0`, `agented_attempts_to_resume 0`,
		`agented_queue_depth 1`, `agented_queue_oldest_wait_seconds `, `agented_queue_wait_seconds_count 1`,
		`agented_attempt_duration_seconds_count{backend="claude",status="success"} 1`, `agented_sse_readers 0`,
		`agented_log_lines_total 7`, `agented_log_bytes_total 123`, `agented_http_connections `,
		`agented_http_requests_total{method="GET",route="unmatched",status="404"} 1`,
		`agented_http_requests_total{method="other",route="unmatched",status="405"} 1`,
		`agented_http_requests_total{method="POST",route="/api/v1/triggers/{id}/run",status="202"} 1`,
		`agented_http_request_duration_seconds_bucket{method="POST",route="/api/v1/triggers"`,
		`agented_build_info{go_version="go`, `go_goroutines `, `process_open_fds `, `agented_store_up 1`, `agented_logins_total{outcome="refused"} 0`,
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(a.body, string(id)) {
		t.Error("an id became a label")
	}
	problems, err := promlint.New(strings.NewReader(a.body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "agented_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# HELP (agented_\S+) (.*)$`).FindAllStringSubmatch(a.body, -1) {
		if m[2] == "" {
			t.Errorf("%s has no help", m[1])
		}
	}
}

func TestMetrics_public_on_loopback_only(t *testing.T) {
	t.Parallel()
	far := start(t, settings{})
	far.do(agented.RoleNone, "GET", "/metrics", "").problem(401)
	near := start(t, settings{options: func(o *api.Options) { o.Loopback = true }})
	near.do(agented.RoleNone, "GET", "/metrics", "").want(200)
	near.do(agented.RoleNone, "GET", "/metrics", "", with("X-Forwarded-For", "203.0.113.9")).problem(401) // a proxy
	near.do(agented.RoleNone, "GET", "/api/v1/info", "").problem(401)
}

package metrics

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := New("1.2.3")
	m.RequestStarted()
	m.RequestStarted()
	m.RequestEnded("/x", "BREW", 405, time.Millisecond, false)
	m.ConnectionRefused()
	m.Login("limited")
	m.Delivery(agented.VerdictIgnored)
	m.Claimed(-time.Second) // a clock that was set back
	m.Ticked(agented.TickMissed, time.Hour)
	m.BudgetNotified(agented.Budget{Name: "b"}, true)
	layout := agented.Layout{Root: t.TempDir()}
	e := &agented.Execution{ID: "exec-1", State: agented.StateSuccess, AttemptNo: 1, LastSeq: 7}
	if err := os.MkdirAll(layout.Execution(e.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layout.Execution(e.ID), "log"), make([]byte, 123), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Changed(agented.ExecutionEvent{Execution: e}, layout)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"agented_http_requests_in_flight 1", `agented_http_requests_total{method="other",route="/x",status="405"} 1`, "agented_http_connections_refused_total 1",
		`agented_logins_total{outcome="limited"} 1`, `agented_logins_total{outcome="success"} 0`, `agented_deliveries_total{verdict="ignored"} 1`,
		"agented_queue_wait_seconds_sum 0", "agented_schedule_lag_seconds_count 0", `agented_log_lines_total 7`, "agented_log_bytes_total 123", `version="1.2.3"`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}

package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestObservability_masked runs a server with a test collector and a test error service.
func TestObservability_masked(t *testing.T) {
	t.Parallel()
	const secret = "hush-hush-0123456789"
	var mu sync.Mutex
	spans := map[string][]map[string]any{}
	var traces, reports strings.Builder
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/v1/traces" && r.Header.Get("Authorization") == "Bearer collector":
			traces.Write(body)
			var doc struct {
				ResourceSpans []struct {
					ScopeSpans []struct{ Spans []map[string]any }
				}
			}
			if err := json.Unmarshal(body, &doc); err != nil {
				t.Errorf("%v in %s", err, body)
				return
			}
			for _, s := range doc.ResourceSpans[0].ScopeSpans[0].Spans {
				name := s["name"].(string)
				spans[name] = append(spans[name], s)
			}
		case r.URL.Path == "/api/7/envelope/":
			reports.Write(body)
		default:
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
	}))
	t.Cleanup(far.Close)
	s := newServer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+far.URL, "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20collector",
		"SENTRY_DSN="+strings.Replace(far.URL, "://", "://public@", 1)+"/7", "GITHUB_WEBHOOK_SECRET="+secret)
	id := s.trigger(sh("fails", "echo "+secret+"; exit 3", nil))
	req, err := http.NewRequest("POST", "http://"+s.addr+"/api/v1/triggers/"+id+"/run", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", testKey)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ID string `json:"execution_id"`
	}
	err = json.NewDecoder(resp.Body).Decode(&got)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	if e := s.await(got.ID); e.Status != "failed" {
		t.Errorf("ended %s", e.Status)
	}
	s.end(syscall.SIGTERM) // flushes the remaining reports
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"POST /api/v1/triggers/{id}/run", "execution", "attempt"} {
		list := spans[name]
		if len(list) != 1 || list[0]["traceId"] != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s: %v", name, list)
		}
	}
	if strings.Contains(traces.String()+reports.String(), secret) || !strings.Contains(traces.String(), got.ID) {
		t.Errorf("traces: %s", traces.String())
	}
}

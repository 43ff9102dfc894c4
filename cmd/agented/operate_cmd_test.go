package main_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// readiness returns the answer of the readiness probe.
func (s *server) readiness() (int, string) {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/health/readiness")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestReload_reports_changes(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	file := filepath.Join(s.dir, "settings.env")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("LOG_LEVEL=info\n")
	s.args = []string{"--env-file", file}
	s.start()

	if out, errs, code := s.cli("reload"); code != 0 || !strings.Contains(out, "no setting has changed") || !strings.Contains(out, file) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	write("LOG_LEVEL=debug\nGITHUB_WEBHOOK_SECRET=it-is-a-secret-of-mine\nAGENTED_MAX_CONCURRENT=3\nSSE_REPLAY_LIMIT=7\n")
	out, errs, code := s.cli("reload", "--json")
	var got struct{ Changed, Restart []string }
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("%d %s%s %v", code, out, errs, err)
	}
	if c, r := strings.Join(got.Changed, " "), strings.Join(got.Restart, " "); c != "LOG_LEVEL GITHUB_WEBHOOK_SECRET AGENTED_MAX_CONCURRENT" || r != "SSE_REPLAY_LIMIT" {
		t.Errorf("changed %q, restart %q", c, r)
	}
	if strings.Contains(out+errs, "it-is-a-secret") {
		t.Error("the secret is shown")
	}
	// Changes that wait for a restart are reported again, applied ones are not.
	if out, _, _ := s.cli("reload"); !strings.Contains(out, "in effect after a restart: SSE_REPLAY_LIMIT") || strings.Contains(out, "LOG_LEVEL") {
		t.Errorf("%s", out)
	}
	write("LOG_LEVEL=info\nAGENTED_MAX_CONCURRENT=lots\n")
	out, errs, code = s.cli("reload")
	if code != 2 || !strings.Contains(errs, "AGENTED_MAX_CONCURRENT") || !strings.Contains(errs, file+":2") && !strings.Contains(errs, "line 2") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	var settings struct {
		Items []struct{ Name, Value string }
	}
	s.call("GET", "/api/v1/config", nil, &settings)
	for _, row := range settings.Items {
		if row.Name == "LOG_LEVEL" && row.Value != "debug" || row.Name == "AGENTED_MAX_CONCURRENT" && row.Value != "3" {
			t.Errorf("a bad file has changed %s to %s", row.Name, row.Value)
		}
	}
	// SIGHUP does the same and logs the result.
	s.mu.Lock()
	s.log.Reset()
	cmd := s.cmd
	s.mu.Unlock()
	write("LOG_LEVEL=info\n")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.waitFor("the outcome in the log", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return bytes.Contains(s.log.Bytes(), []byte(`"changed":"LOG_LEVEL`))
	})
}

func TestLogFile_reopen(t *testing.T) {
	t.Parallel()
	s := prepare(t, "AGENTED_ACCESS_LOG=stdout")
	access, log := filepath.Join(s.dir, "backend.log"), filepath.Join(s.dir, "backend-error.log")
	s.args = []string{"--log-file", access, "--log-file", log}
	s.start()
	reopen := func() {
		t.Helper()
		s.mu.Lock()
		cmd := s.cmd
		s.mu.Unlock()
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.waitFor("the logs", func() bool {
			s.call("GET", "/api/v1/info", nil, nil)
			a, _ := os.ReadFile(access)
			b, _ := os.ReadFile(log)
			return bytes.Contains(a, []byte("/api/v1/info")) && len(b) > 0
		})
	}
	reopen()
	for _, path := range []string{access, log} {
		if err := os.Rename(path, path+".0"); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := os.ReadFile(access + ".0")
	reopen()
	if b, err := os.ReadFile(access + ".0"); err != nil || bytes.Count(b, []byte("\n")) > bytes.Count(old, []byte("\n"))+20 {
		t.Errorf("the renamed log goes on: %s", b)
	}
	s.kill()
	s.args = s.args[:2]
	if _, errs, code := s.cli("serve", "--log-file", access); code == 0 || !strings.Contains(errs, "must be given twice") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestDrain_mode(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	until := filepath.Join(s.dir, "enough")
	running, _ := s.agent(until)
	out, errs, code := s.cli("drain")
	if code != 0 || !strings.Contains(out, "Drain mode is on. 1 execution is running") {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	hello := s.trigger(map[string]any{"name": "hello", "backend": "command", "command": []string{"echo", "hi"}})
	waiting := s.fire(hello)
	reason := func() string {
		var e execution
		s.call("GET", "/api/v1/executions/"+waiting, nil, &e)
		return e.Status + " " + e.Reason
	}
	s.waitFor("the reason", func() bool { return strings.Contains(reason(), "pending drain mode was switched on at") })
	if !strings.Contains(reason(), "agented drain --off") {
		t.Errorf("%s", reason())
	}
	if status, body := s.readiness(); status != http.StatusOK || !strings.Contains(body, "drained") {
		t.Errorf("%d %s", status, body)
	}
	var overview struct {
		Health struct {
			Drained *struct{ By string }
		}
	}
	s.call("GET", "/api/v1/overview", nil, &overview)
	if overview.Health.Drained == nil || overview.Health.Drained.By == "" {
		t.Errorf("the overview does not say so: %+v", overview)
	}
	// The wait has a timeout.
	if _, errs, code := s.cli("drain", "--wait", "--timeout", "300ms"); code != 1 || !strings.Contains(errs, "still 1 execution running") {
		t.Errorf("%d %s", code, errs)
	}
	// A crash does not switch drain mode off.
	s.kill()
	s.start()
	if got := reason(); !strings.HasPrefix(got, "pending") {
		t.Errorf("after a crash: %s", got)
	}
	if err := os.WriteFile(until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code = s.cli("drain", "--wait", "--json")
	var v struct {
		Drained          bool
		Running, Pending int
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || !v.Drained || v.Running != 0 || v.Pending != 1 {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if e := s.await(running); e.Status != "success" {
		t.Errorf("%+v", e)
	}
	if got := reason(); !strings.HasPrefix(got, "pending") {
		t.Errorf("started while drained: %s", got)
	}
	if out, errs, code = s.cli("drain", "--off"); code != 0 || !strings.Contains(out, "Drain mode is off") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if e := s.await(waiting); e.Status != "success" {
		t.Errorf("%+v", e)
	}
	if _, body := s.readiness(); strings.Contains(body, "drained") {
		t.Errorf("%s", body)
	}
}

func TestDrain_cancel(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	one, _ := s.agent(filepath.Join(s.dir, "never"))
	two, _ := s.agent(filepath.Join(s.dir, "never either"))
	out, errs, code := s.cli("drain", "--cancel")
	if code != 0 || !strings.Contains(out, "0 executions are running") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	for _, id := range []string{one, two} {
		if e := s.await(id); e.Status != "cancelled" {
			t.Errorf("%+v", e)
		}
	}
}

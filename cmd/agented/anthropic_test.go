package main_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"

	"github.com/agented/agented/internal/testrun"
)

const anthropicKey = "sk-ant-api03-stand-in-key-0123456789"

func standIn(t *testing.T) (*clireal.StandIn, string) {
	t.Helper()
	stand := &clireal.StandIn{}
	api := httptest.NewServer(stand)
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
	return stand, api.URL
}

func TestAnthropicBackend_survives_kill(t *testing.T) {
	t.Parallel()
	stand, api := standIn(t)
	stand.Pause = 300 * time.Millisecond // make the answer slow enough for a kill
	s := newServer(t, "ANTHROPIC_API_KEY="+anthropicKey, "ANTHROPIC_BASE_URL="+api+"/text")
	s.call("POST", "/api/v1/agents", map[string]any{"name": "writer", "backend": "anthropic", "goals": "Write little."}, nil)
	id := s.fire(s.trigger(map[string]any{"name": "ask", "agent": "writer", "prompt": "Say hello, {message}"}))
	s.waitFor("the API to be asked", func() bool { return len(stand.Requests()) > 0 })
	s.kill()
	s.start()
	e := s.await(id)
	if e.Status != "success" || e.Result != clireal.Answer || len(e.Attempts) != 1 || e.Attempts[0].SessionID == "" {
		t.Errorf("execution = %+v", e)
	}
	requests := stand.Requests()
	if len(requests) != 1 || !strings.Contains(string(requests[0].Body), `"system":"You are writer.\n\nWrite little."`) {
		t.Errorf("%d requests, the first: %s", len(requests), requests[0].Body)
	}
	if out := text(s.lines(id), "stdout"); strings.Contains(out, anthropicKey) || !strings.Contains(out, `"type":"result"`) {
		t.Errorf("output:\n%s", out)
	}
	var got struct {
		Usage struct {
			CostUSD *float64 `json:"cost_usd"`
		}
	}
	s.call("GET", "/api/v1/executions/"+id, nil, &got)
	if c := got.Usage.CostUSD; c == nil || *c <= 0 {
		t.Errorf("cost %v", c)
	}
	if left := marked([]string{id}); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func TestAnthropicBackend_rejects_cli_fields(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, field := range []string{"args", "paths"} {
		_, err := s.try("POST", "/api/v1/triggers", map[string]any{"name": "n", "backend": "anthropic", "prompt": "p", field: []string{"/x"}}, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), "does not apply to backend anthropic") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Runs the program as the server does, and checks input, output and exit code.
func TestAnthropicBackend_program(t *testing.T) {
	t.Parallel()
	_, api := standIn(t)
	closed := testrun.FreeAddress(t)
	dir := t.TempDir()
	ask := func(base string, args ...string) (string, string, int) {
		cmd := exec.Command(binary, append([]string{"ask-anthropic", "--direct", api + "/text"}, args...)...)
		cmd.Env = []string{"ANTHROPIC_API_KEY=" + anthropicKey, "ANTHROPIC_BASE_URL=" + base, "AGENTED_ANTHROPIC_DIR=" + filepath.Join(dir, "s")}
		cmd.Stdin = strings.NewReader("SYSTEMsay hello")
		var out, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &stderr
		_ = cmd.Run() // the exit code is checked below
		return out.String(), stderr.String(), cmd.ProcessState.ExitCode()
	}
	out, stderr, code := ask("http://"+closed, "--session-id", "s1", "--system-bytes", "6", "--pieces")
	if code != 0 || !strings.Contains(out, `"type":"stream_event"`) || !strings.Contains(stderr, "using "+api+" directly") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	if history, err := os.ReadFile(filepath.Join(dir, "s", "s1.jsonl")); err != nil || strings.Count(string(history), "\n") != 2 || strings.Contains(string(history), "SYSTEM") {
		t.Errorf("history %s, %v", history, err)
	}
	if out, _, code := ask(api+"/refused", "--resume", "s1"); code != 1 || !strings.Contains(out, "authentication_error") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if _, _, code := ask(api, "--system-bytes", "600", "--session-id", "s2"); code != 2 {
		t.Errorf("exit %d", code)
	}
}

package main_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/clireal"
)

// TestRealClaude_runs runs the Claude Code CLI from npm as a trigger, with a stand-in for its
// API: the server is killed while the CLI works, and a client receives the whole log.
func TestRealClaude_runs(t *testing.T) {
	clis := os.Getenv("AGENTED_TEST_CLIS")
	if clis == "" {
		t.Skip("claude is not driven: AGENTED_TEST_CLIS names no folder of CLIs; make test-cli installs them and sets it")
	}
	bin := filepath.Join(clis, "claude", "node_modules", ".bin")
	if _, err := os.Stat(filepath.Join(bin, "claude")); err != nil {
		reason, _ := os.ReadFile(filepath.Join(clis, "claude", "reason.txt"))
		t.Skipf("claude is not driven: %v %s", err, bytes.TrimSpace(reason))
	}
	standIn := &clireal.StandIn{}
	api := httptest.NewServer(standIn)
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
	const key = "sk-ant-api03-stand-in-key-0123456789"
	for _, c := range []struct {
		scenario clireal.Scenario
		status   string
		says     string // in the result, or in the error of one that failed
		file     bool
	}{
		{clireal.Text, "success", clireal.Answer, false},
		{clireal.Tool, "success", clireal.ToolAnswer, true},
		{clireal.Limited, "success", clireal.Answer, false},
	} {
		t.Run(string(c.scenario), func(t *testing.T) {
			s := newServer(t, "ANTHROPIC_API_KEY="+key, "ANTHROPIC_BASE_URL="+api.URL+"/"+string(c.scenario),
				"PATH="+bin+":"+os.Getenv("PATH"))
			work := filepath.Join(s.dir, "cwd")
			id := s.fire(s.trigger(map[string]any{
				"name": "agent", "backend": "claude", "prompt": "Say hello, {message}", "working_dir": work, "permission": "edit",
				"args": []string{"--allowedTools", "Bash"}, "timeout_seconds": 180,
			}))
			s.waitFor("the CLI to say something", func() bool { return len(s.lines(id)) > 0 })
			s.kill()
			s.start()
			e := s.await(id)
			if e.Status != c.status || !strings.Contains(strings.ToLower(e.Result+e.ErrorMessage), strings.ToLower(c.says)) {
				t.Errorf("execution = %+v", e)
			}
			if len(e.Attempts) != 1 || e.Attempts[0].CLIVersion == "" || e.Attempts[0].SessionID == "" {
				t.Errorf("attempts = %+v", e.Attempts)
			}
			if _, err := os.Stat(filepath.Join(work, clireal.ToolFile)); (err == nil) != c.file {
				t.Errorf("the tool's file: %v", err)
			}
			if out := text(s.lines(id), "stdout"); strings.Contains(out, key) || !strings.Contains(out, `"type":"result"`) {
				t.Errorf("output:\n%s", out)
			}
			if left := marked([]string{id}); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
	if len(standIn.Requests()) == 0 {
		t.Error("the stand-in was never asked")
	}
}

package main_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cliWith is like cli, with standard input.
func (s *server) cliWith(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Dir = s.env, filepath.Join(s.dir, "cwd")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestWebhooks_commands(t *testing.T) {
	t.Parallel()
	s := newServer(t, "GITHUB_WEBHOOK_SECRET="+stormSecret)
	file := filepath.Join(s.dir, "cwd", "hook.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says := func(want int, stdout, stderr string, args ...string) string {
		t.Helper()
		out, errs, code := s.cli(args...)
		if code != want || !strings.Contains(out, stdout) || !strings.Contains(errs, stderr) {
			t.Fatalf("%q: exit %d, want %d\n%s%s", args, code, want, out, errs)
		}
		return out
	}
	write(`
name: pushes
backend: command
command: ["true"]
webhooks:
  - source: github
    match: {events: [push], branches: [main]}
  - source: webhook
    auth: {kind: hmac}
    secret: a-secret-for-the-command-test
`)
	if out := says(0, "pushes: created", "", "trigger", "apply", "-f", file); strings.Contains(out, "a-secret-for") {
		t.Error("the secret was printed")
	}
	says(0, "pushes: unchanged", "", "trigger", "apply", "-f", file)
	shown := says(0, "secret: '***'", "", "trigger", "show", "pushes")
	if !strings.Contains(shown, "webhook_url: /hooks/trg-") {
		t.Errorf("no address in\n%s", shown)
	}
	write(shown)
	says(0, "pushes: unchanged", "", "trigger", "apply", "-f", file, "--dry-run")

	out, _, code := s.cliWith(`{"ref":"refs/heads/other"}`, "trigger", "match", "--event", "push", "--trigger", "pushes")
	if code != 1 || !strings.Contains(out, "branches") || !strings.Contains(out, `"other"`) {
		t.Errorf("exit %d\n%s", code, out)
	}
	out, _, code = s.cliWith(`{"ref":"refs/heads/main"}`, "trigger", "match", "--event", "push", "--json")
	if code != 0 || !strings.Contains(out, `"fires": true`) {
		t.Errorf("exit %d\n%s", code, out)
	}
	if _, errs, code := s.cliWith(`no json`, "trigger", "match"); code != 2 || !strings.Contains(errs, "not JSON") {
		t.Errorf("exit %d %s", code, errs)
	}

	got, status := deliver(http.DefaultClient, s.addr, "one", []byte(`{"ref":"refs/heads/main","repository":{"full_name":"o/r"}}`))
	if status != http.StatusAccepted {
		t.Fatalf("status %d", status)
	}
	says(0, got.Executions[0], "", "delivery", "list", "--trigger", "pushes", "--verdict", "accepted")
	says(0, "pushes: fired "+got.Executions[0], "", "delivery", "show", got.Delivery)
	says(0, `{"ref":"refs/heads/main","repository":{"full_name":"o/r"}}`, "", "delivery", "show", got.Delivery, "--body")
	again := strings.TrimSpace(says(0, "exec-", "", "delivery", "replay", got.Delivery))
	if e := s.await(again); e.Status != "success" {
		t.Errorf("the replay ended %s", e.Status)
	}
	var row struct {
		ReplayOf string `json:"replay_of"`
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(says(0, "", "", "delivery", "list", "--limit", "1", "--json")), &list); err != nil || len(list.Items) != 1 {
		t.Fatal(err, list)
	}
	if err := json.Unmarshal(list.Items[0], &row); err != nil || row.ReplayOf != got.Delivery {
		t.Errorf("%v %s", err, list.Items[0])
	}
	says(3, "", "no delivery", "delivery", "show", "dlv-x")

	// A newer push to the branch cancels the running execution of the branch.
	s.trigger(sh("long", "echo begun; while :; do sleep 1; done", map[string]any{
		"webhooks": []any{map[string]any{"source": "github", "supersede": true, "match": map[string]any{"branches": []string{"long"}}}},
	}))
	push := []byte(`{"ref":"refs/heads/long","repository":{"full_name":"o/r"}}`)
	first, _ := deliver(http.DefaultClient, s.addr, "long 1", push)
	if len(first.Executions) != 0 {
		t.Errorf("an id with a space was taken: %+v", first)
	}
	first, _ = deliver(http.DefaultClient, s.addr, "long-1", push)
	s.waitFor("it to run", func() bool { return len(s.lines(first.Executions[0])) > 0 })
	second, _ := deliver(http.DefaultClient, s.addr, "long-2", push)
	if e := s.await(first.Executions[0]); e.Status != "cancelled" || !strings.Contains(e.ErrorMessage, second.Executions[0]) {
		t.Errorf("the older one ended %s: %s", e.Status, e.ErrorMessage)
	}
	s.call("POST", "/api/v1/executions/"+second.Executions[0]+"/cancel", nil, nil)
	s.await(second.Executions[0])

	// The format of the Python version.
	write(`
name: old
backend: command
command: ["true"]
trigger_source: webhook
match_field_path: event.group_id
match_field_value: "4"
detection_keyword: weekly
text_field_path: event.text
webhook_secret: an-old-secret-of-a-webhook
`)
	says(0, "note: match_field_path", "", "trigger", "apply", "-f", file)
	says(0, "old: unchanged", "", "trigger", "apply", "-f", file)
	out, _, code = s.cliWith(`{"event":{"group_id":4,"text":"the weekly report"}}`, "trigger", "match", "--trigger", "old")
	if code != 0 || !strings.Contains(out, "yes") {
		t.Errorf("exit %d\n%s", code, out)
	}
	// No secret is in the server's log or, unencrypted, in the database.
	s.mu.Lock()
	log := s.log.String()
	s.mu.Unlock()
	for _, name := range []string{"agented.db", "agented.db-wal"} {
		b, _ := os.ReadFile(filepath.Join(s.data(), name))
		log += string(b)
	}
	for _, secret := range []string{"a-secret-for-the-command-test", "an-old-secret-of-a-webhook", stormSecret} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log or in the database", secret)
		}
	}
}

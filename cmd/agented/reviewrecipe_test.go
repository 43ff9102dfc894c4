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

	"github.com/agented/agented/internal/testrun"
)

// promptKeeper is a stand-in for claude that stores its prompt and what git reports
// of its working directory.
const promptKeeper = `#!/bin/sh
case "$1" in --version) echo "2.1.330 (Claude Code)"; exit 0;; esac
cat > "$HOME/prompt.txt"
git rev-parse HEAD origin/master > "$HOME/commits.txt"
echo '{"type":"system","subtype":"init","session_id":"s","model":"m","claude_code_version":"2.1.330"}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"reviewed","session_id":"s","num_turns":1,"usage":{"input_tokens":1,"output_tokens":1},"total_cost_usd":0.01}'
`

// octokitPullRequest returns octokit's example of an opened pull request with the
// commits of a real repository in place of its own.
func octokitPullRequest(t *testing.T, head, base string) []byte {
	t.Helper()
	dir := os.Getenv("AGENTED_TEST_WEBHOOKS")
	if dir == "" {
		t.Skip("AGENTED_TEST_WEBHOOKS is not set: run scripts/install-webhook-examples.sh and set it to the folder that --print prints")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "node_modules/@octokit/webhooks-examples/api.github.com/index.json"))
	if err != nil {
		t.Skipf("GitHub's payload examples are not installed: %v", err)
	}
	var index []struct {
		Name     string
		Examples []json.RawMessage
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	for _, event := range index {
		if event.Name != "pull_request" {
			continue
		}
		for _, body := range event.Examples {
			var pull struct {
				Action      string
				PullRequest struct {
					Head, Base struct{ SHA string }
				} `json:"pull_request"`
			}
			if err := json.Unmarshal(body, &pull); err != nil {
				t.Fatal(err)
			}
			if pull.Action == "opened" {
				body = bytes.ReplaceAll(body, []byte(pull.PullRequest.Head.SHA), []byte(head))
				return bytes.ReplaceAll(body, []byte(pull.PullRequest.Base.SHA), []byte(base))
			}
		}
	}
	t.Fatal("there is no example of an opened pull request")
	return nil
}

// octokitSignature signs a body with GitHub's own library.
func octokitSignature(t *testing.T, secret string, body []byte) string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed, so GitHub's library cannot sign the delivery")
	}
	cmd := exec.CommandContext(t.Context(), node, "--input-type=module", "-e",
		`import { sign } from "`+filepath.Join(os.Getenv("AGENTED_TEST_WEBHOOKS"), "node_modules/@octokit/webhooks-methods/dist-node/index.js")+`";
let body = ""; for await (const piece of process.stdin.setEncoding("utf8")) body += piece;
process.stdout.write(await sign("`+secret+`", body));`)
	cmd.Stdin = bytes.NewReader(body)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign the delivery: %v", err)
	}
	return string(out)
}

// docBlock returns the block of a documentation page that a marker line precedes.
func docBlock(t *testing.T, page, marker string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), marker+"\n```")
	_, after, _ = strings.Cut(after, "\n")
	block, _, closed := strings.Cut(after, "\n```")
	if !found || !closed {
		t.Fatalf("%s has no block after %q", page, marker)
	}
	return block + "\n"
}

// TestReviewRecipe follows the guide for reviews of pull requests from a signed
// delivery to the prompt of the agent.
func TestReviewRecipe(t *testing.T) {
	t.Parallel()
	r := &hostileRepository{t: t, origin: t.TempDir()}
	r.git("init", "-q", "-b", "master")
	r.write("kept.txt", "one\n", 0o600)
	r.write("old.txt", "two\n", 0o600)
	r.commit("refs/heads/master")
	r.git("checkout", "-q", "--detach")
	r.write("kept.txt", "one\nadded by the pull request\n", 0o600)
	r.git("rm", "-q", "old.txt")
	head := r.commit("refs/pull/2/head")
	r.git("checkout", "-q", "master")
	r.write("base-only.txt", "only on the base branch\n", 0o600)
	base := r.commit("refs/heads/master")
	body := octokitPullRequest(t, head, base)
	signature := octokitSignature(t, stormSecret, body)

	bin := t.TempDir()
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(promptKeeper), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "GITHUB_WEBHOOK_SECRET="+stormSecret, "PATH="+bin+":"+os.Getenv("PATH"), "ANTHROPIC_API_KEY=sk-ant-"+strings.Repeat("y", 40))
	recipe := docBlock(t, "docs/guides/github-pr-review.md", "<!-- file: pr-review.yaml -->")
	for from, to := range map[string]string{
		"https://github.com/{repo_full_name}.git": "file://" + r.origin,
		"[my-org/*]":          "[Codertocat/*]",
		"The changed files: ": "The base commit: {base_sha}\n  The changed files: ",
	} {
		if !strings.Contains(recipe, from) {
			t.Fatalf("the recipe has no %q:\n%s", from, recipe)
		}
		recipe = strings.ReplaceAll(recipe, from, to)
	}
	file := filepath.Join(t.TempDir(), "pr-review.yaml")
	if err := os.WriteFile(file, []byte(recipe), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := s.cli("trigger", "apply", "-f", file); code != 0 {
		t.Fatalf("apply: %d %s%s", code, out, errs)
	}

	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+s.addr+"/hooks/github", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": "pull_request", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
		"X-Hub-Signature-256": signature, "User-Agent": "GitHub-Hookshot/044aadd",
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got received
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusAccepted || len(got.Executions) != 1 {
		t.Fatalf("delivery: %d %+v, %v", resp.StatusCode, got, err)
	}
	e := s.await(got.Executions[0])
	if e.Status != "success" || e.Result != "reviewed" {
		t.Fatalf("execution = %+v\n%s", e, text(s.lines(e.ID), "system"))
	}

	home := filepath.Join(s.dir, "home")
	prompt, err := os.ReadFile(filepath.Join(home, "prompt.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"https://github.com/Codertocat/Hello-World/pull/2", "The base commit: " + base, "kept.txt", "old.txt",
		"+added by the pull request", "-two",
	} {
		if !strings.Contains(string(prompt), part) {
			t.Errorf("the prompt has no %q:\n%s", part, prompt)
		}
	}
	if strings.Contains(string(prompt), "only on the base branch") || strings.Contains(string(prompt), "base-only.txt") {
		t.Errorf("the prompt shows changes of the base branch:\n%s", prompt)
	}
	commits, err := os.ReadFile(filepath.Join(home, "commits.txt"))
	if err != nil || string(commits) != head+"\n"+base+"\n" {
		t.Errorf("HEAD and origin/master are %q (%v), want %s and %s", commits, err, head, base)
	}
}

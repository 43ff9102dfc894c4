package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// example is a signed payload example of GitHub.
type example struct {
	Event     string `json:"event"`
	Body      string `json:"body"`
	Signature string `json:"signature"`
}

// examplesDir is where scripts/install-webhook-examples.sh installs the
// packages.
func examplesDir(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("AGENTED_TEST_WEBHOOKS")
	if dir == "" {
		tb.Skip("AGENTED_TEST_WEBHOOKS is not set: run scripts/install-webhook-examples.sh and set it to the folder that --print prints")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules/@octokit/webhooks-examples/api.github.com/index.json")); err != nil {
		reason, _ := os.ReadFile(filepath.Join(dir, "reason.txt"))
		tb.Skipf("GitHub's payload examples are not in %s: %s", dir, bytes.TrimSpace(reason))
	}
	return dir
}

// signedExamples returns all payload examples, signed by GitHub's own library
// or, without Node.js, by the test.
func signedExamples(tb testing.TB, secret string) []example {
	tb.Helper()
	dir := examplesDir(tb)
	var out []example
	node, err := exec.LookPath("node")
	if err != nil {
		tb.Log("node is not installed: the examples are signed by this test")
		raw, err := os.ReadFile(filepath.Join(dir, "node_modules/@octokit/webhooks-examples/api.github.com/index.json"))
		if err != nil {
			tb.Fatal(err)
		}
		var index []struct {
			Name     string
			Examples []json.RawMessage
		}
		if err := json.Unmarshal(raw, &index); err != nil {
			tb.Fatal(err)
		}
		for _, e := range index {
			for _, body := range e.Examples {
				out = append(out, example{e.Name, string(body), "sha256=" + sign(secret, body)})
			}
		}
		return out
	}
	cmd := exec.CommandContext(tb.Context(), node, "testdata/sign.mjs", dir, secret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		tb.Fatalf("sign.mjs: %v: %s", err, stderr.Bytes())
	}
	for line := range bytes.Lines(raw) {
		var e example
		if err := json.Unmarshal(line, &e); err != nil {
			tb.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestGitHub_examples(t *testing.T) {
	t.Parallel()
	examples := signedExamples(t, docSecret)
	if len(examples) < 300 {
		t.Fatalf("only %d examples", len(examples))
	}
	auth := webhook.Auth{Kind: webhook.KindGitHub}
	events := map[string]int{}
	boundary := webhook.NewBoundary()
	for i, x := range examples {
		h := header("X-Hub-Signature-256", x.Signature, "X-GitHub-Event", x.Event, "X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958", "Content-Type", "application/json")
		r := webhook.Request{Header: h, Body: []byte(x.Body)}
		if err := auth.Verify(docSecret, r, time.Time{}); err != nil {
			t.Errorf("%d %s: refused: %s", i, x.Event, webhook.RefusalReason(err))
		}
		if err := auth.Verify("wrong", r, time.Time{}); !errors.Is(err, agented.Unauthenticated) {
			t.Errorf("%d %s: a wrong secret is answered %v", i, x.Event, err)
		}
		e, err := webhook.Parse(h, r.Body)
		if err != nil {
			t.Errorf("%d %s: %v", i, x.Event, err)
			continue
		}
		events[x.Event]++
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		form, err := webhook.Parse(h, []byte("payload="+url.QueryEscape(x.Body)))
		if err != nil || form.Title != e.Title || form.Sender != e.Sender {
			t.Errorf("%d %s as a form: %v", i, x.Event, err)
		}
		if missing := missingFields(e); missing != "" {
			t.Errorf("%d %s.%s: no %s", i, x.Event, e.Action, missing)
		}
		if _, err := webhook.Fence(e.Values(), boundary); err != nil {
			t.Errorf("%d %s: %v", i, x.Event, err)
		}
		v := webhook.Evaluate(webhook.Match{Events: []string{x.Event}, Actions: actionOf(e), AllowBots: true, Associations: anyone(e)}, e, nil)
		if v.Fires == e.Ping() {
			t.Errorf("%d %s.%s: %+v", i, x.Event, e.Action, v)
		}
		if v := webhook.Evaluate(webhook.Match{Events: []string{"nothing"}}, e, nil); v.Fires || v.Reason == "" {
			t.Errorf("%d %s: %+v", i, x.Event, v)
		}
	}
	t.Logf("%d examples of %d events", len(examples), len(events))
}

// anyone lets pull requests of outside authors fire.
func anyone(e *webhook.Event) []string {
	if e.PullRequest {
		return []string{"*"}
	}
	return nil
}

func actionOf(e *webhook.Event) []string {
	if e.Action == "" {
		return nil
	}
	return []string{e.Action}
}

// missingFields returns the required fields that an event of this name lacks.
func missingFields(e *webhook.Event) string {
	need := map[string]string{}
	switch e.Name {
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		need = map[string]string{"number": e.Number, "title": e.Title, "author": e.Author, "branch": e.Branch, "base": e.Base, "sha": e.SHA, "url": e.URL, "action": e.Action}
	case "issues", "issue_comment":
		need = map[string]string{"number": e.Number, "title": e.Title, "author": e.Author, "url": e.URL, "action": e.Action}
	case "push":
		need = map[string]string{"ref": e.Branch + e.Tag, "sha": e.SHA, "author": e.Author, "url": e.URL, "action": e.Action}
	case "release":
		need = map[string]string{"tag": e.Tag, "author": e.Author, "url": e.URL, "title": e.Title}
	case "workflow_run":
		need = map[string]string{"branch": e.Branch, "sha": e.SHA, "url": e.URL, "title": e.Title}
	}
	if e.Name == "issue_comment" || strings.HasPrefix(e.Name, "pull_request_review_comment") {
		need["comment"], need["association"], need["comment author"] = e.Comment, e.Association, e.CommentAuthor
	}
	if len(need) > 0 {
		need["repository"], need["sender"] = e.Repository, e.Sender
	}
	var missing []string
	for name, value := range need {
		if value == "" {
			missing = append(missing, name)
		}
	}
	return strings.Join(missing, ", ")
}

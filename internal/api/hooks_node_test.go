package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agented/agented"
)

// TestHook_github_examples sends all payload examples of GitHub, signed by
// GitHub's own library, to the endpoint.
func TestHook_github_examples(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("AGENTED_TEST_WEBHOOKS")
	if folder == "" {
		t.Skip("AGENTED_TEST_WEBHOOKS is not set: run scripts/install-webhook-examples.sh and set it to what --print says")
	}
	if _, err := os.Stat(filepath.Join(folder, "node_modules", "@octokit", "webhooks-examples")); err != nil {
		reason, _ := os.ReadFile(filepath.Join(folder, "reason.txt"))
		t.Skipf("the examples are not installed in %s: %v %s", folder, err, strings.TrimSpace(string(reason)))
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("..", "webhook", "testdata", "sign.mjs"), folder, hookSecret)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sign.mjs: %v: %s", err, stderr.String())
	}
	type example struct{ Event, Body, Signature string }
	var all []example
	for line := range bytes.Lines(out) {
		var e example
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %.200s", err, line)
		}
		all = append(all, e)
	}
	if len(all) < 300 {
		t.Fatalf("only %d examples", len(all))
	}
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	g.trigger(hookTrigger("all", `{"source":"github","match":{"allow_bots":true}}`))
	var wg sync.WaitGroup
	var mu sync.Mutex // guards verdicts
	verdicts := map[agented.DeliveryVerdict]int{}
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range next {
				e := all[i]
				a := g.send(g.client(), "POST", "/hooks/github", e.Body, with("X-GitHub-Event", e.Event),
					with("X-GitHub-Delivery", fmt.Sprint("example-", i)), with("X-Hub-Signature-256", e.Signature))
				if a.status != 202 && (e.Event != "ping" || a.status != 200) {
					t.Errorf("%s (example %d): %d %s", e.Event, i, a.status, a.body)
					continue
				}
				if e.Event != "ping" {
					mu.Lock()
					verdicts[a.received().Verdict]++
					mu.Unlock()
				}
				wrong := g.send(g.client(), "POST", "/hooks/github", e.Body, with("X-GitHub-Event", e.Event),
					with("X-GitHub-Delivery", fmt.Sprint("wrong-", i)), with("X-Hub-Signature-256", "sha256="+hexMAC("wrong", e.Body)))
				if wrong.status != 401 && wrong.status != 429 {
					t.Errorf("%s (example %d) with a wrong secret: %d %s", e.Event, i, wrong.status, wrong.body)
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Logf("%d examples: %v", len(all), verdicts)
	if verdicts[agented.VerdictAccepted] < 300 {
		t.Errorf("%v", verdicts)
	}
}

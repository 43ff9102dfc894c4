package clireal_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/clireal"
)

// onceCommand appends a line to a file each time that it runs.
const onceCommand = "echo " + clireal.ToolContent + " >> " + clireal.ToolFile

func TestSession_resumes_after_limit(t *testing.T) {
	for name, q := range map[string]request{
		"claude": {scenario: clireal.Once, permission: edit, oauth: true, key: "sk-ant-oat01-a", args: []string{"--allowedTools", "Bash"}},
		"codex":  {scenario: clireal.Once, permission: edit, key: "sk-a"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			b.standIn.Command = onceCommand
			// The tool is called, and the request with its result is rejected.
			until := time.Now().Add(45 * time.Second)
			b.standIn.Set(q.key, clireal.Rule{Scenario: clireal.UsageLimit, After: 1, Until: until})
			q.prompt = "Write the file about rhubarb."
			one := b.do(t, q)
			r := one.result
			if r.Class != agented.ClassAccountLimit || r.Outcome != agented.OutcomeRateLimited || r.SessionID == "" {
				t.Fatalf("%+v\n%s", r, one.out)
			}
			// Codex prints minutes only, and omits seconds for today.
			if d := r.Limit.Until.Sub(until); r.Limit.Until.IsZero() && name == "claude" || !r.Limit.Until.IsZero() && (d > 2*time.Second || d < -time.Minute) {
				t.Errorf("lifts at %v, want %v: %q", r.Limit.Until, until, r.Limit.Evidence)
			}
			wrote, err := os.ReadFile(filepath.Join(b.work(), clireal.ToolFile))
			if err != nil || strings.Count(string(wrote), "\n") != 1 {
				t.Fatalf("before the limit lifts the file holds %q (%v)", wrote, err)
			}
			time.Sleep(time.Until(until)) // the stand-in's clock is the real one
			q.resume, q.prompt = r.SessionID, "Go on."
			two := b.do(t, q)
			if two.result.Outcome != agented.OutcomeSuccess || two.result.SessionID != r.SessionID || two.result.Text != clireal.ToolAnswer {
				t.Fatalf("after the limit: %+v\n%s", two.result, two.out)
			}
			if wrote, _ := os.ReadFile(filepath.Join(b.work(), clireal.ToolFile)); strings.Count(string(wrote), "\n") != 1 {
				t.Errorf("the work was done again: %q", wrote)
			}
			var sent []byte
			for _, r := range b.standIn.Requests() {
				if r.Method == http.MethodPost && bytes.Contains(r.Body, []byte("Go on.")) {
					sent = r.Body
				}
			}
			if !bytes.Contains(sent, []byte("rhubarb")) || !bytes.Contains(sent, []byte(clireal.ToolFile)) {
				t.Errorf("the model did not see what was done before: %d bytes", len(sent))
			}
		})
	}
}

func TestLimit_per_account(t *testing.T) {
	for name, keys := range map[string][2]string{"claude": {"sk-ant-a", "sk-ant-b"}, "codex": {"sk-a", "sk-b"}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			b.standIn.Set(keys[0], clireal.Rule{Scenario: clireal.Refused})
			a := b.do(t, request{scenario: clireal.Text, key: keys[0]})
			if a.result.Class != agented.ClassAuth {
				t.Errorf("the refused key: %+v\n%s", a.result, a.out)
			}
			if other := b.do(t, request{scenario: clireal.Text, key: keys[1]}); other.result.Outcome != agented.OutcomeSuccess {
				t.Errorf("the other key: %+v\n%s", other.result, other.out)
			}
			for _, r := range b.standIn.Requests() {
				if r.Method == http.MethodPost && r.Key != keys[0] && r.Key != keys[1] {
					t.Errorf("%s came with the key %q", r.Path, r.Key)
				}
			}
		})
	}
}

// The stall detector detects a stalled CLI by its real output.
func TestRealCLI_stall_detector(t *testing.T) {
	for _, c := range []struct {
		name, cli string
		scenario  clireal.Scenario
		class     agented.Class
		evidence  string
	}{
		{"codex-limit", "codex", clireal.LongLimit, agented.ClassThrottle, "429"},
		{"codex-network", "codex", clireal.Cut, agented.ClassNetwork, ""},
		{"opencode-limit", "opencode", clireal.LongLimit, agented.ClassThrottle, "Rate limit"},
		{"opencode-overloaded", "opencode", clireal.Overloaded, agented.ClassOverload, ""},
		{"claude-limit", "claude", clireal.Limit, agented.ClassThrottle, "rate"},
		{"gemini-limit", "gemini", clireal.Limit, agented.ClassThrottle, "quota"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, c.cli)
			q := request{scenario: c.scenario, stuck: true, cause: agented.CauseStalled, sample: c.cli + "-stuck-" + string(c.scenario)}
			if c.cli == agented.BackendGemini {
				q.model = "gemini-3.8-flash"
			}
			got := b.do(t, q)
			r := got.result
			if r.Class != c.class && !(c.class == agented.ClassThrottle && r.Class == agented.ClassAccountLimit) {
				t.Errorf("class %s until %v, want %s: %q\n%s", r.Class, r.Limit.Until, c.class, r.Reason, got.out)
			}
			if r.Outcome != r.Class.Outcome() || !strings.Contains(r.Limit.Evidence, c.evidence) {
				t.Errorf("%s, evidence %q", r.Outcome, r.Limit.Evidence)
			}
			if got.took > 2*time.Minute {
				t.Errorf("it was seen after %v", got.took)
			}
		})
	}
}

func TestRealCLI_network_down(t *testing.T) {
	for _, name := range []string{"claude", "codex"} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			b.url = "http://127.0.0.1:9" // nothing listens there
			q := request{scenario: clireal.Text, env: map[string]string{"CLAUDE_CODE_MAX_RETRIES": "1"}}
			if name == agented.BackendCodex {
				q.stuck, q.cause = true, agented.CauseStalled // it would wait without end
			}
			down := b.do(t, q)
			if down.result.Class != agented.ClassNetwork || down.result.Outcome != agented.OutcomeTransient {
				t.Errorf("%+v\n%s", down.result, down.out)
			}
		})
	}
}

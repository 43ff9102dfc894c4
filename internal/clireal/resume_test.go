package clireal_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/clireal"
)

// driven are the backends whose CLIs come from elsewhere.
var driven = []string{agented.BackendClaude, agented.BackendCodex, agented.BackendGemini, agented.BackendOpenCode}

func TestCLI_versions(t *testing.T) {
	for _, name := range driven {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			var got string
			var err error
			for range 5 { // a busy machine may need more than ten seconds
				if got, err = agentcli.Version(t.Context(), b.backend, b.program, b.env(t, request{})); err == nil {
					break
				}
				t.Log(err)
			}
			if got != b.version || err != nil {
				t.Errorf("version %q, want %q (%v)", got, b.version, err)
			}
		})
	}
}

func TestSession_history(t *testing.T) {
	for _, name := range driven {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name)
			const first = "Remember the word rhubarb."
			one := b.do(t, request{scenario: clireal.Text, prompt: first})
			if one.result.Outcome != agented.OutcomeSuccess || one.result.SessionID == "" {
				t.Fatalf("first run: %+v\n%s", one.result, one.out)
			}
			two := b.do(t, request{scenario: clireal.Text, prompt: "Which word?", resume: one.result.SessionID, sample: name + "-resume"})
			if two.result.Outcome != agented.OutcomeSuccess || two.result.SessionID != one.result.SessionID {
				t.Fatalf("second run: %+v, want session %s\n%s", two.result, one.result.SessionID, two.out)
			}
			// The earlier messages were sent to the model again.
			requests := b.standIn.Requests()
			var sent []byte
			for _, r := range requests {
				if r.Method == http.MethodPost && bytes.Contains(r.Body, []byte("Which word?")) {
					sent = r.Body
				}
			}
			if !bytes.Contains(sent, []byte(first)) {
				t.Errorf("the model was not told of the first prompt again, in %d requests", len(requests))
			}
			if u := two.result.Usage; name == agented.BackendClaude && (u.CostUSD == nil || one.result.Usage.CostUSD == nil || *u.CostUSD > 1.5**one.result.Usage.CostUSD) {
				t.Errorf("the second run's cost %+v counts the first one's %+v", u, one.result.Usage)
			}
		})
	}
}

package agentcli_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// The shim's description of the exit is the reason of the attempt.
func TestKilledForMemory(t *testing.T) {
	const detail = "the kernel killed it because the execution used more memory than its limit of 2 GiB (limits.memory or AGENTED_MAX_MEMORY)"
	for _, name := range []string{"command", "claude", "codex", "gemini", "opencode"} {
		b, _ := registry.ByName(name)
		got := lineReader{b, agentcli.NewReader(b)}.Result(agented.Exit{Cause: agented.CauseExit, Signal: "SIGKILL", Detail: detail}, time.Now())
		if got.Outcome != agented.OutcomeFailed || !strings.Contains(got.Reason, detail) {
			t.Errorf("%s: %s %q", name, got.Outcome, got.Reason)
		}
	}
}

// Excerpts from output are cut between two characters, wherever the cut is.
func TestCut(t *testing.T) {
	code := 0
	exit := agented.Exit{Cause: agented.CauseExit, Code: &code}
	for _, lines := range [][]string{
		{strings.Repeat("日", 700_000)},
		{strings.Repeat("🙂", 5_000)},
		{"x" + strings.Repeat("🙂", 5_000)},
		{"first", strings.Repeat("é", 4_000), "xyz"},
		{strings.Repeat("日", 5_000), strings.Repeat("本", 5_000), strings.Repeat("語", 5_000), strings.Repeat("日", 5_000), strings.Repeat("本", 5_000)},
	} {
		for _, name := range []string{"command", "claude", "codex", "gemini", "opencode"} {
			b, _ := registry.ByName(name)
			for pad := range 4 {
				r := lineReader{b, agentcli.NewReader(b)}
				for _, line := range lines {
					r.Line(agented.Stdout, []byte(strings.Repeat("x", pad)+line))
					r.Line(agented.Stderr, []byte(strings.Repeat("x", pad)+line))
				}
				got := r.Result(exit, time.Now())
				for _, text := range []string{got.Text, got.Reason} {
					if !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError) {
						t.Errorf("%s, %d bytes before: cut inside a character: %.40q … %q", name, pad, text, text[max(0, len(text)-20):])
					}
				}
				if name == "command" && (len(got.Text) < 4000 || len(got.Text) > 4096) && len(lines) == 1 {
					t.Errorf("the result of a command has %d bytes", len(got.Text))
				}
			}
		}
	}
}

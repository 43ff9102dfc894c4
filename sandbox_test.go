package agented

import (
	"strings"
	"testing"
)

func TestSandbox_levels(t *testing.T) {
	t.Parallel()
	for level, want := range map[Sandbox]string{
		"": "", SandboxOff: "", SandboxGuard: "", SandboxStrict: "",
		"Guard": "must be one of off, guard, strict", "on": "must be one of off, guard, strict",
	} {
		if got := level.Problem(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", level, got, want)
		}
	}
	levels := []Sandbox{"", SandboxOff, SandboxGuard, SandboxStrict}
	for i, a := range levels {
		for j, b := range levels {
			if a.Stronger(b) != (i > j) {
				t.Errorf("%q stronger than %q: %v", a, b, a.Stronger(b))
			}
			agent := Agent{Spec: Spec{Sandbox: a}}
			if got := agent.Fill(Spec{Sandbox: b}).Sandbox; got != levels[max(i, j)] {
				t.Errorf("agent %q, trigger %q: %q", a, b, got)
			}
		}
	}
}

package agented

import (
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	agent := Agent{Spec: Spec{Limits: Limits{Memory: 2000, PIDs: 50}}}
	if got, want := agent.Fill(Spec{Limits: Limits{Memory: 1000, PIDs: 100, CPUWeight: 20}}).Limits, (Limits{Memory: 1000, PIDs: 50, CPUWeight: 20}); got != want {
		t.Errorf("with an agent: %+v, want %+v", got, want)
	}
	if got, want := (Limits{Memory: 1}).Or(Limits{Memory: 2, Swap: 3}), (Limits{Memory: 1, Swap: 3}); got != want {
		t.Errorf("with the server's: %+v, want %+v", got, want)
	}
	if got, want := (Limits{Disk: 5}).Lower(Limits{Disk: 3}).Or(Limits{Disk: 1, Memory: 7}), (Limits{Disk: 3, Memory: 7}); got != want {
		t.Errorf("of disk: %+v, want %+v", got, want)
	}
	s := Spec{Backend: BackendCommand, Command: []string{"true"}, Overlap: OverlapQueue, Limits: Limits{Memory: -1, Swap: MaxLimitMiB + 1, PIDs: -1, CPUWeight: 10001, Disk: -1}}
	if bad := s.Validate(); len(bad) != 5 || bad[0].Path != "limits.memory" || bad[3].Path != "limits.cpu_weight" {
		t.Errorf("%+v", bad)
	}
}

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

package proposal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

func plan(t *testing.T, spec agented.Spec, text string) agented.Publication {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Plan(Input{Execution: &agented.Execution{ID: "exec-1", Snapshot: spec}, Dir: dir, Mask: redact.New([]string{"v4lue-that-is-secret"})})
	if len(got) != 1 {
		t.Fatalf("%d publications", len(got))
	}
	return got[0]
}

// TestPlan_other_repository has an event of one repository, and writes to another.
func TestPlan_other_repository(t *testing.T) {
	t.Parallel()
	p := plan(t, agented.Spec{
		Publish:   &agented.Publish{Repository: "o/other", Comment: &agented.PublishComment{}},
		PublishTo: &agented.PublishTarget{Repository: "o/r", Number: 7},
	}, `{"kind":"comment","body":"x"}`)
	if p.Rule != RuleSubject || p.Subject != 0 {
		t.Errorf("%+v", p)
	}
}

func TestPlan_divided_secret(t *testing.T) {
	t.Parallel()
	spec := agented.Spec{Publish: &agented.Publish{Comment: &agented.PublishComment{}}, PublishTo: &agented.PublishTarget{Repository: "o/r", Number: 7}}
	if p := plan(t, spec, `{"kind":"comment","body":"v4lue-\u200bthat-is-secret"}`); p.Rule != RuleSecret || strings.Contains(string(p.Proposal), "v4lue") {
		t.Errorf("%+v", p)
	}
	if p := plan(t, spec, `{"kind":"\u0076`+"4lue-that-is-secret"+`"}`); p.Rule != RuleSchema || p.Kind != "" || strings.Contains(string(p.Proposal), "v4lue") {
		t.Errorf("%+v", p)
	}
}

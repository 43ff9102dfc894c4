package agentcli_test

import (
	"slices"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// TestForeignPlan checks that no CLI uses the settings of an untrusted repository.
func TestForeignPlan(t *testing.T) {
	t.Parallel()
	plan := func(name string, foreign bool) agentcli.Plan {
		b, _ := registry.ByName(name)
		p, err := b.Plan(agentcli.Request{
			Spec:   agented.Spec{Backend: name, Permission: agented.PermissionRead, Args: []string{"--extra"}},
			Prompt: "x", Execution: "exec-x", Attempt: 1, Env: map[string]string{}, Foreign: foreign,
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := plan("claude", true)
	at := slices.Index(p.Args, "--setting-sources")
	if at < 0 || p.Args[at+1] != "user" || !slices.Contains(p.Args, "--strict-mcp-config") || at > slices.Index(p.Args, "--extra") {
		t.Errorf("claude: %q", p.Args)
	}
	if own := plan("claude", false).Args; slices.Contains(own, "--setting-sources") {
		t.Errorf("claude in a trusted folder: %q", own)
	}
	if p := plan("opencode", true); p.Env["OPENCODE_DISABLE_PROJECT_CONFIG"] != "1" {
		t.Errorf("opencode: %v", p.Env)
	}
	if p := plan("opencode", true); p.Env["OPENCODE_CONFIG_CONTENT"] != `{"formatter":false,"lsp":false}` {
		t.Errorf("opencode: %v", p.Env)
	}
	if p := plan("opencode", false); p.Env["OPENCODE_DISABLE_PROJECT_CONFIG"] != "" {
		t.Errorf("opencode in a trusted folder: %v", p.Env)
	}
}

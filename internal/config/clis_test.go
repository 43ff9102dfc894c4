package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/command"
	"github.com/agented/agented/internal/agentcli/registry"
)

// newCLI is a CLI that only this test has.
type newCLI struct{ command.CLI }

func (newCLI) Name() string { return "sixth" }

func (newCLI) Rules() *agentcli.Rules {
	return &agentcli.Rules{
		Variables: []string{"SIXTH_API_KEY", "SIXTH_HOME", "OPENAI_API_KEY"},
		Settings: []agentcli.Setting{
			{Name: "SIXTH_API_KEY", Kind: "secret", Help: "API key."},
			{Name: "SIXTH_HOME", Old: "SIXTH_DIR", Kind: "path", Help: "Folder."},
		},
	}
}

func TestCLISettings_of_a_new_CLI(t *testing.T) {
	t.Parallel()
	all := cliSettings("Agent CLIs", append(slices.Clone(registry.All()), newCLI{}))
	of := map[string]setting{}
	for i, s := range all {
		of[s.name] = s
		if s.sectionOfItsOwn != (i == 0) || s.section != "Agent CLIs" {
			t.Errorf("%s is in the section %q", s.name, s.section)
		}
	}
	if key := of["SIXTH_API_KEY"]; key.secret != "backend" || key.kindOf != secretType || !slices.Equal(key.backends, []string{"sixth"}) {
		t.Errorf("key: %+v", key)
	}
	if home := of["SIXTH_HOME"]; home.secret != "" || home.kind != "path" || home.old != "SIXTH_DIR" {
		t.Errorf("folder: %+v", home)
	}
	if shared := of["OPENAI_API_KEY"]; !slices.Equal(shared.backends, []string{"codex", "opencode", "sixth"}) {
		t.Errorf("OPENAI_API_KEY is passed to %v", shared.backends)
	}
}

// Every setting of a CLI is one of its variables, with a whole sentence, and is declared once.
func TestCLISettings_are_complete(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, cli := range registry.All() {
		for _, s := range cli.Rules().Settings {
			if !strings.Contains(Reference(), "| `"+s.Name+"`") || !strings.Contains(EnvExample(), "\n#"+s.Name+"=") {
				t.Errorf("%s is not documented", s.Name)
			}
			if !slices.Contains(cli.Rules().Variables, s.Name) || seen[s.Name] || !slices.Contains([]string{"secret", "url", "path"}, s.Kind) {
				t.Errorf("%s: %+v", cli.Name(), s)
			}
			seen[s.Name] = true
		}
	}
	for _, s := range settings() {
		if delete(seen, s.name); s.index < 0 && (s.help == "" || s.help[len(s.help)-1] != '.') {
			t.Errorf("%s: help %q is not a sentence", s.name, s.help)
		}
	}
	if len(seen) > 0 {
		t.Errorf("not among the settings: %v", seen)
	}
}

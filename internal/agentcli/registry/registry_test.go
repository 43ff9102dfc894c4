package registry_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

// The vocabulary of the root package is about the CLIs of the registry.
func TestRegistry_equals_vocabulary(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(agented.Backends, registry.Names()); diff != "" {
		t.Errorf("agented.Backends (-) and the registry (+):\n%s", diff)
	}
	for _, cli := range registry.All() {
		name, variables := cli.Name(), cli.Rules().Variables
		home := agented.ConfigVariable(name)
		if (home == "") != (len(variables) == 0) {
			t.Errorf("%s: its folder is set by %q, and its variables are %v", name, home, variables)
		}
		if rules := cli.Rules(); rules.HomeVariable != home {
			t.Errorf("%s: its folder is set by %q, in the vocabulary by %q", name, rules.HomeVariable, home)
		}
		if home != "" && !slices.Contains(variables, home) {
			t.Errorf("%s: %s is not one of its variables", name, home)
		}
		key := (&agented.Account{Backend: name}).CredentialVariable()
		if len(variables) > 0 && (!slices.Contains(variables, key) || cli.Rules().KeyVariable != key) {
			t.Errorf("%s: the variable with its key, %s, is not one of its variables", name, key)
		}
	}
}

// A suggested model has a known price, unless it is a word by which claude chooses one.
func TestModels_have_prices(t *testing.T) {
	t.Parallel()
	for _, cli := range registry.All() {
		for _, model := range cli.Rules().Models {
			if cli.Name() == agented.BackendClaude {
				model = "claude-" + model + "-4-6"
			}
			if _, _, ok := agentcli.DefaultPrices().Estimate(model, agented.Usage{InputTokens: new(int64(1)), OutputTokens: new(int64(1))}); !ok {
				t.Errorf("%s suggests %s, which has no price", cli.Name(), model)
			}
		}
	}
}

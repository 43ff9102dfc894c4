package registry_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
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
		if home != "" && !slices.Contains(variables, home) {
			t.Errorf("%s: %s is not one of its variables", name, home)
		}
		if key := (&agented.Account{Backend: name}).CredentialVariable(); len(variables) > 0 && !slices.Contains(variables, key) {
			t.Errorf("%s: the variable with its key, %s, is not one of its variables", name, key)
		}
	}
}

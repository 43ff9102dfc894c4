package api

import (
	"slices"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented/internal/agentcli/command"
	"github.com/agented/agented/internal/agentcli/registry"
)

// newCLI is a CLI that only this test adds.
type newCLI struct{ command.CLI }

func (newCLI) Name() string { return "sixth" }

func TestBackendName_lists_the_registry(t *testing.T) {
	enum := func(p huma.SchemaProvider) (names []string) {
		for _, v := range p.Schema(nil).Enum {
			names = append(names, v.(string))
		}
		return names
	}
	if all := enum(backendName("")); !slices.Equal(all, registry.Names()) || slices.Contains(all, "sixth") {
		t.Errorf("backends %v", all)
	}
	remove := registry.Add(newCLI{})
	if all, agents := enum(backendName("")), enum(agentBackend("")); !slices.Contains(all, "sixth") || !slices.Contains(agents, "sixth") || slices.Contains(agents, "command") {
		t.Errorf("backends %v, agents %v", all, agents)
	}
	remove()
	if all := enum(backendName("")); slices.Contains(all, "sixth") {
		t.Errorf("backends %v", all)
	}
}

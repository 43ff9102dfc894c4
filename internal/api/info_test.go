package api_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/command"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api"
)

// sixthCLI is a CLI that only this test adds.
type sixthCLI struct{ command.CLI }

func (sixthCLI) Name() string    { return "sixth" }
func (sixthCLI) Program() string { return "sixth" }
func (sixthCLI) Install() string { return "install it with `npm install -g sixth`" }

func (sixthCLI) Rules() *agentcli.Rules {
	return &agentcli.Rules{
		Label: "Sixth", Protocol: true, Variables: []string{"SIXTH_API_KEY", "SIXTH_HOME"}, KeyVariable: "SIXTH_API_KEY", HomeVariable: "SIXTH_HOME",
		Permissions: agentcli.AllPermissions, Models: []string{"six-1"},
	}
}

// The forms of the web interface take the CLIs from the description of the server; their test,
// web/test/clis.test.ts, begins where this one ends.
func TestInfo_describes_the_CLIs(t *testing.T) {
	remove := registry.Add(sixthCLI{})
	defer remove()
	g := start(t, settings{})
	var info api.Info
	g.admin("GET", "/api/v1/info", "").want(200).json(&info)
	if len(info.CLIs) != len(info.Backends) {
		t.Fatalf("%d CLIs, %d backends", len(info.CLIs), len(info.Backends))
	}
	for i, c := range info.CLIs {
		agent := c.Name != agented.BackendCommand
		if c.Name != info.Backends[i] || c.Label == "" || c.Agent != agent || agent != (c.KeyVariable != "" && c.ConfigVariable != "" && len(c.Models) > 0) {
			t.Errorf("%+v", c)
		}
	}
	want := api.AgentCLI{
		Name: "sixth", Label: "Sixth", Agent: true, Install: "install it with `npm install -g sixth`", Permissions: agentcli.AllPermissions,
		Variables: []string{"SIXTH_API_KEY", "SIXTH_HOME"}, KeyVariable: "SIXTH_API_KEY", ConfigVariable: "SIXTH_HOME", Models: []string{"six-1"},
	}
	if diff := cmp.Diff(want, info.CLIs[len(info.CLIs)-1]); diff != "" {
		t.Error(diff)
	}
}

// TestInfo_sandbox also tests the notice of the overview.
func TestInfo_sandbox(t *testing.T) {
	t.Parallel()
	state := api.SandboxState{Setting: "auto", Default: "off", Available: []agented.Sandbox{"off"}, Missing: "guard", Fix: "install it", Problem: "Executions run without a sandbox."}
	g := start(t, settings{options: func(o *api.Options) { o.Sandbox = func() api.SandboxState { return state } }})
	var info api.Info
	g.admin("GET", "/api/v1/info", "").want(200).json(&info)
	if diff := cmp.Diff(state, info.Sandbox); diff != "" {
		t.Error(diff)
	}
	var o api.Overview
	g.admin("GET", "/api/v1/overview", "").want(200).json(&o)
	if len(o.Health.Notices) != 1 || o.Health.Notices[0] != state.Problem {
		t.Errorf("notices: %q", o.Health.Notices)
	}
}

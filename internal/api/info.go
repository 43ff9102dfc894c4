package api

import (
	"cmp"
	"context"
	"runtime"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/secret"
)

// information handles the requests about the server and its settings.
type information struct {
	version string
	node    agented.NodeID
	key     secret.Key
	started time.Time
	config  func() *config.Config
	now     func() time.Time
	mask    func(string) string
	sandbox func() SandboxState // nil: no state
}

// routes returns the routes of the server's description.
func (h *information) routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/info", agented.RoleViewer, h.info, rest.About{
			ID: "get-info", Tag: "server", Summary: "Show server information", Text: "Returns version, node id, and the backends and placeholders that triggers can use.",
		}).Reaching(rest.Everything),
		rest.Op("GET /api/v1/config", agented.RoleAdmin, h.settings, rest.About{
			ID: "get-config", Tag: "server", Summary: "Show the settings", Text: "Lists all settings with their sources. Secrets are masked.",
		}),
	}
}

// Info describes the server.
type Info struct {
	Version       string         `json:"version"`
	GoVersion     string         `json:"go_version"`
	Platform      string         `json:"platform" example:"linux/amd64"`
	Node          agented.NodeID `json:"node" doc:"Id of this node"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Backends      []string       `json:"backends" doc:"The backends that a trigger can use"`
	CLIs          []AgentCLI     `json:"clis" doc:"What each backend is, in the order of backends"`
	Placeholders  []Placeholder  `json:"placeholders" doc:"The names that a prompt template can use as {name}"`
	MaxConcurrent int            `json:"max_concurrent" doc:"Concurrent executions on this node"`
	Sandbox       SandboxState   `json:"sandbox" doc:"Which sandbox levels this machine provides, and the default"`
}

// SandboxState describes the sandbox levels of this machine.
type SandboxState struct {
	Setting   agented.Sandbox   `json:"setting" doc:"Value of AGENTED_SANDBOX: auto, off, guard or strict"`
	Default   agented.Sandbox   `json:"default" doc:"Level of executions whose trigger or agent names none"`
	Reason    string            `json:"reason" doc:"Why this is the default"`
	Available []agented.Sandbox `json:"available" doc:"Levels that this machine provides, weakest first; empty: unknown"`
	Missing   agented.Sandbox   `json:"missing" doc:"Weakest level that it does not provide; empty: none"`
	Fix       string            `json:"fix" doc:"Why it does not provide that level, and how to fix it"`
	Problem   string            `json:"problem" doc:"Set if executions run without a sandbox, or fail, because of that; one or more sentences"`
}

// sandboxState is a state without levels if there is no function.
func sandboxState(f func() SandboxState) SandboxState {
	if f == nil {
		return SandboxState{Setting: agented.SandboxOff, Default: agented.SandboxOff, Available: []agented.Sandbox{}}
	}
	return f()
}

// AgentCLI describes a backend, for forms.
type AgentCLI struct {
	Name           string               `json:"name" doc:"The value of backend fields"`
	Label          string               `json:"label" doc:"The name of the product" example:"Claude Code"`
	Agent          bool                 `json:"agent" doc:"False for command, which runs any program and has no prompt, account or permission"`
	Install        string               `json:"install" doc:"How to install the CLI, in Markdown; empty if there is nothing to install"`
	Permissions    []agented.Permission `json:"permissions" doc:"The permissions that it distinguishes; empty if it has no tools"`
	Variables      []string             `json:"variables" doc:"The environment variables of its accounts"`
	KeyVariable    string               `json:"key_variable" doc:"The variable with an API key; empty if it has no accounts"`
	ConfigVariable string               `json:"config_variable" doc:"The variable with the folder of its login; empty if it has no accounts"`
	Models         []string             `json:"models" doc:"Names of some models, as suggestions"`
}

// agentCLIs describes the CLIs of the registry.
func agentCLIs() []AgentCLI {
	var out []AgentCLI
	for _, cli := range registry.All() {
		r := cli.Rules()
		c := AgentCLI{
			Name: cli.Name(), Label: cmp.Or(r.Label, cli.Name()), Agent: cli.Name() != agented.BackendCommand,
			Permissions: append([]agented.Permission{}, r.Permissions...), Variables: append([]string{}, r.Variables...),
			KeyVariable: r.KeyVariable, ConfigVariable: r.HomeVariable, Models: append([]string{}, r.Models...),
		}
		if cli.Program() != "" {
			c.Install = cli.Install()
		}
		out = append(out, c)
	}
	return out
}

// Placeholder is a name that a prompt template can use.
type Placeholder struct {
	Name string `json:"name"`
	Help string `json:"help"`
}

func (h *information) info(context.Context, *struct{}) (*rest.Output[Info], error) {
	out := rest.Reply(Info{
		Version: h.version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Node: h.node, StartedAt: rest.Time(h.started), UptimeSeconds: int64(h.now().Sub(h.started).Seconds()),
		Backends: registry.Names(), CLIs: agentCLIs(), MaxConcurrent: h.config().MaxConcurrent, Sandbox: sandboxState(h.sandbox),
	})
	for _, p := range agented.Placeholders {
		out.Body.Placeholders = append(out.Body.Placeholders, Placeholder{Name: p.Name, Help: p.Help})
	}
	return out, nil
}

// Settings are the server's settings and their sources.
type Settings struct {
	Items []config.Row `json:"items"`
}

func (h *information) settings(context.Context, *struct{}) (*rest.Output[Settings], error) {
	rows := h.config().Show(h.key.Source(), h.key.Fingerprint())
	for i := range rows {
		rows[i].Value = h.mask(rows[i].Value)
	}
	return rest.Reply(Settings{Items: rows}), nil
}

// Package opencode describes OpenCode.
package opencode

import (
	"encoding/json"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI is OpenCode.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendOpenCode }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "opencode" }

// Install implements [agentcli.CLI].
func (CLI) Install() string {
	return "install OpenCode with `npm install -g opencode-ai`, and make sure that `opencode` is on the server's PATH"
}

// openCodeRules are permission rules in the format of OPENCODE_PERMISSION, which override those
// of the configuration.
var openCodeRules = map[agented.Permission]string{
	agented.PermissionRead: `{"*":"deny","read":"allow","grep":"allow","glob":"allow","list":"allow","todowrite":"allow","todoread":"allow","external_directory":"deny"}`,
	agented.PermissionEdit: `{"*":"allow","bash":"deny","webfetch":"deny","external_directory":"deny"}`,
	agented.PermissionFull: `{"*":"allow"}`,
}

// Plan implements [agentcli.CLI].
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	// Without its log it waits for a limit silently.
	args := []string{"opencode", "run", "--format", "json", "--print-logs", "--log-level", "ERROR"}
	if r.Resume != "" {
		args = append(args, "--session", r.Resume)
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	permission := r.Spec.Permission
	if _, known := openCodeRules[permission]; !known {
		permission = agented.PermissionEdit
	}
	if permission == agented.PermissionFull {
		args = append(args, "--auto")
	}
	env := map[string]string{}
	agentcli.SetUnless(
		env, r,
		"OPENCODE_PERMISSION", openCodeRules[permission], "OPENCODE_DISABLE_AUTOUPDATE", "1", "OPENCODE_DISABLE_LSP_DOWNLOAD", "1",
		"OPENCODE_DISABLE_TERMINAL_TITLE", "1",
	)
	if r.Foreign {
		agentcli.SetUnless(env, r, "OPENCODE_DISABLE_PROJECT_CONFIG", "1", "OPENCODE_DISABLE_EXTERNAL_SKILLS", "1", "OPENCODE_DISABLE_CLAUDE_CODE_SKILLS", "1")
		if content, ok := withoutProjectTools(r.Env["OPENCODE_CONFIG_CONTENT"]); ok {
			env["OPENCODE_CONFIG_CONTENT"] = content
		}
	}
	args = append(args, r.Spec.Args...)
	return agentcli.Plan{Args: args, Env: env, Stdin: []byte(agentcli.WithSystem(r)), Capture: agented.CaptureFile}, nil
}

// withoutProjectTools disables language servers and formatters in a configuration: OpenCode runs
// their programs from node_modules, vendor and .venv of the repository when it reads or writes a
// file. A configuration that contains these settings or is not JSON stays unchanged.
func withoutProjectTools(config string) (string, bool) {
	fields := map[string]json.RawMessage{}
	if config != "" {
		if err := json.Unmarshal([]byte(config), &fields); err != nil || fields == nil {
			return "", false
		}
	}
	for _, name := range []string{"lsp", "formatter"} {
		if _, set := fields[name]; !set {
			fields[name] = json.RawMessage("false")
		}
	}
	text, err := json.Marshal(fields)
	return string(text), err == nil
}

// Package codex describes OpenAI's Codex CLI.
package codex

import (
	"encoding/json"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI is OpenAI's Codex CLI.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendCodex }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "codex" }

// Install implements [agentcli.CLI].
func (CLI) Install() string {
	return "install Codex with `npm install -g @openai/codex`, and make sure that `codex` is on the server's PATH"
}

// Plan implements [agentcli.CLI].
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	args := []string{"codex", "exec", "--json", "--skip-git-repo-check"}
	switch r.Spec.Permission {
	case agented.PermissionRead:
		args = append(args, "--sandbox", "read-only")
	case agented.PermissionFull:
		args = append(args, "--sandbox", "danger-full-access")
	default:
		args = append(args, "--sandbox", "workspace-write")
	}
	// Otherwise each start checks for updates, clones a list of plugins and runs a login shell to
	// capture its environment.
	args = append(args, "--disable", "plugins", "--disable", "shell_snapshot", "-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false")
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	if base := r.Env["OPENAI_BASE_URL"]; base != "" {
		// The CLI ignores the variable.
		args = append(args, "-c", "openai_base_url="+tomlString(base))
	}
	if r.Spec.Permission != agented.PermissionRead {
		for _, dir := range r.Spec.Paths {
			args = append(args, "--add-dir="+dir)
		}
	}
	env := map[string]string{}
	if key := r.Env["OPENAI_API_KEY"]; key != "" {
		agentcli.SetUnless(env, r, "CODEX_API_KEY", key)
	}
	if r.SchemaFile != "" {
		args = append(args, "--output-schema", r.SchemaFile)
	}
	args = append(args, r.Spec.Args...)
	if r.Resume != "" {
		args = append(args, "resume", r.Resume)
	}
	args = append(args, "-") // the prompt is on standard input
	return agentcli.Plan{Args: args, Env: env, Stdin: []byte(agentcli.WithSystem(r)), Capture: agented.CaptureFile}, nil
}

// tomlString formats a basic TOML string; JSON's escapes are a subset of TOML's.
func tomlString(s string) string {
	b, _ := json.Marshal(s) // marshalling a string cannot fail
	return string(b)
}

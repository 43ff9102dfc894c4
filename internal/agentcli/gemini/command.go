// Package gemini describes Google's Gemini CLI.
package gemini

import (
	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI is Google's Gemini CLI.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendGemini }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "gemini" }

// Install implements [agentcli.CLI].
func (CLI) Install() string {
	return "install the Gemini CLI with `npm install -g @google/gemini-cli`, and make sure that `gemini` is on the server's PATH"
}

// Plan implements [agentcli.CLI].
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	args := []string{"gemini", "--output-format", "stream-json"}
	switch r.Spec.Permission {
	case agented.PermissionRead:
		args = append(args, "--approval-mode", "default")
	case agented.PermissionFull:
		args = append(args, "--approval-mode", "yolo")
	default:
		args = append(args, "--approval-mode", "auto_edit")
	}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", agentcli.SessionID(r.Execution, r.Attempt))
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	for _, dir := range r.Spec.Paths {
		args = append(args, "--include-directories="+dir)
	}
	env := map[string]string{}
	agentcli.SetUnless(env, r, "GEMINI_CLI_TRUST_WORKSPACE", "true", "GEMINI_CLI_NO_RELAUNCH", "true")
	args = append(args, r.Spec.Args...)
	return agentcli.Plan{Args: args, Env: env, Stdin: []byte(agentcli.WithSystem(r)), Capture: agented.CaptureFile}, nil
}

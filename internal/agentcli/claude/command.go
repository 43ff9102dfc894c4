// Package claude describes Claude Code.
package claude

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI is Claude Code.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendClaude }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "claude" }

// Install implements [agentcli.CLI].
func (CLI) Install() string {
	return "install Claude Code with `npm install -g @anthropic-ai/claude-code`, and make sure that `claude` is on the server's PATH"
}

// Plan implements [agentcli.CLI].
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	args := []string{"claude", "-p", "--output-format", "stream-json", "--verbose"}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", agentcli.SessionID(r.Execution, r.Attempt))
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	if r.Pieces {
		args = append(args, "--include-partial-messages")
	}
	if r.Spec.SystemPrompt != "" {
		args = append(args, "--append-system-prompt="+r.Spec.SystemPrompt)
	}
	for _, dir := range r.Spec.Paths {
		args = append(args, "--add-dir="+dir) // otherwise it consumes several arguments
	}
	if r.BudgetUSD > 0 && !slices.ContainsFunc(r.Spec.Args, func(a string) bool { return strings.HasPrefix(a, "--max-budget-usd") }) {
		args = append(args, "--max-budget-usd="+strconv.FormatFloat(math.Ceil(r.BudgetUSD*1e4)/1e4, 'f', -1, 64))
	}
	if r.ResultSchema != nil && !slices.ContainsFunc(r.Spec.Args, func(a string) bool { return strings.HasPrefix(a, "--json-schema") }) {
		args = append(args, "--json-schema="+string(r.ResultSchema))
	}
	env := map[string]string{}
	agentcli.SetUnless(
		env, r,
		"DISABLE_AUTOUPDATER", "1", "DISABLE_TELEMETRY", "1", "DISABLE_ERROR_REPORTING", "1",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1",
	)
	switch r.Spec.Permission {
	case agented.PermissionRead:
		// The working directory is readable without a rule, and an allow rule for Read, Glob or
		// Grep would open the rest of the disk.
		args = append(args, "--permission-mode", "dontAsk")
	case agented.PermissionFull:
		args = append(args, "--permission-mode", "bypassPermissions")
		if r.Root {
			// Claude Code rejects this mode for root unless IS_SANDBOX marks a sandbox.
			// An operator who runs the server as root with permission full has chosen this;
			// docs/reference/agent-clis.md describes the consequences.
			agentcli.SetUnless(env, r, "IS_SANDBOX", "1")
		}
	default:
		args = append(args, "--permission-mode", "acceptEdits")
	}
	if r.Foreign {
		args = append(args, "--setting-sources", "user", "--strict-mcp-config")
	}
	args = append(args, r.Spec.Args...)
	return agentcli.Plan{Args: args, Env: env, Stdin: []byte(r.Prompt), Capture: agented.CaptureFile}, nil
}

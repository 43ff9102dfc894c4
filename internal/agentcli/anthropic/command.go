// Package anthropic is the backend that calls Anthropic's API directly.
package anthropic

import (
	"strconv"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI calls Anthropic's API directly, without tools. The program is Agented itself:
// `agented ask-anthropic` prints events in the format of Claude Code.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendAnthropic }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "" }

// Install implements [agentcli.CLI].
func (CLI) Install() string {
	return "it is part of Agented: check that the server's program still exists at its path"
}

// Plan implements [agentcli.CLI]. It omits permission, paths and arguments, which only tools need.
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if err := agentcli.CheckResume(r); err != nil {
		return agentcli.Plan{}, err
	}
	self := r.Self
	if self == "" {
		self = "agented"
	}
	args := []string{self, "ask-anthropic"}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", agentcli.SessionID(r.Execution, r.Attempt))
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	if r.Pieces {
		args = append(args, "--pieces")
	}
	stdin := r.Prompt
	if n := len(r.Spec.SystemPrompt); n > 0 {
		// Not as an argument, which other users could read and which has a maximum size.
		args = append(args, "--system-bytes", strconv.Itoa(n))
		stdin = r.Spec.SystemPrompt + stdin
	}
	env := map[string]string{}
	agentcli.SetUnless(env, r, agented.ConfigVariable(agented.BackendAnthropic), r.State)
	return agentcli.Plan{Args: args, Env: env, Stdin: []byte(stdin), Capture: agented.CaptureFile}, nil
}

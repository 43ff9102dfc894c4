// Package command is the backend that runs any program.
package command

import (
	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

// CLI runs any program; its exit code is the result.
type CLI struct{}

// Name implements [agentcli.CLI].
func (CLI) Name() string { return agented.BackendCommand }

// Program implements [agentcli.CLI].
func (CLI) Program() string { return "" }

// Install implements [agentcli.CLI].
func (CLI) Install() string { return "" }

// Plan implements [agentcli.CLI].
func (CLI) Plan(r agentcli.Request) (agentcli.Plan, error) {
	if len(r.Spec.Command) == 0 || r.Spec.Command[0] == "" {
		return agentcli.Plan{}, agented.Errorf(agented.Invalid, "the trigger has no command to run: set command")
	}
	p := agentcli.Plan{Args: append([]string(nil), r.Spec.Command...), Capture: agented.CapturePipe}
	if r.Prompt != "" {
		p.Stdin = []byte(r.Prompt) // the input of the firing, as an agent would receive it
	}
	if r.Spec.TTY {
		// A full-screen program reads its terminal's abilities from TERM; the server's own TERM
		// describes another terminal.
		p.Capture = agented.CapturePTY
		p.Env = map[string]string{}
		agentcli.SetUnless(p.Env, r, "TERM", "xterm-256color")
	}
	return p, nil
}

var rules = agentcli.Rules{Label: "Command", Subject: "the command"}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

// Object implements [agentcli.CLI]. The output of a command has no protocol.
func (CLI) Object([]byte) (events []agentcli.Event, typed bool) { return nil, false }

// Text implements [agentcli.CLI]. The end of standard output is the result.
func (CLI) Text(stream agented.Stream, line []byte) []agentcli.Event {
	if stream != agented.Stdout {
		return nil
	}
	return []agentcli.Event{agentcli.Plain(line)}
}

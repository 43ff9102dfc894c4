package anthropic

import (
	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/claude"
)

var rules = agentcli.Rules{
	Label:    "Anthropic API",
	Subject:  "anthropic",
	Protocol: true,
	Variables: []string{
		"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_MAX_TOKENS",
		agented.ConfigVariable(agented.BackendAnthropic),
	},
	HomeVariable: agented.ConfigVariable(agented.BackendAnthropic),
	KeyVariable:  "ANTHROPIC_API_KEY",
	Models:       []string{"claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5"},
	APIErrors:    claude.APIErrors,
	// Only retries can stall, because the program bounds each of its waits.
	Stall: &agentcli.StallRules{},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

// Object implements [agentcli.CLI].
func (CLI) Object(object []byte) (events []agentcli.Event, typed bool) {
	return claude.CLI{}.Object(object)
}

// Text implements [agentcli.CLI].
func (CLI) Text(stream agented.Stream, line []byte) []agentcli.Event {
	return claude.CLI{}.Text(stream, line)
}

package backend

import (
	"strconv"
	"time"

	"github.com/agented/agented"
)

// anthropic asks Anthropic's API directly, without tools. The program is
// Agented itself: `agented ask-anthropic` prints what Claude Code would.
type anthropic struct{}

func (anthropic) Name() string    { return agented.BackendAnthropic }
func (anthropic) Program() string { return "" }
func (anthropic) Install() string {
	return "it is part of Agented: see that the server's program is where it was started from"
}

func (anthropic) Variables() []string {
	return []string{
		"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_MAX_TOKENS",
		agented.ConfigVariable(agented.BackendAnthropic),
	}
}

func (anthropic) Reader() Reader {
	return &claudeReader{read: reading{program: agented.BackendAnthropic}}
}

// Pulse: it bounds each of its own waits, so only retries count.
func (anthropic) Pulse(began time.Time) *Pulse { return newPulse(claudePulse, 0, began) }

// Plan leaves out what only tools need: permission, paths and arguments.
func (anthropic) Plan(r Request) (Plan, error) {
	if err := checkResume(r); err != nil {
		return Plan{}, err
	}
	self := r.Self
	if self == "" {
		self = "agented"
	}
	args := []string{self, "ask-anthropic"}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", sessionID(r.Execution, r.Attempt))
	}
	if r.Spec.Model != "" {
		args = append(args, "--model", r.Spec.Model)
	}
	if r.Pieces {
		args = append(args, "--pieces")
	}
	stdin := r.Prompt
	if n := len(r.Spec.SystemPrompt); n > 0 {
		// An argument would be seen by everybody on the machine, and could be too
		// long for one.
		args = append(args, "--system-bytes", strconv.Itoa(n))
		stdin = r.Spec.SystemPrompt + stdin
	}
	env := map[string]string{}
	setUnless(env, r, agented.ConfigVariable(agented.BackendAnthropic), r.State)
	return Plan{Args: args, Env: env, Stdin: []byte(stdin), Capture: agented.CaptureFile}, nil
}

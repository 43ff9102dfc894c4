package backend

import (
	"github.com/agented/agented"
)

// claude is Claude Code.
type claude struct{}

func (claude) Name() string    { return agented.BackendClaude }
func (claude) Program() string { return "claude" }
func (claude) Install() string {
	return "install Claude Code with `npm install -g @anthropic-ai/claude-code` and see that `claude` is on the server's PATH"
}

func (claude) Variables() []string {
	return []string{
		"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL",
		"CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "CLAUDE_PLUGIN_ROOT",
	}
}

func (claude) Reader() Reader { return &claudeReader{} }

func (claude) Plan(r Request) (Plan, error) {
	if err := checkResume(r); err != nil {
		return Plan{}, err
	}
	args := []string{"claude", "-p", "--output-format", "stream-json", "--verbose"}
	if r.Resume != "" {
		args = append(args, "--resume", r.Resume)
	} else {
		args = append(args, "--session-id", sessionID(r.Execution, r.Attempt))
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
		args = append(args, "--add-dir="+dir) // takes several words otherwise
	}
	env := map[string]string{}
	setUnless(
		env, r,
		"DISABLE_AUTOUPDATER", "1", "DISABLE_TELEMETRY", "1", "DISABLE_ERROR_REPORTING", "1",
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1",
	)
	switch r.Spec.Permission {
	case agented.PermissionRead:
		args = append(args, "--permission-mode", "dontAsk", "--allowedTools=Read,Glob,Grep")
	case agented.PermissionFull:
		args = append(args, "--permission-mode", "bypassPermissions")
		if r.Root {
			// Claude Code refuses this mode to root unless it is told that it is
			// in a sandbox. Who runs the server as root and says "full" has
			// decided that; docs/reference/backends.md says what it means.
			setUnless(env, r, "IS_SANDBOX", "1")
		}
	default:
		args = append(args, "--permission-mode", "acceptEdits")
	}
	args = append(args, r.Spec.Args...)
	return Plan{Args: args, Env: env, Stdin: []byte(r.Prompt), Capture: agented.CaptureFile}, nil
}

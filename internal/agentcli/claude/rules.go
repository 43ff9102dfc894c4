package claude

import (
	"regexp"

	"github.com/agented/agented/internal/agentcli"
)

var rules = agentcli.Rules{
	Subject:  "claude",
	Protocol: true,
	Variables: []string{
		"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL",
		"CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "CLAUDE_PLUGIN_ROOT",
	},
	VersionEnv: []string{"DISABLE_AUTOUPDATER=1"},
	PathEnv:    "CLAUDE_PLUGIN_ROOT",
	Tested:     "2.1.197",
	ProbeModel: "haiku",
	LoginFiles: []agentcli.LoginFile{
		{Home: ".claude/.credentials.json", Own: ".credentials.json"},
		// The settings contain a login only if they name an account.
		{Home: ".claude.json", Own: ".claude.json", Words: []string{"oauthAccount", "primaryApiKey"}},
	},
	APIErrors: APIErrors,
	Stall:     &agentcli.StallRules{Quiet: agentcli.QuietPatience, Tool: agentcli.ToolPatience, ResultMark: `"type":"result"`},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

// APIErrors matches the lines outside of the protocol that report an error of Anthropic's API.
var APIErrors = regexp.MustCompile(`(?i)^(?:error: )?(?:api error\b|claude (?:ai )?usage limit reached|(?:you've|you’ve|you have) (?:hit|reached) your\b.*\blimit|\d+-hour limit reached|` +
	`(?:session|weekly|opus|sonnet)\b[\w ]*\blimit reached|you'?re out of extra usage|credit balance (?:is )?too low|invalid api key\b|not logged in\b|please run /login|` +
	`oauth (?:token|authentication)\b|failed to authenticate\. api error\b|login (?:has )?expired|request timed out\.?|connection error\.?$|unable to connect to api\b|authentication_error\b|rate_limit_error\b|overloaded_error\b)`)

package claude

import (
	"regexp"

	"github.com/agented/agented/internal/agentcli"
)

var rules = agentcli.Rules{
	Label:    "Claude Code",
	Subject:  "claude",
	Protocol: true,
	Variables: []string{
		"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_SMALL_FAST_MODEL",
		"CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CONFIG_DIR", "CLAUDE_PLUGIN_ROOT",
	},
	HomeVariable: "CLAUDE_CONFIG_DIR",
	KeyVariable:  "ANTHROPIC_API_KEY",
	Settings: []agentcli.Setting{
		{Name: "ANTHROPIC_API_KEY", Kind: "secret", Help: "Default account of claude and anthropic: API key."},
		{Name: "ANTHROPIC_BASE_URL", Old: "ANTHROPIC_API_BASE", Kind: "url", Help: "Address of the Anthropic API or of a proxy for it."},
		{Name: "CLAUDE_CODE_OAUTH_TOKEN", Kind: "secret", Help: "Default account of claude: token of a subscription, from claude setup-token."},
		{Name: "CLAUDE_CONFIG_DIR", Kind: "path", Help: "Folder with claude's settings and login."},
		{Name: "CLAUDE_PLUGIN_ROOT", Kind: "path", Help: "Folder of a plugin that provides commands: passed to claude and added to its PATH."},
	},
	Permissions:  agentcli.AllPermissions,
	Models:       []string{"opus", "sonnet", "haiku"},
	ProjectFiles: []string{".claude", ".claude.json", ".claude-plugin", ".mcp.json", "CLAUDE.md", "CLAUDE.local.md"},
	VersionEnv:   []string{"DISABLE_AUTOUPDATER=1"},
	PathEnv:      "CLAUDE_PLUGIN_ROOT",
	Tested:       "2.1.197",
	ProbeModel:   "haiku",
	LoginFiles: []agentcli.LoginFile{
		{Home: ".claude/.credentials.json", Own: ".credentials.json"},
		// The settings contain a login only if they name an account.
		{Home: ".claude.json", Own: ".claude.json", Words: []string{"oauthAccount", "primaryApiKey"}},
	},
	APIErrors:    APIErrors,
	ResultSchema: agentcli.AnySchema,

	Stall: &agentcli.StallRules{Quiet: agentcli.QuietPatience, Tool: agentcli.ToolPatience, ResultMark: `"type":"result"`},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

// APIErrors matches the lines outside of the protocol that report an error of Anthropic's API.
var APIErrors = regexp.MustCompile(`(?i)^(?:error: )?(?:api error\b|claude (?:ai )?usage limit reached|(?:you've|you’ve|you have) (?:hit|reached) your\b.*\blimit|\d+-hour limit reached|` +
	`(?:session|weekly|opus|sonnet)\b[\w ]*\blimit reached|you'?re out of extra usage|credit balance (?:is )?too low|invalid api key\b|not logged in\b|please run /login|` +
	`oauth (?:token|authentication)\b|failed to authenticate\. api error\b|login (?:has )?expired|request timed out\.?|connection error\.?$|unable to connect to api\b|authentication_error\b|rate_limit_error\b|overloaded_error\b)`)

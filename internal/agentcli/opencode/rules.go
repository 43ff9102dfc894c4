package opencode

import (
	"regexp"

	"github.com/agented/agented/internal/agentcli"
)

var rules = agentcli.Rules{
	Label:    "OpenCode",
	Subject:  "opencode",
	Protocol: true,
	Variables: []string{
		"OPENCODE_HOME", "OPENCODE_API_KEY", "OPENCODE_AUTH_CONTENT", "OPENCODE_CONFIG", "OPENCODE_CONFIG_CONTENT", "OPENCODE_CONFIG_DIR", "OPENCODE_DB",
		// The keys of the providers that it finds in the environment.
		"ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY",
	},
	HomeVariable: "OPENCODE_HOME",
	KeyVariable:  "ANTHROPIC_API_KEY",
	Settings:     []agentcli.Setting{{Name: "OPENCODE_HOME", Kind: "path", Help: "Folder with opencode's settings and login."}},
	Permissions:  agentcli.AllPermissions,
	Models:       []string{"anthropic/claude-sonnet-4-6", "openai/gpt-5.5", "google/gemini-2.5-pro"},
	ProjectFiles: []string{"opencode.json", "opencode.jsonc", ".opencode"},
	VersionEnv:   []string{"OPENCODE_DISABLE_AUTOUPDATE=1"},
	// With a session that it resumes, OpenCode was seen to load plugins although its switch for
	// project settings was off.
	StartupFiles: []string{".opencode", "opencode.json", "opencode.jsonc"},
	Tested:       "1.18.33",
	LoginFiles:   []agentcli.LoginFile{{Home: ".local/share/opencode/auth.json", Own: ".local/share/opencode/auth.json"}},
	APIErrors:    regexp.MustCompile(`^(?:Error: )?(?:AI_(?:APICallError|RetryError|LoadAPIKeyError)|APIError|APICallError|ProviderAuthError)\b`),
	Stall:        &agentcli.StallRules{Quiet: agentcli.QuietPatience, LateTools: true},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

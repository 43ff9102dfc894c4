package codex

import (
	"regexp"

	"github.com/agented/agented/internal/agentcli"
)

var rules = agentcli.Rules{
	Label:    "Codex",
	Subject:  "codex",
	Protocol: true,
	Variables: []string{
		"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORGANIZATION", "OPENAI_PROJECT", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "CODEX_HOME",
	},
	HomeVariable: "CODEX_HOME",
	KeyVariable:  "OPENAI_API_KEY",
	Settings: []agentcli.Setting{
		{Name: "OPENAI_API_KEY", Kind: "secret", Help: "Default account of codex: API key."},
		{Name: "OPENAI_BASE_URL", Kind: "url", Help: "Address of the OpenAI API or of a proxy for it, including /v1."},
		{Name: "CODEX_HOME", Kind: "path", Help: "Folder with codex's settings and login."},
	},
	Permissions:  agentcli.AllPermissions,
	Models:       []string{"gpt-5.5", "gpt-5.4", "gpt-5.4-mini", "gpt-5.3-codex"},
	ProjectFiles: []string{"AGENTS.md", "AGENTS.override.md", ".codex"},
	Tested:       "0.169.0",
	LoginFiles:   []agentcli.LoginFile{{Home: ".codex/auth.json", Own: "auth.json"}},
	APIErrors: regexp.MustCompile(`(?i)^(?:(?:\[[^\]]{1,40}\] )?(?:■ |🖐 ? ?)?error: ?|■ |🖐 ? ?)?(?:unexpected status \d{3}\b|exceeded retry limit, last status|stream error: |stream disconnected\b|` +
		`reconnecting\.\.\.|(?:you've|you’ve|you have) (?:hit|reached) your usage limit|you(?:'|’)re out of codex messages|your workspace is out of credits|rate limit (?:reached|is exceeded)|` +
		`selected model is at capacity|quota exceeded\. check your plan|your (?:access|refresh) token\b|to use codex with your|error sending request for url|connection failed: |` +
		`missing environment variable: |we(?:'|’)re currently experiencing high demand|not logged in\b|401 unauthorized\b)`),
	Noise:        []string{"Reading additional input from stdin", "Reading prompt from stdin", "WARNING: proceeding", "For more information", "Usage:", "tip:"},
	ResultSchema: agentcli.StrictSchema,

	Stall: &agentcli.StallRules{Quiet: agentcli.QuietPatience},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

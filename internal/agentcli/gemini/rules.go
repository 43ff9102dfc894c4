package gemini

import (
	"regexp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
)

var rules = agentcli.Rules{
	Label:    "Gemini CLI",
	Subject:  "gemini",
	Protocol: true,
	Variables: []string{
		"GEMINI_API_KEY", "GEMINI_CLI_HOME", "GEMINI_MODEL", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL",
		"GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_APPLICATION_CREDENTIALS",
	},
	HomeVariable: "GEMINI_CLI_HOME",
	KeyVariable:  "GEMINI_API_KEY",
	Settings: []agentcli.Setting{
		{Name: "GEMINI_API_KEY", Kind: "secret", Help: "Default account of gemini: API key."},
		{Name: "GOOGLE_GEMINI_BASE_URL", Kind: "url", Help: "Address of the Gemini API or of a proxy for it."},
		{Name: "GEMINI_CLI_HOME", Kind: "path", Help: "Folder with gemini's settings and login."},
	},
	Permissions:  agentcli.AllPermissions,
	Models:       []string{"gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"},
	ProjectFiles: []string{"GEMINI.md", ".gemini"},
	// A project's settings can name commands that depend on other files of the checkout.
	NeverRestored: []string{".gemini"},
	VersionEnv:    []string{"GEMINI_CLI_NO_RELAUNCH=true"},
	// It takes every variable that is not set yet from .env, among them a proxy and whether
	// certificates are checked, and sends its key there.
	StartupFiles: []string{".gemini", ".env"},
	Tested:       "0.61.0",
	LoginFiles: []agentcli.LoginFile{
		{Home: ".gemini/oauth_creds.json", Own: ".gemini/oauth_creds.json"}, {Home: ".gemini/.env", Own: ".gemini/.env"},
	},
	APIErrors: apiErrors,
	Noise: []string{
		"Warning:", "Ripgrep is not available", "[STARTUP]", "YOLO mode is enabled", "at ", "}", "{", "Approval mode overridden", "Loaded cached credentials",
		"Data collection is disabled", "Use --list-sessions", "Searched for sessions", "status:", "reason:", "cause:", "code:", "message:", "details:", "retryDelayMs:",
	},
	Withholdable: []string{"run_shell_command", "write_file", "replace", "edit", "web_fetch", "save_memory", "google_web_search"},
	Exit:         failureOf,
	Stall:        &agentcli.StallRules{Quiet: agentcli.QuietPatience},
}

// Rules implements [agentcli.CLI].
func (CLI) Rules() *agentcli.Rules { return &rules }

// apiErrors matches the lines outside of the protocol that report an error of the model's API.
var apiErrors = regexp.MustCompile(`(?:^|: |json )(?:\[(?:API|Backend) Error\b|_?ApiError: |GaxiosError: |TerminalQuotaError: |RetryableQuotaError: |FatalAuthenticationError: |TypeError: (?:terminated|fetch failed))|` +
	`^(?:Error: )?(?:Error when talking to Gemini API\b|Attempt \d+ failed\b|When using (?:Gemini API|Vertex AI), you must specify\b|Please set an Auth method\b|Invalid auth method selected\b|` +
	`Failed to (?:log ?in|authenticate)\b|(?:You have |You've )?(?:exhausted|exceeded|reached|hit) your\b|API key not valid\b|Quota exceeded for\b|got status: \d{3}\b|No capacity available\b)`)

// exits are the exit codes that the CLI defines. Others of 128 and more are the low eight bits of an
// HTTP status.
var exits = map[int]agentcli.Failure{
	41: {Status: 401, Message: "no login is configured"},
	53: {Ours: "stopped because it reached the limit of turns"},
	55: {Local: true, Message: "the folder is not trusted"},
}

// failureOf returns the failure that an exit code describes.
func failureOf(code int, bad *agentcli.Failure, complaint string) (failure *agentcli.Failure, local bool) {
	known, ok := exits[code]
	local = code == 42 || code == 44 || code == 52 || code == 54 // input, sandbox, configuration, tool
	switch {
	case ok:
		if complaint != "" && bad == nil {
			known.Message = complaint
			// The CLI also uses this code for other errors at its start.
			asText := agentcli.Failure{Message: complaint, Plain: apiErrors}
			known.Local = known.Local || code == 41 && asText.Class() != agented.ClassAuth
		} else if bad != nil && bad.Message != "" {
			known.Message = bad.Message
		}
		bad = &known
	case bad != nil && bad.Status == 0 && code >= 144:
		for _, status := range []int{400, 401, 403, 404, 429, 500, 502, 503, 504} {
			if status&255 == code {
				bad.Status = status
			}
		}
	}
	if bad != nil {
		bad.Google = true
	}
	return bad, local
}

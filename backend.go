package agented

// The backends by name. The values are part of the API.
const (
	BackendCommand  = "command"
	BackendClaude   = "claude"
	BackendCodex    = "codex"
	BackendGemini   = "gemini"
	BackendOpenCode = "opencode"
	// BackendAnthropic calls Anthropic's API directly, without tools.
	BackendAnthropic = "anthropic"
)

// backendVocabulary is what names of a backend mean in accounts and triggers. A test of
// internal/agentcli/registry holds it equal to the CLIs there.
type backendVocabulary struct {
	name        string
	config      string   // variable with the directory of the CLI's login, settings and sessions; empty: no accounts
	key         string   // variable with an API key
	login       string   // how a person logs in; empty if there is no CLI
	credentials []string // variables that log the CLI in or redirect it to another provider, whatever its account is
	anyProvider bool     // it also reads the variables of every provider
}

// vocabulary has the backends in display order.
var vocabulary = []backendVocabulary{
	{name: BackendCommand},
	{
		name: BackendClaude, config: "CLAUDE_CONFIG_DIR", key: "ANTHROPIC_API_KEY", login: "claude, then /login", credentials: []string{
			"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK",
			"CLAUDE_CODE_USE_VERTEX", "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "AWS_BEARER_TOKEN_BEDROCK",
		},
	},
	{
		name: BackendCodex, config: "CODEX_HOME", key: "OPENAI_API_KEY", login: "codex login",
		credentials: []string{"OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "OPENAI_BASE_URL"},
	},
	{
		name: BackendGemini, config: "GEMINI_CLI_HOME", key: "GEMINI_API_KEY", login: "gemini, and choose a login", credentials: []string{
			"GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "GOOGLE_APPLICATION_CREDENTIALS",
			"GEMINI_BASE_URL",
		},
	},
	{
		name: BackendOpenCode, config: "OPENCODE_HOME", key: "ANTHROPIC_API_KEY", login: "opencode auth login",
		credentials: []string{"OPENCODE_API_KEY"}, anyProvider: true,
	},
	{
		name: BackendAnthropic, config: "AGENTED_ANTHROPIC_DIR", key: "ANTHROPIC_API_KEY",
		credentials: []string{"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"},
	},
}

// Backends lists the backends in display order.
var Backends = func() (names []string) {
	for _, b := range vocabulary {
		names = append(names, b.name)
	}
	return names
}()

// wordsOf returns the vocabulary of a backend; it is empty for an unknown one.
func wordsOf(backend string) backendVocabulary {
	for _, b := range vocabulary {
		if b.name == backend {
			return b
		}
	}
	return backendVocabulary{}
}

// ConfigVariable returns the name of the environment variable that sets the
// directory where a backend's CLI keeps its login, settings and sessions.
func ConfigVariable(backend string) string { return wordsOf(backend).config }

package broker_test

import (
	"encoding/json"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
)

// setup runs Setup with a copy of an environment, and starts the broker.
func setup(t *testing.T, backend string, env map[string]string) (map[string]string, started) {
	t.Helper()
	changed := maps.Clone(env)
	h, why, err := broker.Setup(broker.Request{Credentials: true, Backend: backend, Env: changed, Dir: t.TempDir()})
	if err != nil || why != "" || h == nil {
		t.Fatalf("%s: %v, %q, %v", backend, h, why, err)
	}
	l, err := net.FileListener(h.Listener)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	file := filepath.Join(t.TempDir(), "broker")
	b, err := broker.New(h.Config, broker.Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	b.Serve(l)
	t.Cleanup(b.Close)
	for name, value := range changed {
		for _, k := range env {
			if strings.HasPrefix(k, "sk-") && strings.Contains(value, k) {
				t.Errorf("%s: %s contains the credential", backend, name)
			}
		}
	}
	return changed, started{b, "http://" + l.Addr().String(), file}
}

func TestSetup_environment_of_each_CLI(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		backend, key, address, suffix, path, header, scheme, want string
	}{
		{agented.BackendClaude, "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "", "/v1/messages", "X-Api-Key", "", "/base/v1/messages"},
		{agented.BackendClaude, "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_BASE_URL", "", "/v1/messages", "Authorization", "Bearer ", "/base/v1/messages"},
		{agented.BackendClaude, "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "", "/v1/messages", "Authorization", "Bearer ", "/base/v1/messages"},
		{agented.BackendCodex, "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1", "/responses", "Authorization", "Bearer ", "/base/responses"},
		{agented.BackendGemini, "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "", "/v1beta/models/m:generateContent", "X-Goog-Api-Key", "", "/base/v1beta/models/m:generateContent"},
	} {
		to, calls := upstream(t, ok)
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".gemini"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, ".gemini/settings.json"), []byte(`{"security":{"auth":{"selectedType":"gemini-api-key"}}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		env, b := setup(t, c.backend, map[string]string{c.key: "sk-ant-api03-" + secret, c.address: to + "/base/", "HOME": home})
		if env[c.address] != b.url+c.suffix || !strings.HasPrefix(env[c.key], "sk-ant-api03-placeholder-of-agented-") {
			t.Errorf("%s: %v", c.backend, env)
		}
		if status, body := call(t, "POST", env[c.address]+c.path, head(c.header, c.scheme+env[c.key]), "{}"); status != 200 {
			t.Errorf("%s: %d %s", c.backend, status, body)
			continue
		}
		if r := <-calls; r.URL.Path != c.want || r.Header.Get(c.header) != c.scheme+"sk-ant-api03-"+secret {
			t.Errorf("%s: %s %v", c.backend, r.URL, r.Header)
		}
	}
}

func TestSetup_two_names_of_one_key(t *testing.T) {
	t.Parallel()
	env, _ := setup(t, agented.BackendCodex, map[string]string{"OPENAI_API_KEY": secret, "CODEX_API_KEY": secret})
	if env["OPENAI_API_KEY"] != env["CODEX_API_KEY"] {
		t.Errorf("%v", env)
	}
}

func TestSetup_opencode_providers(t *testing.T) {
	t.Parallel()
	to, calls := upstream(t, ok)
	env, b := setup(t, agented.BackendOpenCode, map[string]string{
		"ANTHROPIC_API_KEY": "sk-a", "OPENAI_API_KEY": "sk-o", "GEMINI_API_KEY": "sk-g", "ANTHROPIC_BASE_URL": to + "/v1", "OPENAI_BASE_URL": to + "/v1", "GOOGLE_GEMINI_BASE_URL": to,
		"OPENCODE_CONFIG_CONTENT": `{"model":"anthropic/m","provider":{"openai":{"options":{"timeout":5}}}}`,
	})
	var settings struct {
		Model    string
		Provider map[string]struct {
			Options struct {
				BaseURL string
				Timeout int
			}
		}
	}
	if err := json.Unmarshal([]byte(env["OPENCODE_CONFIG_CONTENT"]), &settings); err != nil {
		t.Fatal(err)
	}
	if settings.Model != "anthropic/m" || settings.Provider["openai"].Options.Timeout != 5 {
		t.Errorf("settings were lost: %s", env["OPENCODE_CONFIG_CONTENT"])
	}
	for _, c := range []struct{ provider, path, header, scheme, key, wantPath, want string }{
		{"anthropic", "/messages", "X-Api-Key", "", "ANTHROPIC_API_KEY", "/v1/messages", "sk-a"},
		{"openai", "/responses", "Authorization", "Bearer ", "OPENAI_API_KEY", "/v1/responses", "sk-o"},
		{"google", "/models/m:generateContent", "X-Goog-Api-Key", "", "GEMINI_API_KEY", "/v1beta/models/m:generateContent", "sk-g"},
	} {
		address := settings.Provider[c.provider].Options.BaseURL
		if !strings.HasPrefix(address, b.url) {
			t.Fatalf("%s: %q", c.provider, address)
		}
		if status, body := call(t, "POST", address+c.path, head(c.header, c.scheme+env[c.key]), "{}"); status != 200 {
			t.Errorf("%s: %d %s", c.provider, status, body)
			continue
		}
		if r := <-calls; r.URL.Path != c.wantPath || r.Header.Get(c.header) != c.scheme+c.want {
			t.Errorf("%s: %s %v", c.provider, r.URL, r.Header)
		}
	}
	// The placeholder of one provider is worthless at another.
	if status, _ := call(t, "POST", settings.Provider["openai"].Options.BaseURL+"/responses", head("Authorization", "Bearer "+env["ANTHROPIC_API_KEY"]), "{}"); status != 401 {
		t.Errorf("another provider's placeholder is answered with %d", status)
	}
}

func TestSetup_leaves_others_alone(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("other/settings.json", `{"env":{"ANTHROPIC_BASE_URL":"https://example.org"}}`)
	write("work/.claude/settings.json", `{"apiKeyHelper":"x"}`)
	write("codex/config.toml", "model_provider = \"azure\"\n")
	write(".config/opencode/opencode.json", `{"provider":{"anthropic":{"options":{"baseURL":"x"}}}}`)
	for name, c := range map[string]struct {
		r   broker.Request
		why string
	}{
		"no_key":        {r: broker.Request{Credentials: true, Backend: "claude", Env: map[string]string{"ANTHROPIC_BASE_URL": "http://x"}}},
		"other_backend": {r: broker.Request{Credentials: true, Backend: "command", Env: map[string]string{"ANTHROPIC_API_KEY": secret}}},
		"address":       {r: broker.Request{Credentials: true, Backend: "claude", Env: map[string]string{"ANTHROPIC_API_KEY": secret, "ANTHROPIC_BASE_URL": "nowhere"}}},
		"bedrock":       {r: broker.Request{Credentials: true, Backend: "claude", Env: map[string]string{"ANTHROPIC_API_KEY": secret, "CLAUDE_CODE_USE_BEDROCK": "1"}}, why: "CLAUDE_CODE_USE_BEDROCK"},
		"settings":      {r: broker.Request{Credentials: true, Backend: "claude", Env: map[string]string{"ANTHROPIC_API_KEY": secret, "CLAUDE_CONFIG_DIR": home + "/other"}}, why: "settings.json"},
		"project":       {r: broker.Request{Credentials: true, Backend: "claude", Dir: home + "/work", Env: map[string]string{"ANTHROPIC_API_KEY": secret}}, why: "settings.json"},
		"codex":         {r: broker.Request{Credentials: true, Backend: "codex", Env: map[string]string{"OPENAI_API_KEY": secret, "CODEX_HOME": home + "/codex"}}, why: "config.toml"},
		"gemini":        {r: broker.Request{Credentials: true, Backend: "gemini", Env: map[string]string{"GEMINI_API_KEY": secret, "HOME": home}}, why: `"selectedType":"gemini-api-key"`},
		"opencode":      {r: broker.Request{Credentials: true, Backend: "opencode", Env: map[string]string{"OPENAI_API_KEY": secret, "HOME": home}}, why: "opencode.json"},
	} {
		before := maps.Clone(c.r.Env)
		h, why, err := broker.Setup(c.r)
		if h != nil || err != nil || !strings.Contains(why, c.why) || (c.why == "") != (why == "") || !maps.Equal(before, c.r.Env) {
			t.Errorf("%s: %v, %q, %v, %v", name, h, why, err, c.r.Env)
		}
	}
	// Settings that the CLI ignores do not turn the broker off.
	h, why, err := broker.Setup(broker.Request{Credentials: true, Backend: "claude", Dir: home + "/work", Foreign: true, Env: map[string]string{"ANTHROPIC_API_KEY": secret}})
	if h == nil || why != "" || err != nil {
		t.Errorf("a foreign repository: %q, %v", why, err)
	}
	h.Close()
}

func TestSetup_proxies(t *testing.T) {
	t.Parallel()
	env, _ := setup(t, agented.BackendClaude, map[string]string{"ANTHROPIC_API_KEY": secret, "HTTPS_PROXY": "http://p", "NO_PROXY": "a.example"})
	if env["NO_PROXY"] != "a.example,127.0.0.1" || env["no_proxy"] != "127.0.0.1" || env["HTTPS_PROXY"] != "http://p" {
		t.Errorf("%v", env)
	}
}

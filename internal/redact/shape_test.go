package redact_test

import (
	"strings"
	"testing"

	"github.com/agented/agented/internal/redact"
)

// rep returns n bytes that look random, so that no test contains a string that
// a secret scanner reports.
func rep(n int) string {
	const chars = "q7Zt2mKx9RbW4cHn8LdY3vGs6TfJ5pQa1"
	return strings.Repeat(chars, n/len(chars)+1)[:n]
}

func upper(n int) string {
	const chars = "Q7ZTMKXRBW4CHNLDY3VGSTFJ5PQA2"
	return strings.Repeat(chars, n/len(chars)+1)[:n]
}

const uuid = "0b9b2a5e-6c1f-4f0e-9c7e-5d0a5f1f2b3c"

func TestMask_token_shapes(t *testing.T) {
	t.Parallel()
	jwt := "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0." + rep(43)
	// {token}: the part that must be masked. The comment is the source of each
	// form.
	for _, c := range []struct{ name, token string }{
		{"Anthropic API key", "sk-ant-" + "api03-" + rep(93) + "AA"},              // platform.claude.com, API keys
		{"Anthropic OAuth", "sk-ant-" + "oat01-" + rep(95)},                       // printed by claude setup-token
		{"Anthropic admin", "sk-ant-" + "admin01-" + rep(93) + "AA"},              // Admin API reference
		{"OpenAI project", "sk-" + "proj-" + rep(60) + "_-" + rep(60)},            // platform.openai.com, API keys
		{"OpenAI service account", "sk-" + "svcacct-" + rep(60)},                  // the same
		{"OpenAI classic", "sk-" + rep(20) + "T3BlbkFJ" + rep(20)},                // keys until 2024
		{"OpenRouter", "sk-" + "or-v1-" + strings.Repeat("3f9a", 16)},             // openrouter.ai, authentication
		{"GitHub classic", "ghp_" + rep(36)},                                      // GitHub docs, token formats
		{"GitHub OAuth", "gho_" + rep(36)},                                        // the same
		{"GitHub user to server", "ghu_" + rep(36)},                               // the same
		{"GitHub server to server", "ghs_" + rep(36)},                             // the same
		{"GitHub server, stateless", "ghs_" + "123456_" + jwt},                    // GitHub changelog 2026
		{"GitHub refresh", "ghr_" + rep(76)},                                      // GitHub docs
		{"GitHub fine-grained", "github_" + "pat_" + rep(22) + "_" + rep(59)},     // GitHub docs
		{"GitLab", "glpat-" + rep(20)},                                            // GitLab docs, token prefixes
		{"GitLab routable", "glpat-" + rep(27) + ".01.0" + rep(8)},                // the same
		{"Slack bot", "xox" + "b-123456789012-1234567890123-" + rep(24)},          // Slack docs, token types
		{"Slack user", "xox" + "p-123456789012-1234567890123-" + rep(24)},         // the same
		{"Slack app level", "xapp-" + "1-A0123456789-1234567890123-" + rep(64)},   // the same
		{"AWS key id", "AKIA" + upper(16)},                                        // IAM docs, identifiers
		{"AWS temporary key id", "ASIA" + upper(16)},                              // the same
		{"Google API key", "AIza" + rep(35)},                                      // Google Cloud docs, API keys
		{"Google OAuth", "ya29." + rep(60)},                                       // Google identity docs
		{"Stripe", "sk_" + "live_" + rep(24)},                                     // Stripe docs, keys
		{"Stripe restricted", "rk_" + "live_" + rep(24)},                          // the same
		{"npm", "npm_" + rep(36)},                                                 // npm access tokens
		{"PyPI", "pypi-" + "AgEIcHlwaS5vcmc" + rep(120)},                          // PyPI help, API tokens
		{"Hugging Face", "hf_" + rep(34)},                                         // Hub docs, user access tokens
		{"JWT", jwt},                                                              // RFC 7519
		{"JWT, not signed", "eyJ" + "hbGciOiJub25lIn0" + ".eyJ" + "zdWIiOiIxIn0"}, // RFC 7519 section 6
		{"JWE", "eyJ" + "hbGciOiJkaXIifQ" + ".." + rep(16) + "." + rep(40) + "." + rep(22)},
		{"Agented", "agk_" + rep(43)},
	} {
		for _, in := range []string{
			"{}", "key: {}", "KEY={}", `{"k":"{}"}`, `"a\n{}\nb"`, `\"k\":\"{}\"`, `\\n{}\\n`, "x=%3D{}&y=1", `\u003d{}\u0026`,
			"\x1b[32m{}\x1b[0m", "({})", "<{}>", "say {}.", "{},{}", "url?key={}", "--key={}", "'{}'", "`{}`", "a/{}", "@{}:",
		} {
			in := strings.ReplaceAll(in, "{}", c.token)
			got := redact.New(nil).MaskString(in)
			if strings.Contains(got, c.token[5:len(c.token)-2]) || !strings.Contains(got, redact.Mask) {
				t.Errorf("%s: %q became %q", c.name, in, got)
			}
		}
	}
}

func TestMask_headers_and_URLs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		// RFC 6750, RFC 7617, and how curl, Go, Node and Python print headers
		{"Authorization: Bearer " + rep(12), "Authorization: Bearer ***"},
		{"> authorization: bearer " + rep(40), "> authorization: bearer ***"},
		{"AUTHORIZATION: BEARER " + rep(40), "AUTHORIZATION: BEARER ***"},
		{`curl -H "Authorization: Bearer ` + rep(30) + `" http://x`, `curl -H "Authorization: Bearer ***" http://x`},
		{`{"Authorization":"Bearer ` + rep(30) + `"}`, `{"Authorization":"Bearer ***"}`},
		{`{\"authorization\": \"token ` + rep(30) + `\"}`, `{\"authorization\": \"token ***\"}`},
		{`map[Authorization:[Bearer ` + rep(30) + `]]`, `map[Authorization:[Bearer ***]]`},
		{`'Authorization', 'Basic dXNlcjpwYXNz'`, `'Authorization', 'Basic ***'`},
		{"Proxy-Authorization: Basic dXNlcjpwYXNz", "Proxy-Authorization: Basic ***"},
		{"authorization: " + rep(40), "authorization: ***"},
		{"HTTP_AUTHORIZATION=Bearer%20" + rep(24), "HTTP_AUTHORIZATION=Bearer%20***"},
		{"x-api-key: " + rep(12), "x-api-key: ***"},
		{`"X-Api-Key": "` + rep(24) + `"`, `"X-Api-Key": "***"`},
		{"HTTP_X_API_KEY=" + rep(24), "HTTP_X_API_KEY=***"},
		{"x-goog-api-key: " + rep(39), "x-goog-api-key: ***"},
		{"with Bearer " + rep(32) + ", then", "with Bearer ***, then"},
		// RFC 3986 section 3.2.1
		{"https://user:pass@host/x", "https://user:***@host/x"},
		{"postgres://app:p%40ss:w@[::1]:5432/db?a=b", "postgres://app:***@[::1]:5432/db?a=b"},
		{"git clone https://x-access-token:abc123@github.com/a/b.git", "git clone https://x-access-token:***@github.com/a/b.git"},
		{"redis://:hunter2@cache:6379", "redis://:***@cache:6379"},
		{"amqp://u:p@ss@host", "amqp://u:***@host"},
		{`"https:\/\/user:pass@host\/x"`, `"https:\/\/user:***@host\/x"`},
	} {
		if got := redact.New(nil).MaskString(c.in); got != c.want {
			t.Errorf("%q became\n%q, want\n%q", c.in, got, c.want)
		}
	}
}

func TestMask_ordinary_text(t *testing.T) {
	t.Parallel()
	m := redact.New([]string{"x", "", "1234567", "short", "\n\n", "--------", "   a   ", "a\nb\nc"})
	if !m.Empty() {
		t.Errorf("values too short to mask were taken: %d", m.Len())
	}
	for _, in := range []string{
		"",
		"commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		`{"session_id":"` + uuid + `","uuid":"` + uuid + `"}`,
		`{"id":"msg_01XFDUDYJgAACzvnptvVoYEL","tool_use_id":"toolu_01A09q90qw90lq917835lq9"}`,
		`{"id":"chatcmpl-` + rep(29) + `","request_id":"req_` + rep(24) + `"}`,
		"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
		"sk-learn sk-test sk-toolbar-item-with-a-very-long-name-2 sk-spinner-circle-bounce-delay-animation-12",
		"task-abcdefghijklmnopqrstuvwxyz1234567890 desk-" + rep(40),
		"risk-" + rep(48),
		"npm_config_user_agent npm_lifecycle_event npm_package_json npm install",
		"hf_hub_download(repo_id) hf_transfer",
		"ASIA PACIFIC AKIA ASIAPACIFIC AKIAIOSFODNN7EXAMPLETOOLONG",
		"pypi-attestations pypi-server-with-a-very-long-name-and-more-words-to-come-here",
		"eyJust a word. eyJ.eyJ eyJhbGciOiJIUzI1NiJ9 eyJ" + rep(200) + " eyJfile.name.txt",
		"-----BEGIN CERTIFICATE-----MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQsw-----END CERTIFICATE-----",
		"-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEV\\n-----END PUBLIC KEY-----",
		"the line -----BEGIN RSA PRIVATE KEY----- is the header of it",
		"---------- -----BEGIN -----",
		"Authorization: required for this endpoint, see the docs",
		"Authorization: Bearer <token>", "Authorization: Bearer $TOKEN", "authorization: Bearer ${{ secrets.TOKEN }}",
		"authorization = authorizationService.check(user)",
		"x-api-key: <your key>", `"x-api-key": process.env.ANTHROPIC_API_KEY`, "x-api-key: $KEY",
		"Bearer authentication is required", "the bearer of this document, John Smith-Montgomery-Alexander",
		"http://localhost:8080/@scope/pkg", "https://unpkg.com/react@18.2.0/umd", "https://user@host/x", "ssh://git@github.com:22/a/b",
		"https://$USER:$PASS@host", "https://user:${PASS}@host", "https://u:<password>@h", "http://a:80 b@c",
		"git@github.com:a/b.git", "mailto:a@b.c", "see https://example.com: a@b", "10:00@12",
		"agk_ agk_id", "xoxb- xoxb-token", "AIza", "ghp_xxx ghp_", "glpat- glpat-short", "sk_live_ sk_live_x",
		"github.com/agented/agented v0.0.0-20230129092748-24d4a6f8daec h1:ZHCYkGm2bOEEhVpNMAPpQC3mSSYlnBxz4HH0l9LlCxI=",
		`integrity "sha512-` + rep(86) + `=="`,
		"\x00\xff\xfe binary \\", "%", "\\", "\\u", "%2", "***",
	} {
		if got := m.MaskString(in); got != in {
			t.Errorf("%q became %q", in, got)
		}
	}
}

package agented

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

func TestPlaceholderFault(t *testing.T) {
	t.Parallel()
	for want, list := range map[string][]string{
		"comment": {"# the secret of the webhook", "#secret", `"# quoted"`, "\uFEFF# with a BOM", "// see the wiki", "; ini", "<!-- x -->"},
		"shell command": {
			"$(openssl rand -hex 32)", "`openssl rand -hex 32`", "prefix-$(uuidgen)", "openssl rand -hex 32", "openssl", "uuidgen", "head -c 32 /dev/urandom | base64",
			"$ openssl rand -hex 32", "python3 -c 'import secrets; print(secrets.token_hex(32))'", "`agented key secret`", "agented key secret --bytes 32", "<(sops -d x)",
		},
		"reference": {"${GITHUB_WEBHOOK_SECRET}", "$GITHUB_WEBHOOK_SECRET", "${{ secrets.HOOK }}", "{{ .Values.secret }}", "%SECRET%", "op://vault/item/field", "ENC[AES256_GCM,data:x]", "/run/secrets/hook", "vault:secret/data/x#y"},
		"placeholder": {
			"changeme", "CHANGE_ME", "change-me", "change-me-in-production", "changeme123", "change this", "your_webhook_secret", "YOUR_SECRET_HERE", "your-256-bit-secret", "yoursecret",
			"<your secret>", "<secret>", "xxx", "XXXXXXXXXXXXXXXX", "xxxx-xxxx-xxxx", "secret", "Secret", `"secret"`, "'changeme'", "example", "example-secret", "replace me", "replace_with_your_secret",
			"replace-this-with-a-long-random-string", "insert your secret here", "<<insert>>", "...", "***", "********", "sk-ant-...", "ghp_…", "todo", "TODO: generate", "password", "placeholder",
			"put your key here", "enter your secret", "[your secret]", "{your_secret}", "my-secret", "super-secret", "my_secret_key", "00000000", "django-insert-your-secret", "please change this in production",
			"generate-a-random-string", "your webhook secret goes here", "at-least-32-characters-change-me",
		},
	} {
		for _, s := range list {
			if got := PlaceholderFault(s); !strings.Contains(got, want) {
				t.Errorf("%q: got %q, want a fault with %q", s, got, want)
			}
		}
	}
	for _, s := range []string{
		"", "hush-hush-0123456789", "it-is-a-secret-of-mine", "hook-secret-of-the-server", "server-webhook-secret-22", "correct horse battery staple", "pass phrase of mine", "a", "S3cret-for-webhooks-0123456789",
		"sk-ant-api03-stand-in-key-0123456789", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "It's a Secret to Everybody", "abc#def", "ab$cd(ef)gh", "$2y$10$abcdefghij", "https://key@sentry.example.org/1",
		"authorization=Bearer%20abc", "postgres://u:p@h/db", "AKIAIOSFODNN7EXAMPLE", "a`b", "x", "changing-of-the-guard-42", "pa<ss>w0rt-77",
	} {
		if got := PlaceholderFault(s); got != "" {
			t.Errorf("%q: refused, it %s", s, got)
		}
	}
	for range 2000 {
		b := make([]byte, 18)
		rand.Read(b)
		for _, s := range []string{hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), rand.Text()} {
			if got := PlaceholderFault(s); got != "" {
				t.Fatalf("the random secret %q is refused: it %s", s, got)
			}
		}
	}
}

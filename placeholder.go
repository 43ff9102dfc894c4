package agented

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// PlaceholderFault returns why a text cannot be a secret: it is a comment, a
// command that was never run, a reference that was never resolved, or the
// placeholder of a template. The phrase completes a sentence that begins with
// the name of the setting, and never repeats the text. It is empty for a text
// that may be a secret.
func PlaceholderFault(secret string) string {
	s := strings.Trim(strings.TrimSpace(strings.TrimPrefix(secret, "\uFEFF")), `"'`)
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return ""
	case strings.HasPrefix(s, "#"), strings.HasPrefix(s, "// "), strings.HasPrefix(s, "; "), strings.HasPrefix(s, "/*"), strings.HasPrefix(s, "<!--"):
		return "is a comment, which is not secret"
	case isRecipe(s):
		return "is a shell command, which is not run here"
	case isReference(s):
		return "is a reference, which is not resolved here"
	case isPlaceholder(s):
		return "is a placeholder, which is publicly known"
	}
	return ""
}

// generators are programs that people use to generate secrets.
var generators = []string{
	"openssl", "pwgen", "uuidgen", "head", "dd", "gpg", "date", "python", "python3", "node", "ruby", "php", "echo", "printf", "cat", "tr", "xxd", "od",
	"apg", "makepasswd", "sha256sum", "base64", "pass", "op", "vault", "sops", "aws", "gcloud", "az", "kubectl", "agented", "bin/agented",
}

// isRecipe reports whether s is a shell command rather than its output.
func isRecipe(s string) bool {
	if strings.HasPrefix(s, "`") || strings.Count(s, "`") > 1 {
		return true
	}
	if at := strings.Index(s, "$("); at == 0 || at > 0 && strings.Contains(s[at:], ")") {
		return true
	}
	if strings.HasPrefix(s, "<(") {
		return true
	}
	words := strings.Fields(strings.TrimLeft(s, "$!=%> "))
	if len(words) == 0 {
		return false
	}
	// "pass phrase of mine" is a passphrase; a command has options or paths.
	return slices.Contains(generators, words[0]) && (len(words) > 1 && strings.ContainsAny(s, "-/|.") || words[0] == "openssl" || words[0] == "uuidgen")
}

// isReference reports whether s names the location of a secret, or a variable
// that contains it.
func isReference(s string) bool {
	for _, prefix := range []string{"${", "{{", "<%", "op://", "vault:", "ENC[", "arn:aws:", "awssm://", "gcpsm://", "keyvault://", "file://", "/run/secrets/", "/var/run/secrets/"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	bare, dollar := strings.CutPrefix(s, "$")
	if inner, ok := strings.CutPrefix(s, "%"); ok && strings.HasSuffix(inner, "%") && len(inner) > 1 {
		bare, dollar = strings.TrimSuffix(inner, "%"), true
	}
	return dollar && bare != "" && strings.Trim(bare, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == "" && !unicode.IsDigit(rune(bare[0]))
}

// placeholders are texts, without case and punctuation, that templates and
// examples have in place of a secret.
var placeholders = []string{
	"secret", "secrets", "mysecret", "mysecretkey", "mysecrettoken", "supersecret", "supersecretkey", "verysecret", "topsecret", "secretkey", "secrettoken", "secrethere",
	"thesecret", "asecret", "somesecret", "webhooksecret", "mywebhooksecret", "githubwebhooksecret", "githubsecret", "apikey", "myapikey", "token", "mytoken",
	"password", "passwd", "mypassword", "passw0rd", "password1", "password123", "passphrase", "pass", "key", "value", "string", "text", "test", "testing", "default", "admin",
	"none", "null", "nil", "undefined", "unset", "empty", "true", "false", "todo", "tbd", "fixme", "tba", "na", "foo", "bar", "foobar", "foobarbaz", "dummy", "fake",
	"sample", "example", "examplesecret", "examplekey", "placeholder", "redacted", "hidden", "masked", "removed", "optional", "required", "generate", "generated", "random",
	"hunter2", "letmein", "qwerty", "12345678", "123456", "1234", "somethingsecret", "keepitsecret", "keyboardcat", "shhhhh", "shh", "devsecret", "secretdev",
}

// markers are words that stand for a secret to be filled in. A text that
// contains one and otherwise only fillers is a placeholder.
var markers = []string{
	"changeme", "changethis", "changeit", "change", "changed", "replace", "replaced", "your", "placeholder", "example", "insert", "paste", "enter",
	"fill", "todo", "fixme", "goes", "generate", "generated", "yoursecret", "dummy", "redacted",
}

// fillers are the other words of placeholders.
var fillers = []string{
	"a", "an", "the", "this", "that", "it", "me", "my", "own", "our", "one", "in", "on", "at", "of", "for", "to", "be", "is", "and", "or", "with", "by", "as", "before", "from", "not", "use", "using",
	"please", "must", "should", "need", "needs", "very", "super", "strong", "secure", "long", "random", "unique", "real", "actual", "shared", "private", "some", "new", "here", "put", "set", "add", "get",
	"production", "prod", "dev", "development", "local", "test", "testing", "staging", "deploy", "deployment", "deploying", "default", "server", "app", "application", "admin", "session", "signing",
	"secret", "secrets", "key", "keys", "token", "tokens", "password", "passwd", "passphrase", "pass", "value", "string", "text", "word", "words", "credential", "credentials", "code", "hash",
	"api", "apikey", "web", "webhook", "webhooks", "hook", "github", "gitlab", "gitea", "slack", "stripe", "anthropic", "claude", "openai", "gemini", "google", "sentry", "otel", "agented", "oauth", "access", "auth", "jwt", "django", "flask",
	"bit", "bits", "byte", "bytes", "char", "chars", "character", "characters", "digit", "digits", "hex", "base", "min", "minimum", "least", "more", "than", "out", "in", "up", "something", "anything", "else", "you", "can", "make", "sk", "ant", "ghp", "whsec", "id", "user", "name", "safe", "so", "no", "x", "xx", "xxx", "xxxx",
}

// isPlaceholder reports whether s is the placeholder of a template.
func isPlaceholder(s string) bool {
	if strings.HasPrefix(s, "<") && strings.Contains(s, ">") || strings.HasSuffix(s, "...") || strings.HasSuffix(s, "…") {
		return true
	}
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, s)
	switch {
	case plain == "": // "***", "....", "----"
		return true
	case utf8.RuneCountInString(s) >= 3 && strings.Trim(plain, "x") == "", len(plain) >= 3 && strings.Trim(plain, "0") == "":
		return true
	case slices.Contains(placeholders, plain):
		return true
	}
	words := strings.Map(func(r rune) rune { // "256-bit" contains no number
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, plain)
	return len(words) <= 100 && madeOfFillers(words)
}

// madeOfFillers reports whether s consists of fillers and markers, with at
// least one marker.
func madeOfFillers(s string) bool {
	const reached, marked = 1, 2
	at := make([]byte, len(s)+1)
	at[0] = reached
	for i := range len(s) {
		if at[i] == 0 {
			continue
		}
		for _, w := range fillers {
			if strings.HasPrefix(s[i:], w) {
				at[i+len(w)] |= at[i]
			}
		}
		for _, w := range markers {
			if strings.HasPrefix(s[i:], w) {
				at[i+len(w)] |= at[i] | marked
			}
		}
	}
	return at[len(s)]&marked != 0
}

package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agented/agented/internal/dotenv"
)

// shortSecret is the number of characters below which a secret chosen by a
// person is considered guessable.
const shortSecret = 16

// skipped records a part of the .env file that could not be parsed. It is an
// error if the part names a setting, because the server would run with the
// default instead; otherwise it is a warning.
func (l *loader) skipped(source string, p dotenv.Problem) {
	var names []string
	for _, name := range p.Names {
		if ofDotenv(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		l.warn("", source, "line skipped: "+p.Text)
	}
	for _, name := range names {
		l.problem(name, source, fmt.Sprintf("the line cannot be read: %s; correct or remove the line", p.Text))
	}
}

// checkSwallowed rejects a definition that hides a setting: a quoted value that
// contains the line of a setting, because its closing quote is missing, and a
// name in the syntax of another program, as in $env:AGENTED_BIND.
func (l *loader) checkSwallowed(path string, v dotenv.Var) {
	if l.config.options.Client || !v.Set {
		return
	}
	if word := strings.Trim(v.Name, "$\"'-({[ "); word != v.Name {
		if _, after, ok := strings.Cut(word, ":"); ok {
			word = after
		}
		if word = strings.TrimRight(word, ")}]\"' "); ofDotenv(word) {
			l.problem(word, fmt.Sprintf("%s:%d", path, v.Line), fmt.Sprintf("the line does not set it; write %s=VALUE", word))
		}
	}
	for i, line := range strings.Split(v.Value, "\n") {
		name, _, found := strings.Cut(line, "=")
		name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "export "))
		if i > 0 && found && ofDotenv(name) {
			l.problem(name, fmt.Sprintf("%s:%d", path, v.Line+i),
				fmt.Sprintf("the line is part of the value of %s, whose quote in line %d is not closed on its line; close the quote", v.Name, v.Line))
		}
	}
}

// ofDotenv reports whether name is a setting that a .env file can set.
func ofDotenv(name string) bool {
	return slices.ContainsFunc(settings(), func(s setting) bool { return !s.system && slices.Contains(s.names(), name) })
}

// fixText returns how to set a real secret.
func (s setting) fixText() string {
	if s.secret == "backend" || s.name == "SENTRY_DSN" || s.name == "AGENTED_GITHUB_TOKEN" || s.kind == "headers" || s.kind == "pem" {
		return "write the value that the service issued, or remove the setting"
	}
	return "run `openssl rand -hex 32` and write its output here, or remove the setting"
}

// checkStrength warns about secrets that can be guessed.
func (l *loader) checkStrength() {
	c := l.config
	if n := len([]rune(c.GitHubWebhookSecret.Reveal())); n > 0 && n < shortSecret {
		l.warn("GITHUB_WEBHOOK_SECRET", c.origins["GITHUB_WEBHOOK_SECRET"].String(),
			fmt.Sprintf("has %d characters and can be guessed; use %d or more, for example the output of `openssl rand -hex 32`", n, shortSecret))
	}
}

package auth

import (
	"slices"
	"strings"
	"unicode"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/secret"
)

// checkName validates the name of a user or a key.
func checkName(path, name string) []agented.Field {
	switch {
	case strings.TrimSpace(name) == "":
		return []agented.Field{{Path: path, Text: "is required"}}
	case name != strings.TrimSpace(name):
		return []agented.Field{{Path: path, Text: "starts or ends with white space: trim it"}}
	case len(name) > 100:
		return []agented.Field{{Path: path, Text: "is too long: use at most 100 bytes"}}
	case strings.ContainsRune(name, unicode.ReplacementChar):
		return []agented.Field{{Path: path, Text: "has a character that cannot be printed: remove it"}}
	}
	if text := naming.Check(name); text != "" {
		return []agented.Field{{Path: path, Text: text}}
	}
	return nil
}

// checkPassword validates a new password of the user with the names.
func checkPassword(path, password string, names ...string) []agented.Field {
	if err := secret.CheckPassword(password, names...); err != nil {
		return []agented.Field{{Path: path, Text: strings.TrimPrefix(agented.Message(err), "the password ")}}
	}
	return nil
}

// checkUserName validates the name of a user. It must not look like another kind
// of actor in the audit log and in messages.
func checkUserName(path, name string) []agented.Field {
	if bad := checkName(path, name); bad != nil {
		return bad
	}
	words := strings.Fields(strings.ToLower(name))
	kind, _, address := strings.Cut(words[0], ":")
	alone := []string{"system", "server", "scheduler", "schedule", "webhook", "unknown", "nobody", "anonymous"}
	if slices.Contains([]string{"key", "execution", "github", "local"}, words[0]) || len(words) == 1 && slices.Contains(alone, words[0]) ||
		address && slices.Contains([]string{"key", "execution", "github", "agent", "user", "group", "topic"}, kind) {
		return []agented.Field{{Path: path, Text: "is reserved, because it looks like a part of the server: choose another name"}}
	}
	return nil
}

package api

import (
	"slices"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/naming"
)

// checkName appends the error of an invalid name to bad. An unchanged name is
// accepted, because stored names may be older than the rule.
func checkName(bad []agented.Field, before, name string) []agented.Field {
	if name == before || slices.ContainsFunc(bad, func(f agented.Field) bool { return f.Path == "name" }) {
		return bad
	}
	if text := naming.Check(name); text != "" {
		bad = append(bad, agented.Field{Path: "name", Text: text})
	}
	return bad
}

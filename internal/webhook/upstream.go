package webhook

import (
	"fmt"
	"strings"

	"github.com/agented/agented"
)

// OldRules are the matching rules of a trigger of the Python product.
type OldRules struct {
	Source           string // trigger_source: webhook or github
	MatchFieldPath   string // match_field_path
	MatchFieldValue  string // match_field_value
	TextFieldPath    string // text_field_path; default "text"
	DetectionKeyword string // detection_keyword
}

// FromOldRules returns the equivalent match, and a sentence for each rule that
// was rewritten or now differs. A rule without an equivalent is an Invalid
// error that names the field.
func FromOldRules(o OldRules) (Match, []string, error) {
	var m Match
	var notes []string
	if o.Source == "github" {
		m.Events = []string{"pull_request"}
		m.Actions = []string{"opened", "synchronize", "reopened"}
		notes = append(notes, `trigger_source "github" became events ["pull_request"] with actions opened, synchronize and reopened; events of every repository fire it, as before, unless repositories are set; events of bots and of the server's own accounts no longer fire it`)
	}
	if (o.MatchFieldPath == "") != (o.MatchFieldValue == "") {
		missing := "match_field_value"
		if o.MatchFieldPath == "" {
			missing = "match_field_path"
		}
		return Match{}, nil, agented.InvalidFields([]agented.Field{{Path: missing, Text: "is required with the other one: set both match_field_path and match_field_value, or neither"}})
	}
	var all []Condition
	if o.MatchFieldPath != "" {
		all = append(all, Condition{Field: o.MatchFieldPath, Op: OpEquals, Value: o.MatchFieldValue})
		notes = append(notes, fmt.Sprintf("match_field_path and match_field_value became the condition that %s equals %s (a number written so equals it too)", quote(brief(o.MatchFieldPath, 80)), quote(brief(o.MatchFieldValue, 80))))
	}
	if o.DetectionKeyword != "" {
		path := o.TextFieldPath
		if path == "" {
			path = "text"
		}
		all = append(all, Condition{Field: path, Op: OpContains, Value: o.DetectionKeyword})
		notes = append(notes, fmt.Sprintf("detection_keyword became the condition that %s contains %s", quote(brief(path, 80)), quote(brief(o.DetectionKeyword, 80))))
	} else if o.TextFieldPath != "" && o.TextFieldPath != "text" {
		notes = append(notes, fmt.Sprintf("text_field_path %s only sets where the keyword is searched, and there is no detection_keyword: it was omitted; {payload} contains the whole body", quote(brief(o.TextFieldPath, 80))))
	}
	if len(all) > 0 {
		m.Conditions = &Group{All: all}
	} else if o.Source != "github" {
		notes = append(notes, "there was no matching rule, so every call that verifies fires the trigger, as before")
	}
	kind := KindHMAC
	if o.Source == "github" {
		kind = KindGitHub
	}
	if bad := m.Validate(kind); len(bad) > 0 {
		for i, f := range bad {
			bad[i].Path = oldName(f.Path, o)
		}
		return Match{}, nil, agented.InvalidFields(bad)
	}
	return m, notes, nil
}

// oldName returns the old name of the field from which a field of the match was
// made.
func oldName(path string, o OldRules) string {
	first := o.MatchFieldPath != "" && strings.HasPrefix(path, "conditions.all.0.")
	value := strings.HasSuffix(path, ".value")
	switch {
	case first && value:
		return "match_field_value"
	case first:
		return "match_field_path"
	case value:
		return "detection_keyword"
	}
	return "text_field_path"
}

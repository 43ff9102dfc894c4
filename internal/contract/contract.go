package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/format"
)

// Check returns the invalid fields of a contract that need its schema or its patterns compiled.
// [agented.Spec.Validate] checks the others.
func Check(x *agented.Expect) []agented.Field {
	if x == nil {
		return nil
	}
	var bad []agented.Field
	if len(x.ResultSchema) > 0 && json.Valid(x.ResultSchema) {
		if _, err := Compile(x.ResultSchema); err != nil {
			bad = append(bad, agented.Field{Path: "expect.result_schema", Text: err.Error()})
		}
	}
	if x.Changes != nil {
		for i, p := range x.Changes.Paths {
			if !doublestar.ValidatePattern(p) {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("expect.changes.paths.%d", i), Text: "is not a pattern of paths: write it like src/** or **/*.go"})
			}
		}
	}
	return bad
}

// Facts is what an attempt did.
type Facts struct {
	Text    string          // the result, as printed
	Output  json.RawMessage // structured result of the CLI; nil: there is none
	Changes *changes.Record // nil: nothing was compared
	// Published is what the attempt proposes to publish, also what a rule refuses.
	Published []agented.Publication
	// Repairable reports whether an agent can propose what the rule allows.
	Repairable func(rule string) bool
}

// Evaluate evaluates all clauses except command, in the order in which they are shown. output is the
// value that meets the schema.
func Evaluate(x *agented.Expect, f Facts) (clauses []agented.Clause, output json.RawMessage) {
	if len(x.ResultSchema) > 0 {
		c, out := result(x.ResultSchema, &f)
		clauses, output = append(clauses, c), out
	}
	if x.Changes != nil {
		clauses = append(clauses, changed(x.Changes, f.Changes)...)
	}
	if t := x.Text; t != nil && t.NotEmpty {
		c := agented.Clause{Name: "text.not_empty", Met: strings.TrimSpace(f.Text) != "", Text: "the result is not empty"}
		if !c.Met {
			c.Text = "the result is empty"
		}
		clauses = append(clauses, c)
	}
	if t := x.Text; t != nil && t.Matches != "" {
		clauses = append(clauses, matches(t.Matches, f.Text))
	}
	if x.Published != "" {
		clauses = append(clauses, proposed(x.Published, &f))
	}
	return clauses, output
}

// result evaluates result_schema.
func result(schema []byte, f *Facts) (agented.Clause, json.RawMessage) {
	c := agented.Clause{Name: "result_schema"}
	s, err := Compile(schema)
	if err != nil {
		c.Text, c.Failed = "the schema "+err.Error(), true
		return c, nil
	}
	text, err := find(f)
	if err != nil {
		c.Text, c.Evidence = err.Error(), Tail(f.Text)
		return c, nil
	}
	v, err := decode(text)
	if err != nil {
		c.Text, c.Evidence = "the JSON in the result is not usable: "+err.Error(), Tail(string(text))
		return c, nil
	}
	if bad := s.Validate(v); bad != nil {
		c.Text, c.Evidence = "the JSON in the result does not match the schema: "+bad[0], Bound(strings.Join(bad, "\n"))
		return c, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		c.Text = "the JSON in the result is not usable: " + clip(err.Error(), 200)
		return c, nil
	}
	c.Met, c.Text = true, "the result matches the schema"
	return c, compact.Bytes()
}

// find returns the JSON value of a result: the structured result of the CLI, the whole text if it
// is a JSON object or list, or the last fenced block.
func find(f *Facts) ([]byte, error) {
	if len(f.Output) > 0 {
		return f.Output, nil
	}
	text := strings.TrimSpace(f.Text)
	if text == "" {
		return nil, errors.New("the result is empty, and a JSON value was expected")
	}
	if (text[0] == '{' || text[0] == '[') && json.Valid([]byte(text)) {
		return []byte(text), nil
	}
	if block, ok := lastBlock(text); ok {
		return []byte(block), nil
	}
	if len(f.Text) >= agented.MaxResult {
		return nil, fmt.Errorf("the result is longer than %s, so that no JSON value was found at its end", format.Bytes(agented.MaxResult))
	}
	return nil, errors.New("the result has no JSON value: it must be JSON, or end with a fenced block ```json")
}

// lastBlock returns the content of the last fenced code block that is marked as JSON or has no
// mark.
func lastBlock(text string) (block string, ok bool) {
	var fence string
	var wanted bool
	var lines []string
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case fence == "" && (strings.HasPrefix(trimmed, "```") || strings.HasPrefix(trimmed, "~~~")):
			mark := trimmed[:1]
			fence = mark + strings.Repeat(mark, len(trimmed)-len(strings.TrimLeft(trimmed, mark))-1)
			info := strings.ToLower(strings.TrimSpace(strings.TrimLeft(trimmed, mark)))
			wanted, lines = info == "json" || info == "" || strings.HasPrefix(info, "json "), nil
		case fence != "" && strings.HasPrefix(trimmed, fence) && strings.Trim(trimmed, fence[:1]) == "":
			if wanted {
				block, ok = strings.Join(lines, ""), true
			}
			fence = ""
		case fence != "":
			lines = append(lines, line)
		}
	}
	return block, ok
}

// changed evaluates the clauses of changes.
func changed(x *agented.ExpectedChanges, r *changes.Record) []agented.Clause {
	var out []agented.Clause
	add := func(name string, met bool, text, evidence string) {
		out = append(out, agented.Clause{Name: "changes." + name, Met: met, Text: text, Evidence: evidence})
	}
	problem := ""
	switch {
	case r == nil || !r.Git:
		problem = "the working directory is not in a git repository, so that changes are unknown"
	case r.Truncated && r.FileCount == 0:
		problem = "the changes could not be recorded: " + r.Reason
	}
	count, list := "no files were changed", ""
	if problem == "" && r.FileCount > 0 {
		count = format.Plural(r.FileCount, "file was changed", "files were changed")
		list = paths(r.Files, func(*changes.File) bool { return true })
	}
	eval := func(name string, met bool, text, evidence string) {
		if problem != "" {
			out = append(out, agented.Clause{Name: "changes." + name, Text: problem, Failed: true})
			return
		}
		add(name, met, text, evidence)
	}
	n := 0
	if r != nil {
		n = r.FileCount
	}
	if x.None {
		evidence := list
		if r != nil && len(r.Commits) > 0 && n == 0 {
			count, evidence = format.Plural(len(r.Commits), "commit was added", "commits were added"), r.Commits[0].Subject
		}
		eval("none", r != nil && n == 0 && len(r.Commits) == 0, count, evidence)
	}
	if x.MinFiles > 0 {
		eval("min_files", n >= x.MinFiles, fmt.Sprintf("%s; at least %d expected", count, x.MinFiles), list)
	}
	if x.MaxFiles > 0 {
		eval("max_files", n <= x.MaxFiles, fmt.Sprintf("%s; at most %d expected", count, x.MaxFiles), list)
	}
	if len(x.Paths) > 0 {
		text, evidence := outside(x.Paths, r, n)
		met := text == ""
		if met {
			text = "all changed files match paths"
		}
		eval("paths", met, text, evidence)
	}
	return out
}

// outside returns which changed files match no pattern, or "".
func outside(patterns []string, r *changes.Record, n int) (text, evidence string) {
	if r == nil {
		return "", ""
	}
	match := func(path string) bool {
		for _, p := range patterns {
			if doublestar.MatchUnvalidated(p, path) {
				return true
			}
		}
		return false
	}
	bad := func(f *changes.File) bool { return !match(f.Path) || f.Old != "" && !match(f.Old) }
	count, first := 0, ""
	for i := range r.Files {
		if bad(&r.Files[i]) {
			if count++; count == 1 {
				first = r.Files[i].Path
			}
		}
	}
	switch {
	case count > 0:
		return format.Plural(count, "changed file does not match paths", "changed files do not match paths") + ", for example " + name(first), paths(r.Files, bad)
	case len(r.Files) < n:
		return "too many files were changed to compare all of them with paths", ""
	}
	return "", ""
}

// paths lists files, one a line.
func paths(files []changes.File, pick func(*changes.File) bool) string {
	var b strings.Builder
	n := 0
	for i := range files {
		f := &files[i]
		if !pick(f) {
			continue
		}
		if n++; n <= 50 && b.Len() < agented.MaxClauseEvidence/2 {
			fmt.Fprintf(&b, "%s %s\n", f.Status, name(f.Path))
			continue
		}
		b.WriteString("and more\n")
		break
	}
	return Bound(strings.TrimSpace(b.String()))
}

// name makes a path safe for a line of text.
func name(path string) string {
	path = clip(path, 300)
	if quoted := strconv.Quote(path); quoted != `"`+path+`"` {
		return quoted
	}
	return path
}

func matches(pattern, text string) agented.Clause {
	c := agented.Clause{Name: "text.matches"}
	re, err := regexp.Compile(pattern)
	switch {
	case err != nil:
		c.Text, c.Failed = "the pattern is not a regular expression", true
	case re.MatchString(text):
		c.Met, c.Text = true, "the result matches "+pattern
	default:
		c.Text, c.Evidence = "the result does not match "+pattern, Tail(text)
	}
	return c
}

// Bound shortens evidence at its end.
func Bound(s string) string { return clip(strings.ToValidUTF8(s, "\uFFFD"), agented.MaxClauseEvidence) }

// Tail shortens evidence at its start, because errors are printed last.
func Tail(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	const note = "(shortened)\n"
	if len(s) <= agented.MaxClauseEvidence {
		return s
	}
	s = s[len(s)-agented.MaxClauseEvidence+len(note)+3:]
	return note + strings.ToValidUTF8(s, "")
}

func clip(s string, n int) string { return format.Truncate(s, n) }

package agented

import (
	"fmt"
	"slices"
	"strings"
)

// Placeholder is a name that a prompt template can use as {name}.
type Placeholder struct {
	Name string
	Help string
}

// Placeholders lists the names that a template can use. Those up to paths and
// those of pull requests are compatible with the Python product; those from
// event onward are filled by webhooks, and text from outside is fenced.
var Placeholders = []Placeholder{
	{"message", "text passed with the firing; empty if there is none"},
	{"trigger_id", "id of the trigger"},
	{"bot_id", "same as trigger_id (old name)"},
	{"trigger_name", "name of the trigger"},
	{"execution_id", "id of the execution"},
	{"paths", `the trigger's paths, separated by ", "; "no paths configured" if it has none`},
	{"pr_url", "address of the pull request"},
	{"pr_number", "number of the pull request"},
	{"pr_title", "title of the pull request"},
	{"pr_author", "login of its author"},
	{"repo_url", "address of the repository"},
	{"repo_full_name", "owner/name of the repository"},

	{"event", "name of the event, for example pull_request or push"},
	{"action", "action of the event, for example opened; for a push: created, deleted, forced or pushed"},
	{"repository", "owner/name of the repository"},
	{"number", "number of the pull request or issue"},
	{"title", "its title; for a push: first line of the last commit's message"},
	{"author", "login of its author; for a push: login of the pusher"},
	{"branch", "head branch"},
	{"base", "base branch of a pull request"},
	{"base_branch", "same as base; empty for a push"},
	{"base_sha", "commit of the base branch in the event; for a push: the commit before it"},
	{"sha", "head commit"},
	{"tag", "the tag that was pushed or released"},
	{"labels", `its labels, separated by ", "`},
	{"url", "its address in a browser"},
	{"body", "its text; for a push: the last commit's message"},
	{"comment", "text of the comment or review"},
	{"comment_author", "login of its author"},
	{"comment_url", "address of the comment or review"},
	{"arguments", "text after the command on the same line of the comment"},
	{"conclusion", "conclusion of a workflow, check or review, for example failure"},
	{"changed_files", "files changed by a push or, with a workspace, by a pull request, one per line"},
	{"diff", "diff of the checkout's commit against its base, for triggers with a workspace; at most 128 KiB"},
	{"sender", "login of the user who caused the event"},
	{"payload", "the whole body of the call"},

	{"inbox", "messages waiting for the agent, read from its inbox when the execution starts and marked read when it succeeds"},
	{"from", "address of the sender of the message"},
	{"subject", "subject of the message"},
	{"message_id", "id of the message"},
	{"message_type", "type of the message, for example request"},
}

// VarPrefix begins a placeholder that the caller fills: {vars.NAME} is the
// value of NAME in the "vars" object of a run.
const VarPrefix = "vars."

// field is one {name} in a template, or one {{name}}, which stands for the text
// {name}.
type field struct {
	start, end int // including the braces
	name       string
	literal    bool
}

// fields finds the placeholders of a template, from left to right. A pair of
// braces is a placeholder only if it contains a name (letters, digits, _ and
// dots, starting with a letter); anything else, such as JSON or code, is text.
func fields(template string) []field {
	var out []field
	for i := 0; i < len(template); i++ {
		if template[i] != '{' {
			continue
		}
		rest := template[i+1:]
		if strings.HasPrefix(rest, "{") {
			if n := nameLength(rest[1:]); n > 0 && strings.HasPrefix(rest[1+n:], "}}") {
				out = append(out, field{i, i + n + 4, rest[1 : 1+n], true})
				i += n + 3
			}
			continue
		}
		if n := nameLength(rest); n > 0 && strings.HasPrefix(rest[n:], "}") {
			out = append(out, field{i, i + n + 2, rest[:n], false})
			i += n + 1
		}
	}
	return out
}

func nameLength(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (n == 0 || c != '_' && c != '.' && (c < '0' || c > '9')) {
			break
		}
		n++
	}
	return n
}

// CheckTemplate returns a sentence for each unknown placeholder of the
// template, with the nearest known name.
func CheckTemplate(template string) []string {
	known := make([]string, len(Placeholders))
	for i, p := range Placeholders {
		known[i] = p.Name
	}
	var bad []string
	for _, f := range fields(template) {
		if f.literal || slices.Contains(known, f.name) || strings.HasPrefix(f.name, VarPrefix) && len(f.name) > len(VarPrefix) {
			continue
		}
		bad = append(bad, fmt.Sprintf("{%s} is not a placeholder%s; write {{%s}} for the text itself", clip(f.name), suggest(f.name, known), clip(f.name)))
	}
	return bad
}

// Render fills a template. A known placeholder without a value becomes empty;
// {{name}} becomes {name}. Values are inserted unchanged; placeholders in them
// are not expanded.
func Render(template string, values map[string]string) string {
	var b strings.Builder
	at := 0
	for _, f := range fields(template) {
		b.WriteString(template[at:f.start])
		if f.literal {
			b.WriteString(template[f.start+1 : f.end-1])
		} else {
			b.WriteString(values[f.name])
		}
		at = f.end
	}
	b.WriteString(template[at:])
	return b.String()
}

// templateSize returns the length of a template in bytes, counting {{name}} as
// the text {name}.
func templateSize(template string) int {
	n := len(template)
	if n <= MaxPrompt {
		return n
	}
	for _, f := range fields(template) {
		if f.literal {
			n -= 2
		}
	}
	return n
}

// RenderedSize returns the length in bytes of Render's result, without building
// it.
func RenderedSize(template string, values map[string]string) int {
	n := len(template)
	for _, f := range fields(template) {
		if f.literal {
			n -= 2 // the outer braces
		} else {
			n += len(values[f.name]) - (f.end - f.start)
		}
	}
	return n
}

// EscapeTemplate returns a template that renders to the text itself: every
// {name} in it is doubled.
func EscapeTemplate(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '{' {
			if n := nameLength(text[i+1:]); n > 0 && strings.HasPrefix(text[i+1+n:], "}") {
				b.WriteString("{{" + text[i+1:i+1+n] + "}}")
				i += n + 1
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

package webhook

import (
	"fmt"
	"slices"
	"strings"
)

// Match says which events fire a trigger. Every field that is set has to agree;
// within a list one entry is enough. The zero Match takes every event but those
// that the guards stop: a ping, an event of a bot or of our own account (unless
// AllowBots), and a push that removes a branch or tag (unless Actions names
// "deleted").
//
// Lists of patterns (Repositories, Branches, Bases, Authors, ExcludeAuthors,
// Paths) know * (any text without a slash), ** (any text), ? (one character), and ! before
// a pattern that takes out again what earlier ones took; the last that fits
// decides.
type Match struct {
	Events         []string `json:"events,omitempty"`          // "push", "pull_request.opened", "check_*"
	Actions        []string `json:"actions,omitempty"`         // "opened", "synchronize"
	Repositories   []string `json:"repositories,omitempty"`    // patterns of owner/name, in any case
	Branches       []string `json:"branches,omitempty"`        // patterns of the head branch
	Bases          []string `json:"bases,omitempty"`           // patterns of the branch that a pull request goes into
	Authors        []string `json:"authors,omitempty"`         // patterns of who wrote it (a comment's author, if it is a comment), in any case
	ExcludeAuthors []string `json:"exclude_authors,omitempty"` // the same, and these do not fire
	Labels         []string `json:"labels,omitempty"`          // one of them is on it; for labeled and unlabeled the one that changed, in any case
	Paths          []string `json:"paths,omitempty"`           // patterns; a push changes one such file
	Conditions     *Group   `json:"conditions,omitempty"`      // on the body

	Command      string   `json:"command,omitempty"`      // such as /review, at the start of a line of a comment
	Associations []string `json:"associations,omitempty"` // what the writer must be to the repository; with a Command default OWNER, MEMBER, COLLABORATOR

	AllowBots  bool `json:"allow_bots,omitempty"`  // bots and our own accounts fire too: beware of loops
	SkipDrafts bool `json:"skip_drafts,omitempty"` // draft pull requests do not fire
}

// WriteAssociations are those whose comment commands count when a match names
// none: who can write to the repository, as GitHub says it in the payload.
var WriteAssociations = []string{"OWNER", "MEMBER", "COLLABORATOR"}

// Verdict is what a match says about an event.
type Verdict struct {
	Fires bool `json:"fires"`
	// Rule is the field of the match, or the guard, that said no: a word for
	// programs. Empty when it fires.
	Rule string `json:"rule,omitempty"`
	// Reason says in words what was expected and what came, bounded and free of
	// control characters. Empty when it fires.
	Reason string `json:"reason,omitempty"`
	// Arguments is what follows the command on its line: text from outside.
	Arguments string `json:"arguments,omitempty"`
}

// Evaluate says whether the event fires a trigger with this match. own are the
// logins under which this server itself acts. It has an answer for every event
// and every match, also one that Validate refuses, and ends within a bound.
func Evaluate(m Match, e *Event, own []string) Verdict {
	no := func(rule, format string, args ...any) Verdict {
		return Verdict{Rule: rule, Reason: brief(fmt.Sprintf(format, args...), 500)}
	}
	if e.Ping() {
		return no("ping", "a ping only asks whether anybody is there")
	}
	if len(m.Events) > 0 && !matchesEvent(m.Events, e) {
		return no("events", "the event is %s, wanted is %s", withAction(e), oneOf(m.Events))
	}
	if len(m.Actions) > 0 && !fold(m.Actions, e.Action) {
		return no("actions", "the action is %s, wanted is %s", named(e.Action), oneOf(m.Actions))
	}
	if v := m.pattern("repositories", "repository", m.Repositories, e.Repository, true); v.Reason != "" {
		return v
	}
	if !m.AllowBots {
		if e.Bot() {
			return no("bots", "a bot caused the event (%s), and bots do not fire this trigger", named(e.Sender))
		}
		for _, login := range []string{e.Sender, e.CommentAuthor} {
			if login != "" && fold(own, login) {
				return no("own", "our own account caused the event (%s): firing on it could go on for ever", named(login))
			}
		}
	}
	if m.SkipDrafts && e.PullRequest && e.Draft {
		return no("drafts", "the pull request is a draft")
	}
	if e.GitHub && e.Name == "push" && e.Action == "deleted" && !fold(m.Actions, "deleted") && !slices.Contains(m.Events, "push.deleted") {
		return no("deleted", "the push removes %s: there is nothing left to look at", named(e.Branch+e.Tag))
	}
	for _, check := range []struct {
		rule, what string
		patterns   []string
		value      string
		fold       bool
	}{
		{"branches", "branch", m.Branches, e.Branch, false},
		{"bases", "base branch", m.Bases, e.Base, false},
		{"authors", "author", m.Authors, e.Writer(), true},
	} {
		if v := m.pattern(check.rule, check.what, check.patterns, check.value, check.fold); v.Reason != "" {
			return v
		}
	}
	if writer := e.Writer(); writer != "" && len(m.ExcludeAuthors) > 0 && compileGlobs(m.ExcludeAuthors, true).match(writer) {
		return no("exclude_authors", "the author %s is excluded", named(writer))
	}
	if len(m.Labels) > 0 {
		labels := e.Labels
		if e.Action == "labeled" || e.Action == "unlabeled" {
			labels = []string{e.Label}
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return l != "" && fold(m.Labels, l) }) {
			return no("labels", "the labels are %s, wanted is %s", listed(labels), oneOf(m.Labels))
		}
	}
	if len(m.Paths) > 0 && !e.PathsCut {
		// With more files than are kept the answer is not known, and a run too
		// many is better than one that never comes.
		selected := compileGlobs(m.Paths, false)
		if !slices.ContainsFunc(e.Paths, selected.match) {
			return no("paths", "the changed files are %s, wanted is %s", listed(e.Paths), oneOf(m.Paths))
		}
	}
	var arguments string
	if m.Command != "" {
		if len(m.Actions) == 0 && e.GitHub && e.Action != "created" && e.Action != "submitted" {
			return no("command", "a command counts when the comment is written, and the action is %s", named(e.Action))
		}
		rest, ok := findCommand(e.Comment, m.Command)
		if !ok {
			return no("command", "no line of the comment starts with %s", named(m.Command))
		}
		arguments = rest
	}
	if want := m.associations(); len(want) > 0 && !fold(want, e.Association) {
		return no("associations", "the author %s is %s to the repository, wanted is %s", named(e.Writer()), named(e.Association), oneOf(want))
	}
	if m.Conditions != nil {
		c := checker{body: e.JSON, work: maxWork}
		if why := c.group(m.Conditions, 0); why != "" {
			return no("conditions", "%s", why)
		}
	}
	return Verdict{Fires: true, Arguments: arguments}
}

func (m *Match) associations() []string {
	if len(m.Associations) == 0 && m.Command != "" {
		return WriteAssociations
	}
	return m.Associations
}

// pattern is the zero Verdict when the value is one of the patterns, or when
// there are none.
func (m *Match) pattern(rule, what string, patterns []string, value string, foldCase bool) Verdict {
	if len(patterns) == 0 || value != "" && compileGlobs(patterns, foldCase).match(value) {
		return Verdict{}
	}
	return Verdict{Rule: rule, Reason: brief(fmt.Sprintf("the %s is %s, wanted is %s", what, named(value), oneOf(patterns)), 500)}
}

func matchesEvent(events []string, e *Event) bool {
	for _, want := range events {
		for _, have := range []string{e.Name, e.Name + "." + e.Action} {
			if want == have && e.Name != "" || strings.ContainsAny(want, "*?") && compileGlobs([]string{want}, false).match(have) {
				return true
			}
		}
	}
	return false
}

// findCommand looks for a line that starts with the command, as a word of its
// own, and returns the rest of that line. Quoted lines start with another
// character; lines of a code block are someone's example and do not count.
func findCommand(comment, command string) (string, bool) {
	code := ""
	for line := range strings.Lines(comment) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimLeft(line, " ")
		if code != "" {
			if strings.HasPrefix(trimmed, code) {
				code = ""
			}
			continue
		}
		if strings.HasPrefix(trimmed, "```") || strings.HasPrefix(trimmed, "~~~") {
			code = trimmed[:3]
			continue
		}
		rest, ok := strings.CutPrefix(line, command)
		if ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t') {
			return brief(rest, 1000), true
		}
	}
	return "", false
}

// fold reports whether the list has the text, in any case.
func fold(list []string, text string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, text) })
}

func withAction(e *Event) string {
	if e.Action == "" {
		return named(e.Name)
	}
	return named(e.Name + "." + e.Action)
}

func named(s string) string {
	if s == "" {
		return "not known"
	}
	return quote(brief(s, 80))
}

// oneOf lists a few texts of a list.
func oneOf(list []string) string {
	const most = 5
	var shown []string
	for _, s := range list[:min(len(list), most)] {
		if s != "" {
			shown = append(shown, quote(brief(s, 60)))
		}
	}
	switch {
	case len(shown) == 0:
		return "none"
	case len(list) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), len(list)-most)
	case len(shown) == 1:
		return shown[0]
	}
	return "one of " + strings.Join(shown, ", ")
}

func listed(list []string) string { return strings.TrimPrefix(oneOf(list), "one of ") }

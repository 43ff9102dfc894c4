package webhook

import (
	"fmt"
	"slices"
	"strings"
)

// Match selects the events that fire a trigger. All set fields must match; in a
// list, one matching entry is enough. The zero Match selects all events except
// those that guards reject: a ping, an event of a bot or of the server's own
// account (unless AllowBots), and a push that deletes a branch or tag (unless
// Actions contains "deleted").
//
// Lists of patterns (Repositories, Branches, Bases, Authors, ExcludeAuthors,
// Paths) support * (any text without a slash), ** (any text), ? (one
// character), and ! before a pattern that excludes texts selected by earlier
// ones; the last matching pattern decides.
type Match struct {
	Events         []string `json:"events,omitempty"`          // "push", "pull_request.opened", "check_*"
	Actions        []string `json:"actions,omitempty"`         // "opened", "synchronize"
	Repositories   []string `json:"repositories,omitempty"`    // patterns of owner/name, ignoring case
	Branches       []string `json:"branches,omitempty"`        // patterns of the head branch
	Bases          []string `json:"bases,omitempty"`           // patterns of the base branch of a pull request
	Authors        []string `json:"authors,omitempty"`         // patterns of the author (of the comment, if there is one), ignoring case
	ExcludeAuthors []string `json:"exclude_authors,omitempty"` // the same, but these do not fire
	Labels         []string `json:"labels,omitempty"`          // it has one of them; for labeled and unlabeled the changed one, ignoring case
	Paths          []string `json:"paths,omitempty"`           // patterns; a push changes at least one matching file
	Conditions     *Group   `json:"conditions,omitempty"`      // on the body

	Command      string   `json:"command,omitempty"`      // such as /review, at the start of a line of a comment
	Associations []string `json:"associations,omitempty"` // required relation of the author to the repository; * is any. With a Command, and for pull requests unless Authors is set, default OWNER, MEMBER, COLLABORATOR

	Forks *bool `json:"forks,omitempty"` // whether an event about a branch of another repository fires; nil: only if the trigger has no workspace

	AllowBots  bool `json:"allow_bots,omitempty"`  // events of bots and of the server's own accounts fire too, which can cause loops
	SkipDrafts bool `json:"skip_drafts,omitempty"` // draft pull requests do not fire
}

// WriteAssociations are the associations whose comment commands are accepted by
// default: users with write access, according to GitHub's payload.
var WriteAssociations = []string{"OWNER", "MEMBER", "COLLABORATOR"}

// MatchResult is the result of a match for an event.
type MatchResult struct {
	Fires bool `json:"fires"`
	// Rule is the field of the match or the guard that rejected the event, for
	// programs. Empty if it fires.
	Rule string `json:"rule,omitempty"`
	// Reason describes the expected and the actual value, limited in length and
	// without control characters. Empty if it fires.
	Reason string `json:"reason,omitempty"`
	// Arguments is the text after the command on its line: text from outside.
	Arguments string `json:"arguments,omitempty"`
}

// Evaluate reports whether the event fires a trigger with this match. own are
// the logins of the server's own accounts. It returns a result for every event
// and every match, including invalid ones, and its work is limited.
func Evaluate(m Match, e *Event, own []string) MatchResult {
	if v := m.checkEvent(e); v.Reason != "" {
		return v
	}
	if v := m.checkSender(e, own); v.Reason != "" {
		return v
	}
	if v := m.checkBranch(e); v.Reason != "" {
		return v
	}
	if v := m.checkContent(e); v.Reason != "" {
		return v
	}
	arguments, v := m.checkCommand(e)
	if v.Reason != "" {
		return v
	}
	if v := m.checkAssociation(e); v.Reason != "" {
		return v
	}
	if m.Conditions != nil {
		c := checker{body: e.JSON, work: maxWork}
		if why := c.group(m.Conditions, 0); why != "" {
			return noMatch("conditions", "%s", why)
		}
	}
	return MatchResult{Fires: true, Arguments: arguments}
}

// noMatch returns the result of an event that a rule rejects.
func noMatch(rule, format string, args ...any) MatchResult {
	return MatchResult{Rule: rule, Reason: brief(fmt.Sprintf(format, args...), 500)}
}

// checkEvent checks the event, its action and its repository. A check returns
// the zero result if the event passes.
func (m *Match) checkEvent(e *Event) MatchResult {
	if e.Ping() {
		return noMatch("ping", "a ping only checks whether the endpoint exists")
	}
	if len(m.Events) > 0 && !matchesEvent(m.Events, e) {
		return noMatch("events", "the event is %s, wanted is %s", withAction(e), oneOf(m.Events))
	}
	if len(m.Actions) > 0 && !fold(m.Actions, e.Action) && (e.OwnAction == "" || !fold(m.Actions, e.OwnAction)) {
		return noMatch("actions", "the action is %s, wanted is %s", named(e.Action), oneOf(m.Actions))
	}
	return m.pattern("repositories", "repository", m.Repositories, e.Repository, true)
}

// checkSender rejects events of bots and of the server's own accounts, unless
// the match allows them.
func (m *Match) checkSender(e *Event, own []string) MatchResult {
	if m.AllowBots {
		return MatchResult{}
	}
	if e.Bot() {
		return noMatch("bots", "a bot caused the event (%s), and bots do not fire this trigger", named(e.Sender))
	}
	for _, login := range []string{e.Sender, e.CommentAuthor} {
		if login != "" && fold(own, login) {
			return noMatch("own", "the server's own account caused the event (%s): firing on it could cause a loop", named(login))
		}
	}
	return MatchResult{}
}

// checkBranch checks where the event's commits are, and who wrote it.
func (m *Match) checkBranch(e *Event) MatchResult {
	if m.Forks != nil && !*m.Forks && e.Fork {
		return noMatch("forks", "the branch is not in %s but in a fork: set forks to true if such branches may fire this trigger", named(e.Repository))
	}
	if m.SkipDrafts && e.PullRequest && e.Draft {
		return noMatch("drafts", "the pull request is a draft")
	}
	if (e.GitHub || e.Kind == KindGitLab) && strings.HasSuffix(e.Name, "push") && e.Action == "deleted" && !fold(m.Actions, "deleted") && !slices.Contains(m.Events, "push.deleted") {
		return noMatch("deleted", "the push deletes %s: there is nothing left to check out", named(e.Branch+e.Tag))
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
		return noMatch("exclude_authors", "the author %s is excluded", named(writer))
	}
	return MatchResult{}
}

// checkContent checks labels and changed files.
func (m *Match) checkContent(e *Event) MatchResult {
	if len(m.Labels) > 0 {
		labels := e.Labels
		if e.Action == "labeled" || e.Action == "unlabeled" {
			labels = []string{e.Label}
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return l != "" && fold(m.Labels, l) }) {
			return noMatch("labels", "the labels are %s, wanted is %s", listed(labels), oneOf(m.Labels))
		}
	}
	if len(m.Paths) > 0 && !e.PathsCut {
		// With more files than the limit the answer is unknown, and an
		// unnecessary run is better than a missing one.
		selected := compileGlobs(m.Paths, false)
		if !slices.ContainsFunc(e.Paths, selected.match) {
			return noMatch("paths", "the changed files are %s, wanted is %s", listed(e.Paths), oneOf(m.Paths))
		}
	}
	return MatchResult{}
}

// checkCommand finds the command in the comment and returns its arguments.
func (m *Match) checkCommand(e *Event) (arguments string, v MatchResult) {
	if m.Command == "" {
		return "", MatchResult{}
	}
	if len(m.Actions) == 0 && e.GitHub && e.Action != "created" && e.Action != "submitted" {
		return "", noMatch("command", "a command is only read when the comment is created, and the action is %s", named(e.Action))
	}
	arguments, ok := findCommand(e.Comment, m.Command)
	if !ok {
		return "", noMatch("command", "no line of the comment starts with %s", named(m.Command))
	}
	return arguments, MatchResult{}
}

// checkAssociation checks how the author is associated with the repository.
func (m *Match) checkAssociation(e *Event) MatchResult {
	want := m.associations(e)
	if len(want) == 0 || slices.Contains(want, "*") || fold(want, e.Association) {
		return MatchResult{}
	}
	if len(m.Associations) == 0 && m.Command == "" {
		return noMatch("associations", "the author %s is %s to the repository, and by default only pull requests of %s fire: set associations to allow others", named(e.Writer()), named(e.Association), strings.Join(want, ", "))
	}
	return noMatch("associations", "the author %s is %s to the repository, wanted is %s", named(e.Writer()), named(e.Association), oneOf(want))
}

// WithWorkspace returns the match for a trigger whose executions work in a
// checkout: branches of forks fire only if Forks is true.
func (m Match) WithWorkspace() Match {
	if m.Forks == nil {
		m.Forks = new(bool)
	}
	return m
}

// associations returns the accepted associations of the author; nil accepts
// all.
func (m *Match) associations(e *Event) []string {
	if len(m.Associations) > 0 {
		return m.Associations
	}
	if m.Command != "" && len(m.Authors) > 0 && e.Association == "" && e.Kind != KindGitHub {
		return nil // only GitHub reports associations; the match lists the authors
	}
	byBot := m.AllowBots && strings.EqualFold(e.AuthorType, "Bot") && !e.Fork
	// GitHub sends the association in every such event; other senders have
	// none.
	pull := e.GitHub && e.Association != "" && (e.Name == "pull_request" || e.Name == "pull_request_target")
	if m.Command != "" || pull && len(m.Authors) == 0 && !byBot {
		return WriteAssociations
	}
	return nil
}

// pattern returns the zero MatchResult if the value matches the patterns, or if
// there are none.
func (m *Match) pattern(rule, what string, patterns []string, value string, foldCase bool) MatchResult {
	if len(patterns) == 0 || value != "" && compileGlobs(patterns, foldCase).match(value) {
		return MatchResult{}
	}
	return MatchResult{Rule: rule, Reason: brief(fmt.Sprintf("the %s is %s, wanted is %s", what, named(value), oneOf(patterns)), 500)}
}

func matchesEvent(events []string, e *Event) bool {
	for _, want := range events {
		for _, have := range slices.Concat([]string{e.Name, e.Name + "." + e.Action}, e.Words) {
			if want == have && e.Name != "" || strings.ContainsAny(want, "*?") && compileGlobs([]string{want}, false).match(have) {
				return true
			}
		}
	}
	return false
}

// findCommand searches for a line that starts with the command as a separate
// word, and returns the rest of that line. Quoted lines start with another
// character; lines in a code block are ignored.
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

// fold reports whether the list contains the text, ignoring case.
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
		return "unknown"
	}
	return quote(brief(s, 80))
}

// oneOf formats the first texts of a list.
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

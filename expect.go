package agented

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Expect is the outcome contract of a trigger: what an execution must achieve besides the success
// of its CLI. Zero fields expect nothing.
type Expect struct {
	ResultSchema   json.RawMessage  `json:"result_schema,omitempty"`           // JSON Schema of the result
	Changes        *ExpectedChanges `json:"changes,omitempty"`                 // what it must change in its repository
	Command        []string         `json:"command,omitempty"`                 // program and arguments that must exit with code 0 in the working directory
	CommandSeconds int              `json:"command_timeout_seconds,omitempty"` // 0 means DefaultCheckSeconds
	Text           *ExpectedText    `json:"text,omitempty"`                    // the result as text
	Published      PublicationKind  `json:"published,omitempty"`               // what it must publish; empty: nothing
	Repair         int              `json:"repair,omitempty"`                  // further attempts in the same session if it is not met
}

// ExpectedChanges is what an execution must change in its repository.
type ExpectedChanges struct {
	None     bool     `json:"none,omitempty"`      // nothing
	MinFiles int      `json:"min_files,omitempty"` // at least
	MaxFiles int      `json:"max_files,omitempty"` // at most; 0 means no limit
	Paths    []string `json:"paths,omitempty"`     // patterns, one of which each changed file must match
}

// ExpectedText is what the result of an execution must contain.
type ExpectedText struct {
	NotEmpty bool   `json:"not_empty,omitempty"` // more than white space
	Matches  string `json:"matches,omitempty"`   // regular expression (RE2) that it matches
}

// Defaults and limits of an Expect.
const (
	DefaultCheckSeconds = 600
	MaxResultSchema     = 64 << 10 // bytes
	MaxRepairs          = 10
	maxExpectedFiles    = 1_000_000
	maxExpectedPaths    = 50
	maxExpectedPattern  = 1000 // bytes
)

// Empty reports whether nothing is expected.
func (x *Expect) Empty() bool {
	return x == nil || len(x.ResultSchema) == 0 && x.Changes == nil && len(x.Command) == 0 && x.Text == nil && x.Published == ""
}

// CheckTimeout is the time limit of Command.
func (x *Expect) CheckTimeout() time.Duration {
	return time.Duration(orDefault(x.CommandSeconds, DefaultCheckSeconds)) * time.Second
}

// validate reports every invalid field. It does not compile the schema; package contract does.
func (x *Expect) validate(s *Spec, refuse func(path, format string, args ...any)) {
	if x == nil {
		return
	}
	if x.Empty() {
		refuse("expect", "expects nothing: set result_schema, changes, command, text or published, or remove it")
	}
	if schema := bytes.TrimSpace(x.ResultSchema); len(schema) > 0 {
		switch {
		case len(schema) > MaxResultSchema:
			refuse("expect.result_schema", "is too long: use at most %d bytes", MaxResultSchema)
		case schema[0] != '{' || !json.Valid(schema):
			refuse("expect.result_schema", `must be a JSON Schema as an object, for example {"type": "object", "required": ["verdict"]}`)
		}
	}
	x.Changes.validate(s, refuse)
	if t := x.Text; t != nil {
		if !t.NotEmpty && t.Matches == "" {
			refuse("expect.text", "expects nothing: set not_empty or matches, or remove it")
		}
		if len(t.Matches) > maxExpectedPattern {
			refuse("expect.text.matches", "is too long: use at most %d bytes", maxExpectedPattern)
		} else if _, err := regexp.Compile(t.Matches); err != nil {
			refuse("expect.text.matches", "is not a regular expression (RE2): %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
	}
	switch {
	case x.Published == "":
	case x.Published != PublishesPullRequest && x.Published != PublishesComment:
		refuse("expect.published", "must be %s or %s", PublishesPullRequest, PublishesComment)
	case !s.Publish.Allows(x.Published):
		refuse("expect.published", "needs publish.%s: without it, nothing of that kind is written", x.Published)
	}
	if len(x.Command) > 0 && x.Command[0] == "" {
		refuse("expect.command", `must begin with a program, for example ["go", "test", "./..."]`)
	}
	for i, a := range x.Command {
		if strings.ContainsRune(a, 0) {
			refuse(fmt.Sprintf("expect.command.%d", i), "has a NUL byte: remove it")
		}
	}
	switch {
	case x.CommandSeconds != 0 && len(x.Command) == 0:
		refuse("expect.command_timeout_seconds", "applies only with command: remove it, or add a command")
	case x.CommandSeconds < 0 || x.CommandSeconds > 24*3600:
		refuse("expect.command_timeout_seconds", "must be from 0 (the default, %d) to %d", DefaultCheckSeconds, 24*3600)
	}
	switch {
	case x.Repair < 0 || x.Repair > MaxRepairs:
		refuse("expect.repair", "must be from 0 (none) to %d", MaxRepairs)
	case x.Repair > 0 && s.Backend == BackendCommand:
		refuse("expect.repair", "does not apply to backend command, which has no session to resume: remove it")
	}
}

func (c *ExpectedChanges) validate(s *Spec, refuse func(path, format string, args ...any)) {
	if c == nil {
		return
	}
	if s.Workspace == nil && s.WorkingDir == "" && s.Agent == "" {
		refuse("expect.changes", "needs a repository: set workspace, or working_dir to a folder in one")
	}
	if !c.None && c.MinFiles == 0 && c.MaxFiles == 0 && len(c.Paths) == 0 {
		refuse("expect.changes", "expects nothing: set none, min_files, max_files or paths, or remove it")
	}
	if c.None && (c.MinFiles != 0 || c.MaxFiles != 0 || len(c.Paths) > 0) {
		refuse("expect.changes.none", "excludes min_files, max_files and paths: remove them, or none")
	}
	for name, n := range map[string]int{"min_files": c.MinFiles, "max_files": c.MaxFiles} {
		if n < 0 || n > maxExpectedFiles {
			refuse("expect.changes."+name, "must be from 0 (no limit) to %d", maxExpectedFiles)
		}
	}
	if c.MaxFiles > 0 && c.MinFiles > c.MaxFiles {
		refuse("expect.changes.min_files", "is greater than max_files: lower it")
	}
	if len(c.Paths) > maxExpectedPaths {
		refuse("expect.changes.paths", "has too many patterns: use at most %d", maxExpectedPaths)
	}
	for i, p := range c.Paths {
		path := fmt.Sprintf("expect.changes.paths.%d", i)
		switch {
		case p == "" || len(p) > 200 || hasControl(p):
			refuse(path, "is not a pattern of paths: use 1 to 200 printable characters, for example src/**")
		case strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), ".."):
			refuse(path, "must be relative to the top of the repository, without /.., for example src/**")
		}
	}
}

// Clause is the evaluation of one clause of an outcome contract. The JSON names are stored and part
// of the API.
type Clause struct {
	Name     string `json:"clause" doc:"Field of expect: result_schema, changes.none, changes.min_files, changes.max_files, changes.paths, command, text.not_empty, text.matches or published"`
	Met      bool   `json:"met"`
	Text     string `json:"text" doc:"What was found, in one sentence"`
	Evidence string `json:"evidence,omitempty" doc:"Output, paths or errors that show it; at most 8 KiB"`
	Failed   bool   `json:"failed,omitempty" doc:"It could not be evaluated, for reasons outside of the agent's work"`
	Pending  bool   `json:"pending,omitempty" doc:"For published: it was proposed and passed the checks, and has not been written yet"`
}

// ClausePublished is the name of the clause whose evaluation changes once more when the publication
// ends.
const ClausePublished = "published"

// Clause evaluates expect.published again when the publication has its final status.
func (p *Publication) Clause() Clause {
	c := Clause{Name: ClausePublished, Text: "the " + p.Kind.Noun(), Evidence: p.Reason}
	switch p.Status {
	case PublicationPublished:
		c.Met, c.Text, c.Evidence = true, c.Text+" was published", p.URL
	case PublicationSuperseded:
		c.Text += " was not published, because the pull request has newer commits"
	case PublicationRejected:
		c.Text += " was rejected"
	case PublicationRefused:
		c.Text += " was refused by the rule " + p.Rule
	default:
		c.Text += " could not be published"
	}
	return c
}

// MaxClauseEvidence bounds Clause.Evidence in bytes.
const MaxClauseEvidence = 8 << 10

// Contract is the evaluation of an outcome contract after an attempt.
type Contract struct {
	Met     bool
	Clauses []Clause
	Output  json.RawMessage // the result, if it meets result_schema
}

// Output returns the result of the latest attempt that met result_schema, or nil.
func (e *Execution) Output() json.RawMessage {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		if c := e.Attempts[i].Contract; c != nil {
			return c.Output
		}
	}
	return nil
}

// Limits of Spec.ExpectEvery.
const (
	MinExpectEvery = 10 * time.Second
	MaxExpectEvery = 366 * 24 * time.Hour
)

// ParseExpectEvery returns the period of Spec.ExpectEvery, such as 26h, 1d12h or 2w. It returns false
// if the text is not a period within the limits.
func ParseExpectEvery(text string) (time.Duration, bool) {
	units := []struct {
		name byte
		unit time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	var sum time.Duration
	for rest := strings.TrimSpace(text); rest != ""; {
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 1 {
			return 0, false
		}
		n, err := strconv.ParseInt(rest[:end], 10, 32)
		if err != nil {
			return 0, false
		}
		for len(units) > 0 && units[0].name != rest[end] {
			units = units[1:]
		}
		if len(units) == 0 || n > int64(MaxExpectEvery/units[0].unit) {
			return 0, false
		}
		sum += time.Duration(n) * units[0].unit
		units, rest = units[1:], rest[end+1:]
	}
	return sum, sum >= MinExpectEvery && sum <= MaxExpectEvery
}

// validateExpectEvery validates the period of the dead man's switch.
func (s *Spec) validateExpectEvery(refuse func(path, format string, args ...any)) {
	if s.ExpectEvery == "" {
		return
	}
	if _, ok := ParseExpectEvery(s.ExpectEvery); !ok {
		refuse("expect_every", "is not a period: use whole numbers with w, d, h, m or s, from 10s to 366d, for example 26h")
	}
}

// Absence is the state of the dead man's switch of a trigger.
type Absence struct {
	Trigger   TriggerID
	Name      string        // of the trigger
	Every     time.Duration // within which a success is expected
	Since     time.Time     // of the last success, or since when a success is expected
	Succeeded bool          // Since is the time of a success
	DueAt     time.Time     // when the next notification is due, if the server runs until then; zero: the trigger is disabled
	RaisedAt  time.Time     // of the last notification since then; zero: none
	Unwatched time.Duration // time since Since in which no server ran, which does not count
}

// Overdue reports whether no success came in time.
func (a *Absence) Overdue() bool { return !a.RaisedAt.IsZero() }

// Text describes an absence at a time, in one sentence without its full stop.
func (a *Absence) Text(now time.Time) string {
	since := "since it is expected"
	if a.Succeeded {
		since = "since the last success"
	}
	text := fmt.Sprintf("no execution has succeeded for %s, %s at %s; one is expected every %s",
		round(now.Sub(a.Since)), since, a.Since.UTC().Format("2006-01-02 15:04 MST"), round(a.Every))
	if a.Unwatched >= time.Minute {
		text += fmt.Sprintf(" (the server did not run for %s of it, which do not count)", round(a.Unwatched))
	}
	return text
}

// round formats a duration with its two largest units.
func round(d time.Duration) string {
	unit, smaller, a, b := time.Second, time.Duration(0), "s", ""
	switch {
	case d >= 24*time.Hour:
		unit, smaller, a, b = 24*time.Hour, time.Hour, "d", "h"
	case d >= time.Hour:
		unit, smaller, a, b = time.Hour, time.Minute, "h", "m"
	case d >= time.Minute:
		unit, smaller, a, b = time.Minute, time.Second, "m", "s"
	}
	text := fmt.Sprintf("%d%s", max(d, 0)/unit, a)
	if smaller > 0 && d%unit >= smaller {
		text += fmt.Sprintf(" %d%s", d%unit/smaller, b)
	}
	return text
}

package webhook

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/agented/agented"
)

// Event is the content of a call. Texts are unchanged from the sender: they may
// only reach a prompt through [Fence]. Fields that the call does not have are
// empty.
type Event struct {
	GitHub bool   // the call claims to come from GitHub, or has GitHub's format
	Kind   Kind   // kind of the sender, if the call shows it; otherwise empty
	Name   string // the sender's name of the event; for unknown senders the body's "type" or "event"
	Action string // the body's "action"; for a push: created, deleted, forced or pushed
	ID     string // see [DeliveryID]

	Words     []string // the sender's own names of the event, with and without its action
	OwnAction string   // the sender's own name of the action, if Action differs

	Repository    string // owner/name
	RepositoryURL string
	Number        string // of the pull request, issue or discussion
	Title         string // its title; for a push the first line of the last commit's message; name of a workflow or release
	Body          string // its text; for a push the last commit's message
	URL           string // its address in a browser
	Author        string // login of the user who opened it, pushed, or started the workflow
	AuthorType    string // User, Bot, Organization
	Branch        string // head branch
	Base          string // base branch of a pull request
	BaseSHA       string // commit of the base branch; for a push the commit before it
	SHA           string // head commit
	Tag           string
	Labels        []string
	Label         string // the label that was just added or removed
	Draft         bool
	Fork          bool   // the head branch belongs to another repository
	PullRequest   bool   // it is about a pull request
	Conclusion    string // of a workflow or a check; for a review "approved" or similar

	Comment       string // text of the comment or review
	CommentURL    string
	CommentAuthor string
	// Association is the relation of the comment's author (without a comment,
	// the author) to the repository according to GitHub: OWNER, MEMBER,
	// COLLABORATOR, CONTRIBUTOR, FIRST_TIMER, FIRST_TIME_CONTRIBUTOR,
	// MANNEQUIN, NONE.
	Association string

	Sender     string // login of the user who caused the event
	SenderType string

	Paths    []string // files that a push adds, changes or removes, without duplicates
	PathsCut bool     // the list is truncated

	JSON any               // the body, numbers as [json.Number]
	Raw  []byte            // its text
	Form map[string]string // for a form whose fields are not JSON: the first value of each
	Sent []byte            // the expanded body as received
}

// Limits of the changed files of one push: their number, and their total size
// in bytes, since each is matched against every pattern.
const (
	maxPaths     = 3000
	maxPathBytes = 256 << 10
)

// Ping reports whether the call only checks that the endpoint exists.
func (e *Event) Ping() bool {
	if _, challenge := e.Challenge(); challenge {
		return true
	}
	return e.GitHub && e.Name == "ping" || e.Kind == KindBitbucket && e.Name == "diagnostics" && e.Action == "ping" || e.Name == "pagey.ping"
}

// Bot reports whether a program caused the event.
func (e *Event) Bot() bool {
	return strings.EqualFold(e.SenderType, "Bot") || strings.HasSuffix(strings.ToLower(e.Sender), "[bot]")
}

// Writer returns the login of the author of the event's text: of the comment if
// there is one, otherwise [Event.Author].
func (e *Event) Writer() string {
	if e.CommentAuthor != "" {
		return e.CommentAuthor
	}
	return e.Author
}

// Subject identifies what the event is about, so that a newer event with the
// same subject can replace the execution of an older one: owner/name#7 for a
// pull request or an issue, owner/name@branch for a branch, otherwise "".
func (e *Event) Subject() string {
	switch {
	case e.Repository == "":
		return ""
	case e.Number != "":
		return brief(e.Repository, 250) + "#" + brief(e.Number, 30)
	case e.Branch != "":
		return brief(e.Repository, 250) + "@" + brief(e.Branch, 300)
	}
	return ""
}

func (e *Event) readGitHub(body map[string]any) {
	repo := object(body, "repository")
	e.Repository, e.RepositoryURL = text(repo, "full_name"), text(repo, "html_url")
	sender := object(body, "sender")
	e.Sender, e.SenderType = text(sender, "login"), text(sender, "type")
	e.Label = text(object(body, "label"), "name")

	pull, issue, discussion := object(body, "pull_request"), object(body, "issue"), object(body, "discussion")
	switch {
	case pull != nil:
		e.PullRequest = true
		e.readThread(pull)
		head, base := object(pull, "head"), object(pull, "base")
		e.Branch, e.SHA, e.Base = text(head, "ref"), text(head, "sha"), text(base, "ref")
		e.BaseSHA = text(base, "sha")
		// A deleted fork is null.
		e.Fork = head != nil && text(object(head, "repo"), "full_name") != text(object(base, "repo"), "full_name")
	case issue != nil:
		_, e.PullRequest = issue["pull_request"].(map[string]any)
		e.readThread(issue)
	case discussion != nil:
		e.readThread(discussion)
	}
	for _, key := range []string{"comment", "review"} {
		if c := object(body, key); c != nil {
			user := object(c, "user")
			e.Comment, e.CommentURL, e.CommentAuthor = text(c, "body"), text(c, "html_url"), text(user, "login")
			e.Association = text(c, "author_association")
			if key == "review" {
				e.Conclusion = strings.ToLower(text(c, "state"))
			}
			break
		}
	}
	switch e.Name {
	case "push":
		e.readPush(body)
	case "create", "delete":
		e.readRef(text(body, "ref"), text(body, "ref_type") == "tag")
	case "release":
		e.readRelease(object(body, "release"))
	case "workflow_run", "workflow_job", "check_run", "check_suite":
		e.readRun(object(body, e.Name))
	}
}

// readThread reads the common fields of pull requests, issues and discussions.
func (e *Event) readThread(o map[string]any) {
	user := object(o, "user")
	e.Number, e.Title, e.Body, e.URL = number(o, "number"), text(o, "title"), text(o, "body"), text(o, "html_url")
	e.Author, e.AuthorType = text(user, "login"), text(user, "type")
	e.Association = text(o, "author_association")
	e.Draft, _ = o["draft"].(bool)
	for _, l := range list(o, "labels") {
		if m, ok := l.(map[string]any); ok && len(e.Labels) < 200 {
			if name := text(m, "name"); name != "" {
				e.Labels = append(e.Labels, name)
			}
		}
	}
}

func (e *Event) readRef(ref string, tag bool) {
	if name, ok := strings.CutPrefix(ref, "refs/tags/"); ok || tag {
		e.Tag = name
		return
	}
	e.Branch = strings.TrimPrefix(ref, "refs/heads/")
}

func (e *Event) readPush(body map[string]any) {
	e.readRef(text(body, "ref"), false)
	e.SHA, e.URL = text(body, "after"), text(body, "compare")
	if before := text(body, "before"); strings.Trim(before, "0") != "" {
		e.BaseSHA = before
	}
	e.Author, e.AuthorType = text(object(body, "pusher"), "name"), e.SenderType
	e.Body = text(object(body, "head_commit"), "message")
	e.Title, _, _ = strings.Cut(e.Body, "\n")
	e.Action = "pushed"
	for _, action := range []string{"forced", "created", "deleted"} {
		if is, _ := body[action].(bool); is {
			e.Action = action
		}
	}
	commits := list(body, "commits")
	if len(commits) == 0 {
		// A new branch that points to a known commit has no list.
		if head := object(body, "head_commit"); head != nil && e.Action != "deleted" {
			commits = []any{head}
		}
	}
	e.readPaths(commits)
}

// readPaths reads the files that commits change, without duplicates.
func (e *Event) readPaths(commits []any) {
	seen, size := map[string]bool{}, 0
	for _, c := range commits {
		commit, _ := c.(map[string]any)
		for _, key := range []string{"added", "modified", "removed"} {
			for _, p := range list(commit, key) {
				path, ok := p.(string)
				if !ok || path == "" || seen[path] {
					continue
				}
				if size += len(path); len(e.Paths) == maxPaths || size > maxPathBytes {
					e.PathsCut = true
					return
				}
				seen[path] = true
				e.Paths = append(e.Paths, path)
			}
		}
	}
}

func (e *Event) readRelease(o map[string]any) {
	author := object(o, "author")
	e.Tag, e.Title, e.Body, e.URL = text(o, "tag_name"), text(o, "name"), text(o, "body"), text(o, "html_url")
	if e.Title == "" {
		e.Title = e.Tag
	}
	e.Base = text(o, "target_commitish")
	e.Author, e.AuthorType = text(author, "login"), text(author, "type")
	e.Draft, _ = o["draft"].(bool)
}

// readRun reads workflow runs and jobs, check runs and suites.
func (e *Event) readRun(o map[string]any) {
	suite := object(o, "check_suite") // inside a check_run
	e.Title, e.URL, e.Conclusion = text(o, "name"), text(o, "html_url"), text(o, "conclusion")
	if e.Title == "" {
		e.Title = text(o, "display_title")
	}
	e.Branch, e.SHA = text(o, "head_branch"), text(o, "head_sha")
	if e.Branch == "" {
		e.Branch = text(suite, "head_branch")
	}
	actor := object(o, "actor")
	e.Author, e.AuthorType = text(actor, "login"), text(actor, "type")
	if head := object(o, "head_repository"); head != nil && e.Repository != "" {
		e.Fork = text(head, "full_name") != e.Repository
	}
	for _, p := range list(o, "pull_requests") {
		if pull, ok := p.(map[string]any); ok {
			e.Number, e.Base = number(pull, "number"), text(object(pull, "base"), "ref")
			break
		}
	}
}

func object(o map[string]any, key string) map[string]any {
	m, _ := o[key].(map[string]any)
	return m
}

func list(o map[string]any, key string) []any {
	l, _ := o[key].([]any)
	return l
}

func text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}

func number(o map[string]any, key string) string {
	if s, ok := scalar(o[key]); ok && digitsOnly(s) {
		return s
	}
	return ""
}

func digitsOnly(s string) bool {
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

// Placeholders are the names that [Event.Values] fills in addition to message
// and the older ones of pull requests and repositories. They are a subset of
// those of the root package, which also has arguments: see [MatchResult].
var Placeholders = []agented.Placeholder{
	{Name: "event", Help: "name of the event, for example pull_request or push"},
	{Name: "action", Help: "action of the event, for example opened; for a push: created, deleted, forced or pushed"},
	{Name: "repository", Help: "owner/name of the repository"},
	{Name: "number", Help: "number of the pull request or issue"},
	{Name: "title", Help: "its title; for a push: first line of the last commit's message"},
	{Name: "author", Help: "login of its author; for a push: login of the pusher"},
	{Name: "branch", Help: "head branch"},
	{Name: "base", Help: "base branch of a pull request"},
	{Name: "base_branch", Help: "same as base; empty for a push"},
	{Name: "base_sha", Help: "commit of the base branch in the event; for a push: the commit before it"},
	{Name: "sha", Help: "head commit"},
	{Name: "tag", Help: "the tag that was pushed or released"},
	{Name: "labels", Help: `its labels, separated by ", "`},
	{Name: "url", Help: "its address in a browser"},
	{Name: "body", Help: "its text; for a push: the last commit's message"},
	{Name: "comment", Help: "text of the comment or review"},
	{Name: "comment_author", Help: "login of its author"},
	{Name: "comment_url", Help: "address of the comment or review"},
	{Name: "conclusion", Help: "conclusion of a workflow, check or review, for example failure"},
	{Name: "changed_files", Help: "files changed by a push or, with a workspace, by a pull request, one per line"},
	{Name: "sender", Help: "login of the user who caused the event"},
	{Name: "payload", Help: "the whole body of the call"},
}

// Values returns the event's values for placeholders of a prompt, unprocessed:
// pass them through [Fence]. The names are those of [Placeholders], message,
// and the older ones of pull requests and repositories. Every name is present;
// missing values are empty.
func (e *Event) Values() map[string]string {
	v := map[string]string{
		"event": e.Name, "action": e.Action, "repository": e.Repository, "number": e.Number, "title": e.Title,
		"author": e.Author, "branch": e.Branch, "base": e.Base, "base_branch": "", "base_sha": e.BaseSHA, "sha": e.SHA, "tag": e.Tag,
		"labels": strings.Join(e.Labels, ", "), "url": e.URL, "body": e.Body, "comment": e.Comment,
		"comment_author": e.CommentAuthor, "comment_url": e.CommentURL, "conclusion": e.Conclusion,
		"changed_files": strings.Join(e.Paths, "\n"), "sender": e.Sender, "payload": string(e.Raw),
		"repo_full_name": e.Repository, "repo_url": e.RepositoryURL, "message": e.message(),
		"pr_url": "", "pr_number": "", "pr_title": "", "pr_author": "",
	}
	for name, value := range e.Form {
		if formName().MatchString(name) {
			v[agented.VarPrefix+name] = value
		}
	}
	if e.PullRequest {
		v["base_branch"] = e.Base
		v["pr_url"], v["pr_number"], v["pr_title"], v["pr_author"] = e.URL, e.Number, e.Title, e.Author
	}
	return v
}

// formName matches the names of form fields that a prompt may use as
// {vars.NAME}.
var formName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\A[A-Za-z][A-Za-z0-9_]{0,99}\z`) })

// message summarises the event in a few lines of text; for a call that is not
// from GitHub it is the body's "text" or "message".
func (e *Event) message() string {
	if !e.GitHub && e.Repository == "" {
		o, _ := e.JSON.(map[string]any)
		for _, key := range []string{"text", "message", "Body"} {
			if s := text(o, key); s != "" {
				return s
			}
		}
		return ""
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	switch {
	case e.PullRequest:
		line("PR #"+e.Number, e.Title)
	case e.Number != "":
		line("#"+e.Number, e.Title)
	default:
		line("Title", e.Title)
	}
	line("URL", e.URL)
	line("Author", e.Author)
	line("Repository", e.Repository)
	line("Branch", e.Branch)
	line("Event", e.Name)
	line("Action", e.Action)
	line("Comment", e.Comment)
	return strings.TrimRight(b.String(), "\n")
}

// OwnText returns the text that the event is about, in which its writer may have left a mark: of the
// comment or review, the pull request or issue, the last commit, or the check. For a commit status it
// is the address of the status, and the commit.
func (e *Event) OwnText() string {
	body, _ := e.JSON.(map[string]any)
	switch e.Name {
	case "check_run":
		return text(object(body, "check_run"), "external_id")
	case "check_suite", "workflow_run":
		return text(object(object(body, e.Name), "head_commit"), "message")
	case "status":
		return text(body, "target_url") + "\n" + text(object(object(body, "commit"), "commit"), "message")
	}
	if e.Comment != "" {
		return e.Comment
	}
	return e.Body
}

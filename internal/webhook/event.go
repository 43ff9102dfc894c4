package webhook

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// Event is what a call says. Texts are as the sender wrote them: nothing of it
// may reach a prompt but through [Fence]. Fields that the call does not have are
// empty.
type Event struct {
	GitHub bool   // the call says that it comes from GitHub
	Name   string // X-GitHub-Event, or the body's "type" or "event"
	Action string // the body's "action"; a push has created, deleted, forced or pushed
	ID     string // see [DeliveryID]

	Repository    string // owner/name
	RepositoryURL string
	Number        string // of the pull request, issue or discussion
	Title         string // of it; the first line of a push's last commit; a workflow's or release's name
	Body          string // of it; a push's last commit message
	URL           string // address of it for a browser
	Author        string // login of who opened it, pushed, or started the workflow
	AuthorType    string // User, Bot, Organization
	Branch        string // head branch
	Base          string // branch that a pull request goes into
	SHA           string // head commit
	Tag           string
	Labels        []string
	Label         string // the one that was just added or removed
	Draft         bool
	Fork          bool   // the head branch belongs to another repository
	PullRequest   bool   // it is about a pull request
	Conclusion    string // of a workflow, a check, or "approved" and the like of a review

	Comment       string // text of the comment or review
	CommentURL    string
	CommentAuthor string
	// Association is what GitHub says the comment's author (without a comment,
	// the author) is to the repository: OWNER, MEMBER, COLLABORATOR,
	// CONTRIBUTOR, FIRST_TIMER, FIRST_TIME_CONTRIBUTOR, MANNEQUIN, NONE.
	Association string

	Sender     string // login of who caused the event
	SenderType string

	Paths    []string // files that a push adds, changes or removes, each once
	PathsCut bool     // there were more

	JSON any    // the body, numbers as [json.Number]
	Raw  []byte // its text
}

// Bounds of the changed files that are kept of one push: how many, and how many
// bytes in all, since each is held against every pattern.
const (
	maxPaths     = 3000
	maxPathBytes = 256 << 10
)

// Ping reports whether the call only asks if anybody is there.
func (e *Event) Ping() bool { return e.GitHub && e.Name == "ping" }

// Bot reports whether a program caused the event.
func (e *Event) Bot() bool {
	return strings.EqualFold(e.SenderType, "Bot") || strings.HasSuffix(strings.ToLower(e.Sender), "[bot]")
}

// Writer is the login of who wrote what the event brings: of the comment if
// there is one, else [Event.Author].
func (e *Event) Writer() string {
	if e.CommentAuthor != "" {
		return e.CommentAuthor
	}
	return e.Author
}

// Subject names what the event is about, so that a newer event about the same
// can replace an older one's execution: owner/name#7 for a pull request or an
// issue, owner/name@branch for a branch, else "".
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
		// A fork that has been removed leaves null behind.
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

// readThread reads what pull requests, issues and discussions share.
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
	e.Author, e.AuthorType = text(object(body, "pusher"), "name"), e.SenderType
	e.Body = text(object(body, "head_commit"), "message")
	e.Title, _, _ = strings.Cut(e.Body, "\n")
	e.Action = "pushed"
	for _, action := range []string{"forced", "created", "deleted"} {
		if is, _ := body[action].(bool); is {
			e.Action = action
		}
	}
	seen, size := map[string]bool{}, 0
	commits := list(body, "commits")
	if len(commits) == 0 {
		// A new branch that points at a known commit brings no list.
		if head := object(body, "head_commit"); head != nil && e.Action != "deleted" {
			commits = []any{head}
		}
	}
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

// Placeholders are the names that [Event.Values] fills beside message and the
// older ones of pull requests and repositories. They are among those of the root
// package, which also has arguments: see [Verdict].
var Placeholders = []agented.Placeholder{
	{Name: "event", Help: "what happened, for example pull_request or push"},
	{Name: "action", Help: "what was done to it, for example opened; of a push created, deleted, forced or pushed"},
	{Name: "repository", Help: "owner/name of the repository"},
	{Name: "number", Help: "number of the pull request or issue"},
	{Name: "title", Help: "its title; of a push the first line of the last commit's message"},
	{Name: "author", Help: "login of its author, or of who pushed"},
	{Name: "branch", Help: "head branch"},
	{Name: "base", Help: "branch that a pull request goes into"},
	{Name: "sha", Help: "head commit"},
	{Name: "tag", Help: "the tag that was pushed or released"},
	{Name: "labels", Help: `its labels, separated by ", "`},
	{Name: "url", Help: "address of it in a browser"},
	{Name: "body", Help: "its text; of a push the last commit's message"},
	{Name: "comment", Help: "text of the comment or review"},
	{Name: "comment_author", Help: "login of who wrote it"},
	{Name: "comment_url", Help: "address of the comment or review"},
	{Name: "conclusion", Help: "how a workflow, check or review ended, for example failure"},
	{Name: "changed_files", Help: "files that a push changes, one on a line"},
	{Name: "sender", Help: "login of who caused the event"},
	{Name: "payload", Help: "the whole body of the call"},
}

// Values returns the event's values for placeholders of a prompt, raw: pass them
// through [Fence]. The names are those of [Placeholders], message, and the older
// ones of pull requests and repositories. Every name is there; what the event
// does not have is empty.
func (e *Event) Values() map[string]string {
	v := map[string]string{
		"event": e.Name, "action": e.Action, "repository": e.Repository, "number": e.Number, "title": e.Title,
		"author": e.Author, "branch": e.Branch, "base": e.Base, "sha": e.SHA, "tag": e.Tag,
		"labels": strings.Join(e.Labels, ", "), "url": e.URL, "body": e.Body, "comment": e.Comment,
		"comment_author": e.CommentAuthor, "comment_url": e.CommentURL, "conclusion": e.Conclusion,
		"changed_files": strings.Join(e.Paths, "\n"), "sender": e.Sender, "payload": string(e.Raw),
		"repo_full_name": e.Repository, "repo_url": e.RepositoryURL, "message": e.message(),
		"pr_url": "", "pr_number": "", "pr_title": "", "pr_author": "",
	}
	if e.PullRequest {
		v["pr_url"], v["pr_number"], v["pr_title"], v["pr_author"] = e.URL, e.Number, e.Title, e.Author
	}
	return v
}

// message is the event as a few lines of text: for a call that is not GitHub's
// the body's "text" or "message".
func (e *Event) message() string {
	if !e.GitHub {
		o, _ := e.JSON.(map[string]any)
		for _, key := range []string{"text", "message"} {
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

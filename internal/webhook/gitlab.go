package webhook

import (
	"regexp"
	"strings"
	"sync"
)

// gitLabActions maps GitLab's actions to the names used here.
var gitLabActions = map[string]string{
	"open": "opened", "close": "closed", "reopen": "reopened", "update": "updated", "merge": "merged", "create": "created", "delete": "deleted",
}

// gitLabBot matches the user names of project and group access tokens.
var gitLabBot = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(project|group)_[0-9]+_bot`) })

// readGitLab reads an event of GitLab, whose object_kind is its name. See
// docs.gitlab.com, "Webhook events".
func (e *Event) readGitLab(body map[string]any) {
	e.Kind, e.Name = KindGitLab, word(body, "object_kind")
	project, user, about := object(body, "project"), object(body, "user"), object(body, "object_attributes")
	e.Repository, e.RepositoryURL = text(project, "path_with_namespace"), text(project, "web_url")
	if e.Sender = text(user, "username"); e.Sender == "" {
		e.Sender = text(body, "user_username")
	}
	if gitLabBot().MatchString(e.Sender) {
		e.SenderType = "Bot"
	}
	e.Action = word(about, "action")
	if e.Action == "" {
		e.Action = word(body, "action")
	}
	e.addWords(e.Name, e.Action)
	if action := gitLabActions[e.Action]; action != "" {
		e.OwnAction, e.Action = e.Action, action
	}
	switch e.Name {
	case "push", "tag_push":
		e.readGitLabPush(body)
	case "merge_request":
		e.readGitLabThread(about, body)
		if e.Action == "updated" && text(about, "oldrev") != "" {
			e.Words = append(e.Words, "merge_request.synchronize", "merge_request.synchronized")
		}
	case "issue", "work_item":
		e.readGitLabThread(about, body)
	case "note":
		e.readGitLabNote(about, body)
	case "pipeline":
		e.readGitLabPipeline(about, body)
	case "build":
		e.Title, e.Conclusion, e.Action = text(body, "build_name"), text(body, "build_status"), word(body, "build_status")
		e.SHA, e.Author = text(body, "sha"), e.Sender
		is, _ := body["tag"].(bool)
		e.readRef(text(body, "ref"), is)
		e.addWords("job", e.Action)
	case "release":
		e.Tag, e.Title, e.Body, e.URL = text(body, "tag"), text(body, "name"), text(body, "description"), text(body, "url")
		e.SHA, e.Author = text(object(body, "commit"), "id"), e.Sender
	case "deployment":
		e.Conclusion, e.Action, e.URL = text(body, "status"), word(body, "status"), text(body, "deployable_url")
		e.Title, e.Author = text(body, "environment"), e.Sender
		e.readRef(text(body, "ref"), false)
	default:
		e.Title, e.URL, e.Body = text(about, "title"), text(about, "url"), text(about, "content")
	}
}

func (e *Event) readGitLabPush(body map[string]any) {
	e.readRef(text(body, "ref"), false)
	before, after := text(body, "before"), text(body, "after")
	e.SHA, e.Author, e.AuthorType = text(body, "checkout_sha"), e.Sender, e.SenderType
	e.OwnAction = ""
	switch {
	case zeros(after):
		e.Action = "deleted"
	case zeros(before):
		e.Action = "created"
	default:
		e.Action = "pushed"
		if e.RepositoryURL != "" {
			e.URL = e.RepositoryURL + "/-/compare/" + before + "..." + after
		}
	}
	if e.SHA == "" && e.Action != "deleted" {
		e.SHA = after
	}
	commits := list(body, "commits")
	if len(commits) > 0 {
		last, _ := commits[len(commits)-1].(map[string]any)
		e.Body = text(last, "message")
		e.Title, _, _ = strings.Cut(e.Body, "\n")
	}
	e.readPaths(commits)
	if n, ok := scalar(body["total_commits_count"]); ok && digits(n) && len(commits) > 0 && atoi(n) > len(commits) {
		e.PathsCut = true // GitLab sends only the last 20
	}
}

func atoi(s string) int {
	n := 0
	for _, c := range []byte(s) {
		n = 10*n + int(c-'0')
	}
	return n
}

// readGitLabThread reads a merge request or an issue. GitLab names the user who
// caused the event, but identifies the author by number: the author is known if
// both are the same user, or if the body lists the author's name.
func (e *Event) readGitLabThread(o, body map[string]any) {
	e.Number, e.Title, e.Body, e.URL = number(o, "iid"), text(o, "title"), text(o, "description"), text(o, "url")
	if id, ok := scalar(o["author_id"]); ok {
		people := []any{body["user"]}
		people = append(append(people, list(body, "assignees")...), list(body, "reviewers")...)
		for _, p := range people {
			person, _ := p.(map[string]any)
			if n, known := scalar(person["id"]); known && n == id {
				e.Author = text(person, "username")
				break
			}
		}
	} else if e.Action == "opened" {
		e.Author = e.Sender
	}
	if gitLabBot().MatchString(e.Author) {
		e.AuthorType = "Bot"
	}
	labels := list(body, "labels")
	if labels == nil {
		labels = list(o, "labels")
	}
	for _, l := range labels {
		if m, ok := l.(map[string]any); ok && len(e.Labels) < 200 && text(m, "title") != "" {
			e.Labels = append(e.Labels, text(m, "title"))
		}
	}
	if text(o, "source_branch") == "" {
		return
	}
	e.PullRequest = true
	e.Branch, e.Base, e.SHA = text(o, "source_branch"), text(o, "target_branch"), text(object(o, "last_commit"), "id")
	e.Draft, _ = o["draft"].(bool)
	if wip, _ := o["work_in_progress"].(bool); wip {
		e.Draft = true
	}
	from, _ := scalar(o["source_project_id"])
	to, _ := scalar(o["target_project_id"])
	e.Fork = from != to
}

func (e *Event) readGitLabNote(note, body map[string]any) {
	switch {
	case object(body, "merge_request") != nil:
		e.readGitLabThread(object(body, "merge_request"), body)
	case object(body, "issue") != nil:
		e.readGitLabThread(object(body, "issue"), body)
	default:
		e.SHA = text(object(body, "commit"), "id")
	}
	e.Comment, e.CommentURL, e.CommentAuthor = text(note, "note"), text(note, "url"), e.Sender
	if e.Action == "" {
		e.Action = "created"
	}
}

func (e *Event) readGitLabPipeline(o, body map[string]any) {
	e.Conclusion, e.Action = text(o, "status"), word(o, "status")
	e.SHA, e.URL, e.Title = text(o, "sha"), text(o, "url"), text(o, "name")
	e.Author, e.AuthorType = e.Sender, e.SenderType
	if id := number(o, "id"); e.URL == "" && id != "" && e.RepositoryURL != "" {
		e.URL = e.RepositoryURL + "/-/pipelines/" + id
	}
	if e.Title == "" {
		e.Title, _, _ = strings.Cut(text(object(body, "commit"), "message"), "\n")
	}
	is, _ := o["tag"].(bool)
	e.readRef(text(o, "ref"), is)
	if mr := object(body, "merge_request"); mr != nil {
		e.Number, e.Base = number(mr, "iid"), text(mr, "target_branch")
		if branch := text(mr, "source_branch"); branch != "" {
			e.Branch = branch
		}
		from, _ := scalar(mr["source_project_id"])
		to, _ := scalar(mr["target_project_id"])
		e.Fork = from != to
	}
	e.addWords(e.Name, e.Action)
}

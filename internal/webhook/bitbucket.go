package webhook

import "strings"

// readBitbucket reads an event of Bitbucket Cloud or Data Center, whose name
// has the form pullrequest:created. See support.atlassian.com, "Event
// payloads".
func (e *Event) readBitbucket(key string, body map[string]any) {
	e.Kind = KindBitbucket
	e.Name, e.Action, _ = strings.Cut(key, ":")
	e.Words = []string{key}
	repo := object(body, "repository")
	actor := object(body, "actor")
	e.Repository, e.RepositoryURL = text(repo, "full_name"), webLink(repo)
	e.Sender, e.SenderType = bitbucketName(actor), text(actor, "type")
	if e.SenderType == "AppUser" || e.SenderType == "app_user" {
		e.SenderType = "Bot"
	}
	pull := object(body, "pullrequest")
	if pull == nil {
		pull = object(body, "pullRequest")
	}
	issue := object(body, "issue")
	switch {
	case pull != nil:
		e.readBitbucketPull(pull)
	case issue != nil:
		e.Number, e.Title, e.Body, e.URL = number(issue, "id"), text(issue, "title"), text(object(issue, "content"), "raw"), webLink(issue)
		e.Author = bitbucketName(object(issue, "reporter"))
	}
	if c := object(body, "comment"); c != nil {
		e.Comment, e.CommentURL = text(object(c, "content"), "raw"), webLink(c)
		if e.Comment == "" {
			e.Comment = text(c, "text")
		}
		if e.CommentAuthor = bitbucketName(object(c, "user")); e.CommentAuthor == "" {
			e.CommentAuthor = bitbucketName(object(c, "author"))
		}
	}
	if changes := list(object(body, "push"), "changes"); len(changes) > 0 {
		e.readBitbucketPush(changes)
	}
}

func (e *Event) readBitbucketPull(pull map[string]any) {
	e.PullRequest = true
	e.Number, e.Title, e.Body, e.URL = number(pull, "id"), text(pull, "title"), text(pull, "description"), webLink(pull)
	e.Author = bitbucketName(object(pull, "author"))
	e.Draft, _ = pull["draft"].(bool)
	source, target := object(pull, "source"), object(pull, "destination")
	if source != nil {
		e.Branch, e.SHA = text(object(source, "branch"), "name"), text(object(source, "commit"), "hash")
		e.Base = text(object(target, "branch"), "name")
		e.Fork = text(object(source, "repository"), "full_name") != text(object(target, "repository"), "full_name")
		return
	}
	// Data Center.
	from, to := object(pull, "fromRef"), object(pull, "toRef")
	e.Branch, e.SHA, e.Base = text(from, "displayId"), text(from, "latestCommit"), text(to, "displayId")
	e.Author = bitbucketName(object(object(pull, "author"), "user"))
	e.Repository = dataCenterName(object(to, "repository"))
	e.Fork = dataCenterName(object(from, "repository")) != e.Repository
}

func (e *Event) readBitbucketPush(changes []any) {
	change, _ := changes[0].(map[string]any)
	at := object(change, "new")
	e.Author = e.Sender
	switch {
	case at == nil:
		at = object(change, "old")
		e.Words = append(e.Words, "push.deleted", "repo:push.deleted")
		e.OwnAction = "deleted"
	case change["old"] == nil:
		e.OwnAction = "created"
	}
	target := object(at, "target")
	e.SHA, e.Body = text(target, "hash"), text(target, "message")
	e.Title, _, _ = strings.Cut(e.Body, "\n")
	e.URL = webLink(change)
	if text(at, "type") == "tag" {
		e.Tag = text(at, "name")
	} else {
		e.Branch = text(at, "name")
	}
}

func webLink(o map[string]any) string { return text(object(object(o, "links"), "html"), "href") }

func bitbucketName(o map[string]any) string {
	for _, key := range []string{"nickname", "username", "name", "display_name"} {
		if s := text(o, key); s != "" {
			return s
		}
	}
	return ""
}

func dataCenterName(repo map[string]any) string {
	key, slug := text(object(repo, "project"), "key"), text(repo, "slug")
	if key == "" || slug == "" {
		return ""
	}
	return key + "/" + slug
}

package webhook

import (
	"net/http"
	"strings"
)

// giteaActions maps actions of Gitea and Forgejo to GitHub's names.
var giteaActions = map[string]string{
	"synchronized": "synchronize", "label_updated": "labeled", "label_cleared": "unlabeled",
}

// giteaReviews maps events of Gitea that are reviews on GitHub to their
// conclusions.
var giteaReviews = map[string]string{
	"pull_request_approved": "approved", "pull_request_rejected": "changes_requested", "pull_request_comment": "commented",
	"pull_request_review_approved": "approved", "pull_request_review_rejected": "changes_requested", "pull_request_review_comment": "commented",
}

// readGitea converts an event of Gitea, Forgejo or Gogs to GitHub's names, and
// keeps its own names in addition. See docs.gitea.com, "Webhooks".
func (e *Event) readGitea(body map[string]any) {
	e.addWords(e.Name, e.Action)
	if action := giteaActions[e.Action]; action != "" {
		e.OwnAction, e.Action = e.Action, action
	}
	review := object(body, "review")
	if conclusion := giteaReviews[e.Name]; conclusion != "" && (review != nil || e.Name != "pull_request_review_comment") {
		e.Name, e.OwnAction, e.Action, e.Conclusion = "pull_request_review", e.Action, "submitted", conclusion
		e.Comment, e.CommentAuthor = text(review, "content"), e.Sender
	}
	if e.Name == "push" {
		pusher := object(body, "pusher")
		for _, key := range []string{"login", "username"} {
			if login := text(pusher, key); login != "" {
				e.Author = login
				break
			}
		}
		if e.URL == "" {
			e.URL = text(body, "compare_url")
		}
		switch {
		case zeros(text(body, "before")):
			e.Action = "created"
		case zeros(text(body, "after")):
			e.Action = "deleted"
		}
	}
	if is, _ := body["is_pull"].(bool); is {
		e.PullRequest = true
	}
}

// addWords records the sender's own names of the event, so that a match can use
// them.
func (e *Event) addWords(name, action string) {
	e.Words = append(e.Words, name)
	if action != "" {
		e.Words = append(e.Words, name+"."+action)
	}
}

// zeros reports whether a commit id stands for no commit.
func zeros(sha string) bool { return sha != "" && strings.Trim(sha, "0") == "" }

// bitbucketEvent returns Bitbucket's name of the event, from a header or, for
// Data Center, from the body.
func bitbucketEvent(h http.Header, body map[string]any) string {
	name := headerWord(h, "X-Event-Key")
	if name == "" {
		name = word(body, "eventKey")
	}
	if !strings.Contains(name, ":") {
		return ""
	}
	return name
}

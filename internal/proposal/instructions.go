package proposal

import (
	"strings"

	"github.com/agented/agented"
)

// Instructions returns the part of a prompt that says how to propose what p allows.
func Instructions(p *agented.Publish) string {
	var b strings.Builder
	b.WriteString("Publishing: a server publishes the result of this task. You have no credentials for it: do not push, and do not call the forge. " +
		"To propose what is published, write one JSON file per proposal into the folder whose path is in the environment variable " + agented.EnvOut +
		", before you finish. Texts are Markdown. Allowed proposals:\n")
	if p.PullRequest != nil {
		b.WriteString(`- pull_request.json: {"kind": "pull_request", "title": "one line", "body": "what changed and why"}. It contains all changes in the checkout, committed or not.` + "\n")
	}
	if p.Comment != nil {
		b.WriteString(`- comment.json: {"kind": "comment", "body": "the text"}. It is written to the pull request or issue that the event is about.` + "\n")
	}
	if p.CommitStatus != nil {
		b.WriteString(`- commit_status.json: {"kind": "commit_status", "state": "success, failure, error or pending", "description": "one line of at most 140 characters"}. It is set on the commit that the event is about.` + "\n")
	}
	switch {
	case p.PullRequest != nil:
		b.WriteString("Without any file, a pull request with your changes is opened, and your final answer is its text.")
	case p.Comment != nil:
		b.WriteString("Without any file, your final answer is published as the comment.")
	}
	return b.String()
}

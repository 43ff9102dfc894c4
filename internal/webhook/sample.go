package webhook

import (
	"encoding/json"
	"strings"
)

// Sample returns the body of a test call: for GitHub one of the named event
// (empty: the first one in the match, otherwise a push), otherwise a small
// object. Where possible it contains values that the match requires, so that it
// is likely to fire; name is the event.
func Sample(m Match, github bool, event string) (body []byte, name string) {
	if !github {
		return encode(map[string]any{"type": "test", "message": "A test call from Agented."}), ""
	}
	if event == "" && len(m.Events) > 0 {
		event = m.Events[0]
	}
	name, action, _ := strings.Cut(event, ".")
	if name == "" || strings.ContainsAny(name, "*?[") {
		name, action = "push", ""
	}
	repo := "owner/name"
	if r := plain(m.Repositories); strings.Contains(r, "/") {
		repo = r
	}
	owner, _, _ := strings.Cut(repo, "/")
	if action == "" && len(m.Actions) > 0 {
		action = m.Actions[0]
	}
	user := map[string]any{"login": owner, "type": "User"}
	repository := map[string]any{"full_name": repo, "html_url": "https://github.com/" + repo}
	const sha = "0123456789abcdef0123456789abcdef01234567"
	branch := map[string]any{"ref": or(plain(m.Branches), "main"), "sha": sha, "repo": repository}
	labels := []any{}
	for _, l := range m.Labels {
		labels = append(labels, map[string]any{"name": l})
	}
	out := map[string]any{"repository": repository, "sender": user}
	thread := map[string]any{
		"number": 1, "title": "A test from Agented", "body": "This was sent manually to test the webhook.", "user": user,
		"html_url": "https://github.com/" + repo + "/issues/1", "author_association": "OWNER", "labels": labels,
	}
	if action != "" {
		out["action"] = action
	}
	if len(labels) > 0 {
		out["label"] = labels[0]
	}
	defaultAction := func(a string) {
		if action == "" {
			out["action"] = a
		}
	}
	switch {
	case name == "push":
		delete(out, "action")
		commit := map[string]any{"id": sha, "message": "A test from Agented", "added": []any{}, "modified": []any{"README.md"}, "removed": []any{}}
		out["ref"], out["after"], out["pusher"] = "refs/heads/"+branch["ref"].(string), sha, map[string]any{"name": owner}
		out["head_commit"], out["commits"] = commit, []any{commit}
		out["compare"] = "https://github.com/" + repo + "/compare/main"
	case strings.HasPrefix(name, "pull_request"):
		thread["html_url"] = "https://github.com/" + repo + "/pull/1"
		thread["head"], thread["base"], thread["draft"] = branch, map[string]any{"ref": or(plain(m.Bases), "main"), "repo": repository}, false
		out["pull_request"], out["number"] = thread, 1
		defaultAction("opened")
	case strings.HasPrefix(name, "issue"):
		out["issue"] = thread
		defaultAction("opened")
	case name == "workflow_run" || name == "workflow_job" || name == "check_run" || name == "check_suite":
		out[name] = map[string]any{"name": "tests", "conclusion": "failure", "head_branch": branch["ref"], "head_sha": sha, "actor": user, "html_url": "https://github.com/" + repo + "/actions"}
		defaultAction("completed")
	case name == "release":
		out["release"] = map[string]any{"tag_name": "v1.0.0", "name": "v1.0.0", "author": user, "html_url": "https://github.com/" + repo + "/releases/v1.0.0"}
		defaultAction("published")
	}
	if strings.HasSuffix(name, "_comment") || strings.HasSuffix(name, "_review") {
		text := or(m.Command, "A test from Agented")
		key := "comment"
		if strings.HasSuffix(name, "_review") {
			key = "review"
		}
		out[key] = map[string]any{"body": text, "user": user, "author_association": "OWNER", "state": "commented", "html_url": thread["html_url"]}
		if action == "" || action == "opened" {
			out["action"] = "created"
		}
	}
	return encode(out), name
}

// plain returns the first pattern without special characters.
func plain(patterns []string) string {
	for _, p := range patterns {
		if !strings.ContainsAny(p, "*?!") {
			return p
		}
	}
	return ""
}

func or(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

func encode(v any) []byte {
	b, _ := json.MarshalIndent(v, "", "  ") // consists of maps and texts: always marshals
	return b
}

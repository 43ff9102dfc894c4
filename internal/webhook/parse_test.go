package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

func mustParse(t testing.TB, event, body string) *webhook.Event {
	t.Helper()
	h := header()
	if event != "" {
		h = header("X-GitHub-Event", event)
	}
	e, err := webhook.Parse(h, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const pullRequest = `{
 "action": "synchronize", "number": 7,
 "pull_request": {
  "number": 7, "title": "Mend <the> gate", "body": "please\r\nlook", "html_url": "https://github.com/octo/gate/pull/7", "draft": true,
  "user": {"login": "mona", "type": "User"}, "author_association": "CONTRIBUTOR",
  "head": {"ref": "mend/gate", "sha": "0123456789012345678901234567890123456789", "repo": {"full_name": "mona/gate"}},
  "base": {"ref": "main", "sha": "1", "repo": {"full_name": "octo/gate"}},
  "labels": [{"name": "bug"}, {"name": "needs review"}, 3, {"name": null}]
 },
 "repository": {"full_name": "octo/gate", "html_url": "https://github.com/octo/gate"},
 "sender": {"login": "mona", "type": "User"}
}`

const issueComment = `{
 "action": "created",
 "issue": {"number": 9, "title": "Leak", "html_url": "https://github.com/octo/gate/pull/9", "user": {"login": "hubot", "type": "User"}, "pull_request": {"url": "x"}, "labels": []},
 "comment": {"body": "> /review\nno\n/review quickly  please\n", "html_url": "https://github.com/octo/gate/pull/9#issuecomment-1", "user": {"login": "mona"}, "author_association": "MEMBER"},
 "repository": {"full_name": "octo/gate"}, "sender": {"login": "mona", "type": "User"}
}`

const push = `{
 "ref": "refs/heads/main", "after": "0123456789012345678901234567890123456789", "compare": "https://github.com/octo/gate/compare/a...b", "forced": true,
 "pusher": {"name": "mona"}, "head_commit": {"message": "Second\n\nwith more", "added": ["z"]},
 "commits": [{"added": ["docs/a.md"], "modified": ["main.go"], "removed": []}, {"added": [], "modified": ["main.go"], "removed": ["web/old.js", 4]}],
 "repository": {"full_name": "octo/gate"}, "sender": {"login": "mona", "type": "User"}
}`

func TestParse_events(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, event, body string
		want              webhook.Event
	}{
		{"pull request", "pull_request", pullRequest, webhook.Event{
			GitHub: true, Name: "pull_request", Action: "synchronize", Repository: "octo/gate", RepositoryURL: "https://github.com/octo/gate",
			Number: "7", Title: "Mend <the> gate", Body: "please\r\nlook", URL: "https://github.com/octo/gate/pull/7", Author: "mona", AuthorType: "User",
			Branch: "mend/gate", Base: "main", BaseSHA: "1", SHA: "0123456789012345678901234567890123456789", Labels: []string{"bug", "needs review"},
			Draft: true, Fork: true, PullRequest: true, Association: "CONTRIBUTOR", Sender: "mona", SenderType: "User",
		}},
		{"comment on a pull request", "issue_comment", issueComment, webhook.Event{
			GitHub: true, Name: "issue_comment", Action: "created", Repository: "octo/gate", Number: "9", Title: "Leak", URL: "https://github.com/octo/gate/pull/9",
			Author: "hubot", AuthorType: "User", PullRequest: true, Comment: "> /review\nno\n/review quickly  please\n",
			CommentURL: "https://github.com/octo/gate/pull/9#issuecomment-1", CommentAuthor: "mona", Association: "MEMBER", Sender: "mona", SenderType: "User",
		}},
		{"push", "push", push, webhook.Event{
			GitHub: true, Name: "push", Action: "forced", Repository: "octo/gate", Title: "Second", Body: "Second\n\nwith more",
			URL: "https://github.com/octo/gate/compare/a...b", Author: "mona", AuthorType: "User", Branch: "main", SHA: "0123456789012345678901234567890123456789",
			Sender: "mona", SenderType: "User", Paths: []string{"docs/a.md", "main.go", "web/old.js"},
		}},
		{"tag", "push", `{"ref":"refs/tags/v1","created":true,"head_commit":{"added":["x"]},"commits":[]}`, webhook.Event{
			GitHub: true, Name: "push", Action: "created", Tag: "v1", Paths: []string{"x"},
		}},
		{"workflow", "workflow_run", `{"action":"completed","workflow_run":{"name":"CI","head_branch":"b","head_sha":"s","conclusion":"failure","html_url":"u","actor":{"login":"mona","type":"User"},"pull_requests":[{"number":3,"base":{"ref":"main"}}]}}`, webhook.Event{
			GitHub: true, Name: "workflow_run", Action: "completed", Number: "3", Title: "CI", URL: "u", Author: "mona", AuthorType: "User", Branch: "b", Base: "main", SHA: "s", Conclusion: "failure",
		}},
		{"release", "release", `{"action":"published","release":{"tag_name":"v2","body":"new","html_url":"u","author":{"login":"mona"},"target_commitish":"main"}}`, webhook.Event{
			GitHub: true, Name: "release", Action: "published", Title: "v2", Body: "new", URL: "u", Author: "mona", Tag: "v2", Base: "main",
		}},
		{"review", "pull_request_review", `{"action":"submitted","review":{"body":"fine","state":"APPROVED","author_association":"OWNER","user":{"login":"o"}},"pull_request":{"number":1}}`, webhook.Event{
			GitHub: true, Name: "pull_request_review", Action: "submitted", Number: "1", PullRequest: true, Comment: "fine", CommentAuthor: "o", Association: "OWNER", Conclusion: "approved",
		}},
		{"nothing of what is expected", "pull_request", `{"pull_request":{"number":"7\n","title":4,"head":[],"labels":{},"user":"x","draft":"yes"},"sender":[],"repository":null,"action":"a b"}`, webhook.Event{
			GitHub: true, Name: "pull_request", PullRequest: true,
		}},
		{"another sender", "", `{"type":"invoice.paid","action":"done","event":"no","repository":{"full_name":"a/b"}}`, webhook.Event{Name: "invoice.paid", Action: "done"}},
		{"a list", "", `[1]`, webhook.Event{}},
		{"nothing at all", "", ``, webhook.Event{}},
	} {
		got := mustParse(t, c.event, c.body)
		if diff := cmp.Diff(&c.want, got, cmpopts.IgnoreFields(webhook.Event{}, "JSON", "Raw", "Sent", "Kind")); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

func TestParse_invalid_bodies(t *testing.T) {
	t.Parallel()
	form := "application/x-www-form-urlencoded"
	deep := strings.Repeat("[", webhook.MaxDepth+1) + strings.Repeat("]", webhook.MaxDepth+1)
	for _, c := range []struct {
		name   string
		header http.Header
		body   string
		kind   agented.Kind
	}{
		{"no JSON", header(), "{", agented.Invalid},
		{"two values", header(), "{}{}", agented.Invalid},
		{"text after it", header(), "{} x", agented.Invalid},
		{"empty, from GitHub", header("X-GitHub-Event", "push"), " ", agented.Invalid},
		{"list, from GitHub", header("X-GitHub-Event", "push"), "[]", agented.Invalid},
		{"event with a space", header("X-GitHub-Event", "pu sh"), "{}", agented.Invalid},
		{"two events", header("X-GitHub-Event", "push", "X-GitHub-Event", "ping"), "{}", agented.Invalid},
		{"form without payload", header("Content-Type", form, "X-GitHub-Event", "push"), "a=b", agented.Invalid},
		{"form with two", header("Content-Type", form, "X-GitHub-Event", "push"), "payload={}&payload={}", agented.Invalid},
		{"form with too many fields", header("Content-Type", form), strings.Repeat("a=b&", 1001), agented.Invalid},
		{"multipart without boundary", header("Content-Type", "multipart/form-data"), "--x--", agented.Invalid},
		{"multipart that is none", header("Content-Type", "multipart/form-data; boundary=x"), "{}", agented.Invalid},
		{"text from GitHub", header("Content-Type", "text/plain", "X-GitHub-Event", "push"), "hello", agented.Invalid},
		{"unknown encoding", header("Content-Encoding", "br"), "{}", agented.Invalid},
		{"broken form", header("Content-Type", form), "payload=%zz", agented.Invalid},
		{"compressed", header("Content-Encoding", "gzip"), "{}", agented.Invalid},
		{"too deep", header(), deep, agented.Invalid},
		{"too deep in a form", header("Content-Type", form+"; charset=utf-8"), "payload=" + deep, agented.Invalid},
		{"too many values", header(), "[" + strings.Repeat("0,", webhook.MaxValues+1) + "0]", agented.TooLarge},
		{"too long", header(), `"` + strings.Repeat("x", webhook.MaxBody) + `"`, agented.TooLarge},
	} {
		_, err := webhook.Parse(c.header, []byte(c.body))
		if !errors.Is(err, c.kind) || agented.Message(err) == "internal error" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := webhook.Parse(header(), []byte(strings.Repeat("[", webhook.MaxDepth)+strings.Repeat("]", webhook.MaxDepth))); err != nil {
		t.Error(err)
	}
}

func TestParse_numbers(t *testing.T) {
	t.Parallel()
	e := mustParse(t, "", `{"id":12345678901234567890,"f":1.50,"o":{"b":[1,null,true]}}`)
	for path, want := range map[string]string{"id": "12345678901234567890", "f": "1.50", "o.b": "[1,null,true]", "o.b[0]": "1", "o.b.1": "null", "o.b[2]": "true"} {
		if got, ok := e.Lookup(path); !ok || got != want {
			t.Errorf("%s: %q %v", path, got, ok)
		}
	}
	for _, path := range []string{"", "x", "o.b.3", "o..b", "o.b[", "id.x"} {
		if got, ok := e.Lookup(path); ok {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestParse_push_with_many_files(t *testing.T) {
	t.Parallel()
	var files []string
	for i := range 4000 {
		files = append(files, fmt.Sprintf("f%d", i))
	}
	body, _ := json.Marshal(map[string]any{"ref": "refs/heads/b", "commits": []any{map[string]any{"added": files}}})
	e := mustParse(t, "push", string(body))
	if len(e.Paths) != 3000 || !e.PathsCut {
		t.Fatal(len(e.Paths), e.PathsCut)
	}
	if v := webhook.Evaluate(webhook.Match{Paths: []string{"f3999"}}, e, nil); !v.Fires {
		t.Errorf("a file beyond the bound does not fire: %+v", v)
	}
}

func TestParse_push_with_long_paths(t *testing.T) {
	t.Parallel()
	body, _ := json.Marshal(map[string]any{"ref": "refs/heads/b", "commits": []any{map[string]any{"added": []string{"a.go", strings.Repeat("d/", 1<<20)}}}})
	e := mustParse(t, "push", string(body))
	if diff := cmp.Diff([]string{"a.go"}, e.Paths); diff != "" || !e.PathsCut {
		t.Error(diff, e.PathsCut)
	}
	long, _ := json.Marshal(map[string]any{"repository": map[string]any{"full_name": "o/" + strings.Repeat("x", 1<<20)}})
	if v := webhook.Evaluate(webhook.Match{Repositories: []string{"o/**"}}, mustParse(t, "issues", string(long)), nil); v.Fires || len(v.Reason) > 500 {
		t.Errorf("%+v", v)
	}
}

func TestEventValues(t *testing.T) {
	t.Parallel()
	values := mustParse(t, "pull_request", pullRequest).Values()
	known := map[string]bool{}
	for _, list := range [][]agented.Placeholder{agented.Placeholders, webhook.Placeholders} {
		for _, p := range list {
			known[p.Name] = true
			if p.Help == "" {
				t.Errorf("%s has no help", p.Name)
			}
		}
	}
	for _, p := range webhook.Placeholders {
		if !slices.Contains(agented.Placeholders, p) {
			t.Errorf("%s is not among the placeholders of a prompt, or has another help there", p.Name)
		}
		if _, ok := values[p.Name]; !ok {
			t.Errorf("%s has no value", p.Name)
		}
	}
	for name := range values {
		if !known[name] {
			t.Errorf("the value %s is no placeholder", name)
		}
	}
	for name, want := range map[string]string{
		"pr_url": "https://github.com/octo/gate/pull/7", "pr_number": "7", "pr_title": "Mend <the> gate", "pr_author": "mona", "labels": "bug, needs review",
		"message": "PR #7: Mend <the> gate\nURL: https://github.com/octo/gate/pull/7\nAuthor: mona\nRepository: octo/gate\nBranch: mend/gate\nEvent: pull_request\nAction: synchronize",
	} {
		if values[name] != want {
			t.Errorf("%s is %q", name, values[name])
		}
	}
}

func TestEventSubject(t *testing.T) {
	t.Parallel()
	for event, want := range map[[2]string]string{
		{"pull_request", pullRequest}:   "octo/gate#7",
		{"issue_comment", issueComment}: "octo/gate#9",
		{"push", push}:                  "octo/gate@main",
		{"ping", `{}`}:                  "",
	} {
		if got := mustParse(t, event[0], event[1]).Subject(); got != want {
			t.Errorf("%s: %q", event[0], got)
		}
	}
}

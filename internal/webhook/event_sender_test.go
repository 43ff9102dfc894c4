package webhook_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/webhook"
)

func parseCall(t testing.TB, h http.Header, body string) *webhook.Event {
	t.Helper()
	e, err := webhook.Parse(h, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const gitLabMerge = `{"object_kind":"merge_request","user":{"id":1,"username":"mona"},"project":{"path_with_namespace":"octo/sub/gate","web_url":"https://gitlab.example/octo/sub/gate"},
"object_attributes":{"iid":7,"author_id":1,"title":"Fix","description":"text","url":"https://gitlab.example/octo/sub/gate/-/merge_requests/7","source_branch":"fix","target_branch":"main",
"source_project_id":5,"target_project_id":5,"last_commit":{"id":"0123456789012345678901234567890123456789"},"action":"ACTION","draft":true EXTRA},"labels":[{"title":"bug"}]}`

const giteaPull = `{"action":"synchronized","number":7,"pull_request":{"number":7,"title":"Fix","html_url":"https://git.example/o/r/pulls/7","user":{"login":"mona"},
"head":{"ref":"fix","sha":"01","repo":{"full_name":"o/r"}},"base":{"ref":"main","repo":{"full_name":"o/r"}}},"repository":{"full_name":"o/r"},"sender":{"login":"mona"}}`

func TestParse_events_of_other_forges(t *testing.T) {
	t.Parallel()
	merge := func(action, extra string) string {
		return strings.NewReplacer("ACTION", action, "EXTRA", extra).Replace(gitLabMerge)
	}
	push := `{"object_kind":"push","before":"BEFORE","after":"AFTER","ref":"refs/heads/main","checkout_sha":"cafe","user_username":"mona","project":{"path_with_namespace":"o/r"},"commits":[{"message":"one\ntwo","added":["a"]}]}`
	bitbucket := `{"actor":{"nickname":"mona"},"repository":{"full_name":"o/r"},"pullrequest":{"id":7,"title":"Fix","author":{"nickname":"mona"},"links":{"html":{"href":"https://bitbucket.org/o/r/pull-requests/7"}},
"source":{"branch":{"name":"fix"},"commit":{"hash":"ab"},"repository":{"full_name":"x/r"}},"destination":{"branch":{"name":"main"},"repository":{"full_name":"o/r"}}}}`
	for _, c := range []struct {
		name    string
		header  http.Header
		body    string
		matches []string
		not     []string
		want    map[string]string
		subject string
	}{
		{
			"gitlab opened", header("X-Gitlab-Event", "Merge Request Hook"), merge("open", ""),
			[]string{"merge_request", "merge_request.opened", "merge_request.open"},
			[]string{"merge_request.updated"},
			map[string]string{"event": "merge_request", "action": "opened", "pr_url": "https://gitlab.example/octo/sub/gate/-/merge_requests/7", "branch": "fix", "base": "main", "author": "mona", "repository": "octo/sub/gate", "labels": "bug", "number": "7"},
			"octo/sub/gate#7",
		},
		{"gitlab updated", header(), merge("update", ""), []string{"merge_request.updated", "merge_request.update"}, []string{"merge_request.synchronize"}, map[string]string{"action": "updated"}, "octo/sub/gate#7"},
		{"gitlab new commits", header(), merge("update", `,"oldrev":"ab"`), []string{"merge_request.updated", "merge_request.synchronize"}, nil, nil, "octo/sub/gate#7"},
		{
			"gitlab push", header(), strings.NewReplacer("BEFORE", "aa", "AFTER", "cafe").Replace(push),
			[]string{"push", "push.pushed"},
			nil,
			map[string]string{"event": "push", "action": "pushed", "branch": "main", "sha": "cafe", "author": "mona", "title": "one", "changed_files": "a"},
			"o/r@main",
		},
		{"gitlab new branch", header(), strings.NewReplacer("BEFORE", "0000", "AFTER", "cafe").Replace(push), []string{"push.created"}, nil, nil, "o/r@main"},
		{"gitlab tag", header(), `{"object_kind":"tag_push","before":"0","after":"cafe","ref":"refs/tags/v1","user_username":"mona","project":{"path_with_namespace":"o/r"}}`, []string{"tag_push"}, nil, map[string]string{"tag": "v1"}, ""},
		{
			"gitlab note", header(), `{"object_kind":"note","user":{"username":"eve"},"project":{"path_with_namespace":"o/r"},"object_attributes":{"note":"/review","url":"u"},"merge_request":{"iid":3,"source_branch":"s","target_branch":"t"}}`,
			[]string{"note", "note.created"},
			nil,
			map[string]string{"comment": "/review", "comment_author": "eve", "pr_number": "3"},
			"o/r#3",
		},
		{
			"gitlab pipeline", header(), `{"object_kind":"pipeline","user":{"username":"eve"},"project":{"path_with_namespace":"o/r","web_url":"https://x"},"object_attributes":{"id":31,"ref":"main","sha":"ab","status":"failed"}}`,
			[]string{"pipeline", "pipeline.failed"},
			nil,
			map[string]string{"conclusion": "failed", "branch": "main", "url": "https://x/-/pipelines/31"},
			"o/r@main",
		},
		{
			"gitea", header("X-GitHub-Event", "pull_request", "X-Gitea-Event", "pull_request"), giteaPull,
			[]string{"pull_request.synchronize", "pull_request.synchronized"},
			nil,
			map[string]string{"action": "synchronize", "pr_url": "https://git.example/o/r/pulls/7", "branch": "fix"},
			"o/r#7",
		},
		{"forgejo alone", header("X-Forgejo-Event", "pull_request"), giteaPull, []string{"pull_request.synchronize"}, nil, nil, "o/r#7"},
		{
			"gitea review", header("X-GitHub-Event", "pull_request_approved", "X-Gitea-Event", "pull_request_approved"), strings.Replace(giteaPull, "synchronized", "reviewed", 1),
			[]string{"pull_request_review.submitted", "pull_request_approved"},
			nil,
			map[string]string{"conclusion": "approved"},
			"o/r#7",
		},
		{
			"bitbucket", header("X-Event-Key", "pullrequest:created"), bitbucket,
			[]string{"pullrequest", "pullrequest.created", "pullrequest:created"},
			nil,
			map[string]string{"branch": "fix", "base": "main", "author": "mona", "pr_url": "https://bitbucket.org/o/r/pull-requests/7"},
			"o/r#7",
		},
		{
			"bitbucket push", header("X-Event-Key", "repo:push"), `{"actor":{"nickname":"mona"},"repository":{"full_name":"o/r"},"push":{"changes":[{"old":null,"new":{"type":"branch","name":"main","target":{"hash":"ab","message":"hi"}}}]}}`,
			[]string{"repo:push", "repo.push"},
			nil,
			map[string]string{"branch": "main", "sha": "ab"},
			"o/r@main",
		},
		{"pagerduty", header(), `{"event":{"id":"1","event_type":"incident.triggered"}}`, []string{"incident.triggered"}, nil, nil, ""},
		{"jira", header(), `{"webhookEvent":"jira:issue_created"}`, []string{"jira:issue_created"}, nil, nil, ""},
		{"shopify", header("X-Shopify-Topic", "orders/create"), `{}`, []string{"orders/create"}, nil, nil, ""},
		{"sentry", header("Sentry-Hook-Resource", "issue"), `{"action":"created"}`, []string{"issue.created"}, nil, nil, ""},
		{"slack", header(), `{"type":"event_callback","event":{"type":"app_mention"}}`, []string{"event_callback", "app_mention"}, nil, nil, ""},
	} {
		e := parseCall(t, c.header, c.body)
		for _, event := range c.matches {
			if v := webhook.Evaluate(webhook.Match{Events: []string{event}}, e, nil); !v.Fires {
				t.Errorf("%s: %s: %s", c.name, event, v.Reason)
			}
		}
		for _, event := range c.not {
			if v := webhook.Evaluate(webhook.Match{Events: []string{event}}, e, nil); v.Fires {
				t.Errorf("%s: %s fires", c.name, event)
			}
		}
		values := e.Values()
		for name, want := range c.want {
			if values[name] != want {
				t.Errorf("%s: {%s} is %q, want %q", c.name, name, values[name], want)
			}
		}
		if got := e.Subject(); got != c.subject {
			t.Errorf("%s: subject %q, want %q", c.name, got, c.subject)
		}
	}
	if e := parseCall(t, header("X-Event-Key", "pullrequest:created"), bitbucket); !e.Fork || !e.PullRequest {
		t.Error("a pull request from a fork is not known as one")
	}
}

func TestParse_bodies(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(`{"a":"b"}`))
	_ = z.Close()
	form := "application/x-www-form-urlencoded"
	multi := "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\n\r\ncontent\r\n--B--\r\n"
	equals := func(field, value string) webhook.Match {
		return webhook.Match{Conditions: &webhook.Group{All: []webhook.Condition{{Field: field, Op: "equals", Value: value}}}}
	}
	for _, c := range []struct {
		name   string
		header http.Header
		body   string
		match  webhook.Match
		values map[string]string
	}{
		{"form", header("Content-Type", form), "command=%2Fdeploy&text=now", equals("command", "/deploy"), map[string]string{"vars.text": "now", "vars.command": "/deploy", "message": "now"}},
		{"form with a payload", header("Content-Type", form), "payload=%7B%22a%22%3A%22b%22%7D", equals("a", "b"), map[string]string{"payload": `{"a":"b"}`}},
		{"multipart", header("Content-Type", "multipart/form-data; boundary=B"), multi, equals("a", "b"), map[string]string{"vars.f": "x.txt"}},
		{"gzip", header("Content-Encoding", "gzip"), packed.String(), equals("a", "b"), nil},
		{"BOM", header(), "\xef\xbb\xbf{\"a\":\"b\"}", equals("a", "b"), nil},
		{"UTF-16", header(), "\xff\xfe{\x00\"\x00a\x00\"\x00:\x00\"\x00b\x00\"\x00}\x00", equals("a", "b"), nil},
		{"text", header("Content-Type", "text/plain; charset=utf-8"), "disk is full", equals("text", "disk is full"), map[string]string{"message": "disk is full"}},
		{"JSON as text", header("Content-Type", "text/plain"), `{"a":"b"}`, equals("a", "b"), nil},
	} {
		e := parseCall(t, c.header, c.body)
		if v := webhook.Evaluate(c.match, e, nil); !v.Fires {
			t.Errorf("%s: %s", c.name, v.Reason)
		}
		values := e.Values()
		for name, want := range c.values {
			if values[name] != want {
				t.Errorf("%s: {%s} is %q, want %q", c.name, name, values[name], want)
			}
		}
	}
	var bomb bytes.Buffer
	z = gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, webhook.MaxBody+1))
	_ = z.Close()
	if _, err := webhook.Parse(header("Content-Encoding", "gzip"), bomb.Bytes()); err == nil {
		t.Error("a body that expands past the limit is read")
	}
}

func TestEvent_challenges(t *testing.T) {
	t.Parallel()
	discord := header("X-Signature-Timestamp", "1")
	for _, c := range []struct {
		name   string
		header http.Header
		body   string
		status int
		key    string
	}{
		{"slack", header(), `{"type":"url_verification","challenge":"c1"}`, 200, "challenge"},
		{"discord ping", discord, `{"type":1,"id":"1"}`, 200, "type"},
		{"discord events", discord, `{"type":0}`, 204, ""},
	} {
		e := parseCall(t, c.header, c.body)
		a, is := e.Challenge()
		if !is || a.Status != c.status || c.key != "" && a.Body[c.key] == nil || !e.Ping() {
			t.Errorf("%s: %v %v", c.name, a, is)
		}
		if v := webhook.Evaluate(webhook.Match{}, e, nil); v.Fires {
			t.Errorf("%s fires", c.name)
		}
	}
	for _, body := range []string{`{"type":1}`, `{"type":"url_verification"}`, `[1]`, `{"challenge":"x"}`} {
		if _, is := parseCall(t, header(), body).Challenge(); is {
			t.Errorf("%s is a challenge", body)
		}
	}
	command := parseCall(t, header("Content-Type", "application/x-www-form-urlencoded"), "command=%2Fdeploy&response_url=https%3A%2F%2Fhooks.slack.com&text=now")
	if a, is := command.Reply("Accepted."); !is || a.Status != 200 || a.Body["text"] != "Accepted." || command.Name != "slash_command" {
		t.Errorf("%v %v", a, is)
	}
}

func TestMatch_command_by_named_authors(t *testing.T) {
	t.Parallel()
	e := parseCall(t, header(), `{"object_kind":"note","user":{"username":"eve"},"project":{"path_with_namespace":"o/r"},"object_attributes":{"note":"/review","url":"u"},"issue":{"iid":3}}`)
	for _, c := range []struct {
		authors []string
		fires   bool
	}{{nil, false}, {[]string{"eve"}, true}, {[]string{"mona"}, false}} {
		if v := webhook.Evaluate(webhook.Match{Command: "/review", Authors: c.authors}, e, nil); v.Fires != c.fires {
			t.Errorf("%v: %+v", c.authors, v)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", "", "a=b&payload={}")
	f.Add("multipart/form-data; boundary=B", "", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--B--\r\n")
	f.Add("text/plain", "gzip", "\x1f\x8b")
	f.Add("", "", "\xff\xfe{\x00}\x00")
	f.Fuzz(func(t *testing.T, media, encoding, body string) {
		h := http.Header{"Content-Type": {media}, "Content-Encoding": {encoding}}
		e, err := webhook.Parse(h, []byte(body))
		if err != nil {
			return
		}
		e.Values()
		e.Challenge()
		e.Subject()
		webhook.Evaluate(webhook.Match{Events: []string{"x.*"}}, e, nil)
	})
}

func FuzzSenderSignature(f *testing.F) {
	f.Add("t=1,v1=ab", "v1=", "{timestamp}.{body}", "signature:t", "1")
	f.Add("v0=zz v0=ab", "v0=", "v0:{timestamp}:{body}", "header:X-T", "2030-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, value, prefix, signed, timestamp, stamp string) {
		auth := webhook.Auth{Kind: webhook.KindHMAC, Header: "X-Sig", Prefix: prefix, Signed: signed, Timestamp: timestamp}
		if len(auth.Validate()) > 0 {
			return
		}
		h := http.Header{"X-Sig": {value}, "X-T": {stamp}}
		if auth.Verify("a secret of the test", webhook.Request{Header: h, Body: []byte("{}")}, time.Unix(1, 0)) == nil {
			t.Errorf("%q is accepted", value)
		}
		if slices.ContainsFunc(webhook.SplitSecrets(value), func(s string) bool { return s == "" }) {
			t.Error("an empty secret")
		}
	})
}

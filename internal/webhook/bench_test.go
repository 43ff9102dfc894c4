package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/webhook"
)

// benchPayload is a pull request of about 27 KB, as large as GitHub's largest
// example.
func benchPayload(b *testing.B) []byte {
	b.Helper()
	var body map[string]any
	if err := json.Unmarshal([]byte(pullRequest), &body); err != nil {
		b.Fatal(err)
	}
	more := map[string]any{}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		user := map[string]any{"id": 583231, "site_admin": false}
		for _, key := range []string{"avatar", "followers", "following", "gists", "starred", "subscriptions", "organizations", "repos", "events", "received_events"} {
			user[key+"_url"] = "https://api.github.com/users/" + strings.Repeat(string(c), 30) + "/" + key + "{/other}"
		}
		more[string(c)] = user
	}
	body["more"] = more
	raw, err := json.Marshal(body)
	if err != nil {
		b.Fatal(err)
	}
	return raw
}

var benchMatch = webhook.Match{
	Associations: []string{"*"},
	Events:       []string{"pull_request"}, Actions: []string{"opened", "synchronize"}, Repositories: []string{"octo/*"}, Bases: []string{"main", "release/**"},
	Conditions: &webhook.Group{All: []webhook.Condition{{Field: "more.*.site_admin", Op: "equals", Value: false}, {Field: "pull_request.title", Op: "regex", Value: "(?i)gate"}}},
}

func BenchmarkVerifyParseMatch(b *testing.B) {
	body := benchPayload(b)
	h := header("X-Hub-Signature-256", "sha256="+sign(docSecret, body), "X-GitHub-Event", "pull_request", "X-GitHub-Delivery", "d", "Content-Type", "application/json")
	auth := webhook.Auth{Kind: webhook.KindGitHub}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := auth.Verify(docSecret, webhook.Request{Header: h, Body: body}, time.Time{}); err != nil {
			b.Fatal(err)
		}
		e, err := webhook.Parse(h, body)
		if err != nil {
			b.Fatal(err)
		}
		if v := webhook.Evaluate(benchMatch, e, nil); !v.Fires {
			b.Fatal(v)
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	body := benchPayload(b)
	r := webhook.Request{Header: header("X-Hub-Signature-256", "sha256="+sign("wrong", body), "Authorization", "Bearer wrong"), Body: body}
	for _, kind := range []webhook.Kind{webhook.KindGitHub, webhook.KindHMAC, webhook.KindStandard, webhook.KindBearer, webhook.KindUnsigned} {
		b.Run(string(kind), func(b *testing.B) {
			for b.Loop() {
				_ = webhook.Auth{Kind: kind}.Verify(docSecret, r, time.Time{})
			}
		})
	}
	b.Run("decoy", func(b *testing.B) {
		for b.Loop() {
			_ = webhook.Decoy(r)
		}
	})
}

func BenchmarkFence(b *testing.B) {
	e := mustParseBytes(b, benchPayload(b))
	for b.Loop() {
		if _, err := webhook.Fence(e.Values(), boundary); err != nil {
			b.Fatal(err)
		}
	}
}

func mustParseBytes(b *testing.B, body []byte) *webhook.Event {
	b.Helper()
	return mustParse(b, "pull_request", string(body))
}

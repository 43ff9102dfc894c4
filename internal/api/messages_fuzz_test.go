package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/agented/agented"
)

// FuzzMessages sends arbitrary names, keys and bodies: the message is rejected
// as invalid, or the inbox contains it unchanged.
func FuzzMessages(f *testing.F) {
	f.Add("box", "message", "a subject", "a body", "k1")
	f.Add("agent:box", "request", "", "line\r\nline\u2028<script>\x1b[31m", "")
	f.Add("topic:x/../y", "alert", "\u202e", "'; DROP TABLE message; --", "%00")
	f.Add("user:nobody", "status", strings.Repeat("s", 501), "\x00", strings.Repeat("k", 201))
	f.Add("box", "artifact", "\xff", "\xff\xfe", "\xff")
	f.Fuzz(func(t *testing.T, to, kind, subject, body, key string) {
		g := start(t, settings{})
		if err := g.db.CreateAgent(t.Context(), &agented.Agent{Name: "box", Enabled: true, Spec: agented.Spec{Backend: agented.BackendClaude}}, "test"); err != nil {
			t.Fatal(err)
		}
		if err := g.work.ReloadAgents(t.Context()); err != nil {
			t.Fatal(err)
		}
		in, err := json.Marshal(map[string]string{"to": to, "type": kind, "subject": subject, "body": body, "key": key})
		if err != nil {
			t.Fatal(err)
		}
		answer := g.admin(http.MethodPost, "/api/v1/messages", string(in))
		switch answer.status {
		case http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusNotFound:
			return
		case http.StatusCreated:
		default:
			t.Fatalf("status %d: %s", answer.status, answer.body)
		}
		again := g.admin(http.MethodPost, "/api/v1/messages", string(in))
		if again.status != http.StatusCreated || strings.Contains(again.body, `"repeated":true`) != (key != "") {
			t.Fatalf("sent again: status %d: %s", again.status, again.body)
		}
		if address, err := agented.ParseAddress(to); err != nil || address.Kind != agented.ToAgent {
			return // a topic without subscribers
		}
		var inbox struct {
			Items []struct {
				Message struct{ Type, Subject, Body string }
			}
		}
		if err := json.Unmarshal([]byte(g.admin(http.MethodGet, "/api/v1/agents/box/inbox", "").body), &inbox); err != nil {
			t.Fatal(err)
		}
		want := 2
		if key != "" {
			want = 1
		}
		if len(inbox.Items) != want {
			t.Fatalf("%d messages, want %d", len(inbox.Items), want)
		}
		clean := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
		m := inbox.Items[0].Message
		var sent struct{ Subject, Body string } // after JSON decoding
		if err := json.Unmarshal(in, &sent); err != nil {
			t.Fatal(err)
		}
		if clean(sent.Body) != m.Body || clean(sent.Subject) != m.Subject {
			t.Fatalf("%q and %q came out as %q and %q", subject, body, m.Subject, m.Body)
		}
	})
}

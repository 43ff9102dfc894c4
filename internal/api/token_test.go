package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/messages"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// TestExecutionToken_permissions calls every operation with the token of an
// execution that runs an agent.
func TestExecutionToken_permissions(t *testing.T) {
	t.Parallel()
	var key secret.Key
	g := start(t, settings{options: func(o *api.Options) { key = o.Key }})
	var ann, bob struct {
		ID agented.AgentID `json:"id"`
	}
	g.admin("POST", "/api/v1/agents", `{"name":"ann","backend":"claude"}`).want(201).json(&ann)
	g.admin("POST", "/api/v1/agents", `{"name":"bob","backend":"claude"}`).want(201).json(&bob)
	now := time.Now().UTC()
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "ann", Backend: agented.BackendCommand, Source: agented.SourceManual,
		Snapshot: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, Agent: string(ann.ID), Env: map[string]*string{"HOOK": new("https://example.org/hook")}}, CreatedAt: now, ScheduledAt: now,
	}
	if _, err := g.db.Admit(t.Context(), store.Admission{Execution: e}, now); err != nil {
		t.Fatal(err)
	}
	token := auth.ExecutionToken(key, e.ID, 1)
	as := func(token, method, path, body string) answer {
		return g.send(g.client(), method, path, body, with("X-API-Key", token))
	}
	as(token, "GET", "/api/v1/agents/me/inbox", "").problem(401) // it is not running yet
	claimed, err := g.db.Claim(t.Context(), "node-test", 10, now, time.Minute)
	if err != nil || claimed == nil || claimed.ID != e.ID {
		t.Fatalf("claimed %v, %v", claimed, err)
	}
	var sent messages.SentMessage
	as(token, "POST", "/api/v1/messages", `{"to":"bob","body":"hello https://example.org/hook","subject":"https://example.org/hook"}`).want(201).json(&sent)
	if sent.Message.Body != "hello ***" || sent.Message.Subject != "***" {
		t.Errorf("a secret of the execution was sent: %+v", sent.Message)
	}
	if sent.Message.From != "agent:"+string(ann.ID) || sent.Message.Chain.Depth != 1 || sent.Message.Chain.Parent != string(e.ID) {
		t.Errorf("sent %+v", sent.Message)
	}
	as(token, "GET", "/api/v1/agents/me/inbox", "").want(200)
	as(token, "GET", "/api/v1/agents/ann/inbox", "").want(200)
	as(token, "GET", "/api/v1/agents/bob/inbox", "").problem(403)
	as(token, "POST", "/api/v1/agents/bob/inbox/1/ack", "").problem(403)
	as(token, "POST", "/api/v1/members", `{"list":"topic:x","member":"ann"}`).want(204)
	as(token, "POST", "/api/v1/members", `{"list":"topic:x","member":"bob"}`).problem(403)
	as(token, "POST", "/api/v1/members", `{"list":"group:x","member":"ann"}`).problem(403)
	for name, bad := range map[string]string{
		"another attempt": auth.ExecutionToken(key, e.ID, 2), "another signature": token[:len(token)-4] + "AAAA", "cut": token[:len(token)-5],
		"no signature": strings.TrimSuffix(token, token[strings.LastIndexByte(token, '.'):]), "nothing": "agx_",
	} {
		if a := as(bad, "GET", "/api/v1/agents/me/inbox", ""); a.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d", name, a.status)
		}
	}
	mail := map[string]bool{
		"POST /api/v1/messages": true, "GET /api/v1/agents/{id}/inbox": true, "GET /api/v1/agents/{id}/inbox/stream": true, "GET /api/v1/inbox/stream": true,
		"POST /api/v1/agents/{id}/inbox/{seq}/ack": true, "POST /api/v1/members": true, "DELETE /api/v1/members": true,
	}
	asked := 0
	for path, methods := range g.document().Paths {
		for method, o := range methods {
			if o.Role == "anyone" || mail[strings.ToUpper(method)+" "+path] {
				continue
			}
			asked++
			at := strings.NewReplacer("{id}", string(e.ID), "{seq}", "1", "{name}", "x", "{webhook}", "x", "{trigger}", "x").Replace(path)
			if a := as(token, strings.ToUpper(method), at, ""); a.status != http.StatusForbidden {
				t.Errorf("%s %s: status %d, %s", method, path, a.status, a.body)
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d operations were asked", asked)
	}
	if _, err := g.db.EndAttempt(t.Context(), store.AttemptEnd{
		Attempt: agented.Attempt{Execution: e.ID, Number: 1, State: agented.StateSuccess, StartedAt: now, FinishedAt: now}, Next: agented.StateSuccess,
	}, claimed.Lease, now); err != nil {
		t.Fatal(err)
	}
	if a := as(token, "POST", "/api/v1/messages", `{"to":"bob","body":"too late"}`); a.status != http.StatusUnauthorized {
		t.Errorf("after its end: %s", fmt.Sprint(a.status, a.body))
	}
}

package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/identity"
	"github.com/agented/agented/internal/api/rest"
)

func TestKey_ends_with_owner(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change string // change of the owner, as a PATCH; empty: delete
		status int    // status of a later request with the key
		role   agented.Role
	}{
		"disabled":     {`{"disabled":true}`, 401, ""},
		"deleted":      {"", 401, ""},
		"lowered_role": {`{"role":"viewer"}`, 200, agented.RoleViewer},
		"renamed":      {`{"name":"another"}`, 200, agented.RoleAdmin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, settings{})
			g.addUser("olga", agented.RoleAdmin)
			g.addUser("ada", agented.RoleAdmin)
			olga := g.loggedIn("olga")
			var k, child identity.NewKey
			g.send(olga, "POST", "/api/v1/auth/keys", `{"name":"k","role":"admin"}`).want(201).json(&k)
			if k.Owner == "" || k.CreatedBy != "olga" {
				t.Errorf("the key is of %q, made by %q", k.Owner, k.CreatedBy)
			}
			// Keys created with the key end with it.
			g.send(g.client(), "POST", "/api/v1/auth/keys", `{"name":"child","role":"admin"}`, with("X-API-Key", k.Key)).want(201).json(&child)
			at := "/api/v1/auth/users/" + string(k.Owner)
			if c.change == "" {
				g.admin("DELETE", at, "").want(204)
			} else {
				g.admin("PATCH", at, c.change).want(200)
			}
			for _, key := range []string{k.Key, child.Key} {
				a := g.send(g.client(), "GET", "/api/v1/auth/me", "", with("X-API-Key", key)).want(c.status)
				if c.status == 200 && !strings.Contains(a.body, `"role":"`+string(c.role)+`"`) {
					t.Errorf("role: %s", a.body)
				}
			}
			if name == "disabled" { // it stays revoked
				g.admin("PATCH", at, `{"disabled":false}`).want(200)
				g.send(g.client(), "GET", "/api/v1/auth/me", "", with("X-API-Key", k.Key)).want(401)
			}
		})
	}
}

func TestKey_expiry(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var k identity.NewKey
	g.admin("POST", "/api/v1/auth/keys", fmt.Sprintf(`{"name":"k","role":"viewer","expires_at":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))).want(201).json(&k)
	if k.ExpiresAt == nil {
		t.Fatal("the answer names no time")
	}
	me := func() answer {
		return g.send(g.client(), "GET", "/api/v1/auth/me", "", with("X-API-Key", k.Key))
	}
	me().want(200)
	g.now.Store(int64(2 * time.Hour))
	if p := me().problem(401); !strings.Contains(p.Detail, "expired") {
		t.Error(p.Detail)
	}
	p := g.admin("POST", "/api/v1/auth/keys", `{"name":"late","role":"viewer","expires_at":"2020-01-01T00:00:00Z"}`).problem(422)
	if !strings.Contains(p.Detail+fmt.Sprint(p.Errors), "future") {
		t.Errorf("%+v", p)
	}
}

func TestUserNamesAndPasswords(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("first", agented.RoleAdmin)
	add := func(name, password string) answer {
		return g.admin("POST", "/api/v1/auth/users", fmt.Sprintf(`{"name":%q,"password":%q,"role":"viewer"}`, name, password))
	}
	for _, name := range []string{"key AGENTED_API_KEY", "KEY\u00a0x", "execution exec-01", "system", "Server", "github mona", "user:root", "unknown", "webhook"} {
		if p := add(name, password).problem(422); !strings.Contains(fmt.Sprint(p.Errors), "reserved") {
			t.Errorf("%q: %+v", name, p.Errors)
		}
	}
	for _, weak := range []string{"1234567890", "password12", "aaaaaaaaaa", "x KEYSMITH y"} {
		add("keysmith", weak).problem(422)
	}
	add("keysmith", password).want(201)
	keysmith := g.loggedIn("keysmith")
	g.send(keysmith, "POST", "/api/v1/auth/password", `{"current":"`+password+`","new":"keysmith 2026"}`).problem(422)
}

func TestAuditNamesAddressAndFields(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	g.addUser("olga", agented.RoleOperator)
	olga := g.loggedIn("olga")
	id := g.trigger(`{"name":"t","backend":"command","command":["true"],"env":{"TOKEN":"aaaa-secret","OLD":"x"},"webhooks":[{"source":"github"}]}`)
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"enabled":true,"command":["false"],"timeout_seconds":5,"env":{"TOKEN":"bbbb-secret","NEW":"y"}}`).want(200)
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"command":["true"],"name":"other"}`).want(200)
	var a api.AgentView
	g.admin("POST", "/api/v1/agents", `{"name":"worker","backend":"claude","goals":"x"}`).want(201).json(&a)
	g.admin("PATCH", "/api/v1/agents/"+string(a.ID), `{"goals":"y"}`).want(200)
	var e api.Accepted
	g.send(olga, "POST", "/api/v1/triggers/"+id+"/run", "").want(202).json(&e)
	g.send(olga, "POST", "/api/v1/executions/"+string(e.ExecutionID)+"/cancel", "").want(202)
	g.send(olga, "POST", "/api/v1/executions/"+string(e.ExecutionID)+"/retry", "").want(202)
	g.admin("POST", "/api/v1/executions", `{"backend":"command","command":["true"]}`).want(202)
	var v api.TriggerView
	g.admin("GET", "/api/v1/triggers/"+id, "").want(200).json(&v)
	test := g.send(olga, "POST", "/api/v1/triggers/"+id+"/webhooks/"+v.Webhooks[0].ID+"/test", "").want(202).received()
	g.send(olga, "POST", "/api/v1/deliveries/"+string(test.DeliveryID)+"/replay", "").want(202)
	g.send(olga, "POST", "/api/v1/messages", `{"to":"agent:worker","body":"hi"}`).want(201)
	var sessions rest.ListOf[identity.SessionView]
	g.admin("GET", "/api/v1/auth/sessions?all=true", "").want(200).json(&sessions)
	g.admin("DELETE", "/api/v1/auth/sessions/"+string(sessions.Items[0].ID), "").want(204)

	var log rest.ListOf[api.AuditView]
	g.admin("GET", "/api/v1/audit?limit=200", "").want(200).json(&log)
	found := map[string]string{}
	for _, entry := range log.Items {
		if entry.Address == "" && entry.Actor != "test" { // the test's own keys are made in the store
			t.Errorf("%s by %s has no address", entry.Action, entry.Actor)
		}
		if strings.Contains(entry.Detail, "secret") {
			t.Errorf("a value: %+v", entry)
		}
		found[entry.Action] += entry.Actor + ": " + entry.Detail + "\n"
	}
	for action, says := range map[string]string{
		"trigger.update": "t; changed command, env.NEW, env.OLD, env.TOKEN, timeout_seconds", "agent.update": "worker; changed goals",
		"trigger.run": "olga: other", "execution.cancel": "olga: other", "execution.retry": "olga: other", "execution.create": "key admin key: true",
		"webhook.test": "olga: other", "delivery.replay": "olga: ", "message.send": "olga: to agent:worker", "session.revoke": "key admin key: ",
	} {
		if !strings.Contains(found[action], says) {
			t.Errorf("%s: %q, want %q", action, found[action], says)
		}
	}
	if !strings.Contains(found["trigger.update"], "other; changed command, name\n") {
		t.Errorf("trigger.update: %q", found["trigger.update"])
	}
}

func TestConversationFiles_quota(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.admin("POST", "/api/v1/agents", `{"name":"worker","backend":"claude"}`).want(201)
	var conversation struct {
		ID string `json:"id"`
	}
	g.admin("POST", "/api/v1/conversations", `{"agent":"worker"}`).want(201).json(&conversation)
	put := func(name, body string) answer {
		return g.do(agented.RoleOperator, "PUT", "/api/v1/conversations/"+conversation.ID+"/files/"+name, body, with("Content-Type", "application/octet-stream"))
	}
	for i := range 200 {
		put(fmt.Sprint("f", i), "x").want(204)
	}
	if p := put("one-more", "x").problem(413); !strings.Contains(p.Detail, "200 files") {
		t.Error(p.Detail)
	}
	put("f7", "replaced").want(204)
	large := strings.Repeat("x", 16<<20)
	stored := 0
	for i := range 20 {
		if a := put(fmt.Sprint("f", i), large); a.status == 204 {
			stored++
		} else {
			a.problem(413)
		}
	}
	if stored != 15 {
		t.Errorf("%d files of 16 MiB were stored, want 15 within 256 MiB beside the small ones", stored)
	}
}

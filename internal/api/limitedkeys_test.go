package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/identity"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
)

// limitedKeys decides for every operation what it is for an API key that is
// limited to triggers. A new operation must be added here.
var limitedKeys = map[string][]string{
	// No key is needed.
	"anyone": {
		"receive-webhook-by-secret", "create-first-user", "login", "receive-github-at-old-address", "get-liveness", "get-readiness",
		"receive-github", "receive-webhook", "receive-webhook-token", "login-page", "login-form", "logout-form", "setup-page", "setup-form",
	},
	// The same for all keys; nothing of a trigger is shown.
	"any": {"get-current-user", "get-info", "docs-page", "get-openapi-json", "get-openapi-yaml"},
	// Triggers of the key only.
	"trigger": {"get-trigger", "run-trigger", "list-trigger-ticks", "test-webhook"},
	// Executions of triggers of the key only.
	"execution": {
		"get-execution", "cancel-execution", "continue-execution", "pause-execution", "retry-execution", "pin-execution", "unpin-execution",
		"list-log-lines", "download-log", "search-log", "stream-execution",
		"get-changes", "download-patch", "get-changed-file", "download-artifact",
		"list-publications", "approve-publication", "reject-publication",
	},
	// The list contains what belongs to triggers of the key only.
	"filtered": {"list-triggers", "list-executions"},
	// 403.
	"": {
		"list-channels", "create-channel", "delete-channel", "get-channel", "update-channel", "test-channel", "list-notifications",
		"list-secrets", "create-secret", "delete-secret", "get-secret", "update-secret", "rotate-secret",
		"list-accounts", "create-account", "delete-account", "get-account", "update-account", "probe-account", "reset-account",
		"list-agents", "create-agent", "apply-agents", "delete-agent", "get-agent", "update-agent",
		"list-agent-inbox", "stream-agent-inbox", "acknowledge-message", "list-own-inbox", "stream-inbox", "acknowledge-own-message",
		"send-message", "get-message", "list-members", "add-list-member", "remove-list-member", "get-chain",
		"list-audit", "get-backup", "get-config", "get-drain", "set-drain", "reload-settings", "get-retention", "run-retention", "get-metrics",
		"list-keys", "create-key", "revoke-key", "logout", "change-password", "list-sessions", "revoke-session",
		"list-users", "create-user", "delete-user", "get-user", "update-user",
		"list-budgets", "create-budget", "delete-budget", "get-budget", "update-budget", "get-usage", "get-overview", "list-attention",
		"list-conversations", "create-conversation", "delete-conversation", "get-conversation", "close-conversation", "list-conversation-events",
		"upload-conversation-file", "interrupt-conversation", "send-conversation-message", "stream-conversation",
		"list-deliveries", "get-delivery", "replay-delivery", "match-webhooks", "list-pull-sources", "list-schedules", "preview-schedule", "list-ticks",
		"stream-events", "list-examples", "create-execution", "create-trigger", "update-trigger", "delete-trigger", "apply-triggers",
	},
}

// limited creates a key that is limited to triggers.
func (g *rig) limited(triggers ...string) string {
	g.t.Helper()
	body := fmt.Sprintf(`{"name":"limited %d","role":"operator","triggers":["%s"]}`, len(triggers), strings.Join(triggers, `","`))
	var k identity.NewKey
	g.admin("POST", "/api/v1/auth/keys", body).want(201).json(&k)
	if len(k.Triggers) != len(triggers) {
		g.t.Fatalf("the key is limited to %q", k.Triggers)
	}
	return k.Key
}

func TestLimitedKeys_operations(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	decided := map[string]string{}
	for reach, ids := range limitedKeys {
		for _, id := range ids {
			if _, twice := decided[id]; twice {
				t.Errorf("%s is decided twice", id)
			}
			decided[id] = reach
		}
	}
	own, foreign := g.trigger(`{"name":"own","backend":"command","command":["true"]}`), g.trigger(`{"name":"foreign","backend":"command","command":["true"]}`)
	runs := map[string]string{}
	for _, id := range []string{own, foreign} {
		var e api.Accepted
		g.admin("POST", "/api/v1/triggers/"+id+"/run", "").want(202).json(&e)
		runs[id] = string(e.ExecutionID)
	}
	adHoc := g.execution()
	key := with("X-API-Key", g.limited(own))
	inPath := regexp.MustCompile(`\{[a-z]+\}`)
	for path, methods := range g.document().Paths {
		for method, o := range methods {
			reach, known := decided[o.OperationID]
			switch {
			case !known:
				t.Errorf("%s %s: decide what %s is for keys that are limited to triggers", method, path, o.OperationID)
				continue
			case (reach == "anyone") != (o.Role == "anyone") || reach != "anyone" && reach != o.LimitedKeys:
				t.Errorf("%s is decided as %q, and the route is %q", o.OperationID, reach, o.LimitedKeys)
			}
			delete(decided, o.OperationID)
			call := func(id string) answer {
				body := ""
				if o.RequestBody != nil {
					body = `{` // the body is not read, and nothing starts
				}
				at := inPath.ReplaceAllString(strings.Replace(path, "{id}", id, 1), "none")
				return g.send(g.client(), strings.ToUpper(method), at, body, key, with("Accept", "application/json"), with("Last-Event-ID", "x"))
			}
			expect := func(what, id string, refused int) {
				if a := call(id); refused != 0 && a.status != refused || refused == 0 && (a.status == 401 || a.status == 403 || a.status == 404 && what == "own") {
					t.Errorf("%s of %s: %d %s", o.OperationID, what, a.status, a.body)
				}
			}
			switch reach {
			case "":
				expect("anything", own, http.StatusForbidden)
			case "trigger":
				expect("foreign", foreign, http.StatusNotFound)
				expect("none", "none", http.StatusNotFound)
				if o.OperationID != "test-webhook" { // the trigger has none
					expect("own", own, 0)
				}
			case "execution":
				expect("foreign", runs[foreign], http.StatusNotFound)
				expect("ad-hoc", adHoc, http.StatusNotFound)
				expect("none", "none", http.StatusNotFound)
				if !regexp.MustCompile(`\{id\}/(log|changes.|artifacts)|/search$`).MatchString(path) { // there is no log, and no change
					expect("own", runs[own], 0)
				}
			case "any", "filtered":
				expect("anything", "none", 0)
			}
		}
	}
	for id := range decided {
		t.Errorf("there is no operation %s", id)
	}
}

func TestLimitedKeys_lists(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var ids []string
	for _, name := range []string{"night a", "night b", "night c"} {
		id := g.trigger(`{"name":"` + name + `","backend":"command","command":["true"],"max_concurrent":0}`)
		ids = append(ids, id)
		for range 3 {
			g.admin("POST", "/api/v1/triggers/"+id+"/run", "").want(202)
		}
	}
	g.execution()
	key := with("X-API-Key", g.limited(ids[0], "night c")) // an id and a name
	for query, want := range map[string]struct{ triggers, executions int }{
		"":                        {2, 6},
		"?q=night":                {2, 6},
		"?q=night%20b":            {0, 0},
		"?name=night%20b":         {0, -1},
		"?name=night%20c":         {1, -1},
		"?trigger_id=" + ids[0]:   {-1, 3},
		"?trigger_id=" + ids[1]:   {-1, 0},
		"?status=pending":         {-1, 6},
		"?status=success,failed":  {-1, 0},
		"?q=night&status=pending": {-1, 6},
		"?q=exec-":                {-1, 0},
	} {
		var triggers rest.ListOf[api.TriggerView]
		if want.triggers >= 0 {
			if g.send(g.client(), "GET", "/api/v1/triggers"+query, "", key).want(200).json(&triggers); len(triggers.Items) != want.triggers {
				t.Errorf("triggers%s: %d", query, len(triggers.Items))
			}
		}
		if want.executions < 0 {
			continue
		}
		found, cursor := 0, ""
		for {
			at := "/api/v1/executions" + query + map[bool]string{true: "?", false: "&"}[query == ""] + "limit=4"
			if cursor != "" {
				at += "&cursor=" + cursor
			}
			var page rest.ListOf[api.ExecutionView]
			g.send(g.client(), "GET", at, "", key).want(200).json(&page)
			for _, e := range page.Items {
				if e.TriggerID == nil || string(*e.TriggerID) != ids[0] && string(*e.TriggerID) != ids[2] {
					t.Errorf("executions%s: one of %v", query, e.TriggerID)
				}
			}
			found += len(page.Items)
			if page.NextCursor == nil {
				break
			}
			cursor = *page.NextCursor
		}
		if found != want.executions {
			t.Errorf("executions%s: %d, want %d", query, found, want.executions)
		}
	}
	// A deleted trigger leaves the key without it, and never without limit.
	g.admin("DELETE", "/api/v1/triggers/"+ids[0], "").want(204)
	g.admin("DELETE", "/api/v1/triggers/"+ids[2], "").want(204)
	var triggers rest.ListOf[api.TriggerView]
	if g.send(g.client(), "GET", "/api/v1/triggers", "", key).want(200).json(&triggers); len(triggers.Items) != 0 {
		t.Errorf("after the end of its triggers it lists %d", len(triggers.Items))
	}
	g.send(g.client(), "GET", "/api/v1/triggers/"+ids[1], "", key).want(404)
}

func TestKey_addresses(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_TRUSTED_PROXIES=127.0.0.1"}})
	var k identity.NewKey
	g.admin("POST", "/api/v1/auth/keys", `{"name":"k","role":"viewer","addresses":["192.0.2.7","198.51.100.9/24","2001:db8::/32"]}`).want(201).json(&k)
	if got := fmt.Sprint(k.Addresses); got != "[192.0.2.7/32 198.51.100.0/24 2001:db8::/32]" {
		t.Errorf("addresses %s", got)
	}
	for from, status := range map[string]int{
		"": 403, "192.0.2.7": 200, "192.0.2.8": 403, "198.51.100.200": 200, "2001:db8::7": 200, "2001:db9::7": 403, "::ffff:192.0.2.7": 200, "192.0.2.7, 203.0.113.1": 403,
	} {
		var changes []change
		if from != "" {
			changes = append(changes, with("X-Forwarded-For", from))
		}
		a := g.send(g.client(), "GET", "/api/v1/auth/me", "", append(changes, with("X-API-Key", k.Key))...)
		if a.status != status {
			t.Errorf("from %q: %d %s", from, a.status, a.body)
		}
		if status == 403 && !strings.Contains(a.problem(403).Detail, "not valid from the address") {
			t.Errorf("from %q: %s", from, a.body)
		}
	}
}

func TestKey_owner_and_limits_are_checked(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("olga", agented.RoleOperator)
	var k identity.NewKey
	g.admin("POST", "/api/v1/auth/keys", `{"name":"hers","role":"operator","owner":"OLGA"}`).want(201).json(&k)
	if k.Owner == "" {
		t.Error("the key has no owner")
	}
	g.admin("PATCH", "/api/v1/auth/users/"+string(k.Owner), `{"disabled":true}`).want(200)
	g.send(g.client(), "GET", "/api/v1/auth/me", "", with("X-API-Key", k.Key)).want(401)
	trigger := g.trigger(hello)
	for body, says := range map[string]string{
		`{"name":"a","role":"operator","owner":"olga"}`:                                        "is disabled",
		`{"name":"b","role":"operator","owner":"nemo"}`:                                        "is not the id or the name of a user",
		`{"name":"c","role":"admin","triggers":["` + trigger + `"]}`:                           "must be viewer or operator",
		`{"name":"d","role":"viewer","triggers":["none"]}`:                                     "is not the id or the name of a trigger",
		`{"name":"e","role":"viewer","addresses":["192.0.2.0/33"]}`:                            "is not an address or a network",
		`{"name":"f","role":"viewer","addresses":["fe80::1%eth0"]}`:                            "is not an address or a network",
		`{"name":"g","role":"viewer","triggers":["` + strings.Repeat(`x","`, 50) + `x"]}`:      "too many items",
		`{"name":"h","role":"viewer","addresses":["` + strings.Repeat(`::1","`, 50) + `::1"]}`: "too many items",
	} {
		if p := g.admin("POST", "/api/v1/auth/keys", body).problem(422); !strings.Contains(fmt.Sprint(p.Errors), says) {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	g.addUser("vera", agented.RoleViewer)
	if p := g.admin("POST", "/api/v1/auth/keys", `{"name":"i","role":"operator","owner":"vera"}`).problem(422); !strings.Contains(fmt.Sprint(p.Errors), "higher than viewer") {
		t.Errorf("%+v", p.Errors)
	}
}

// TestLocalSocket_principal checks who the caller on the local socket is.
func TestLocalSocket_principal(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	who, err := auth.New(auth.Options{DB: g.db}).Identify(&http.Request{}, auth.Client{Process: &auth.Process{User: "ada"}})
	if err != nil || who.Name != "local ada" || who.Role != agented.RoleAdmin || who.Owner != "" {
		t.Errorf("%+v %v", who, err)
	}
	g.addUser("first", agented.RoleAdmin)
	if p := g.admin("POST", "/api/v1/auth/users", `{"name":"local ada","password":"`+password+`","role":"viewer"}`).problem(422); !strings.Contains(fmt.Sprint(p.Errors), "reserved") {
		t.Errorf("%+v", p.Errors)
	}
}

package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

// Objects that can be updated: where they are made, and an update.
var updatable = []struct{ noun, list, create, update, other string }{
	{
		"trigger", "/api/v1/triggers", `{"name":"a","backend":"command","command":["true"],"env":{"K":"secret-value"},"paths":["/tmp"],
		"schedules":[{"every":"15m"},{"cron":"0 3 * * *","zone":"Europe/Berlin"}],"messages":[{"to":"topic:x"}],
		"webhooks":[{"source":"webhook","auth":{"kind":"hmac","header":"X-Sig"},"secret":"0123456789abcdef"}]}`,
		`{"timeout_seconds":11}`, `{"max_concurrent":3}`,
	},
	{"agent", "/api/v1/agents", `{"name":"a","backend":"claude","env":{"K":"secret-value"},"args":["-x"]}`, `{"role":"r"}`, `{"goals":"g"}`},
	{"account", "/api/v1/accounts", `{"backend":"claude","name":"a","credentials":{"ANTHROPIC_API_KEY":"sk-ant-0123456789"}}`, `{"order":1}`, `{"max_concurrent":2}`},
	{"budget", "/api/v1/budgets", `{"name":"a","limit_usd":1}`, `{"limit_usd":2}`, `{"hard":true}`},
	{"user", "/api/v1/auth/users", `{"name":"a","password":"` + password + `","role":"viewer"}`, `{"role":"operator"}`, `{"disabled":true}`},
	{"secret", "/api/v1/secrets", `{"name":"a","value":"long-enough-value"}`, `{"triggers":["x"]}`, `{"repositories":["o/n"]}`},
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("first", agented.RoleAdmin)
	for _, o := range updatable {
		t.Run(o.noun, func(t *testing.T) {
			type view struct {
				ID, Name, ETag string
			}
			var v view
			g.admin("POST", o.list, o.create).want(201).json(&v)
			at := o.list + "/" + v.ID
			if v.ID == "" {
				at = o.list + "/" + v.Name
			}
			tag := func() string {
				var now view
				a := g.admin("GET", at, "").want(200).json(&now)
				if now.ETag == "" || a.header.Get("Etag") != `"`+now.ETag+`"` {
					t.Fatalf("etag %q, header %q", now.ETag, a.header.Get("Etag"))
				}
				return now.ETag
			}
			first := tag()
			if v.ETag != first {
				t.Errorf("created with %q, read as %q", v.ETag, first)
			}
			var list struct{ Items []view }
			g.admin("GET", o.list, "").want(200).json(&list)
			found := false
			for _, i := range list.Items {
				found = found || i.Name == "a" && i.ETag == first
			}
			if !found {
				t.Errorf("the list has another version than %q: %+v", first, list.Items)
			}

			a := g.admin("PATCH", at, o.update, with("If-Match", `"`+first+`"`)).want(200).json(&v)
			second := tag()
			if second == first || v.ETag != second || a.header.Get("Etag") != `"`+second+`"` {
				t.Errorf("updated from %q to %q, the response has %q and %q", first, second, v.ETag, a.header.Get("Etag"))
			}

			for _, old := range []string{`"` + first + `"`, `"x", "y"`, `W/"z"`, first} {
				stale := g.admin("PATCH", at, o.other, with("If-Match", old))
				p := stale.problem(412)
				now, _ := p.Current.(map[string]any)
				if p.Kind != agented.Conflict || now["etag"] != second || stale.header.Get("Etag") != `"`+second+`"` || !strings.Contains(p.Detail, second) {
					t.Errorf("If-Match %s: %+v, header %q", old, p, stale.header.Get("Etag"))
				}
				for _, hidden := range []string{"secret-value", "0123456789abcdef", "sk-ant-", "long-enough-value", "sealed:", password} {
					if strings.Contains(stale.body, hidden) {
						t.Errorf("the problem shows a secret: %s", stale.body)
					}
				}
			}
			if now := tag(); now != second {
				t.Errorf("a rejected update changed the object: %q", now)
			}
			for _, current := range []string{`"` + second + `"`, `"x" , "` + tag() + `"`, "*", ""} {
				g.admin("PATCH", at, o.update, with("If-Match", current)).want(200) // it changes nothing
			}
			if now := tag(); o.noun != "secret" && now != second {
				t.Errorf("an update to the same values changed the version from %q to %q", second, now)
			}
			g.admin("PATCH", at, o.other, with("If-Match", "*")).want(200)
			if tag() == second {
				t.Error("another value has the same version")
			}
		})
	}
}

// A state that changes by itself does not reject the update of a form.
func TestIfMatch_ignores_state(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(`{"name":"a","backend":"command","command":["true"],"schedules":[{"every":"1h"}]}`)
	var v struct{ ETag string }
	g.admin("GET", "/api/v1/triggers/"+id, "").want(200).json(&v)
	g.admin("POST", "/api/v1/triggers/"+id+"/run", "").want(202)
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"timeout_seconds":5}`, with("If-Match", `"`+v.ETag+`"`)).want(200)
}

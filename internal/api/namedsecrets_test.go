package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

const hiddenValue = "the-hidden-value-of-a-secret"

type secretView struct {
	Name, Source string
	Version      int
	Versions     []struct{ Number int }
	Users        []string
	Triggers     []string
}

func TestNamedSecrets_are_write_only(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var got secretView
	first := g.admin("POST", "/api/v1/secrets", `{"name":"github","value":"`+hiddenValue+`","triggers":["nightly"]}`).want(201)
	if first.json(&got); got.Name != "github" || got.Source != "stored" || got.Version != 1 || len(got.Triggers) != 1 {
		t.Errorf("made %+v", got)
	}
	if known, err := g.api.StoredSecrets(); err != nil || len(known) != 1 || known[0] != hiddenValue {
		t.Errorf("values to mask: %q, %v", known, err)
	}
	for _, a := range []answer{
		first,
		g.admin("GET", "/api/v1/secrets", "").want(200),
		g.admin("GET", "/api/v1/secrets/GitHub", "").want(200),
		g.admin("PATCH", "/api/v1/secrets/github", `{"triggers":[]}`).want(200),
		g.admin("GET", "/api/v1/audit", "").want(200),
	} {
		if strings.Contains(a.body, hiddenValue) || strings.Contains(a.body, "sealed:") {
			t.Errorf("an answer shows the value: %s", a.body)
		}
	}
	for _, role := range []agented.Role{agented.RoleViewer, agented.RoleOperator} {
		g.do(role, "GET", "/api/v1/secrets", "").want(403)
		g.do(role, "GET", "/api/v1/secrets/github", "").want(403)
		g.do(role, "PATCH", "/api/v1/secrets/github", `{"value":"another-value"}`).want(403)
	}
	for _, body := range []string{
		`{"name":"GITHUB","value":"` + hiddenValue + `"}`,
	} {
		g.admin("POST", "/api/v1/secrets", body).want(409)
	}
	for _, body := range []string{
		`{"name":"x"}`, `{"name":"x","value":""}`, `{"name":"x","value":"short"}`, `{"name":"x","value":"a\nb\nc\nd\ne\nf\ng"}`, `{"name":"-x","value":"long-enough"}`,
		`{"name":"x","value":"long-enough","file":"/x"}`, `{"name":"x","file":"../x"}`, `{"name":"x","command":["./x"]}`,
		`{"name":"x","value":"long-enough","triggers":["["]}`, `{"name":"x","value":"long-enough","repositories":["name"]}`,
	} {
		if a := g.admin("POST", "/api/v1/secrets", body).want(422); strings.Contains(a.body, "long-enough") {
			t.Errorf("a problem shows the value: %s", a.body)
		}
	}
	g.admin("POST", "/api/v1/secrets/github/rotate", `{"value":"`+hiddenValue+`"}`).want(409)
	g.admin("POST", "/api/v1/secrets/github/rotate", `{"value":"the-next-value-of-it"}`).want(200).json(&got)
	if got.Version != 2 || len(got.Versions) != 2 {
		t.Errorf("rotated: %+v", got)
	}
	g.admin("POST", "/api/v1/secrets/github/rotate", `{"previous":true}`).want(200).json(&got)
	if known, err := g.api.StoredSecrets(); err != nil || got.Version != 3 || len(known) != 2 || known[0] != hiddenValue {
		t.Errorf("restored: %+v, %q, %v", got, known, err)
	}
	g.admin("DELETE", "/api/v1/secrets/github", "").want(204)
	g.admin("GET", "/api/v1/secrets/github", "").want(404)
}

// References are checked when they are saved, and shown as they were written.
func TestNamedSecrets_references(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.admin("POST", "/api/v1/secrets", `{"name":"github","value":"`+hiddenValue+`"}`).want(201)
	const trigger = `{"name":"t","backend":"command","command":["true"],"env":{"TOKEN":{"secret":"NAME"}}}`
	const agent = `{"name":"a","backend":"claude","workspace":{"repository":"https://github.com/acme/web","credential":{"secret":"NAME"}}}`
	const account = `{"backend":"claude","name":"c","credentials":{"ANTHROPIC_API_KEY":{"secret":"NAME"}}}`
	for _, c := range []struct{ path, body, field string }{
		{"/api/v1/triggers", trigger, "env.TOKEN"},
		{"/api/v1/triggers?dry_run=true", trigger, "env.TOKEN"},
		{"/api/v1/agents", agent, "workspace.credential"},
		{"/api/v1/accounts", account, "credentials.ANTHROPIC_API_KEY"},
		{"/api/v1/executions", strings.Replace(trigger, `"name":"t",`, "", 1), "env.TOKEN"},
	} {
		a := g.admin("POST", c.path, strings.Replace(c.body, "NAME", "githbu", 1)).want(422)
		if !strings.Contains(a.body, c.field) || !strings.Contains(a.body, `there is no secret \"githbu\"`) {
			t.Errorf("%s: %s", c.path, a.body)
		}
		g.admin("POST", c.path, strings.Replace(c.body, `{"secret":"NAME"}`, `"secret:v1:github"`, 1)).want(422)
	}
	var made struct{ ID string }
	g.admin("POST", "/api/v1/triggers", strings.Replace(trigger, "NAME", "github", 1)).want(201).json(&made)
	g.admin("POST", "/api/v1/agents", strings.Replace(agent, "NAME", "github", 1)).want(201)
	g.admin("POST", "/api/v1/accounts", strings.Replace(account, "NAME", "github", 1)).want(201)
	at := "/api/v1/triggers/" + made.ID
	g.admin("PATCH", at, `{"env":{"TOKEN":"***","LANG":{"value":"C","secret":false}}}`).want(200)
	for path, want := range map[string]string{
		at: `"TOKEN":{"secret":"github"}`, "/api/v1/agents/a": `"credential":{"secret":"github"}`, "/api/v1/accounts": `"ANTHROPIC_API_KEY":{"secret":"github"}`,
	} {
		if a := g.do(agented.RoleViewer, "GET", path, "").want(200); !strings.Contains(a.body, want) {
			t.Errorf("%s does not show %s: %s", path, want, a.body)
		}
	}
	a := g.admin("DELETE", "/api/v1/secrets/github", "").want(409)
	for _, user := range []string{"trigger t", "agent a", "account claude/c"} {
		if !strings.Contains(a.body, user) {
			t.Errorf("%q is missing in %s", user, a.body)
		}
	}
	var got secretView
	g.admin("GET", "/api/v1/secrets/github", "").want(200).json(&got)
	if len(got.Users) != 3 {
		t.Errorf("users %v", got.Users)
	}
}

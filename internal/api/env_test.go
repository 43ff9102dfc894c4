package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/redact"
)

func TestEnvValues(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	const env = `{"HOOK":"https://example.org/hook","DIR":{"value":"/srv/project","secret":false},"LONG":{"value":"long form","secret":true},"HOME":null}`
	shown := func(role agented.Role, at string) string {
		t.Helper()
		var v struct {
			Env json.RawMessage `json:"env"`
		}
		g.do(role, "GET", at, "").want(200).json(&v)
		return string(v.Env)
	}
	const want = `{"DIR":{"value":"/srv/project","secret":false},"HOME":null,"HOOK":"***","LONG":"***"}`
	for _, kind := range []string{"triggers", "agents"} {
		at := "/api/v1/" + kind
		var made struct {
			ID string `json:"id"`
		}
		prompt := map[string]string{"triggers": `"prompt":"x",`}[kind]
		g.admin("POST", at, `{"name":"env","backend":"claude",`+prompt+`"env":`+env+`}`).want(201).json(&made)
		at += "/" + made.ID
		t.Run(kind+"/show_plain_values_only", func(t *testing.T) {
			for _, role := range []agented.Role{agented.RoleViewer, agented.RoleAdmin} {
				if got := shown(role, at); got != want {
					t.Errorf("%s: %s, want %s", role, got, want)
				}
			}
		})
		t.Run(kind+"/shown_values_change_nothing", func(t *testing.T) {
			before := g.admin("GET", at, "").body
			g.admin("PATCH", at, `{"env":`+want+`}`).want(200)
			if after := g.admin("GET", at, "").body; string(after) != string(before) {
				t.Errorf("before %s\nafter %s", before, after)
			}
		})
		t.Run(kind+"/stored_secret_cannot_become_plain", func(t *testing.T) {
			p := g.admin("PATCH", at, `{"env":{"HOOK":{"value":"***","secret":false}}}`).problem(422)
			if len(p.Errors) != 1 || p.Errors[0].Location != "body.env.HOOK" || !strings.Contains(p.Errors[0].Message, "send the value") {
				t.Errorf("%+v", p)
			}
			if got := shown(agented.RoleAdmin, at); got != want {
				t.Errorf("a refused change changed something: %s", got)
			}
		})
		t.Run(kind+"/plain_value_can_become_secret", func(t *testing.T) {
			g.admin("PATCH", at, `{"env":{"DIR":"***"}}`).want(200)
			if got := shown(agented.RoleAdmin, at); !strings.Contains(got, "/srv/project") {
				t.Errorf("*** alone changed the mark: %s", got)
			}
			g.admin("PATCH", at, `{"env":{"DIR":{"value":"***","secret":true}}}`).want(200)
			if got := shown(agented.RoleAdmin, at); got != `{"DIR":"***"}` {
				t.Errorf("still plain: %s", got)
			}
		})
	}
	t.Run("other_forms_are_refused", func(t *testing.T) {
		for _, bad := range []string{`1`, `true`, `[]`, `{}`, `{"value":null,"secret":false}`, `{"value":"x","secret":"no"}`, `{"value":"x","secrets":false}`} {
			p := g.admin("POST", "/api/v1/triggers", `{"name":"bad","backend":"command","command":["true"],"env":{"A":`+bad+`}}`).problem(422)
			if len(p.Errors) != 1 || p.Errors[0].Location != "body.env.A" || !strings.Contains(p.Errors[0].Message, "{value: TEXT, secret: false}") {
				t.Errorf("%s: %+v", bad, p)
			}
		}
	})
	t.Run("workspace_credential_stays_secret", func(t *testing.T) {
		p := g.admin("POST", "/api/v1/triggers", `{"name":"work","backend":"claude","prompt":"x","workspace":{"repository":"https://example.org/r.git","credential":"GIT"},"env":{"GIT":{"value":"ghp_of_the_repo","secret":false}}}`).problem(422)
		if len(p.Errors) != 1 || p.Errors[0].Location != "body.env.GIT" {
			t.Errorf("%+v", p)
		}
	})
	t.Run("viewers_see_no_secret_of_the_server", func(t *testing.T) {
		g.masker.Store(redact.New([]string{"known-secret-value"}))
		id := g.trigger(`{"name":"view","backend":"command","command":["true"],"env":{"A":{"value":"a known-secret-value","secret":false}}}`)
		if got := shown(agented.RoleViewer, "/api/v1/triggers/"+id); got != `{"A":{"value":"a ***","secret":false}}` {
			t.Errorf("env = %s", got)
		}
	})
	t.Run("apply_of_the_shown_is_unchanged", func(t *testing.T) {
		g.trigger(`{"name":"same","backend":"command","command":["true"],"env":` + env + `}`)
		var out api.AppliedAll[api.TriggerView]
		g.admin("POST", "/api/v1/triggers/apply", `{"items":[{"name":"same","env":`+want+`}]}`).want(200).json(&out)
		if len(out.Items) != 1 || out.Items[0].Action != "unchanged" {
			t.Errorf("%+v", out.Items)
		}
	})
}

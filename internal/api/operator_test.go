package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
)

// TestOperator_chooses_no_code verifies that an operator runs only what an
// admin wrote: no commit of the operator's choice, and no earlier settings.
func TestOperator_chooses_no_code(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	view := func(id agented.ExecutionID) api.ExecutionView {
		t.Helper()
		var v api.ExecutionView
		g.admin("GET", "/api/v1/executions/"+string(id), "").want(200).json(&v)
		return v
	}
	test := func(role agented.Role, trigger, body string) answer {
		t.Helper()
		var v api.TriggerView
		g.admin("GET", "/api/v1/triggers/"+trigger, "").want(200).json(&v)
		return g.do(role, "POST", "/api/v1/triggers/"+trigger+"/webhooks/"+v.Webhooks[0].ID+"/test", body)
	}
	const foreign = `{"body":{"ref":"refs/heads/main","after":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","repository":{"full_name":"o/r"},"sender":{"login":"maintainer"},"pusher":{"name":"maintainer"}}}`
	hook := `{"source":"github","match":{"events":["push"]}}`
	plain := g.trigger(hookTrigger("plain", hook))
	var agent api.AgentView
	g.admin("POST", "/api/v1/agents", `{"name":"worker","backend":"claude","workspace":{"repository":"https://example.org/o/r"}}`).want(201).json(&agent)
	works := map[string]string{
		"own":   g.trigger(strings.Replace(hookTrigger("own", hook), `{"name"`, `{"workspace":{"repository":"https://example.org/o/r"},"name"`, 1)),
		"agent": g.trigger(`{"name":"by agent","agent":"worker","prompt":"go","webhooks":[` + hook + `]}`),
	}

	t.Run("test_body", func(t *testing.T) {
		for name, id := range works {
			if p := test(agented.RoleOperator, id, foreign).problem(403); !strings.Contains(p.Detail, "commit") {
				t.Errorf("%s: %s", name, p.Detail)
			}
			test(agented.RoleOperator, id, "").want(202)
			got := test(agented.RoleAdmin, id, foreign).want(202).received()
			if v := view(got.ExecutionIDs[0]); v.Actor != "key admin key" {
				t.Errorf("%s: the actor is %q", name, v.Actor)
			}
			p := g.do(agented.RoleOperator, "POST", "/api/v1/deliveries/"+string(got.DeliveryID)+"/replay", "").problem(403)
			if !strings.Contains(p.Detail, "replay a test") {
				t.Error(p.Detail)
			}
			g.admin("POST", "/api/v1/deliveries/"+string(got.DeliveryID)+"/replay", "").want(202)
		}
	})
	t.Run("actor_is_the_person", func(t *testing.T) {
		got := test(agented.RoleOperator, plain, foreign).want(202).received()
		if v := view(got.ExecutionIDs[0]); v.Actor != "key operator key" {
			t.Errorf("the actor of a test is %q", v.Actor)
		}
		genuine := g.github(hookSecret, "push", "1", `{"ref":"refs/heads/main","after":"`+strings.Repeat("b", 40)+`","repository":{"full_name":"o/r"},"sender":{"login":"mona"},"pusher":{"name":"mona"}}`).want(202).received()
		if v := view(genuine.ExecutionIDs[0]); v.Actor != "github mona" {
			t.Errorf("the actor of a genuine call is %q", v.Actor)
		}
		again := g.do(agented.RoleOperator, "POST", "/api/v1/deliveries/"+string(genuine.DeliveryID)+"/replay", "").want(202).received()
		if v := view(again.ExecutionIDs[0]); v.Actor != "key operator key" {
			t.Errorf("the actor of a replay is %q", v.Actor)
		}
	})
	t.Run("retry", func(t *testing.T) {
		var a api.Accepted
		g.admin("POST", "/api/v1/executions", `{"backend":"command","command":["true"]}`).want(202).json(&a)
		g.admin("POST", "/api/v1/executions/"+string(a.ExecutionID)+"/cancel", "").want(202)
		if v := view(a.ExecutionID); v.RetryRole != agented.RoleAdmin || v.RetryNote == "" {
			t.Errorf("an ad-hoc execution says %q, %q", v.RetryRole, v.RetryNote)
		}
		p := g.do(agented.RoleOperator, "POST", "/api/v1/executions/"+string(a.ExecutionID)+"/retry", "").problem(403)
		if !strings.Contains(p.Detail, "only an admin can start or retry") {
			t.Error(p.Detail)
		}
		g.admin("POST", "/api/v1/executions/"+string(a.ExecutionID)+"/retry", "").want(202)

		id := g.execution()
		if v := view(agented.ExecutionID(id)); v.RetryRole != "" {
			t.Errorf("an execution that waits says %q", v.RetryRole)
		}
		g.admin("POST", "/api/v1/executions/"+id+"/cancel", "").want(202)
		if v := view(agented.ExecutionID(id)); v.RetryRole != agented.RoleOperator || v.RetryNote != "" {
			t.Errorf("an execution of a trigger says %q, %q", v.RetryRole, v.RetryNote)
		}
		g.do(agented.RoleOperator, "POST", "/api/v1/executions/"+id+"/retry", "").want(202)
	})
}

package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestAccountRefs(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for what, c := range map[string]struct{ path, body, field string }{
		"trigger":  {"/api/v1/triggers", `{"name":"a","backend":"claude","prompt":"x","account":"nobody"}`, "account"},
		"fallback": {"/api/v1/triggers", `{"name":"b","backend":"claude","prompt":"x","fallback":[{"backend":"codex","account":"nobody"}]}`, "fallback.0.account"},
		"agent":    {"/api/v1/agents", `{"name":"c","backend":"claude","account":"nobody"}`, "account"},
		"ad hoc":   {"/api/v1/executions", `{"backend":"claude","prompt":"x","account":"nobody"}`, "account"},
	} {
		if p := g.do(agented.RoleAdmin, "POST", c.path, c.body).problem(422); len(p.Errors) != 1 || !strings.HasSuffix(p.Errors[0].Location, c.field) || !strings.Contains(p.Errors[0].Message, "nobody") {
			t.Errorf("%s: %+v", what, p)
		}
	}
	g.admin("POST", "/api/v1/accounts", `{"backend":"claude","name":"team","credentials":{"ANTHROPIC_API_KEY":"sk-ant-0123456789"}}`).want(201)
	g.admin("POST", "/api/v1/triggers", `{"name":"d","backend":"claude","prompt":"x","account":"TEAM"}`).want(201)
	g.do(agented.RoleAdmin, "POST", "/api/v1/triggers", `{"name":"e","backend":"codex","prompt":"x","account":"team"}`).problem(422)
	g.admin("POST", "/api/v1/triggers", `{"name":"f","backend":"claude","prompt":"x","account":"default"}`).want(201)
}

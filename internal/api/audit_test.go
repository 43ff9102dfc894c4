package api_test

import (
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
)

func TestAudit_pages(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(`{"name":"audited","backend":"command","command":["/bin/true"]}`)
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"enabled":false}`).want(200)
	g.admin("DELETE", "/api/v1/triggers/"+id, "").want(204)

	var got []api.AuditView
	cursor := ""
	for range 100 {
		var page rest.ListOf[api.AuditView]
		g.admin("GET", "/api/v1/audit?limit=1&cursor="+cursor, "").want(200).json(&page)
		got = append(got, page.Items...)
		if page.NextCursor == nil {
			break
		}
		cursor = *page.NextCursor
	}
	var actions []string
	for i, a := range got {
		if a.Subject == id {
			actions = append(actions, a.Action)
		}
		if a.ID == "" || a.At.IsZero() || a.Actor == "" {
			t.Errorf("entry %d says too little: %+v", i, a)
		}
		if i > 0 && got[i-1].ID <= a.ID {
			t.Errorf("%s comes after %s, but the newest are first", a.ID, got[i-1].ID)
		}
	}
	want := []string{"trigger.delete", "trigger.update", "trigger.create"}
	if len(actions) != 3 || actions[0] != want[0] || actions[1] != want[1] || actions[2] != want[2] {
		t.Errorf("of the trigger: %v, want %v", actions, want)
	}
}

func TestAudit_requires_admin(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.do(agented.RoleNone, "GET", "/api/v1/audit", "").problem(401)
	g.do(agented.RoleViewer, "GET", "/api/v1/audit", "").problem(403)
	g.do(agented.RoleOperator, "GET", "/api/v1/audit", "").problem(403)
	if p := g.admin("GET", "/api/v1/audit?cursor=nonsense", "").problem(422); p.Errors[0].Location != "query.cursor" {
		t.Errorf("a bad cursor is at %q", p.Errors[0].Location)
	}
}

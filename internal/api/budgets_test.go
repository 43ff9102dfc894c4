package api_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// spent records an execution of codex that just ended with a cost.
func (g *rig) spent(usd *float64) {
	g.t.Helper()
	now := time.Now().UTC()
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "x", Backend: agented.BackendCodex, Source: agented.SourceManual,
		Snapshot: agented.Spec{Backend: agented.BackendCodex}, CreatedAt: now, ScheduledAt: now,
	}
	if _, err := g.db.Admit(g.t.Context(), store.Admission{Execution: e}, now); err != nil {
		g.t.Fatal(err)
	}
	c, err := g.db.Claim(g.t.Context(), "node-test", 10, now, time.Minute)
	if err != nil || c == nil {
		g.t.Fatalf("%v %v", c, err)
	}
	_, err = g.db.EndAttempt(g.t.Context(), store.AttemptEnd{
		Attempt: agented.Attempt{Execution: c.ID, Number: 1, State: agented.StateSuccess, Usage: agented.Usage{CostUSD: usd}, StartedAt: now, FinishedAt: now},
		Next:    agented.StateSuccess,
	}, c.Lease, now)
	if err != nil {
		g.t.Fatal(err)
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.do(agented.RoleOperator, "POST", "/api/v1/budgets", `{"name":"x","limit_usd":1}`).problem(403)
	var b api.BudgetView
	made := g.admin("POST", "/api/v1/budgets", `{"name":"everything","limit_usd":10}`).want(201).json(&b)
	if b.Scope != agented.BudgetAll || b.Period != agented.PeriodMonth || b.WarnPercent != 80 || b.Hard || !b.Enabled || b.State != "ok" || b.PeriodEnds.IsZero() {
		t.Errorf("the defaults: %+v", b)
	}
	at := made.header.Get("Location")
	usd := 9.0
	g.spent(&usd)
	g.spent(nil)
	g.do(agented.RoleViewer, "GET", at, "").want(200).json(&b)
	if b.SpentUSD != 9 || b.UnknownCost != 1 || b.State != "near" {
		t.Errorf("spent: %+v", b)
	}
	g.admin("PATCH", at, `{"limit_usd":5,"hard":true}`).want(200).json(&b)
	if b.LimitUSD != 5 || !b.Hard || b.State != "reached" || b.Name != "everything" {
		t.Errorf("changed: %+v", b)
	}
	g.admin("POST", "/api/v1/budgets", `{"name":"EVERYTHING","limit_usd":1}`).problem(409)
	for body, where := range map[string]string{
		`{"name":"y"}`: "body.limit_usd", `{"name":"y","limit_usd":-1}`: "body.limit_usd", `{"limit_usd":1}`: "body.name",
		`{"name":"y","limit_usd":1,"scope":"trigger"}`:                     "body.target",
		`{"name":"y","limit_usd":1,"scope":"trigger","target":"trg-none"}`: "body.target",
		`{"name":"y","limit_usd":1,"period":"year"}`:                       "body.period",
		`{"name":"y","limit_usd":1,"pause":true}`:                          "body.pause",
		`{"name":"y","limit_usd":1,"warn_percent":100}`:                    "body.warn_percent",
	} {
		if p := g.admin("POST", "/api/v1/budgets", body).problem(422); len(p.Errors) != 1 || p.Errors[0].Location != where {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	var list rest.ListOf[api.BudgetView]
	g.do(agented.RoleViewer, "GET", "/api/v1/budgets", "").want(200).json(&list)
	if len(list.Items) != 1 || list.NextCursor != nil {
		t.Errorf("%+v", list)
	}
	g.admin("DELETE", at, "").want(204)
	g.admin("GET", at, "").problem(404)
	g.admin("PATCH", at, `{}`).problem(404)
	g.admin("DELETE", at, "").problem(404)
}

func TestUsage_unknown_cost(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.spent(nil)
	answer := g.do(agented.RoleViewer, "GET", "/api/v1/usage?by=backend", "").want(200)
	var r api.UsageReport
	answer.json(&r)
	if len(r.Items) != 1 || r.Items[0].CostUSD != nil || r.Items[0].UnknownCost != 1 || !strings.Contains(answer.body, `"cost_usd":null`) {
		t.Errorf("%s", answer.body)
	}
	usd := 1.5
	g.spent(&usd)
	g.do(agented.RoleViewer, "GET", "/api/v1/usage", "").want(200).json(&r)
	if last := r.Items[len(r.Items)-1]; r.By != "day" || len(r.Items) < 30 || last.Attempts != 2 || *last.CostUSD != 1.5 {
		t.Errorf("by day: %+v", r)
	}
	g.do(agented.RoleViewer, "GET", "/api/v1/usage?by=nothing", "").problem(422)
	for _, query := range []string{"from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z", "from=2020-01-01T00:00:00Z"} {
		if a := g.do(agented.RoleViewer, "GET", "/api/v1/usage?"+query, ""); a.status != 400 && a.status != 422 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestPause_requires_running_execution(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	at := "/api/v1/executions/" + g.execution()
	for _, verb := range []string{"pause", "continue"} {
		g.do(agented.RoleViewer, "POST", at+"/"+verb, "").problem(403)
		g.do(agented.RoleOperator, "POST", at+"/"+verb, "").problem(409)
		g.do(agented.RoleOperator, "POST", at+"/"+verb, `{}`).problem(409)
		g.do(agented.RoleOperator, "POST", "/api/v1/executions/exec-00000000000000000000000000/"+verb, "").problem(404)
	}
	g.do(agented.RoleOperator, "POST", at+"/pause", `{"seconds":-1}`).problem(422)
}

// pauses is a dispatcher that pauses and continues executions without processes.
type pauses struct {
	api.Dispatcher
	db *store.DB
}

func (p pauses) Pause(ctx context.Context, id agented.ExecutionID, _ dispatch.Pausing) (*agented.Execution, error) {
	return p.db.Execution(ctx, id)
}

func (p pauses) Continue(ctx context.Context, id agented.ExecutionID, _ dispatch.Continuing) (*agented.Execution, error) {
	return p.db.Execution(ctx, id)
}

func TestAudit_pause_and_continue(t *testing.T) {
	t.Parallel()
	g := start(t, settings{options: func(o *api.Options) { o.Dispatch = pauses{o.Dispatch, o.DB} }})
	trigger := g.trigger(`{"name":"audited","backend":"command","command":["true"]}`)
	var made api.Accepted
	g.admin("POST", "/api/v1/triggers/"+trigger+"/run", "").want(202).json(&made)
	at := "/api/v1/executions/" + string(made.ExecutionID)
	for _, verb := range []string{"pause", "continue"} {
		g.do(agented.RoleOperator, "POST", at+"/"+verb, "").want(200)
	}
	g.admin("POST", at+"/pause", `{"reason":"lunch"}`).want(200)
	g.admin("POST", at+"/continue", `{"ceiling_usd":2}`).want(200)
	var list rest.ListOf[api.AuditView]
	g.admin("GET", "/api/v1/audit", "").want(200).json(&list)
	var got []string
	for _, a := range list.Items {
		if a.Subject == string(made.ExecutionID) {
			got = append(got, a.Action+" "+a.Detail)
			if a.Actor == "" {
				t.Errorf("no actor: %+v", a)
			}
		}
	}
	want := []string{"execution.continue audited: ceiling $2.00", "execution.pause audited: lunch", "execution.continue audited", "execution.pause audited"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTriggers_workspace(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var v api.TriggerView
	made := g.admin("POST", "/api/v1/triggers", `{"name":"w","backend":"command","command":["true"],"ceiling_usd":2.5,
		"workspace":{"repository":"https://host/{repo_full_name}","depth":3,"paths":["a/b"],"credential":"T"},"env":{"T":"secret-token-1"}}`).want(201)
	made.json(&v)
	if v.Workspace == nil || v.Workspace.Depth != 3 || v.CeilingUSD != 2.5 || strings.Contains(made.body, "secret-token-1") {
		t.Errorf("%s", made.body)
	}
	at := "/api/v1/triggers/" + string(v.ID)
	v = api.TriggerView{}
	g.admin("PATCH", at, `{"workspace":null}`).want(200).json(&v)
	if v.Workspace != nil {
		t.Errorf("%+v", v.Workspace)
	}
	for body, where := range map[string]string{
		`{"workspace":{"repository":"--upload-pack=x"}}`:                  "body.workspace.repository",
		`{"workspace":{"repository":"https://h/x","ref":"../x"}}`:         "body.workspace.ref",
		`{"workspace":{"repository":"https://h/x"},"working_dir":"/tmp"}`: "body.workspace",
		`{"workspace":{"repository":"https://h/x","credential":"NONE"}}`:  "body.workspace.credential",
		`{"workspace":{"repository":"https://h/x","paths":["../out"]}}`:   "body.workspace.paths.0",
	} {
		if p := g.admin("PATCH", at, body).problem(422); len(p.Errors) != 1 || p.Errors[0].Location != where {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
}

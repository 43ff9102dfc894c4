package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/attention"
	"github.com/agented/agented/internal/store"
)

func TestAttention(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	list := func(role agented.Role) (out attention.NeedList) {
		g.do(role, "GET", "/api/v1/attention", "").want(200).json(&out)
		return out
	}
	if got := list(agented.RoleViewer); len(got.Items) != 0 || got.Urgent != 0 {
		t.Fatalf("a new server needs %+v", got)
	}

	// A trigger that GitHub cannot fire, and one that is off.
	hook := `"backend":"command","command":["true"],"webhooks":[{"source":"github"}]`
	id := g.trigger(`{"name":"review",` + hook + `}`)
	g.trigger(`{"name":"off","enabled":false,` + hook + `}`)
	// A budget below its limit needs no action.
	g.admin("POST", "/api/v1/budgets", `{"name":"all","limit_usd":5}`).want(201)

	// An account whose credentials are rejected, and the execution that waits for it.
	var account struct{ ID agented.AccountID }
	g.admin("POST", "/api/v1/accounts", `{"backend":"claude","name":"spare","credentials":{"ANTHROPIC_API_KEY":"sk-ant-0123456789"}}`).want(201).json(&account)
	now := time.Now().UTC()
	claimed := func() *agented.Execution {
		t.Helper()
		e, err := g.db.Claim(t.Context(), "node-test", 10, time.Now().UTC().Add(time.Second), time.Minute)
		if err != nil || e == nil {
			t.Fatalf("claim: %v, %v", e, err)
		}
		return e
	}
	g.admin("POST", "/api/v1/executions", `{"name":"parked","backend":"claude","account":"spare","prompt":"x"}`).want(202)
	e := claimed()
	attempt := e.Attempts[len(e.Attempts)-1]
	attempt.State, attempt.Class, attempt.Evidence, attempt.FinishedAt = agented.StateFailed, agented.ClassAuth, "Invalid API key", now
	if _, err := g.db.EndAttempt(t.Context(), store.AttemptEnd{Attempt: attempt, Next: agented.StateFailed, Retry: &agented.RetryPolicy{}, Limit: agented.Limit{Class: agented.ClassAuth}}, e.Lease, now); err != nil {
		t.Fatal(err)
	}

	// A paused execution with a question.
	exec := g.execution()
	e = claimed()
	if string(e.ID) != exec {
		t.Fatalf("claimed %s", e.ID)
	}
	pause := agented.Pause{At: now, Until: now.Add(time.Hour), Question: agented.QuestionCeiling, SpentUSD: 2, LimitUSD: 1}
	if err := g.db.Paused(t.Context(), e.ID, e.Lease, pause); err != nil {
		t.Fatal(err)
	}

	got := list(agented.RoleAdmin)
	var kinds []string
	for _, i := range got.Items {
		kinds = append(kinds, string(i.Kind)+" "+i.ID)
	}
	want := "paused " + exec + ", account " + string(account.ID) + ", trigger " + id
	if s := strings.Join(kinds, ", "); s != want {
		t.Fatalf("items %s, want %s", s, want)
	}
	if p := got.Items[0]; !p.Urgent || p.Question != agented.QuestionCeiling || *p.SpentUSD != 2 || p.Until == nil || !strings.Contains(p.Text, "$2") {
		t.Errorf("paused: %+v", p)
	}
	if a := got.Items[1]; !a.Urgent || a.Waiting != 1 || a.Name != "claude/spare" || !strings.Contains(a.Text, "Invalid API key") {
		t.Errorf("account: %+v", a)
	}
	if h := got.Items[2]; !h.Urgent || h.Fix == "" {
		t.Errorf("trigger: %+v", h)
	}
	if seen := list(agented.RoleViewer); len(seen.Items) != 3 || seen.Items[2].Fix != "" {
		t.Errorf("a viewer sees %+v", seen.Items)
	}

	// Paused executions have a filter of their own.
	var page struct{ Items []struct{ ID string } }
	for query, want := range map[string]int{"status=paused": 1, "status=paused,failed": 1, "status=paused&q=t": 1, "status=paused&q=other": 0, "status=failed": 0} {
		g.admin("GET", "/api/v1/executions?"+query, "").want(200).json(&page)
		if len(page.Items) != want {
			t.Errorf("%s: %d executions, want %d", query, len(page.Items), want)
		}
	}
	g.admin("GET", "/api/v1/executions?status=asleep", "").problem(422)
}

func TestAttention_overdue(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(`{"name":"nightly","backend":"command","command":["true"],"expect_every":"1m"}`)
	g.admin("POST", "/api/v1/triggers", `{"name":"x","backend":"command","command":["true"],"expect_every":"26"}`).want(422)
	if _, err := g.db.NotifyAbsent(t.Context(), time.Now().UTC().Add(61*time.Second)); err != nil {
		t.Fatal(err)
	}
	var out attention.NeedList
	g.do(agented.RoleViewer, "GET", "/api/v1/attention", "").want(200).json(&out)
	if len(out.Items) != 1 || out.Items[0].ID != id || !strings.Contains(out.Items[0].Text, "one is expected every 1m") {
		t.Errorf("%+v", out.Items)
	}
}

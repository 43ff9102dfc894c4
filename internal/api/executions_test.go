package api_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
)

func (g *rig) sendChunked(method, path string, body io.Reader) answer {
	g.t.Helper()
	return g.admin(method, path, "x", func(r *http.Request) {
		r.Body, r.ContentLength, r.GetBody = io.NopCloser(body), -1, nil
	})
}

func TestRun_idempotency(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	at := "/api/v1/triggers/" + g.trigger(`{"name":"agent","backend":"claude","prompt":"Say {message} to {vars.who}"}`) + "/run"
	run := func(body string, changes ...change) (api.Accepted, answer) {
		t.Helper()
		var v api.Accepted
		a := g.do(agented.RoleOperator, "POST", at, body, changes...).want(202).json(&v)
		return v, a
	}
	first, a := run(`{"message":"hi","vars":{"who":"all"}}`, with("Idempotency-Key", "delivery 1"))
	if a.header.Get("Location") != "/api/v1/executions/"+string(first.ExecutionID) || a.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("headers %v", a.header)
	}
	again, a := run(`{"vars":{"who":"all"}, "message":"hi"}`, with("Idempotency-Key", "delivery 1"))
	if again != first || a.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("the same key made %v out of %v", again, first)
	}
	for _, other := range []string{`{"message":"hi"}`, `{"message":"ho","vars":{"who":"all"}}`, "", "{}"} {
		p := g.do(agented.RoleOperator, "POST", at, other, with("Idempotency-Key", "delivery 1")).problem(422)
		if p.Errors[0].Location != "header.Idempotency-Key" {
			t.Errorf("%s: %+v", other, p)
		}
	}
	if other, _ := run("", with("Idempotency-Key", "delivery 2")); other == first {
		t.Error("another key is the same execution")
	}
	run("")
	run("{}")
	var v api.ExecutionView
	b := g.do(agented.RoleViewer, "GET", "/api/v1/executions/"+string(first.ExecutionID), "").want(200).json(&v)
	if v.Prompt == nil || *v.Prompt != "Say hi to all" || v.Source != agented.SourceManual || v.Actor != "key operator key" || v.Status != agented.StatePending {
		t.Errorf("execution: %s", b.body)
	}
	for _, field := range []string{"id", "trigger_id", "trigger_name", "backend", "status", "reason", "source", "created_at", "scheduled_at", "started_at", "finished_at", "duration_ms", "exit_code", "error_message", "result", "prompt", "retry_of", "attempts", "last_seq", "usage"} {
		if !strings.Contains(b.body, `"`+field+`":`) {
			t.Errorf("the execution has no %s", field)
		}
	}
	p := g.do(agented.RoleOperator, "POST", at, "", with("Idempotency-Key", strings.Repeat("k", 256))).problem(422)
	if p.Errors[0].Location != "header.Idempotency-Key" {
		t.Errorf("%+v", p)
	}
	g.do(agented.RoleOperator, "POST", at, `{"vars":{"a":1}}`).problem(422)
	g.do(agented.RoleOperator, "POST", at, `{"mesage":"x"}`).problem(422)
}

func TestRun_conflicts(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	off := g.trigger(`{"name":"off","backend":"command","command":["x"],"enabled":false}`)
	if p := g.admin("POST", "/api/v1/triggers/"+off+"/run", "").problem(409); !strings.Contains(p.Detail, "disabled") {
		t.Errorf("%+v", p)
	}
	skip := g.trigger(`{"name":"skip","backend":"command","command":["x"],"overlap":"skip"}`)
	g.admin("POST", "/api/v1/triggers/"+skip+"/run", "").want(202)
	if p := g.admin("POST", "/api/v1/triggers/"+skip+"/run", "").problem(409); p.Kind != agented.Conflict {
		t.Errorf("%+v", p)
	}
	g.admin("POST", "/api/v1/triggers/trg-00000000000000000000000000/run", "").problem(404)
}

func TestExecutions_ad_hoc(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.do(agented.RoleOperator, "POST", "/api/v1/executions", hello).problem(403)
	var a, b api.Accepted
	g.admin("POST", "/api/v1/executions", hello, with("Idempotency-Key", "k")).want(202).json(&a)
	g.admin("POST", "/api/v1/executions", hello, with("Idempotency-Key", "k")).want(202).json(&b)
	if a != b {
		t.Error("the same key ran twice")
	}
	g.admin("POST", "/api/v1/executions", `{"backend":"command","command":["/bin/echo","s"]}`).want(202).json(&b)
	var v api.ExecutionView
	g.admin("GET", "/api/v1/executions/"+string(b.ExecutionID), "").want(200).json(&v)
	if v.TriggerID != nil || v.TriggerName != "echo" {
		t.Errorf("%+v", v)
	}
	if p := g.admin("POST", "/api/v1/executions", `{"backend":"claude"}`).problem(422); p.Errors[0].Location != "body.prompt" {
		t.Errorf("%+v", p)
	}
}

func TestExecutions_cancel_and_retry(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	at := "/api/v1/executions/" + g.execution()
	g.do(agented.RoleOperator, "POST", at+"/retry", "").problem(409)
	var v api.ExecutionView
	g.do(agented.RoleOperator, "POST", at+"/cancel", "").want(202).json(&v)
	if v.Status != agented.StateCancelled || v.FinishedAt == nil {
		t.Errorf("cancelled: %+v", v)
	}
	g.do(agented.RoleOperator, "POST", at+"/cancel", "").problem(409)
	var r api.Retried
	a := g.do(agented.RoleOperator, "POST", at+"/retry", "").want(202).json(&r)
	if r.ExecutionID == v.ID || r.RetryOf != v.ID || a.header.Get("Location") != "/api/v1/executions/"+string(r.ExecutionID) {
		t.Errorf("retry: %+v", r)
	}
	g.admin("GET", a.header.Get("Location"), "").want(200).json(&v)
	if v.RetryOf == nil || *v.RetryOf != r.RetryOf || v.Source != agented.SourceRetry {
		t.Errorf("retry: %+v", v)
	}
	for _, path := range []string{"/api/v1/executions/nonsense", "/api/v1/executions/exec-00000000000000000000000000"} {
		g.admin("GET", path, "").problem(404)
		g.admin("POST", path+"/cancel", "").problem(404)
		g.admin("POST", path+"/retry", "").problem(404)
		g.admin("GET", path+"/log", "").problem(404)
		g.admin("GET", path+"/log.txt", "").problem(404)
		g.admin("GET", path+"/stream", "").problem(404)
	}
}

func TestExecutions_filters(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hello)
	for range 3 {
		g.admin("POST", "/api/v1/triggers/"+id+"/run", "").want(202)
	}
	g.admin("POST", "/api/v1/executions/"+g.execution()+"/cancel", "").want(202)
	count := func(query string, want int) {
		t.Helper()
		var l rest.ListOf[api.ExecutionView]
		a := g.do(agented.RoleViewer, "GET", "/api/v1/executions?"+query, "").want(200).json(&l)
		if len(l.Items) != want {
			t.Errorf("%s: %d, want %d", query, len(l.Items), want)
		}
		if strings.Contains(a.body, `"prompt"`) || strings.Contains(a.body, `"result"`) {
			t.Error("the list has long texts")
		}
	}
	soon := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	count("", 4)
	count("trigger_id="+id, 3)
	count("status=cancelled", 1)
	count("status=cancelled,pending", 4)
	count("status=success", 0)
	count("source=manual", 4)
	count("source=github", 0)
	count("q=hell", 3)
	count("created_after="+soon, 0)
	count("created_before="+soon, 4)
	count("limit=2", 2)
	for _, q := range []string{"status=done", "source=me", "created_after=yesterday", "trigger=x"} {
		if p := g.admin("GET", "/api/v1/executions?"+q, "").problem(422); len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Location, "query.") {
			t.Errorf("%s: %+v", q, p)
		}
	}
}

func TestEncodeExecution(t *testing.T) {
	t.Parallel()
	e := &agented.Execution{ID: "exec-1", State: agented.StateFailed, Reason: "it failed", Prompt: "PROMPT", Result: "RESULT"}
	got := string(api.EncodeExecution([]byte("data: "), e))
	if !strings.HasPrefix(got, `data: {"id":"exec-1"`) || !strings.Contains(got, `"reason":"it failed"`) {
		t.Errorf("encoded %s", got)
	}
	if strings.Contains(got, "PROMPT") || strings.Contains(got, "RESULT") {
		t.Errorf("the prompt or the result is sent: %s", got)
	}
}

package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/secret"
)

func TestTriggers_defaults(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	a := g.admin("POST", "/api/v1/triggers", hello).want(201)
	var v api.TriggerView
	a.json(&v)
	if !v.Enabled || v.TimeoutSeconds != 3600 || v.SilenceSeconds != 0 || v.MaxConcurrent != 1 || v.Overlap != agented.OverlapQueue || v.Permission != "" {
		t.Errorf("defaults: %+v", v)
	}
	if loc := a.header.Get("Location"); loc != "/api/v1/triggers/"+string(v.ID) {
		t.Errorf("Location %q", loc)
	}
	if strings.Contains(strings.Replace(a.body, `"next_run_at":null`, "", 1), "null") || strings.Contains(a.body, "$schema") {
		t.Errorf("body: %s", a.body)
	}
	var again api.TriggerView
	g.do(agented.RoleViewer, "GET", a.header.Get("Location"), "").want(200).json(&again)
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("read back (-created +read):\n%s", diff)
	}
	var agent api.TriggerView
	g.admin("POST", "/api/v1/triggers", `{"name":"agent","backend":"claude","prompt":"Do {message}"}`).want(201).json(&agent)
	if agent.Permission != agented.PermissionEdit {
		t.Errorf("permission %q", agent.Permission)
	}
}

func TestTriggers_invalid_fields(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for _, c := range []struct{ name, body, location, message string }{
		{"no name", `{"backend":"command","command":["x"]}`, "body.name", "is required"},
		{"no backend", `{"name":"x"}`, "body.backend", "is required"},
		{"misspelt backend", `{"name":"x","backend":"cluade","prompt":"p"}`, "body.backend", `did you mean "claude"`},
		{"no command", `{"name":"x","backend":"command"}`, "body.command", "is required"},
		{"unknown field", `{"name":"x","backend":"command","comand":["x"]}`, "body.comand", `did you mean "command"`},
		{"unknown placeholder", `{"name":"x","backend":"claude","prompt":"{mesage}"}`, "body.prompt", `did you mean "message"`},
		{"wrong type", `{"name":"x","backend":"command","command":"echo"}`, "body.command", "array"},
		{"wrong item", `{"name":"x","backend":"command","command":["echo",1]}`, "body.command.1", "string"},
		{"fraction", `{"name":"x","backend":"command","command":["x"],"timeout_seconds":1.5}`, "body.timeout_seconds", "integer"},
		{"out of range", `{"name":"x","backend":"command","command":["x"],"timeout_seconds":-1}`, "body.timeout_seconds", "from 0"},
		{"overflow", `{"name":"x","backend":"command","command":["x"],"timeout_seconds":1e30}`, "body", ""},
		{"relative directory", `{"name":"x","backend":"command","command":["x"],"working_dir":"here"}`, "body.working_dir", "absolute"},
		{"variable name", `{"name":"x","backend":"command","command":["x"],"env":{"1A":"x"}}`, "body.env.1A", "variable name"},
		{"variable value", `{"name":"x","backend":"command","command":["x"],"env":{"A":1}}`, "body.env.A", "text in quotes"},
		{"kept value that is not there", `{"name":"x","backend":"command","command":["x"],"env":{"A":"***"}}`, "body.env.A", "send the value"},
		{"args with command", `{"name":"x","backend":"command","command":["x"],"args":["y"]}`, "body.args", "command"},
		{"overlap", `{"name":"x","backend":"command","command":["x"],"overlap":"drop"}`, "body.overlap", "queue, skip or replace"},
	} {
		p := g.admin("POST", "/api/v1/triggers", c.body).problem(422)
		if p.Kind != agented.Invalid || len(p.Errors) == 0 {
			t.Errorf("%s: %+v", c.name, p)
			continue
		}
		if p.Errors[0].Location != c.location || !strings.Contains(p.Errors[0].Message, c.message) {
			t.Errorf("%s: %+v, want %s … %s", c.name, p.Errors, c.location, c.message)
		}
	}
}

func TestProblem_bad_bodies(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	const at = "/api/v1/triggers"
	g.admin("POST", at, `{"name":`).problem(400)
	g.admin("POST", at, `{} trailing`).problem(400)
	g.admin("POST", at, "").problem(400)
	g.admin("POST", at, `[]`).problem(422)
	g.admin("POST", at, hello, with("Content-Type", "text/plain")).problem(415)
	g.admin("POST", at, "name=x", with("Content-Type", "application/x-www-form-urlencoded")).problem(415)
	big := `{"name":"` + strings.Repeat("x", 6*agented.MaxPrompt+1<<20) + `"}`
	if p := g.admin("POST", at, big).problem(413); p.Kind != agented.TooLarge {
		t.Errorf("kind %s", p.Kind)
	}
	// Without a length the size shows only while reading.
	chunked := func(r *strings.Reader) *strings.Reader { return r }(strings.NewReader(big))
	g.sendChunked("POST", at, chunked).problem(413)
	p := g.admin("GET", at+"?limt=3", "").problem(422)
	if len(p.Errors) != 1 || p.Errors[0].Location != "query.limt" || !strings.Contains(p.Errors[0].Message, `"limit"`) {
		t.Errorf("unknown parameter: %+v", p)
	}
	for _, q := range []string{"limit=0", "limit=201", "limit=x", "cursor=nonsense", "enabled=maybe"} {
		p := g.admin("GET", at+"?"+q, "").problem(422)
		if len(p.Errors) != 1 || !strings.HasPrefix(p.Errors[0].Location, "query.") {
			t.Errorf("%s: %+v", q, p)
		}
	}
}

func TestTriggers_merge_patch(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	at := "/api/v1/triggers/" + g.trigger(`{"name":"p","backend":"command","command":["a","b"],"timeout_seconds":5,"max_concurrent":7,"env":{"TOKEN":"s3cret-value","HOME":null}}`)
	patch := func(body string) api.TriggerView {
		t.Helper()
		var v api.TriggerView
		g.admin("PATCH", at, body).want(200).json(&v)
		return v
	}
	v := patch(`{}`)
	if v.TimeoutSeconds != 5 || v.MaxConcurrent != 7 || len(v.Command) != 2 || v.Env["TOKEN"].Value == nil || *v.Env["TOKEN"].Value != "***" {
		t.Errorf("an empty change changed something: %+v", v)
	}
	if h, ok := v.Env["HOME"]; !ok || h.Value != nil {
		t.Errorf("a variable that is passed on: %v", v.Env)
	}
	v = patch(`{"timeout_seconds":null,"max_concurrent":0,"enabled":false}`)
	if v.TimeoutSeconds != 3600 || v.MaxConcurrent != 0 || v.Enabled {
		t.Errorf("null is not the default: %+v", v)
	}
	v = patch(`{"env":{"TOKEN":"***","OTHER":"x"},"enabled":null}`)
	if len(v.Env) != 2 || !v.Enabled {
		t.Errorf("env was not replaced: %+v", v)
	}
	stored, err := g.db.TriggerByName(t.Context(), "P")
	if err != nil {
		t.Fatal(err)
	}
	key, err := secret.Load(secret.Options{Path: g.layout.SecretKey(), ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"TOKEN": "s3cret-value", "OTHER": "x"} {
		sealed := *stored.Spec.Env[name]
		if got, err := auth.NewSealer(key).OpenEnv(name, sealed); err != nil || got != want || strings.Contains(sealed, "s3cret") {
			t.Errorf("%s is kept as %q, which opens to %q (%v)", name, sealed, got, err)
		}
	}
	before := stored.UpdatedAt
	patch(`{"env":{"TOKEN":"s3cret-value","OTHER":"x"}}`)
	if again, err := g.db.TriggerByName(t.Context(), "P"); err != nil || !again.UpdatedAt.Equal(before) {
		t.Errorf("writing the same again changed the trigger: %v", err)
	}
	if v = patch(`{"env":null}`); len(v.Env) != 0 {
		t.Errorf("env stayed: %v", v.Env)
	}
	if v = patch(`{"backend":"claude","prompt":"x","command":null}`); v.Permission != agented.PermissionEdit || len(v.Command) != 0 {
		t.Errorf("another backend: %+v", v)
	}
	if v = patch(`{"backend":"command","prompt":null,"command":["x"]}`); v.Permission != "" {
		t.Errorf("and back: %+v", v)
	}
	if p := g.admin("PATCH", at, `{"name":""}`).problem(422); p.Errors[0].Location != "body.name" {
		t.Errorf("%+v", p)
	}
	g.trigger(`{"name":"taken","backend":"command","command":["x"]}`)
	g.admin("PATCH", at, `{"name":"TAKEN"}`).problem(409)
	g.admin("POST", "/api/v1/triggers", `{"name":"Taken","backend":"command","command":["x"]}`).problem(409)
}

func TestTriggers_concurrent_updates(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hello)
	g.key(agented.RoleAdmin)
	var done sync.WaitGroup
	for _, body := range []string{`{"timeout_seconds":11}`, `{"max_concurrent":12}`, `{"silence_timeout_seconds":13}`, `{"overlap":"skip"}`, `{"tty":true}`} {
		done.Go(func() { g.admin("PATCH", "/api/v1/triggers/"+id, body).want(200) })
	}
	done.Wait()
	var v api.TriggerView
	g.admin("GET", "/api/v1/triggers/"+id, "").want(200).json(&v)
	if v.TimeoutSeconds != 11 || v.MaxConcurrent != 12 || v.SilenceSeconds != 13 || v.Overlap != "skip" || !v.TTY {
		t.Errorf("a change was lost: %+v", v)
	}
}

func TestTriggers_pages(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for i := range 7 {
		g.trigger(fmt.Sprintf(`{"name":"t%d","backend":"command","command":["x"],"enabled":%v}`, i, i != 3))
	}
	var names []string
	for at := "/api/v1/triggers?limit=3"; at != ""; {
		var l rest.ListOf[api.TriggerView]
		g.do(agented.RoleViewer, "GET", at, "").want(200).json(&l)
		for _, v := range l.Items {
			names = append(names, v.Name)
		}
		at = ""
		if l.NextCursor != nil {
			at = "/api/v1/triggers?limit=3&cursor=" + *l.NextCursor
		}
	}
	if diff := cmp.Diff([]string{"t0", "t1", "t2", "t3", "t4", "t5", "t6"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	count := func(query string, want int) {
		t.Helper()
		var l rest.ListOf[api.TriggerView]
		a := g.do(agented.RoleViewer, "GET", "/api/v1/triggers?"+query, "").want(200).json(&l)
		if len(l.Items) != want || !strings.Contains(a.body, `"items":[`) || !strings.Contains(a.body, `"next_cursor":null`) {
			t.Errorf("%s: %s", query, a.body)
		}
	}
	count("name=T4", 1)
	count("name=none", 0)
	count("enabled=false", 1)
	count("enabled=false&name=t4", 0)
	count("q=t", 7)
}

func TestTriggers_delete_keeps_history(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hello)
	var a api.Accepted
	g.do(agented.RoleOperator, "POST", "/api/v1/triggers/"+id+"/run", "").want(202).json(&a)
	if d := g.admin("DELETE", "/api/v1/triggers/"+id, "").want(204); d.body != "" {
		t.Errorf("204 with a body %q", d.body)
	}
	g.admin("DELETE", "/api/v1/triggers/"+id, "").problem(404)
	g.admin("GET", "/api/v1/triggers/"+id, "").problem(404)
	g.admin("GET", "/api/v1/triggers/..%2f..%2fetc", "").problem(404)
	var v api.ExecutionView
	g.admin("GET", "/api/v1/executions/"+string(a.ExecutionID), "").want(200).json(&v)
	if v.TriggerName != "hello" || v.Status != agented.StateCancelled {
		t.Errorf("history: %+v", v)
	}
}

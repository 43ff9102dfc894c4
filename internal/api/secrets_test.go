package api_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/auth"
)

// TestSecrets_never_returned posts secrets to every operation, valid and
// invalid, and searches for them in every response and every log.
func TestSecrets_never_returned(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{
		"ANTHROPIC_API_KEY=server-anthropic-secret-1", "GITHUB_WEBHOOK_SECRET=server-webhook-secret-22", "SECRET_KEY=server-secret-key-of-some-length",
	}})
	const s = "S3CRET-posted-by-a-test"
	secrets := []string{s, staticKey, "server-anthropic-secret-1", "server-webhook-secret-22", "server-secret-key-of-some-length"}
	var answers []string
	keep := func(a answer) answer {
		answers = append(answers, a.body, strings.Join(a.header.Values("Set-Cookie"), ""))
		return a
	}

	link, err := auth.EnsureSetup(t.Context(), g.db, g.layout, g.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(link, "token=")
	anyone, admin := agented.RoleNone, agented.RoleAdmin
	quoted, _ := json.Marshal(s)
	q := string(quoted)

	// In fields for secrets.
	keep(g.do(anyone, "POST", "/api/v1/auth/setup", `{"token":"`+token+`","name":"ada","password":`+q+`}`)).want(201)
	keep(g.do(anyone, "POST", "/api/v1/auth/login", `{"name":"ada","password":`+q+`}`)).want(200)
	var v api.TriggerView
	keep(g.do(admin, "POST", "/api/v1/triggers", `{"name":"t","backend":"command","command":["x"],"env":{"TOKEN":`+q+`}}`)).want(201).json(&v)
	at := "/api/v1/triggers/" + string(v.ID)
	keep(g.do(admin, "PATCH", at, `{"env":{"TOKEN":"***","B":`+q+`}}`)).want(200)
	var x api.Accepted
	keep(g.do(admin, "POST", at+"/run", "{}")).want(202).json(&x)
	keep(g.do(admin, "POST", "/api/v1/executions", `{"backend":"command","command":["x"],"env":{"A":`+q+`}}`)).want(202)
	keep(g.do(admin, "POST", "/api/v1/auth/users", `{"name":"bob","password":`+q+`,"role":"viewer"}`)).want(201)

	// In other places: a typo, the wrong type, the wrong field, invalid JSON.
	for _, body := range []string{
		`{"name":"u","backend":"command","command":["x"],"env":` + q + `}`,
		`{"name":"u","backend":"command","command":["x"],"env":{"TOKEN":[` + q + `]}}`,
		`{"name":"u","backend":` + q + `}`, `{"name":"u","backend":"command","command":["x"],"timeout_seconds":` + q + `}`,
		`{"name":"u","backend":"command","command":["x"],"overlap":` + q + `}`,
		`{"name":"u","backend":"command","command":["x"],"model":` + q + `}`,
		`{"name":"u","backend":"command","command":["x"],"args":[` + q + `]}`,
		`{"name":"u","backend":"command","command":["x"],"env":{"AGENTED_X":` + q + `}}`,
		`{"name":"u","backend":"claude","permission":` + q + `,"prompt":"x"}`,
		`{"password":` + q + `}`, q, `[` + q + `]`, `{` + q, s, `{"name":` + q + `} ` + s,
	} {
		for _, path := range []string{"/api/v1/triggers", "/api/v1/executions", at + "/run", "/api/v1/auth/login", "/api/v1/auth/setup", "/api/v1/auth/users", "/api/v1/auth/keys", "/api/v1/auth/password"} {
			keep(g.do(admin, "POST", path, body))
		}
		keep(g.do(admin, "PATCH", at, body))
		keep(g.do(admin, "POST", "/api/v1/triggers", body, with("Content-Type", "text/plain")))
	}
	keep(g.do(anyone, "GET", "/api/v1/triggers", "", with("Authorization", "Bearer "+s)))
	keep(g.do(anyone, "GET", "/api/v1/triggers", "", with("X-API-Key", s)))
	keep(g.do(anyone, "GET", "/api/v1/triggers", "", with("Cookie", "agented="+s)))
	keep(g.do(anyone, "POST", "/api/v1/auth/login", `{"name":"ada","password":"`+s+`x"}`))
	keep(g.form(g.browser(), "/login", url.Values{"name": {"ada"}, "password": {s + "x"}}))
	keep(g.form(g.browser(), "/setup", url.Values{"token": {token}, "name": {"ada"}, "password": {s}, "again": {s}}))
	keep(g.do(anyone, "GET", "/setup?token="+token, ""))
	keep(g.do(anyone, "GET", "/login?password="+s, ""))
	keep(g.do(admin, "GET", "/api/v1/executions?token="+s, ""))
	keep(g.do(admin, "POST", at+"/run", "", with("Idempotency-Key", s+strings.Repeat("x", 300))))

	// In everything that can be read.
	for path, methods := range g.document().Paths {
		if _, ok := methods["get"]; ok && path != "/api/v1/events/stream" && !strings.HasSuffix(path, "/stream") {
			for _, id := range []string{string(v.ID), string(x.ExecutionID)} {
				keep(g.do(admin, "GET", strings.ReplaceAll(path, "{id}", id), ""))
			}
		}
	}

	all := map[string]string{"an answer": strings.Join(answers, "\n"), "the log": g.log.String(), "the access log": g.access.String()}
	for _, secret := range append(secrets, token, g.key(admin)) {
		for where, text := range all {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s holds %q: …%s…", where, secret, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	if len(answers) < 200 {
		t.Errorf("only %d answers", len(answers))
	}
	// A secret in a field that is not for secrets is only returned to its
	// author.
	leak := g.trigger(`{"name":"leak","backend":"claude","prompt":"use server-anthropic-secret-1"}`)
	var run api.Accepted
	g.admin("POST", "/api/v1/triggers/"+leak+"/run", "").want(202).json(&run)
	for _, path := range []string{"/api/v1/triggers/" + leak, "/api/v1/triggers?name=leak", "/api/v1/executions/" + string(run.ExecutionID)} {
		if a := g.do(agented.RoleOperator, "GET", path, "").want(200); strings.Contains(a.body, "server-anthropic-secret-1") || !strings.Contains(a.body, "use ***") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if a := g.admin("GET", "/api/v1/triggers/"+leak, "").want(200); !strings.Contains(a.body, "use server-anthropic-secret-1") {
		t.Error("an admin cannot write back what was read")
	}
	var rows api.Settings
	g.do(admin, "GET", "/api/v1/config", "").want(200).json(&rows)
	found := 0
	for _, r := range rows.Items {
		if r.Secret && r.Value != "" {
			found++
			if r.Name != "SECRET_KEY" && strings.Trim(r.Value, "*") != "" {
				t.Errorf("%s is shown as %q", r.Name, r.Value)
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d secrets in the settings", found)
	}
}

package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestAccounts_credentials_are_write_only(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	const secret = "sk-a-credential-of-an-account"
	var made struct {
		ID          string
		Credentials map[string]string
		State       string
	}
	g.do(agented.RoleAdmin, "POST", "/api/v1/accounts", `{"backend":"claude","name":"work","credentials":{"ANTHROPIC_API_KEY":"`+secret+`"}}`).want(201).json(&made)
	if made.Credentials["ANTHROPIC_API_KEY"] != "***" || made.State != "ready" {
		t.Errorf("made %+v", made)
	}
	a, err := g.db.Account(t.Context(), agented.AccountID(made.ID))
	if err != nil || strings.Contains(a.Credentials["ANTHROPIC_API_KEY"], secret) || !strings.HasPrefix(a.Credentials["ANTHROPIC_API_KEY"], "sealed:") {
		t.Errorf("stored %+v, %v", a, err)
	}
	if got, err := g.api.StoredSecrets(); err != nil || len(got) != 1 || got[0] != secret {
		t.Errorf("secrets to mask: %q", got)
	}
	path := "/api/v1/accounts/" + made.ID
	sealed := a.Credentials["ANTHROPIC_API_KEY"]
	// The stored value is kept, and setting the same value again changes
	// nothing.
	g.do(agented.RoleAdmin, "PATCH", path, `{"credentials":{"ANTHROPIC_API_KEY":"***"},"order":3}`).want(200)
	g.do(agented.RoleAdmin, "PATCH", path, `{"credentials":{"ANTHROPIC_API_KEY":"`+secret+`"}}`).want(200)
	if a, err = g.db.Account(t.Context(), a.ID); err != nil || a.Credentials["ANTHROPIC_API_KEY"] != sealed || a.Order != 3 {
		t.Errorf("stored %+v, %v", a, err)
	}
	for _, body := range []string{
		`{"credentials":{"OTHER":"***"}}`, `{"credentials":{"CLAUDE_CONFIG_DIR":"/x"}}`, `{"credentials":{"PATH":"/x"}}`, `{"credentials":{}}`,
		`{"name":"-x"}`, `{"config":"relative"}`, `{"max_concurrent":-1}`,
	} {
		g.do(agented.RoleAdmin, "PATCH", path, body).want(422)
	}
	g.do(agented.RoleAdmin, "PATCH", "/api/v1/accounts/default-claude", `{"config":"/x"}`).want(409)
	g.do(agented.RoleAdmin, "PATCH", "/api/v1/accounts/default-claude", `{"enabled":false}`).want(200)
	g.do(agented.RoleAdmin, "POST", "/api/v1/accounts", `{"backend":"claude","name":"WORK","config":"/x"}`).want(409)
	g.do(agented.RoleAdmin, "POST", "/api/v1/accounts", `{"backend":"command","name":"x","config":"/x"}`).want(422)
	g.do(agented.RoleOperator, "POST", path+"/reset", "").want(200)
	for _, p := range []string{"/api/v1/accounts?limit=200", path} {
		if text := g.do(agented.RoleViewer, "GET", p, "").want(200).body; strings.Contains(string(text), secret) || strings.Contains(string(text), "sealed:") {
			t.Errorf("%s shows a credential: %s", p, text)
		}
	}
	g.do(agented.RoleAdmin, "DELETE", path, "").want(204)
	g.do(agented.RoleViewer, "GET", path, "").want(404)
}

func TestTriggers_fallback_chain(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	type trigger struct {
		ID       string
		Account  string
		Fallback []agented.Choice
		Retry    agented.RetryPolicy
	}
	var got, reset trigger
	g.admin("POST", "/api/v1/accounts", `{"backend":"claude","name":"work","credentials":{"ANTHROPIC_API_KEY":"sk-ant-0123456789"}}`).want(201)
	g.do(agented.RoleAdmin, "POST", "/api/v1/triggers", `{"name":"n","backend":"claude","prompt":"x","account":"work",
		"fallback":[{"backend":"codex","model":"m"}],"retry":{"max_attempts":3,"on_failure":true}}`).want(201).json(&got)
	if got.Account != "work" || len(got.Fallback) != 1 || got.Fallback[0].Model != "m" || !got.Retry.OnFailure || got.Retry.MaxAttempts != 3 {
		t.Errorf("made %+v", got)
	}
	for _, body := range []string{
		`{"fallback":[{"backend":"command"}]}`, `{"account":"a b"}`, `{"retry":{"max_attempts":-1}}`, `{"fallback":[{"backend":"codex","model":"-m"}]}`,
	} {
		g.do(agented.RoleAdmin, "PATCH", "/api/v1/triggers/"+got.ID, body).want(422)
	}
	g.do(agented.RoleAdmin, "PATCH", "/api/v1/triggers/"+got.ID, `{"fallback":null,"retry":null,"account":null}`).want(200).json(&reset)
	if reset.Account != "" || len(reset.Fallback) != 0 || reset.Retry != (agented.RetryPolicy{}) {
		t.Errorf("reset to %+v", reset)
	}
}

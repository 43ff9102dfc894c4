package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
)

func TestWebhookHints(t *testing.T) {
	t.Parallel()
	body := func(name, webhooks string) string {
		return `{"name":"` + name + `","backend":"command","command":["true"],"webhooks":[` + webhooks + `]}`
	}
	for _, c := range []struct {
		name, webhooks string
		env            []string
		hints          int
	}{
		{"github_without_secret", `{"source":"github"}`, nil, 1},
		{"disabled_webhook", `{"source":"github","enabled":false}`, nil, 0},
		{"secret_of_its_own", `{"source":"github","secret":"a-secret-of-its-own-0123456789"}`, nil, 0},
		{"secret_of_the_server", `{"source":"github"}`, []string{"GITHUB_WEBHOOK_SECRET=a-secret-of-the-server-0123456789"}, 0},
		{"other_sender", `{"source":"webhook","auth":{"kind":"hmac"},"secret":"a-secret-of-its-own-0123456789"}`, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, settings{env: c.env})
			check := func(where string, hints []api.HintView) {
				t.Helper()
				if len(hints) != c.hints {
					t.Fatalf("%s: hints %+v, want %d", where, hints, c.hints)
				}
				for _, h := range hints {
					if h.Field != "webhooks.0" || !strings.Contains(h.Fix, `echo "GITHUB_WEBHOOK_SECRET=$(openssl rand -hex 32)" >> /`) || !strings.Contains(h.Fix, "agented reload") {
						t.Errorf("%s: hint %+v", where, h)
					}
				}
			}
			var v api.TriggerView
			g.admin("POST", "/api/v1/triggers", body("one", c.webhooks)).want(201).json(&v)
			check("create", v.Hints)
			g.admin("PATCH", "/api/v1/triggers/"+string(v.ID), `{"enabled":true}`).want(200).json(&v)
			check("change", v.Hints)
			var applied api.AppliedAll[api.TriggerView]
			g.admin("POST", "/api/v1/triggers/apply", `{"items":[`+body("two", c.webhooks)+`]}`).want(200).json(&applied)
			check("apply", applied.Items[0].After.Hints)
			v = api.TriggerView{}
			g.do(agented.RoleViewer, "GET", "/api/v1/triggers/"+applied.Items[0].ID, "").want(200).json(&v)
			if len(v.Hints) != 0 {
				t.Errorf("a viewer sees %+v", v.Hints)
			}
		})
	}
}

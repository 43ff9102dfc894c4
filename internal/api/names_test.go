package api_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
)

// withName replaces %q in a body with a name.
func withName(body, name string) string {
	quoted, err := json.Marshal(name)
	if err != nil {
		panic(err)
	}
	return strings.Replace(body, "%q", string(quoted), 1)
}

func refused(t *testing.T, name string, a answer) {
	t.Helper()
	if p := a.problem(422); len(p.Errors) != 1 || p.Errors[0].Location != "body.name" || p.Errors[0].Message == "" {
		t.Errorf("%q: %+v", name, p)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	bodies := map[string]string{
		"/api/v1/triggers":   `{"name":%q,"backend":"command","command":["x"]}`,
		"/api/v1/agents":     `{"name":%q,"backend":"claude"}`,
		"/api/v1/accounts":   `{"name":%q,"backend":"claude","credentials":{"ANTHROPIC_API_KEY":"sk-1234567890"}}`,
		"/api/v1/budgets":    `{"name":%q,"limit_usd":1}`,
		"/api/v1/auth/users": `{"name":%q,"password":"correct horse battery","role":"admin"}`,
		"/api/v1/auth/keys":  `{"name":%q,"role":"viewer"}`,
		"/api/v1/executions": `{"name":%q,"backend":"command","command":["true"]}`,
	}
	for path, body := range bodies {
		t.Run("refused at "+path[len("/api/v1/"):], func(t *testing.T) {
			for _, name := range []string{"\u200b", "\u200d\u2060", "a\u202eb", "a\u2066b", "a\u0007b", "trg-01jdc4q7zv8m3k2n5p6r7s8t9w", "acc-1", "agt-x", "exec-7"} {
				refused(t, name, g.admin("POST", path, withName(body, name)))
			}
		})
	}
	refused(t, "default-codex", g.admin("POST", "/api/v1/accounts", withName(bodies["/api/v1/accounts"], "default-codex")))

	t.Run("one name in two compositions", func(t *testing.T) {
		for _, path := range []string{"/api/v1/triggers", "/api/v1/budgets", "/api/v1/auth/users", "/api/v1/auth/keys"} {
			g.admin("POST", path, withName(bodies[path], "caf\u00e9")).want(201)
			g.admin("POST", path, withName(bodies[path], "Cafe\u0301")).want(409)
		}
	})
	t.Run("a stored name stays usable", func(t *testing.T) {
		old := &agented.Trigger{Name: "trg-\u202eold", Enabled: true, Spec: agented.Spec{Backend: agented.BackendCommand, Command: []string{"x"}, Overlap: agented.OverlapQueue, MaxConcurrent: 1}}
		if err := g.db.CreateTrigger(t.Context(), old, "test"); err != nil {
			t.Fatal(err)
		}
		path := "/api/v1/triggers/" + string(old.ID)
		var v api.TriggerView
		g.admin("PATCH", path, `{"enabled":false}`).want(200)
		g.admin("PATCH", path, withName(`{"name":%q,"max_concurrent":3}`, old.Name)).want(200).json(&v)
		if v.Name != old.Name || v.MaxConcurrent != 3 || v.Enabled {
			t.Errorf("got %+v", v)
		}
		refused(t, "another", g.admin("PATCH", path, withName(`{"name":%q}`, "trg-\u202enew")))
	})
}

func TestNameFilter(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.trigger(`{"name":"` + "\u00c9mile" + `","backend":"command","command":["true"]}`)
	for _, q := range []string{"\u00e9", "E\u0301m", "e\u0301MILE", ""} {
		var list rest.ListOf[api.TriggerView]
		g.admin("GET", "/api/v1/triggers?name="+url.QueryEscape("e\u0301mile")+"&q="+url.QueryEscape(q), "").want(200).json(&list)
		if len(list.Items) != 1 {
			t.Errorf("%q: %d triggers", q, len(list.Items))
		}
	}
}

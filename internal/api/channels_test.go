package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/notify"
)

const channelURL = "https://hooks.example/services/T000/an-url-that-is-secret"

// notifying starts a server whose channels may reach the receivers of the test.
func notifying(t *testing.T) *rig {
	t.Helper()
	g := notify.PublicOnly()
	g.Allow = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	g.Lookup = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	return start(t, settings{options: func(o *api.Options) { o.NotifyGuard = g }})
}

func TestChannels_show_no_secret(t *testing.T) {
	t.Parallel()
	g := notifying(t)
	first := g.admin("POST", "/api/v1/channels", `{"name":"team","kind":"slack","url":"`+channelURL+`"}`).want(201)
	var c struct {
		ID     string
		Events []string
	}
	if first.json(&c); len(c.Events) != len(agented.NotificationKinds) {
		t.Errorf("events %q", c.Events)
	}
	if known, err := g.api.StoredSecrets(); err != nil || len(known) != 1 || known[0] != channelURL {
		t.Errorf("values to mask: %q, %v", known, err)
	}
	for _, a := range []answer{
		first, g.admin("GET", "/api/v1/channels", "").want(200), g.admin("GET", "/api/v1/channels/TEAM", "").want(200),
		g.admin("PATCH", "/api/v1/channels/"+c.ID, `{"url":"***","events":["failed"]}`).want(200), g.admin("GET", "/api/v1/audit", "").want(200),
	} {
		if strings.Contains(a.body, "T000") || strings.Contains(a.body, "sealed:") {
			t.Errorf("an answer shows the URL: %s", a.body)
		}
	}
	for _, role := range []agented.Role{agented.RoleViewer, agented.RoleOperator} {
		a := g.do(role, "GET", "/api/v1/channels", "").want(200)
		if strings.Contains(a.body, "target") || strings.Contains(a.body, "hooks.example") || !strings.Contains(a.body, `"team"`) {
			t.Errorf("%s sees %s", role, a.body)
		}
		g.do(role, "POST", "/api/v1/channels/team/test", "").want(403)
		g.do(role, "PATCH", "/api/v1/channels/team", `{"enabled":false}`).want(403)
		g.do(role, "DELETE", "/api/v1/channels/team", "").want(403)
	}
	g.do(agented.RoleViewer, "GET", "/api/v1/notifications", "").want(403)
}

func TestChannels_validation(t *testing.T) {
	t.Parallel()
	g := notifying(t)
	g.admin("POST", "/api/v1/channels", `{"name":"team","kind":"slack","url":"`+channelURL+`"}`).want(201)
	g.admin("POST", "/api/v1/channels", `{"name":"TEAM","kind":"slack","url":"`+channelURL+`"}`).want(409)
	mail := `"name":"m","kind":"email","host":"smtp.example","from":"a@example.org","to":["b@example.org"]`
	for _, c := range []struct{ body, field string }{
		{`{"name":"x","kind":"slack"}`, "url"},
		{`{"name":"-x","kind":"slack","url":"` + channelURL + `"}`, "name"},
		{`{"name":"x","kind":"pigeon","url":"` + channelURL + `"}`, "kind"},
		{`{"name":"x","kind":"slack","url":"http://hooks.example/T000"}`, "url"},
		{`{"name":"x","kind":"slack","url":"https://10.0.0.1/T000"}`, "url"},
		{`{"name":"x","kind":"slack","url":"https://[::ffff:169.254.169.254]/T000"}`, "url"},
		{`{"name":"x","kind":"slack","url":"***"}`, "url"},
		{`{"name":"x","kind":"slack","url":"secret:v1:T000"}`, "url"},
		{`{"name":"x","kind":"slack","url":{"secret":"missing"}}`, "url"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","secret":"x"}`, "secret"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","events":["fail"]}`, "events"},
		{`{"name":"x","kind":"webhook","url":"` + channelURL + `","secret":"short"}`, "secret"},
		{`{"name":"x","kind":"ntfy","url":"https://ntfy.example/"}`, "url"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","digest":{"cron":"every day"}}`, "digest"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","digest":{"cron":"once 2031-01-01 00:00"}}`, "digest"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","digest":{"cron":"0 7 * * *","zone":"Mars/Base"}}`, "digest"},
		{`{"name":"x","kind":"slack","url":"` + channelURL + `","digest":{"cron":"0 7 * * *","empty":"maybe"}}`, "digest"},
		{`{` + mail + `,"tls":"none"}`, "tls"},
		{`{` + mail + `,"username":"u"}`, "password"},
		{`{` + mail + `,"port":70000}`, "port"},
		{`{` + mail + `,"url":"` + channelURL + `"}`, "url"},
		{`{"name":"m","kind":"email","host":"10.0.0.1","from":"a@example.org","to":["b@example.org"]}`, "host"},
		{`{"name":"m","kind":"email","host":"smtp.example","from":"a","to":["b@example.org"]}`, "from"},
		{`{"name":"m","kind":"email","host":"smtp.example","from":"a@example.org\r\nBcc: c@example.org","to":["b@example.org"]}`, "from"},
		{`{"name":"m","kind":"email","host":"smtp.example","from":"a@example.org","to":[]}`, "to"},
	} {
		a := g.admin("POST", "/api/v1/channels", c.body).want(422)
		if !strings.Contains(a.body, c.field) || strings.Contains(a.body, "T000") {
			t.Errorf("%s: %s", c.body, a.body)
		}
	}
	g.admin("POST", "/api/v1/channels", `{`+mail+`,"username":"u","password":"p"}`).want(201)
	g.admin("PATCH", "/api/v1/channels/m", `{"port":2525}`).want(200)
	g.admin("PATCH", "/api/v1/channels/nobody", `{}`).want(404)
}

func TestChannels_of_triggers(t *testing.T) {
	t.Parallel()
	g := notifying(t)
	g.admin("POST", "/api/v1/secrets", `{"name":"hook","value":"`+channelURL+`"}`).want(201)
	g.admin("POST", "/api/v1/channels", `{"name":"team","kind":"slack","url":{"secret":"hook"}}`).want(201)
	if a := g.admin("DELETE", "/api/v1/secrets/hook", "").want(409); !strings.Contains(a.body, "channel team") {
		t.Error(a.body)
	}
	const body = `"backend":"command","command":["true"]`
	for _, bad := range []string{`{"failed":["nobody"]}`, `{"fail":["team"]}`, `{"failed":[""]}`} {
		g.admin("POST", "/api/v1/triggers", `{"name":"t",`+body+`,"notify":`+bad+`}`).want(422)
	}
	id := g.trigger(`{"name":"t",` + body + `,"notify":{"failed":["Team"],"other":[]}}`)
	if a := g.admin("GET", "/api/v1/triggers/"+id, "").want(200); !strings.Contains(a.body, `"notify":{"failed":["Team"],"other":[]}`) {
		t.Error(a.body)
	}
	if a := g.admin("DELETE", "/api/v1/channels/team", "").want(409); !strings.Contains(a.body, `trigger \"t\"`) {
		t.Error(a.body)
	}
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"notify":null}`).want(200)
	g.admin("DELETE", "/api/v1/channels/team", "").want(204)
	g.admin("GET", "/api/v1/channels/team", "").want(404)
}

func TestChannels_test(t *testing.T) {
	t.Parallel()
	g := notifying(t)
	status := http.StatusOK
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte("hello " + q.Header.Get("webhook-id")))
	}))
	defer r.Close()
	var made struct {
		Secret string `json:"signing_secret"`
	}
	g.admin("POST", "/api/v1/channels", `{"name":"ops","kind":"webhook","url":"`+r.URL+`/T000"}`).want(201).json(&made)
	if notify.SecretFault(made.Secret) != "" {
		t.Errorf("created secret %q", made.Secret)
	}
	var got struct{ ID, Status, Answer, Kind string }
	if g.admin("POST", "/api/v1/channels/ops/test", "").want(200).json(&got); got.Status != "sent" || got.Answer != "200 OK: hello "+got.ID || got.Kind != "test" {
		t.Errorf("%+v", got)
	}
	status = http.StatusGone
	if g.admin("POST", "/api/v1/channels/ops/test", "").want(200).json(&got); got.Status != "gave_up" || !strings.HasPrefix(got.Answer, "410 Gone") {
		t.Errorf("%+v", got)
	}
	a := g.do(agented.RoleOperator, "GET", "/api/v1/notifications?channel=ops&limit=1", "").want(200)
	var page struct {
		Items []struct{ ID string }
		Next  string `json:"next_cursor"`
	}
	if a.json(&page); len(page.Items) != 1 || page.Items[0].ID != got.ID || page.Next == "" || strings.Contains(a.body, "T000") {
		t.Errorf("%s", a.body)
	}
	g.do(agented.RoleOperator, "GET", "/api/v1/notifications?cursor=!", "").want(422)
}

package api_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/identity"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

func (g *rig) form(c *http.Client, path string, values url.Values, changes ...change) answer {
	g.t.Helper()
	changes = append([]change{with("Content-Type", "application/x-www-form-urlencoded")}, changes...)
	return g.send(c, "POST", path, values.Encode(), changes...)
}

func mode(t *testing.T, file string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestSetup_one_time_link(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	ctx := context.Background()
	link, err := auth.EnsureSetup(ctx, g.db, g.layout, g.http.URL+"/")
	if err != nil || !strings.HasPrefix(link, g.http.URL+"/setup?token=") {
		t.Fatalf("link %q, %v", link, err)
	}
	if m := mode(t, g.layout.SetupLink()); m != 0o600 {
		t.Errorf("the link's file has mode %o", m)
	}
	if again, _ := auth.EnsureSetup(ctx, g.db, g.layout, g.http.URL); again != link {
		t.Errorf("a restart made another link: %s", again)
	}

	// Nothing works yet, and the error says what to do; keys work.
	if p := g.do(agented.RoleNone, "GET", "/api/v1/triggers", "").problem(401); !strings.Contains(p.Detail, "set up") {
		t.Errorf("before the setup: %s", p.Detail)
	}
	if p := g.do(agented.RoleNone, "POST", "/api/v1/auth/login", `{"name":"a","password":"b"}`).problem(401); !strings.Contains(p.Detail, "set up") {
		t.Errorf("before the setup: %s", p.Detail)
	}
	g.do(agented.RoleNone, "GET", "/api/v1/triggers", "", with("X-API-Key", staticKey)).want(200)
	g.do(agented.RoleNone, "GET", "/health/readiness", "").want(200)
	if a := g.do(agented.RoleNone, "GET", "/login", "").want(200); !strings.Contains(a.body, "setup-link") {
		t.Errorf("login page: %s", a.body)
	}

	path := strings.TrimPrefix(link, g.http.URL)
	_, token, _ := strings.Cut(link, "token=")
	c := g.browser()
	if a := g.send(c, "GET", path, "").want(200); !strings.Contains(a.body, token) || strings.Contains(a.body, "<script") {
		t.Errorf("setup page: %s", a.body)
	}
	g.send(c, "GET", "/setup?token=wrong", "").want(403)
	v := url.Values{"token": {token}, "name": {"ada"}, "password": {"short"}, "again": {"short"}}
	if a := g.form(c, "/setup", v).want(422); !strings.Contains(a.body, "at least 10") {
		t.Errorf("short password: %s", a.body)
	}
	v["password"], v["again"] = []string{password}, []string{password + "x"}
	if a := g.form(c, "/setup", v).want(422); !strings.Contains(a.body, "differ") || strings.Contains(a.body, password) {
		t.Errorf("different passwords: %s", a.body)
	}
	v["again"] = v["password"]
	wrong := url.Values{"token": {strings.Repeat("x", 43)}, "name": {"ada"}, "password": {password}, "again": {password}}
	g.form(c, "/setup", wrong).want(403)
	if a := g.form(c, "/setup", v).want(303); a.header.Get("Location") != "/" {
		t.Errorf("sent to %q", a.header.Get("Location"))
	}
	var me identity.Me
	g.send(c, "GET", "/api/v1/auth/me", "").want(200).json(&me)
	if me.Name != "ada" || me.Role != agented.RoleAdmin || me.Session == "" {
		t.Errorf("me: %+v", me)
	}
	if _, err := os.Stat(g.layout.SetupLink()); !os.IsNotExist(err) {
		t.Error("the link's file is still there")
	}
	g.form(c, "/setup", v).want(409)
	g.do(agented.RoleNone, "POST", "/api/v1/auth/setup", `{"token":"`+token+`","name":"eve","password":"`+password+`"}`).problem(409)
	if link, err := auth.EnsureSetup(ctx, g.db, g.layout, g.http.URL); link != "" || err != nil {
		t.Errorf("a link for a server that is set up: %q %v", link, err)
	}
	if p := g.do(agented.RoleNone, "GET", "/api/v1/triggers", "").problem(401); strings.Contains(p.Detail, "set up") {
		t.Errorf("after the setup: %s", p.Detail)
	}
}

func TestSetup_json(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	link, err := auth.EnsureSetup(context.Background(), g.db, g.layout, g.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(link, "token=")
	body := func(name string) string {
		return `{"token":"` + token + `","name":"` + name + `","password":"` + password + `"}`
	}
	if p := g.do(agented.RoleNone, "POST", "/api/v1/auth/setup", body(" x")).problem(422); p.Errors[0].Location != "body.name" {
		t.Errorf("%+v", p)
	}
	c := g.browser()
	g.send(c, "POST", "/api/v1/auth/setup", body("ada")).want(201)
	g.send(c, "GET", "/api/v1/config", "").want(200)
}

func TestCLIKey_is_retired(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, c := range map[string]struct {
		creator string
		revoked bool
		kept    bool // the file and the key stay
		says    string
	}{
		"of an earlier server": {creator: "server", says: "was revoked and removed"},
		"revoked before":       {creator: "server", revoked: true, says: "was revoked and removed"},
		"of a person":          {creator: "key admin key", kept: true, says: "did not write"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := start(t, settings{})
			log := slog.New(slog.NewTextHandler(&g.log, nil))
			if err := auth.RetireCLIKey(ctx, g.db, g.layout, log); err != nil || strings.Contains(g.log.String(), "cli.key") {
				t.Fatalf("without a key: %v %s", err, g.log.String())
			}
			plain, prefix, _ := secret.NewAPIKey()
			k := &store.Key{Name: "cli on this machine", Prefix: prefix, Role: agented.RoleAdmin}
			if err := g.db.CreateKey(ctx, k, sha(plain), c.creator); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(g.layout.CLIKey(), []byte(plain+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.revoked {
				g.admin("DELETE", "/api/v1/auth/keys/"+string(k.ID), "").want(204)
			}
			if err := auth.RetireCLIKey(ctx, g.db, g.layout, log); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(g.layout.CLIKey())
			status := g.do(agented.RoleNone, "GET", "/api/v1/config", "", with("X-API-Key", plain)).status
			if c.kept && (err != nil || status != 200) || !c.kept && (err == nil || status != 401) {
				t.Errorf("the file: %v; a request: %d", err, status)
			}
			if strings.Count(g.log.String(), "cli.key") == 0 || !strings.Contains(g.log.String(), c.says) {
				t.Errorf("the log: %s", g.log.String())
			}
		})
	}
}

func TestLogin_session(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleOperator)
	c := g.browser()
	a := g.send(c, "POST", "/api/v1/auth/login", `{"name":"ADA","password":"`+password+`"}`).want(200)
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"agented=", "HttpOnly", "SameSite=Lax", "Path=/"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie %q has no %s", cookie, part)
		}
	}
	if strings.Contains(cookie, "Secure") || strings.Contains(cookie, "__Host-") {
		t.Errorf("over plain HTTP browsers drop %q", cookie)
	}
	g.send(c, "GET", "/api/v1/triggers", "").want(200)
	g.send(c, "GET", "/api/v1/config", "").problem(403)

	// The cookie's value is not in the database.
	value, _, _ := strings.Cut(strings.TrimPrefix(cookie, "agented="), ";")
	id, _, _ := strings.Cut(value, ".")
	for _, suffix := range []string{"", "-wal"} {
		if text, err := os.ReadFile(g.db.Path() + suffix); err == nil && strings.Contains(string(text), id) {
			t.Error("the database holds the cookie's value")
		}
	}
	// A cookie that the server did not sign is rejected before, even with a
	// real id.
	g.do(agented.RoleNone, "GET", "/api/v1/triggers", "", with("Cookie", "agented="+id+".forged")).problem(401)
	// The cookie name for TLS is ignored here.
	g.do(agented.RoleNone, "GET", "/api/v1/triggers", "", with("Cookie", "__Host-agented="+value)).problem(401)

	var l rest.ListOf[identity.SessionView]
	g.send(c, "GET", "/api/v1/auth/sessions", "").want(200).json(&l)
	if len(l.Items) != 1 || !l.Items[0].Current {
		t.Fatalf("sessions: %+v", l)
	}
	g.send(c, "GET", "/api/v1/auth/sessions?all=true", "").problem(403)
	out := g.send(c, "POST", "/api/v1/auth/logout", "").want(204)
	if !strings.Contains(out.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %v", out.header)
	}
	g.do(agented.RoleNone, "GET", "/api/v1/triggers", "", with("Cookie", "agented="+value)).problem(401)
}

func TestSession_expiry_and_revocation(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleViewer)
	g.addUser("bob", agented.RoleViewer)
	day := 24 * time.Hour
	c := g.loggedIn("ada")
	at := func(d time.Duration) *rig { g.now.Store(int64(d)); return g }
	at(29*day).send(c, "GET", "/api/v1/auth/me", "").want(200)
	at(58*day).send(c, "GET", "/api/v1/auth/me", "").want(200) // use keeps it alive
	at(87*day).send(c, "GET", "/api/v1/auth/me", "").want(200)
	at(91*day).send(c, "GET", "/api/v1/auth/me", "").problem(401) // but not without limit
	idle := g.loggedIn("ada")
	at(122*day).send(idle, "GET", "/api/v1/auth/me", "").problem(401)

	one, two := g.loggedIn("ada"), g.loggedIn("ada")
	other := g.loggedIn("bob")
	var l rest.ListOf[identity.SessionView]
	g.send(one, "GET", "/api/v1/auth/sessions", "").want(200).json(&l)
	if len(l.Items) != 2 {
		t.Fatalf("sessions %+v", l.Items)
	}
	for _, s := range l.Items {
		if !s.Current {
			g.send(other, "DELETE", "/api/v1/auth/sessions/"+string(s.ID), "").problem(404)
			g.send(one, "DELETE", "/api/v1/auth/sessions/"+string(s.ID), "").want(204)
		}
	}
	g.send(two, "GET", "/api/v1/auth/me", "").problem(401)

	// A new password ends the other sessions; disabling the user ends all.
	two = g.loggedIn("ada")
	g.send(one, "POST", "/api/v1/auth/password", `{"current":"wrong wrong","new":"another long one"}`).problem(422)
	g.send(one, "POST", "/api/v1/auth/password", `{"current":"`+password+`","new":"short"}`).problem(422)
	g.send(one, "POST", "/api/v1/auth/password", `{"current":"`+password+`","new":"another long one"}`).want(204)
	g.send(two, "GET", "/api/v1/auth/me", "").problem(401)
	g.send(one, "GET", "/api/v1/auth/me", "").want(200)
	g.do(agented.RoleNone, "POST", "/api/v1/auth/login", `{"name":"ada","password":"`+password+`"}`).problem(401)
	u, err := g.db.UserByName(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	g.admin("PATCH", "/api/v1/auth/users/"+string(u.ID), `{"disabled":true}`).want(200)
	g.send(one, "GET", "/api/v1/auth/me", "").problem(401)
	g.do(agented.RoleNone, "POST", "/api/v1/auth/login", `{"name":"ada","password":"another long one"}`).problem(401)
}

func TestSessionCookie_over_TLS(t *testing.T) {
	t.Parallel()
	g := start(t, settings{tls: true})
	g.addUser("ada", agented.RoleViewer)
	c := g.browser()
	a := g.send(c, "POST", "/api/v1/auth/login", `{"name":"ada","password":"`+password+`"}`).want(200)
	if cookie := a.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-agented=") || !strings.Contains(cookie, "Secure") || strings.Contains(cookie, "Domain") {
		t.Errorf("cookie %q", cookie)
	}
	if a.header.Get("Strict-Transport-Security") == "" {
		t.Error("no HSTS over TLS")
	}
	g.send(c, "GET", "/api/v1/auth/me", "").want(200)
}

func TestSessionCookie_behind_local_proxy(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleViewer)
	body := `{"name":"ada","password":"` + password + `"}`
	a := g.do(agented.RoleNone, "POST", "/api/v1/auth/login", body, with("X-Forwarded-Proto", "https"), with("X-Forwarded-For", "198.51.100.7, 203.0.113.9")).want(200)
	if cookie := a.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-agented=") {
		t.Errorf("cookie %q", cookie)
	}
	a = g.do(agented.RoleNone, "POST", "/api/v1/auth/login", body, with("X-Forwarded-For", "203.0.113.9")).want(200)
	if !strings.Contains(a.body, "not encrypted") || !strings.Contains(g.log.String(), "not encrypted") {
		t.Errorf("no warning: %s", a.body)
	}
	if page := g.do(agented.RoleNone, "GET", "/login", "", with("X-Forwarded-For", "203.0.113.9")).want(200); !strings.Contains(page.body, "not encrypted") {
		t.Error("no warning on the page")
	}
	if page := g.do(agented.RoleNone, "GET", "/login", "").want(200); strings.Contains(page.body, "not encrypted") {
		t.Error("a warning on this machine")
	}
	if !strings.Contains(g.access.String(), " 203.0.113.9 ") {
		t.Error("the access log has the proxy's address")
	}
}

func TestLogin_failures_are_indistinguishable(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleViewer)
	try := func(name, pass string) rest.Problem {
		t.Helper()
		return g.do(agented.RoleNone, "POST", "/api/v1/auth/login", `{"name":"`+name+`","password":"`+pass+`"}`).problem(401)
	}
	a, b := try("ada", "wrong-password"), try("nobody-of-that-name", "wrong-password")
	a.RequestID, b.RequestID = "", ""
	if a.Detail != b.Detail || a.Title != b.Title {
		t.Errorf("%+v and %+v", a, b)
	}
	entries, _, err := g.db.AuditLog(t.Context(), store.Page{})
	if err != nil {
		t.Fatal(err)
	}
	var refused []string
	for _, e := range entries {
		if e.Action == "login.refused" {
			refused = append(refused, e.Actor)
		}
		if strings.Contains(e.Actor+e.Detail+e.Subject, "nobody-of-that-name") {
			t.Error("the audit repeats what was typed")
		}
	}
	if len(refused) != 2 || refused[0] != "unknown" || refused[1] != "ada" {
		t.Errorf("audit: %v", refused)
	}
}

func TestLogin_rate_limit(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleViewer)
	try := func(name string, changes ...change) answer {
		return g.do(agented.RoleNone, "POST", "/api/v1/auth/login", `{"name":"`+name+`","password":"wrong-password"}`, changes...)
	}
	for range 5 {
		try("ada").problem(401)
	}
	a := try("ada")
	a.problem(429)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	try("Ada").problem(429)
	try("bob").problem(401)
	try("ada", with("X-Forwarded-For", "203.0.113.1")).problem(401) // guesses from another network do not lock ada out
	if a := g.form(g.browser(), "/login", url.Values{"name": {"ada"}, "password": {password}}).want(429); !strings.Contains(a.body, "Too many attempts") {
		t.Errorf("page: %s", a.body)
	}
	// Many concurrent names from one address.
	var limited atomic.Int64
	var done sync.WaitGroup
	for worker := range 10 {
		done.Go(func() {
			for i := range 12 {
				if try(fmt.Sprintf("guess-%d-%d", worker, i)).status == 429 {
					limited.Add(1)
				}
			}
		})
	}
	done.Wait()
	if limited.Load() == 0 {
		t.Error("120 names from one address were all tried")
	}
}

func TestPages_without_script(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ada", agented.RoleViewer)
	c := g.browser()
	page := g.send(c, "GET", "/login?next=/docs", "").want(200)
	if !strings.Contains(page.body, `value="/docs"`) || strings.Contains(page.body, "<script") || strings.Contains(page.body, "style=") {
		t.Errorf("page: %s", page.body)
	}
	wrong := g.form(c, "/login", url.Values{"name": {`"><b>ada`}, "password": {"nonsense-password"}, "next": {"/docs"}}).want(401)
	if strings.Contains(wrong.body, "<b>") || strings.Contains(wrong.body, "nonsense-password") || !strings.Contains(wrong.body, "wrong") {
		t.Errorf("wrong password: %s", wrong.body)
	}
	a := g.form(c, "/login", url.Values{"name": {"ada"}, "password": {password}, "next": {"/docs"}}).want(303)
	if a.header.Get("Location") != "/docs" {
		t.Errorf("sent to %q", a.header.Get("Location"))
	}
	g.send(c, "GET", "/docs", "").want(200)
	if page := g.send(c, "GET", "/login", "").want(200); !strings.Contains(page.body, "logged in as") {
		t.Errorf("page: %s", page.body)
	}
	g.form(c, "/logout", nil).want(303)
	g.send(c, "GET", "/docs", "", with("Accept", "text/html")).want(303)
	for _, next := range []string{"//evil.example", "https://evil.example", `/\evil.example`, "javascript:alert(1)", "/login", ""} {
		a := g.form(g.browser(), "/login", url.Values{"name": {"ada"}, "password": {password}, "next": {next}}).want(303)
		if a.header.Get("Location") != "/" {
			t.Errorf("next=%q leads to %q", next, a.header.Get("Location"))
		}
	}
	g.send(c, "POST", "/login", "{}").problem(415)
	g.do(agented.RoleNone, "GET", "/", "").want(200)
}

func TestUsersAndKeys_require_admin(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	if p := g.admin("POST", "/api/v1/auth/users", `{"name":"x","password":"`+password+`","role":"viewer"}`).problem(422); p.Errors[0].Location != "body.role" {
		t.Errorf("%+v", p)
	}
	g.addUser("root", agented.RoleAdmin)
	c := g.loggedIn("root")
	u, err := g.db.UserByName(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	at := "/api/v1/auth/users/" + string(u.ID)
	g.send(c, "DELETE", at, "").problem(409)
	g.send(c, "PATCH", at, `{"role":"viewer"}`).problem(409)
	g.send(c, "PATCH", at, `{"disabled":true}`).problem(409)
	if p := g.send(c, "PATCH", at, `{"role":"god"}`).problem(422); p.Errors[0].Location != "body.role" {
		t.Errorf("%+v", p)
	}
	g.send(c, "POST", "/api/v1/auth/users", `{"name":"ROOT","password":"`+password+`","role":"viewer"}`).problem(409)
	if p := g.send(c, "POST", "/api/v1/auth/users", `{"name":"x","password":"short","role":"viewer"}`).problem(422); p.Errors[0].Location != "body.password" {
		t.Errorf("%+v", p)
	}
	if p := g.send(c, "POST", "/api/v1/auth/users", `{"name":"x"}`).problem(422); len(p.Errors) != 2 {
		t.Errorf("%+v", p)
	}
	g.addUser("second", agented.RoleAdmin)
	g.send(c, "PATCH", at, `{"name":"toor","role":"operator"}`).want(200)
	g.send(c, "GET", "/api/v1/auth/users", "").problem(403) // immediately
	if list := g.admin("GET", "/api/v1/auth/users", "").want(200); strings.Contains(list.body, "argon2") || strings.Contains(list.body, "password") {
		t.Errorf("users: %s", list.body)
	}

	var k identity.NewKey
	made := g.admin("POST", "/api/v1/auth/keys", `{"name":"ci","role":"operator"}`).want(201).json(&k)
	if made.header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(k.Key, k.Prefix) {
		t.Errorf("key: %+v", k)
	}
	g.admin("POST", "/api/v1/auth/keys", `{"name":"CI","role":"viewer"}`).problem(409)
	g.do(agented.RoleNone, "GET", "/api/v1/auth/me", "", with("X-API-Key", k.Key)).want(200)
	if list := g.admin("GET", "/api/v1/auth/keys", "").want(200); strings.Contains(list.body, k.Key) || !strings.Contains(list.body, `"used_at":"`) {
		t.Errorf("keys: %s", list.body)
	}
	g.admin("DELETE", "/api/v1/auth/keys/"+string(k.ID), "").want(204)
	g.do(agented.RoleNone, "GET", "/api/v1/auth/me", "", with("X-API-Key", k.Key)).problem(401)
	g.admin("DELETE", "/api/v1/auth/keys/"+string(k.ID), "").problem(409)
	// Basic credentials belong to a proxy and are ignored; the session is used.
	g.send(g.loggedIn("second"), "GET", "/api/v1/auth/me", "", with("Authorization", "Basic eDp5")).want(200)
}

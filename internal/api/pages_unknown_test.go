package api_test

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestUnknownPaths(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("ann", agented.RoleAdmin)
	browser := g.loggedIn("ann")
	html := with("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	for _, path := range []string{"/nowhere", "/usage/x", "/a/b/c/d/e", "/nowhere/", "/executions/a/b"} {
		a := g.send(browser, "GET", path, "", html).want(404)
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "<html") {
			t.Errorf("%s: %s %.80s", path, a.header.Get("Content-Type"), a.body)
		}
		if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "script-src 'self'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for _, change := range []change{with("If-None-Match", a.header.Get("Etag")), with("Range", "bytes=0-3")} {
			g.send(browser, "GET", path, "", html, change).want(404)
		}
		g.send(browser, "GET", path, "").problem(404) // a program
	}
	for path, to := range map[string]string{"/executions/": "/executions", "/settings/users/?a=b": "/settings/users?a=b", "/triggers/x//": "/triggers/x/"} {
		a := g.send(browser, "GET", path, "", html)
		if a.status/100 != 3 || a.header.Get("Location") != to {
			t.Errorf("%s: %d to %q, want %q", path, a.status, a.header.Get("Location"), to)
		}
	}
	for _, path := range []string{"/api/v1/nowhere", "/health/x", "/assets/x.js", "/" + strings.Repeat("a/", 30)} {
		g.send(browser, "GET", path, "", html).problem(404)
	}
	g.send(browser, "POST", "/nowhere", "", html).problem(404)
	// Without a login, an unknown path is not distinguished from a known one.
	if a := g.send(g.client(), "GET", "/nowhere", "", html); a.status/100 != 3 && a.status != 404 {
		t.Errorf("anonymous: %d", a.status)
	}
}

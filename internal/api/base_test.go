package api_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestBasePath(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_BASE_PATH=/tools/agented/"}})
	g.addUser("ada", agented.RoleViewer)
	html := with("Accept", "text/html")
	for _, prefix := range []string{"/tools/agented", ""} { // the proxy keeps the path, or strips it
		g.do(agented.RoleAdmin, "GET", prefix+"/api/v1/triggers", "").want(200)
		g.do(agented.RoleNone, "GET", prefix+"/health/readiness", "").want(200)
		a := g.do(agented.RoleNone, "GET", prefix+"/docs?x=1", "", html).want(303)
		if got := a.header.Get("Location"); got != "/tools/agented/login?next=%2Fdocs%3Fx%3D1" {
			t.Errorf("login redirect %q", got)
		}
		page := g.do(agented.RoleNone, "GET", prefix+"/login", "").want(200)
		for _, m := range regexp.MustCompile(`(?:href|src|action)="([^"]*)"`).FindAllStringSubmatch(page.body, -1) {
			if !strings.HasPrefix(m[1], "/tools/agented/") {
				t.Errorf("the login page refers to %s", m[1])
			}
		}
		for _, next := range []string{"/docs", "/tools/agented/docs"} {
			a = g.do(agented.RoleNone, "POST", prefix+"/login", "name=ada&password="+url.QueryEscape(password)+"&next="+next, with("Content-Type", "application/x-www-form-urlencoded")).want(303)
			if got := a.header.Get("Location"); got != "/tools/agented/docs" {
				t.Errorf("after the login: %q", got)
			}
			if got := a.header.Get("Set-Cookie"); !strings.Contains(got, "Path=/tools/agented;") {
				t.Errorf("cookie %q", got)
			}
		}
		doc := g.do(agented.RoleAdmin, "GET", prefix+"/openapi.json", "").want(200)
		if !strings.Contains(doc.body, `"url":"/tools/agented"`) {
			t.Error("the OpenAPI document does not name the base path")
		}
		created := g.do(agented.RoleAdmin, "POST", prefix+"/api/v1/triggers", `{"name":"t`+prefix+`","backend":"command","command":["true"]}`)
		if to := created.header.Get("Location"); to != "" && !strings.HasPrefix(to, "/tools/agented/api/v1/") {
			t.Errorf("Location %q", to)
		}
	}
	if got := g.do(agented.RoleNone, "GET", "/tools/agented", "").want(308).header.Get("Location"); got != "/tools/agented/" {
		t.Errorf("redirect of the bare path: %q", got)
	}
	g.do(agented.RoleAdmin, "GET", "/tools/agentedx/api/v1/triggers", "").want(404)
	over := start(t, settings{env: []string{"AGENTED_BASE_PATH=/x"}, tls: true})
	over.addUser("ada", agented.RoleViewer)
	a := over.do(agented.RoleNone, "POST", "/x/api/v1/auth/login", `{"name":"ada","password":"`+password+`"}`).want(200)
	if got := a.header.Get("Set-Cookie"); !strings.HasPrefix(got, "__Secure-agented=") || !strings.Contains(got, "Path=/x;") {
		t.Errorf("cookie over TLS %q", got)
	}
}

// The page of the user interface refers to its files relative to the URL in the
// browser, so that it works under any path.
func TestIndex_relative_references(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for path, to := range map[string]string{"/": "./", "/executions": "./", "/executions/exec-1": "../", "/settings/keys": "../"} {
		page := g.do(agented.RoleNone, "GET", path, "", func(r *http.Request) { r.Header.Set("Accept", "*/*") }).want(200)
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page.body, -1) {
			if strings.Contains(m[1], "assets/") && !strings.HasPrefix(m[1], to+"assets/") {
				t.Errorf("%s refers to %s", path, m[1])
			}
		}
	}
}

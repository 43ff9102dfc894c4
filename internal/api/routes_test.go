package api_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
)

// document is the part of the OpenAPI document that the tests use.
type document struct {
	OpenAPI    string `json:"openapi"`
	Info       struct{ Title, Version string }
	Paths      map[string]map[string]documented
	Components struct {
		Schemas         map[string]json.RawMessage
		SecuritySchemes map[string]json.RawMessage `json:"securitySchemes"`
	}
}

type documented struct {
	OperationID string `json:"operationId"`
	Summary     string
	Description string
	Tags        []string
	Role        string `json:"x-role"`
	LimitedKeys string `json:"x-limited-keys"`
	Security    []map[string][]string
	Parameters  []struct {
		Name, In, Description string
		Required              bool
		Schema                json.RawMessage
	}
	RequestBody *struct{ Content map[string]json.RawMessage } `json:"requestBody"`
	Responses   map[string]struct {
		Description string
		Content     map[string]json.RawMessage
	}
}

func (g *rig) document() document {
	g.t.Helper()
	var d document
	g.do(agented.RoleViewer, "GET", "/openapi.json", "").want(200).json(&d)
	return d
}

func TestRoutes_public(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var open []string
	for path, methods := range g.document().Paths {
		for method, o := range methods {
			if o.Role == "anyone" {
				open = append(open, strings.ToUpper(method)+" "+path)
				if len(o.Security) != 0 {
					t.Errorf("%s %s is open, and the document asks for credentials", method, path)
				}
			}
		}
	}
	open = append(open, g.api.Undocumented()...)
	slices.Sort(open)
	want := []string{
		"GET /accounts", "GET /agents", "GET /agents/{id}", "GET /assets/{path...}",
		"GET /chains/{id}", "GET /conversations", "GET /conversations/{id}", "GET /deliveries", "GET /deliveries/{id}", "GET /executions", "GET /executions/{id}",
		"GET /health/liveness", "GET /health/readiness", "GET /inbox", "GET /login", "GET /schedule", "GET /settings", "GET /settings/{part}", "GET /setup",
		"GET /static/style.css", "GET /triggers", "GET /triggers/{id}", "GET /usage", "GET /{$}", "POST /", "POST /api/v1/auth/login", "POST /api/v1/auth/setup", "POST /api/webhooks/github",
		"POST /api/webhooks/github/{$}", "POST /hooks/github", "POST /hooks/github/{$}", "POST /hooks/{trigger}", "POST /hooks/{trigger}/{$}", "POST /hooks/{trigger}/{token}", "POST /login", "POST /logout", "POST /setup",
	}
	if diff := cmp.Diff(want, open); diff != "" {
		t.Errorf("open to anyone (-want +got):\n%s", diff)
	}
}

var roles = []agented.Role{agented.RoleNone, agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin}

func TestRoutes_roles(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	g.addUser("somebody", agented.RoleAdmin)
	inPath := regexp.MustCompile(`\{[a-z]+\}`)
	checked := 0
	for path, methods := range g.document().Paths {
		for method, o := range methods {
			needed := agented.Role(o.Role)
			if o.Role == "anyone" {
				needed = agented.RoleNone
			} else if !needed.Valid() {
				t.Errorf("%s %s has the role %q", method, path, o.Role)
			}
			for _, role := range roles {
				checked++
				body := ""
				if o.RequestBody != nil {
					body = `{` // the body is not read, and nothing starts
				}
				a := g.do(role, strings.ToUpper(method), inPath.ReplaceAllString(path, "none"), body, with("Accept", "application/json"), with("Last-Event-ID", "x"))
				switch {
				case needed == agented.RoleNone:
					if a.status == 403 && path != "/setup" {
						t.Errorf("%s %s as %q: %d, but it is open", method, path, role, a.status)
					}
				case role == agented.RoleNone:
					if a.status != 401 {
						t.Errorf("%s %s as nobody: %d", method, path, a.status)
					} else if a.header.Get("WWW-Authenticate") == "" {
						t.Errorf("%s %s: 401 without WWW-Authenticate", method, path)
					}
				case !role.Allows(needed):
					if p := a.problem(403); !strings.Contains(p.Detail, string(needed)) {
						t.Errorf("%s %s as %s does not name the role that it needs: %s", method, path, role, p.Detail)
					}
				case a.status == 401 || a.status == 403:
					t.Errorf("%s %s as %s: %d %s", method, path, role, a.status, a.body)
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d combinations were checked", checked)
	}
}

func TestDocument_complete(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	a := g.do(agented.RoleViewer, "GET", "/openapi.json", "").want(200)
	var d document
	a.json(&d)
	if d.OpenAPI != "3.1.0" || d.Info.Title != "Agented" || d.Info.Version != "1.2.3-test" {
		t.Errorf("head of the document: %q %+v", d.OpenAPI, d.Info)
	}
	for _, name := range []string{"bearer", "key", "session"} {
		if d.Components.SecuritySchemes[name] == nil {
			t.Errorf("no security scheme %s", name)
		}
	}
	ids := map[string]bool{}
	for path, methods := range d.Paths {
		for method, o := range methods {
			at := method + " " + path
			if ids[o.OperationID] || o.OperationID == "" {
				t.Errorf("%s: operationId %q is empty or there twice", at, o.OperationID)
			}
			ids[o.OperationID] = true
			if o.Summary == "" || o.Description == "" || len(o.Tags) != 1 {
				t.Errorf("%s: lacks summary, description or tag", at)
			}
			for _, p := range o.Parameters {
				if p.Description == "" || len(p.Schema) == 0 {
					t.Errorf("%s: parameter %s is not described", at, p.Name)
				}
			}
			for _, m := range regexp.MustCompile(`\{([^}]+)\}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(o.Parameters, func(p struct {
					Name, In, Description string
					Required              bool
					Schema                json.RawMessage
				},
				) bool {
					return p.In == "path" && p.Name == m[1] && p.Required
				}) {
					t.Errorf("%s: path parameter %s is missing", at, m[1])
				}
			}
			for status, answer := range o.Responses {
				if status[0] >= '4' && o.Tags[0] != "pages" && answer.Content["application/problem+json"] == nil && path != "/health/readiness" {
					t.Errorf("%s: %s is not a problem", at, status)
				}
				if answer.Description == "" {
					t.Errorf("%s: %s is not described", at, status)
				}
			}
		}
	}
	for _, ref := range regexp.MustCompile(`"\$ref":"([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		name, ok := strings.CutPrefix(ref[1], "#/components/schemas/")
		if !ok || d.Components.Schemas[name] == nil {
			t.Errorf("%s leads nowhere", ref[1])
		}
	}
	if strings.Contains(a.body, "$schema") {
		t.Error("the document speaks of $schema")
	}
	if y := g.do(agented.RoleViewer, "GET", "/openapi.yaml", "").want(200); !strings.Contains(y.body, "openapi: 3.1.0") {
		t.Errorf("YAML: %.80s", y.body)
	}
}

func TestDocsPage_self_contained(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	a := g.do(agented.RoleViewer, "GET", "/docs", "").want(200)
	for _, bad := range []string{"<script", "style=", "http://", "https://", "onclick", "ZgotmplZ"} {
		if strings.Contains(a.body, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	for path, methods := range g.document().Paths {
		for _, o := range methods {
			if !strings.Contains(a.body, `id="`+o.OperationID+`"`) {
				t.Errorf("%s (%s) is not on the page", o.OperationID, path)
			}
		}
	}
	if csp := a.header.Get("Content-Security-Policy"); csp == "" || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	if css := g.do(agented.RoleNone, "GET", "/static/style.css", "").want(200); strings.Contains(css.body, "url(") || strings.Contains(css.body, "@import") {
		t.Error("the stylesheet fetches something")
	}
	// In a browser, anonymous users are redirected to the login and back.
	to := g.do(agented.RoleNone, "GET", "/docs", "", with("Accept", "text/html")).want(303)
	if to.header.Get("Location") != "/login?next=%2Fdocs" {
		t.Errorf("sent to %q", to.header.Get("Location"))
	}
}

func TestProblem_not_found(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for _, path := range []string{"/api/v1/nothing", "/nothing", "/api/v1/triggers/", "/hooks/x/y/z", "/assets/none.js", "/assets/%2e%2e/index.html", "/assets/..%2f..%2fetc%2fpasswd"} {
		if p := g.admin("GET", path, "").problem(404); p.Kind != agented.NotFound {
			t.Errorf("%s: kind %s", path, p.Kind)
		}
	}
	a := g.admin("PUT", "/api/v1/triggers", hello)
	a.problem(405)
	if allow := a.header.Get("Allow"); allow != "GET, HEAD, POST" {
		t.Errorf("Allow: %q", allow)
	}
	head := g.admin("HEAD", "/api/v1/nothing", "").want(404)
	if head.body != "" {
		t.Error("HEAD got a body")
	}
	g.admin("HEAD", "/api/v1/triggers", "").want(200)
}

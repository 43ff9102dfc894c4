// Package pages serves the pages for browsers: login, setup and the OpenAPI
// document, which work without scripts, and the files of the user interface.
package pages

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
)

// Pages serves the server's own HTML pages. They contain nothing inline, so that
// the content policy can be strict.
type Pages struct {
	auth   *auth.Service
	router *rest.Router
	base   string
	byName map[string]*template.Template
}

//go:embed *.html style.css
var files embed.FS

// New returns the pages of a server that a proxy publishes under the path base,
// which is empty at the root of a host.
func New(a *auth.Service, router *rest.Router, base string) (*Pages, error) {
	p := &Pages{auth: a, router: router, base: base, byName: map[string]*template.Template{}}
	for _, name := range []string{"login", "setup", "docs", "message"} {
		t, err := template.New("frame.html").Funcs(template.FuncMap{"base": func() string { return base }}).ParseFS(files, "frame.html", name+".html")
		if err != nil {
			return nil, err
		}
		p.byName[name] = t
	}
	return p, nil
}

// Routes returns the routes of all pages and of the user interface.
func (p *Pages) Routes() []rest.Route {
	const anyone, viewer = agented.RoleNone, agented.RoleViewer
	return append([]rest.Route{
		rest.Raw("GET /login", anyone, p.loginForm, rest.About{
			ID: "login-page", Tag: "pages", Summary: "Login page", Text: "Also shows whether the caller is logged in, and whether the server has been set up.",
			Params:  []*huma.Param{rest.QueryParam("next", "string", "Path to go to after the login"), rest.QueryParam("out", "string", "Set after a logout")},
			Answers: map[string]*huma.Response{"200": rest.Describe("The page", "text/html")},
		}),
		rest.Raw("POST /login", anyone, p.loginSubmit, rest.About{
			ID: "login-form", Tag: "pages", Summary: "Log in with a form", Text: "Sets the session cookie and redirects to `next`.",
			Body:    rest.Form("name", "password", "next"),
			Answers: map[string]*huma.Response{"303": rest.Describe("Logged in", ""), "401": rest.Describe("The page with an error message", "text/html"), "429": rest.Describe("Too many attempts", "text/html")},
		}),
		rest.Raw("POST /logout", anyone, p.logoutSubmit, rest.About{
			ID: "logout-form", Tag: "pages", Summary: "Log out with a form", Text: "Ends the session, if there is one, and redirects to the login page.",
			Answers: map[string]*huma.Response{"303": rest.Describe("Logged out", "")},
		}),
		rest.Raw("GET /setup", anyone, p.setupForm, rest.About{
			ID: "setup-page", Tag: "pages", Summary: "Page of the one-time setup link", Text: "Shows the form for the first user.",
			Params:  []*huma.Param{rest.QueryParam("token", "string", "The token of the link")},
			Answers: map[string]*huma.Response{"200": rest.Describe("The page", "text/html"), "403": rest.Describe("The token is not valid", "text/html")},
		}),
		rest.Raw("POST /setup", anyone, p.setupSubmit, rest.About{
			ID: "setup-form", Tag: "pages", Summary: "Create the first user with a form", Text: "Creates the first user and logs in.",
			Body:    rest.Form("token", "name", "password", "again"),
			Answers: map[string]*huma.Response{"303": rest.Describe("User created and logged in", ""), "403": rest.Describe("The token is not valid", "text/html"), "422": rest.Describe("The page with an error message", "text/html"), "429": rest.Describe("Too many attempts", "text/html")},
		}),
		rest.Raw("GET /docs", viewer, p.docs, rest.About{
			ID: "docs-page", Tag: "pages", Summary: "OpenAPI document as a page", Text: "Works without scripts and external resources.",
			Answers: map[string]*huma.Response{"200": rest.Describe("The page", "text/html")},
		}).Page().Reaching(rest.Everything),
		rest.Raw("GET /static/style.css", anyone, stylesheet, rest.About{}),
	}, p.uiRoutes()...)
}

// write renders a page completely before sending it, so that an error can still
// be reported.
func (p *Pages) write(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := p.byName[name].Execute(&b, data); err != nil {
		rest.Fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes())
	}
}

// stylesheet serves GET /static/style.css.
func stylesheet(w http.ResponseWriter, _ *http.Request) {
	text, err := files.ReadFile("style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(text)
}

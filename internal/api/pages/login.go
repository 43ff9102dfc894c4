package pages

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

type loginPage struct {
	User        string
	Role        agented.Role
	Name, Next  string
	Note, Error string
	Plain       bool
}

type setupPage struct {
	Token, Name, Error string
	Plain              bool
	Min                int
}

type messagePage struct{ Title, Text, Code, Link, Label string }

// nextPath is the function [nextPath] without the base path, which a page of
// this server may have added.
func (p *Pages) nextPath(next string) string {
	if path, ok := strings.CutPrefix(next, p.base); ok && (path == "" || path[0] == '/') {
		next = path
	}
	return nextPath(next)
}

// nextPath returns where to go after a login: a path on this server that no
// browser interprets as another host.
func nextPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, "/login") {
		return "/"
	}
	return next
}

func (p *Pages) loginForm(w http.ResponseWriter, r *http.Request) {
	if p.auth.HasNoUsers(r.Context()) {
		p.write(w, r, http.StatusOK, "message", messagePage{
			Title: "Not set up yet",
			Text:  "On the machine where Agented runs, open the one-time link in the file setup-link of its data folder. It creates the first user.",
			Code:  "cat DATA_FOLDER/setup-link",
		})
		return
	}
	who := rest.Identify(r)
	page := loginPage{User: who.Name, Role: who.Role, Next: p.nextPath(r.URL.Query().Get("next")), Plain: rest.Client(r).Exposed()}
	if r.URL.Query().Has("out") {
		page.Note = "You are logged out."
	}
	p.write(w, r, http.StatusOK, "login", page)
}

// maxForm limits a posted form, in bytes.
const maxForm = 64 << 10

// readForm parses a form posted by a page of this server.
func readForm(w http.ResponseWriter, r *http.Request) error {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return &rest.Problem{
			Status: http.StatusUnsupportedMediaType, Kind: agented.Invalid,
			Detail: "this endpoint takes a form: send Content-Type: application/x-www-form-urlencoded, or use the JSON operation under /api/v1/auth",
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(30 * time.Second)) // a slow client would hold the connection
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	if err := r.ParseForm(); err != nil {
		return &rest.Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: "the form could not be read"}
	}
	return nil
}

func (p *Pages) loginSubmit(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		rest.Fail(w, r, err)
		return
	}
	name, next := strings.TrimSpace(r.PostForm.Get("name")), p.nextPath(r.PostForm.Get("next"))
	user, err := p.auth.LogIn(r.Context(), rest.Client(r), name, r.PostForm.Get("password"))
	if err == nil {
		err = p.finishLogin(w, r, user, next)
	}
	if err != nil {
		bad := rest.PageProblem(w, r, err)
		p.write(w, r, bad.Status, "login", loginPage{
			Name: format.Clip(name, 100), Next: next, Error: sentence(bad.Detail), Plain: rest.Client(r).Exposed(),
		})
	}
}

// finishLogin logs a user in and redirects the browser.
func (p *Pages) finishLogin(w http.ResponseWriter, r *http.Request, user *store.User, next string) error {
	cookie, err := p.auth.NewSession(r.Context(), rest.Client(r), user)
	if err != nil {
		return err
	}
	rest.SetCaller(r, auth.Caller{Principal: agented.Principal{Name: user.Name, Role: user.Role, User: user.ID}})
	http.SetCookie(w, &cookie)
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// sentence capitalises a problem's detail and adds a full stop.
func sentence(detail string) string {
	if detail == "" {
		return detail
	}
	return strings.ToUpper(detail[:1]) + strings.TrimSuffix(detail[1:], ".") + "."
}

func (p *Pages) logoutSubmit(w http.ResponseWriter, r *http.Request) {
	rest.Identify(r)
	if err := p.auth.LogOut(r.Context(), rest.Client(r), rest.Caller(r)); err != nil {
		rest.Fail(w, r, err)
		return
	}
	cookie := p.auth.NoSession(rest.Client(r))
	http.SetCookie(w, &cookie)
	http.Redirect(w, r, "/login?out", http.StatusSeeOther)
}

func (p *Pages) setupForm(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	switch {
	case !p.auth.HasNoUsers(r.Context()):
		p.write(w, r, http.StatusOK, "message", messagePage{
			Title: "Already set up", Text: "The first user exists, so this link is no longer valid.", Link: "/login", Label: "Log in",
		})
	case !p.auth.SetupAllowed(token):
		p.write(w, r, http.StatusForbidden, "message", messagePage{
			Title: "This link is not valid",
			Text:  "Use the link in the file setup-link of the data folder on the machine where Agented runs. If the file is gone, restart the server.",
		})
	default:
		p.write(w, r, http.StatusOK, "setup", setupPage{Token: token, Plain: rest.Client(r).Exposed(), Min: secret.MinPassword})
	}
}

func (p *Pages) setupSubmit(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		rest.Fail(w, r, err)
		return
	}
	f := r.PostForm
	name := strings.TrimSpace(f.Get("name"))
	var user *store.User
	var err error
	if f.Get("password") != f.Get("again") {
		err = agented.InvalidFields([]agented.Field{{Path: "again", Text: "the two passwords differ"}})
	} else {
		user, err = p.auth.SetUp(r.Context(), rest.Client(r), f.Get("token"), name, f.Get("password"))
	}
	if err == nil {
		err = p.finishLogin(w, r, user, "/")
	}
	if err != nil {
		bad := rest.PageProblem(w, r, err)
		if bad.Status != http.StatusUnprocessableEntity { // this form cannot be submitted again
			p.write(w, r, bad.Status, "message", messagePage{
				Title: "Not set up", Text: sentence(bad.Detail), Link: "/login", Label: "Go to the login",
			})
			return
		}
		text := bad.Detail
		if len(bad.Errors) > 0 && bad.Errors[0].Location == "body.again" {
			text = bad.Errors[0].Message
		}
		p.write(w, r, bad.Status, "setup", setupPage{
			Token: f.Get("token"), Name: format.Clip(name, 100), Error: sentence(text), Plain: rest.Client(r).Exposed(), Min: secret.MinPassword,
		})
	}
}

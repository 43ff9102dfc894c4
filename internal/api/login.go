package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// LoginInput is a name and a password.
type LoginInput struct {
	Name     string `json:"name" maxLength:"200"`
	Password string `json:"password" maxLength:"2000" format:"password"`
}

// SetupInput is the first user, with the token of the setup link.
type SetupInput struct {
	Token    string `json:"token" maxLength:"200" doc:"The token of the one-time setup link"`
	Name     string `json:"name" maxLength:"200"`
	Password string `json:"password" maxLength:"2000" format:"password" doc:"At least 10 characters"`
}

// Me is who asks.
type Me struct {
	Name    string            `json:"name" doc:"A user's name, or key and the key's name"`
	Role    agented.Role      `json:"role" enum:"viewer,operator,admin"`
	User    agented.UserID    `json:"user_id" doc:"Empty for an API key"`
	Key     agented.KeyID     `json:"key_id" doc:"Empty for a session and for AGENTED_API_KEY"`
	Session agented.SessionID `json:"session_id" doc:"Empty for an API key"`
	Warning string            `json:"warning,omitempty" doc:"What the person should know, such as that the connection is not encrypted"`
}

type cookieOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie" doc:"The session"`
	Body      Me
}

const plainWarning = "this connection is not encrypted: others on the network can read what is sent; see AGENTED_TLS_CERT"

func (s *Server) loggedIn(ctx context.Context, user *store.User) (*cookieOutput, error) {
	r := requestIn(ctx).http.WithContext(ctx)
	cookie, err := s.newSession(r, user)
	if err != nil {
		return nil, err
	}
	out := &cookieOutput{SetCookie: cookie, Body: Me{Name: user.Name, Role: user.Role, User: user.ID}}
	if plainAndFar(r) {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

func (s *Server) login(ctx context.Context, in *createInput[LoginInput]) (*cookieOutput, error) {
	r := requestIn(ctx).http.WithContext(ctx)
	user, err := s.logIn(r, in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return s.loggedIn(ctx, user)
}

func (s *Server) setup(ctx context.Context, in *createInput[SetupInput]) (*cookieOutput, error) {
	r := requestIn(ctx).http.WithContext(ctx)
	user, err := s.setUp(r, in.Body.Token, in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return s.loggedIn(ctx, user)
}

type logoutOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie" doc:"Removes the session"`
}

func (s *Server) logout(ctx context.Context, _ *struct{}) (*logoutOutput, error) {
	r := requestIn(ctx).http.WithContext(ctx)
	if err := s.endSession(r); err != nil {
		return nil, err
	}
	return &logoutOutput{s.cookie(r, "", -1)}, nil
}

func (s *Server) me(ctx context.Context, _ *struct{}) (*output[Me], error) {
	p := principal(ctx)
	out := &output[Me]{Me{Name: p.Name, Role: p.Role, User: p.User, Key: p.Key, Session: p.Sess}}
	if p.Sess != "" && plainAndFar(requestIn(ctx).http) {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

// The pages.

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

// toLogin sends a browser to the login page and back to where it was.
func (s *Server) toLogin(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
}

// nextPath is where to go after a login: a path on this server, nothing that a
// browser would take for another one.
func nextPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, "/login") {
		return "/"
	}
	return next
}

// whoAmI identifies the asker of an open page, who may be nobody.
func (s *Server) whoAmI(r *http.Request) agented.Principal {
	q := requestOf(r)
	if err := s.identify(q, r); err != nil {
		return agented.Principal{}
	}
	return q.who
}

func (s *Server) loginForm() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.empty(r.Context()) {
			s.pages.write(w, r, http.StatusOK, "message", messagePage{
				Title: "Not set up yet",
				Text:  "On the machine where Agented runs, open the one-time link in the file setup-link of its data folder. It creates the first user.",
				Code:  "cat DATA_FOLDER/setup-link",
			})
			return
		}
		who := s.whoAmI(r)
		p := loginPage{User: who.Name, Role: who.Role, Next: nextPath(r.URL.Query().Get("next")), Plain: plainAndFar(r)}
		if r.URL.Query().Has("out") {
			p.Note = "You are logged out."
		}
		s.pages.write(w, r, http.StatusOK, "login", p)
	}
}

// maxForm bounds a posted form.
const maxForm = 64 << 10

// readForm reads a form that a page of ours posted.
func readForm(w http.ResponseWriter, r *http.Request) error {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return &Problem{
			Status: http.StatusUnsupportedMediaType, Kind: agented.Invalid,
			Detail: "this takes a form: send Content-Type: application/x-www-form-urlencoded, or use the JSON operation under /api/v1/auth",
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(30 * time.Second)) // who sends a byte a minute holds a connection
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	if err := r.ParseForm(); err != nil {
		return &Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: "the form could not be read"}
	}
	return nil
}

func (s *Server) loginSubmit() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := readForm(w, r); err != nil {
			s.fail(w, r, err)
			return
		}
		name, next := strings.TrimSpace(r.PostForm.Get("name")), nextPath(r.PostForm.Get("next"))
		user, err := s.logIn(r, name, r.PostForm.Get("password"))
		if err == nil {
			err = s.welcome(w, r, user, next)
		}
		if err != nil {
			p := s.pageProblem(w, r, err)
			s.pages.write(w, r, p.Status, "login", loginPage{
				Name: clip(name, 100), Next: next, Error: sentence(p.Detail), Plain: plainAndFar(r),
			})
		}
	}
}

// welcome logs a user in and sends the browser on.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request, user *store.User, next string) error {
	cookie, err := s.newSession(r, user)
	if err != nil {
		return err
	}
	requestOf(r).who = agented.Principal{Name: user.Name, Role: user.Role, User: user.ID}
	http.SetCookie(w, &cookie)
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

// pageProblem is the problem that a page shows instead of sending it as JSON.
func (s *Server) pageProblem(w http.ResponseWriter, r *http.Request, err error) *Problem {
	p := s.fill(problemOf(err), r, err)
	if p.retryAfter > 0 {
		p.headers(w.Header())
	}
	return p
}

// sentence gives a problem's detail the look of one.
func sentence(detail string) string {
	if detail == "" {
		return detail
	}
	return strings.ToUpper(detail[:1]) + strings.TrimSuffix(detail[1:], ".") + "."
}

func (s *Server) logoutSubmit() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.whoAmI(r)
		if err := s.endSession(r); err != nil {
			s.fail(w, r, err)
			return
		}
		cookie := s.cookie(r, "", -1)
		http.SetCookie(w, &cookie)
		http.Redirect(w, r, "/login?out", http.StatusSeeOther)
	}
}

func (s *Server) setupForm() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := r.URL.Query().Get("token")
		switch want := setupToken(s.o.Layout); {
		case !s.empty(r.Context()):
			s.pages.write(w, r, http.StatusOK, "message", messagePage{
				Title: "Set up already", Text: "The first user exists; this link has done its work.", Link: "/login", Label: "Log in",
			})
		case want == "" || !secret.Equal(token, want):
			s.pages.write(w, r, http.StatusForbidden, "message", messagePage{
				Title: "This link is not valid",
				Text:  "Use the link in the file setup-link of the data folder on the machine where Agented runs. If the file is gone, restart the server.",
			})
		default:
			s.pages.write(w, r, http.StatusOK, "setup", setupPage{Token: token, Plain: plainAndFar(r), Min: secret.MinPassword})
		}
	}
}

func (s *Server) setupSubmit() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := readForm(w, r); err != nil {
			s.fail(w, r, err)
			return
		}
		f := r.PostForm
		name := strings.TrimSpace(f.Get("name"))
		var user *store.User
		var err error
		if f.Get("password") != f.Get("again") {
			err = agented.InvalidFields([]agented.Field{{Path: "again", Text: "the two passwords differ"}})
		} else {
			user, err = s.setUp(r, f.Get("token"), name, f.Get("password"))
		}
		if err == nil {
			err = s.welcome(w, r, user, "/")
		}
		if err != nil {
			p := s.pageProblem(w, r, err)
			if p.Status != http.StatusUnprocessableEntity { // another try with this form would not help
				s.pages.write(w, r, p.Status, "message", messagePage{
					Title: "Not set up", Text: sentence(p.Detail), Link: "/login", Label: "Go to the login",
				})
				return
			}
			text := p.Detail
			if len(p.Errors) > 0 && p.Errors[0].Location == "body.again" {
				text = p.Errors[0].Message
			}
			s.pages.write(w, r, p.Status, "setup", setupPage{
				Token: f.Get("token"), Name: clip(name, 100), Error: sentence(text), Plain: plainAndFar(r), Min: secret.MinPassword,
			})
		}
	}
}

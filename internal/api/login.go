package api

import (
	"context"
	"net/http"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
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

// Me is the authenticated caller.
type Me struct {
	Name    string            `json:"name" doc:"User name, or key and the key's name"`
	Role    agented.Role      `json:"role" enum:"viewer,operator,admin"`
	User    agented.UserID    `json:"user_id" doc:"Empty for an API key"`
	Key     agented.KeyID     `json:"key_id" doc:"Empty for a session and for AGENTED_API_KEY"`
	Session agented.SessionID `json:"session_id" doc:"Empty for an API key"`
	Warning string            `json:"warning,omitempty" doc:"Warning for the user, such as that the connection is not encrypted"`
}

// maxForm limits the body of a request of a login or a setup, in bytes.
const maxForm = 64 << 10

type cookieOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie" doc:"The session cookie"`
	Body      Me
}

const plainWarning = "this connection is not encrypted, so others on the network can read it: set AGENTED_TLS_CERT and AGENTED_TLS_KEY, or use a TLS proxy"

func (s *Server) loggedIn(ctx context.Context, user *store.User) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	cookie, err := s.auth.NewSession(r.Context(), rest.Client(r), user)
	if err != nil {
		return nil, err
	}
	out := &cookieOutput{SetCookie: cookie, Body: Me{Name: user.Name, Role: user.Role, User: user.ID}}
	if rest.Client(r).Exposed() {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

func (s *Server) login(ctx context.Context, in *rest.Input[LoginInput]) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	user, err := s.auth.LogIn(r.Context(), rest.Client(r), in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return s.loggedIn(ctx, user)
}

func (s *Server) setup(ctx context.Context, in *rest.Input[SetupInput]) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	user, err := s.auth.SetUp(r.Context(), rest.Client(r), in.Body.Token, in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return s.loggedIn(ctx, user)
}

type logoutOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie" doc:"Removes the session cookie"`
}

func (s *Server) logout(ctx context.Context, _ *struct{}) (*logoutOutput, error) {
	r := rest.HTTP(ctx)
	if err := s.auth.LogOut(r.Context(), rest.Client(r), rest.Caller(r)); err != nil {
		return nil, err
	}
	return &logoutOutput{s.auth.NoSession(rest.Client(r))}, nil
}

func (s *Server) me(ctx context.Context, _ *struct{}) (*rest.Output[Me], error) {
	p := rest.Principal(ctx)
	out := rest.Reply(Me{Name: p.Name, Role: p.Role, User: p.User, Key: p.Key, Session: p.Sess})
	if p.Sess != "" && rest.Client(rest.HTTP(ctx)).Exposed() {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

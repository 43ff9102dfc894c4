package identity

import (
	"context"
	"net/http"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// logins handles logins, the first setup and passwords.
type logins struct{ auth *auth.Service }

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

func (h *logins) loggedIn(ctx context.Context, user *store.User) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	cookie, err := h.auth.NewSession(r.Context(), rest.Client(r), user)
	if err != nil {
		return nil, err
	}
	out := &cookieOutput{SetCookie: cookie, Body: Me{Name: user.Name, Role: user.Role, User: user.ID}}
	if rest.Client(r).Exposed() {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

func (h *logins) login(ctx context.Context, in *rest.Input[LoginInput]) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	user, err := h.auth.LogIn(r.Context(), rest.Client(r), in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return h.loggedIn(ctx, user)
}

func (h *logins) setup(ctx context.Context, in *rest.Input[SetupInput]) (*cookieOutput, error) {
	r := rest.HTTP(ctx)
	user, err := h.auth.SetUp(r.Context(), rest.Client(r), in.Body.Token, in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return h.loggedIn(ctx, user)
}

type logoutOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie" doc:"Removes the session cookie"`
}

func (h *logins) logout(ctx context.Context, _ *struct{}) (*logoutOutput, error) {
	r := rest.HTTP(ctx)
	if err := h.auth.LogOut(r.Context(), rest.Client(r), rest.Caller(r)); err != nil {
		return nil, err
	}
	return &logoutOutput{h.auth.NoSession(rest.Client(r))}, nil
}

func (h *logins) me(ctx context.Context, _ *struct{}) (*rest.Output[Me], error) {
	p := rest.Principal(ctx)
	out := rest.Reply(Me{Name: p.Name, Role: p.Role, User: p.User, Key: p.Key, Session: p.Sess})
	if p.Sess != "" && rest.Client(rest.HTTP(ctx)).Exposed() {
		out.Body.Warning = plainWarning
	}
	return out, nil
}

// PasswordInput is a user's own password change.
type PasswordInput struct {
	Current string `json:"current" maxLength:"2000" format:"password"`
	New     string `json:"new" maxLength:"2000" format:"password" doc:"At least 10 characters; no sequence, no common password, not the name"`
}

func (h *logins) changePassword(ctx context.Context, in *rest.Input[PasswordInput]) (*struct{}, error) {
	return nil, h.auth.ChangePassword(ctx, rest.Client(rest.HTTP(ctx)), rest.Principal(ctx), in.Body.Current, in.Body.New)
}

// routes returns the routes of logins, the first setup and passwords.
func (h *logins) routes() []rest.Route {
	const anyone, viewer = agented.RoleNone, agented.RoleViewer
	return []rest.Route{
		rest.Op("POST /api/v1/auth/setup", anyone, h.setup, rest.About{
			ID: "create-first-user", Tag: "auth", Summary: "Create the first user", Status: http.StatusCreated, Errors: []int{http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests},
			Text: "Takes the token of the one-time link in the file setup-link of the data folder, and logs the user in.", MaxBody: maxForm,
		}),
		rest.Op("POST /api/v1/auth/login", anyone, h.login, rest.About{
			ID: "login", Tag: "auth", Summary: "Log in", Status: http.StatusOK, Errors: []int{http.StatusUnauthorized, http.StatusTooManyRequests},
			Text: "Sets the session cookie.", MaxBody: maxForm,
		}),
		rest.Op("POST /api/v1/auth/logout", viewer, h.logout, rest.About{
			ID: "logout", Tag: "auth", Summary: "Log out", Status: http.StatusNoContent,
			Text: "Ends the session and removes its cookie.",
		}),
		rest.Op("GET /api/v1/auth/me", viewer, h.me, rest.About{
			ID: "get-current-user", Tag: "auth", Summary: "Show the current user",
			Text: "Returns the user or the key of this request.",
		}).Reaching(rest.Everything),
		rest.Op("POST /api/v1/auth/password", viewer, h.changePassword, rest.About{
			ID: "change-password", Tag: "auth", Summary: "Change your password", Status: http.StatusNoContent, Errors: []int{http.StatusTooManyRequests},
			Text: "Ends your other sessions.", MaxBody: maxForm,
		}),
	}
}

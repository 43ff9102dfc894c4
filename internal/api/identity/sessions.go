package identity

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// sessions handles the requests about login sessions.
type sessions struct {
	db   *store.DB
	auth *auth.Service
	now  func() time.Time
	note Note
}

// SessionView is a login session in responses.
type SessionView struct {
	ID        agented.SessionID `json:"id"`
	User      agented.UserID    `json:"user_id"`
	UserName  string            `json:"user_name"`
	Current   bool              `json:"current" doc:"The session of this request"`
	CreatedAt time.Time         `json:"created_at"`
	SeenAt    time.Time         `json:"seen_at" doc:"Last use, to the minute"`
	ExpiresAt time.Time         `json:"expires_at"`
	Address   string            `json:"address" doc:"Address of the last use"`
	UserAgent string            `json:"user_agent"`
}

type sessionListInput struct {
	All bool `query:"all" doc:"Sessions of all users; admins only"`
}

func (h *sessions) list(ctx context.Context, in *sessionListInput) (*rest.ListOutput[SessionView], error) {
	who := rest.Principal(ctx)
	user := who.User
	switch {
	case in.All && !who.May(agented.RoleAdmin):
		return nil, agented.Errorf(agented.Denied, "only an admin can list the sessions of others: omit all")
	case in.All:
		user = ""
	case user == "":
		return rest.List(nil, "", func(*store.Session) SessionView { return SessionView{} }), nil // a key has no sessions
	}
	items, err := h.db.Sessions(ctx, user, h.now())
	if err != nil {
		return nil, err
	}
	return rest.List(items, "", func(v *store.Session) SessionView {
		return SessionView{
			ID: v.ID, User: v.User, UserName: v.UserName, Current: v.ID == who.Sess, CreatedAt: rest.Time(v.CreatedAt), SeenAt: rest.Time(v.SeenAt),
			ExpiresAt: rest.Time(v.ExpiresAt), Address: v.Address, UserAgent: v.UserAgent,
		}
	}), nil
}

type sessionPath struct {
	ID string `path:"id" maxLength:"100" doc:"The session's id, ses-…"`
}

func (h *sessions) revoke(ctx context.Context, in *sessionPath) (*struct{}, error) {
	who := rest.Principal(ctx)
	user := who.User
	switch {
	case !agented.ValidID("ses", in.ID):
		return nil, agented.Errorf(agented.NotFound, "no session has this id")
	case who.May(agented.RoleAdmin):
		user = "" // of any user
	case user == "":
		return nil, agented.Errorf(agented.NotFound, "no session has this id")
	}
	if err := h.auth.RevokeSession(ctx, agented.SessionID(in.ID), user); err != nil {
		return nil, err
	}
	h.note(ctx, "session.revoke", in.ID, "")
	return nil, nil
}

// routes returns the routes of sessions.
func (h *sessions) routes() []rest.Route {
	const viewer = agented.RoleViewer
	return []rest.Route{
		rest.Op("GET /api/v1/auth/sessions", viewer, h.list, rest.About{
			ID: "list-sessions", Tag: "auth", Summary: "List sessions",
			Text: "Lists your own sessions, newest first. Admins can list all sessions with `all=true`.",
		}),
		rest.Op("DELETE /api/v1/auth/sessions/{id}", viewer, h.revoke, rest.About{
			ID: "revoke-session", Tag: "auth", Summary: "End a session", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Ends one of your own sessions. Admins can end any session.",
		}),
	}
}

package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/store"
)

// UserView is a user in responses.
type UserView struct {
	ID        agented.UserID `json:"id"`
	Name      string         `json:"name" doc:"Unique, ignoring case"`
	Role      agented.Role   `json:"role" enum:"viewer,operator,admin"`
	Disabled  bool           `json:"disabled" doc:"Cannot log in"`
	CreatedAt time.Time      `json:"created_at"`
}

func viewUser(u *store.User) UserView {
	return UserView{ID: u.ID, Name: u.Name, Role: u.Role, Disabled: u.Disabled, CreatedAt: rest.Time(u.CreatedAt)}
}

// UserCreate is the request to create a user.
type UserCreate struct {
	Name     string       `json:"name" maxLength:"200"`
	Password string       `json:"password" maxLength:"2000" format:"password" doc:"At least 10 characters; no sequence, no common password, not the name"`
	Role     agented.Role `json:"role" enum:"viewer,operator,admin"`
}

// UserUpdate is the request to update a user; omitted fields are unchanged.
type UserUpdate struct {
	Name     rest.Optional[string] `json:"name,omitzero" doc:"Unique, ignoring case"`
	Password rest.Optional[string] `json:"password,omitzero" doc:"A new password, at least 10 characters; ends the user's other sessions"`
	Role     rest.Optional[string] `json:"role,omitzero" doc:"viewer, operator or admin"`
	Disabled rest.Optional[bool]   `json:"disabled,omitzero" doc:"A disabled user cannot log in; disabling ends the user's sessions"`
}

func (s *Server) listUsers(ctx context.Context, in *rest.PageInput) (*rest.ListOutput[UserView], error) {
	items, next, err := s.o.DB.Users(ctx, in.Page())
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, viewUser), nil
}

type userPath struct {
	ID string `path:"id" maxLength:"100" doc:"The user's id, usr-…"`
}

type createdUser struct {
	Location string `header:"Location" doc:"Path of the new user"`
	Body     UserView
}

func (s *Server) createUser(ctx context.Context, in *rest.Input[UserCreate]) (*createdUser, error) {
	u, err := s.auth.CreateUser(ctx, in.Body.Name, in.Body.Password, in.Body.Role, rest.Principal(ctx).Name)
	if err != nil {
		return nil, err
	}
	return &createdUser{Location: "/api/v1/auth/users/" + string(u.ID), Body: viewUser(u)}, nil
}

// errNoUser is the response to an id that no user can have.
var errNoUser = agented.Errorf(agented.NotFound, "no user has this id")

func (s *Server) user(ctx context.Context, id string) (*store.User, error) {
	if !agented.ValidID("usr", id) {
		return nil, errNoUser
	}
	return s.o.DB.User(ctx, agented.UserID(id))
}

func (s *Server) getUser(ctx context.Context, in *userPath) (*rest.Output[UserView], error) {
	u, err := s.user(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Reply(viewUser(u)), nil
}

type userChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The user's id, usr-…"`
	Body UserUpdate
}

func (s *Server) updateUser(ctx context.Context, in *userChange) (*rest.Output[UserView], error) {
	b := &in.Body
	c := auth.UserChange{Name: b.Name.Pointer(), Password: b.Password.Pointer(), Disabled: b.Disabled.Pointer()}
	if b.Role.Set {
		c.Role = new(agented.Role(b.Role.Value))
	}
	u, err := s.auth.UpdateUser(ctx, agented.UserID(in.ID), c, rest.Principal(ctx))
	if errors.Is(err, agented.NotFound) && !agented.ValidID("usr", in.ID) {
		err = errNoUser
	}
	if err != nil {
		return nil, err
	}
	return rest.Reply(viewUser(u)), nil
}

func (s *Server) deleteUser(ctx context.Context, in *userPath) (*struct{}, error) {
	if !agented.ValidID("usr", in.ID) {
		return nil, errNoUser
	}
	return nil, s.auth.DeleteUser(ctx, agented.UserID(in.ID), rest.Principal(ctx).Name)
}

// PasswordInput is a user's own password change.
type PasswordInput struct {
	Current string `json:"current" maxLength:"2000" format:"password"`
	New     string `json:"new" maxLength:"2000" format:"password" doc:"At least 10 characters; no sequence, no common password, not the name"`
}

func (s *Server) changePassword(ctx context.Context, in *rest.Input[PasswordInput]) (*struct{}, error) {
	return nil, s.auth.ChangePassword(ctx, rest.Client(rest.HTTP(ctx)), rest.Principal(ctx), in.Body.Current, in.Body.New)
}

// KeyView is an API key in responses, without the key itself.
type KeyView struct {
	ID        agented.KeyID `json:"id"`
	Name      string        `json:"name" doc:"Unique among the valid keys"`
	Prefix    string        `json:"prefix" doc:"The start of the key, to identify it"`
	Role      agented.Role  `json:"role" enum:"viewer,operator,admin"`
	CreatedBy string        `json:"created_by"`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    *time.Time    `json:"used_at" nullable:"true" doc:"Last use, to the minute"`
	RevokedAt *time.Time    `json:"revoked_at" nullable:"true" doc:"null: it is not revoked"`
	ExpiresAt *time.Time    `json:"expires_at" nullable:"true" doc:"Expiry time; null: never"`

	Owner agented.UserID `json:"owner" doc:"The user who created it; the key ends with the user. Empty: none"`
}

func viewKey(k *store.Key) KeyView {
	return KeyView{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, Role: k.Role, CreatedBy: k.CreatedBy,
		CreatedAt: rest.Time(k.CreatedAt), UsedAt: rest.OptionalTime(k.UsedAt), RevokedAt: rest.OptionalTime(k.RevokedAt), ExpiresAt: rest.OptionalTime(k.ExpiresAt), Owner: k.Owner,
	}
}

// KeyCreate is the request to create an API key.
type KeyCreate struct {
	Name string       `json:"name" maxLength:"200" doc:"Purpose of the key"`
	Role agented.Role `json:"role" enum:"viewer,operator,admin"`

	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"Expiry time; omitted: never"`
}

// NewKey is a new key, with the key itself.
type NewKey struct {
	KeyView
	Key string `json:"key" doc:"The key itself. It is returned only once and not stored"`
}

type createdKey struct {
	CacheControl string `header:"Cache-Control" doc:"no-store"`
	Body         NewKey
}

func (s *Server) listKeys(ctx context.Context, in *rest.PageInput) (*rest.ListOutput[KeyView], error) {
	items, next, err := s.o.DB.Keys(ctx, in.Page())
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, viewKey), nil
}

func (s *Server) createKey(ctx context.Context, in *rest.Input[KeyCreate]) (*createdKey, error) {
	k, plain, err := s.auth.CreateKey(ctx, in.Body.Name, in.Body.Role, in.Body.ExpiresAt, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	return &createdKey{CacheControl: "no-store", Body: NewKey{KeyView: viewKey(k), Key: plain}}, nil
}

type keyPath struct {
	ID string `path:"id" maxLength:"100" doc:"The key's id, key-…"`
}

func (s *Server) revokeKey(ctx context.Context, in *keyPath) (*struct{}, error) {
	if !agented.ValidID("key", in.ID) {
		return nil, agented.Errorf(agented.NotFound, "no key has this id")
	}
	return nil, s.auth.RevokeKey(ctx, agented.KeyID(in.ID), rest.Principal(ctx).Name)
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

func (s *Server) listSessions(ctx context.Context, in *sessionListInput) (*rest.ListOutput[SessionView], error) {
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
	items, err := s.o.DB.Sessions(ctx, user, s.now())
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

func (s *Server) revokeSession(ctx context.Context, in *sessionPath) (*struct{}, error) {
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
	if err := s.auth.RevokeSession(ctx, agented.SessionID(in.ID), user); err != nil {
		return nil, err
	}
	s.noteAction(ctx, "session.revoke", in.ID, "")
	return nil, nil
}

// authRoutes returns the routes of logins, users, keys and sessions.
func (s *Server) authRoutes() []rest.Route {
	const anyone, viewer, admin = agented.RoleNone, agented.RoleViewer, agented.RoleAdmin
	return []rest.Route{
		rest.Op("POST /api/v1/auth/setup", anyone, s.setup, rest.About{
			ID: "create-first-user", Tag: "auth", Summary: "Create the first user", Status: http.StatusCreated, Errors: []int{http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests},
			Text: "Takes the token of the one-time link in the file setup-link of the data folder, and logs the user in.", MaxBody: maxForm,
		}),
		rest.Op("POST /api/v1/auth/login", anyone, s.login, rest.About{
			ID: "login", Tag: "auth", Summary: "Log in", Status: http.StatusOK, Errors: []int{http.StatusUnauthorized, http.StatusTooManyRequests},
			Text: "Sets the session cookie.", MaxBody: maxForm,
		}),
		rest.Op("POST /api/v1/auth/logout", viewer, s.logout, rest.About{
			ID: "logout", Tag: "auth", Summary: "Log out", Status: http.StatusNoContent,
			Text: "Ends the session and removes its cookie.",
		}),
		rest.Op("GET /api/v1/auth/me", viewer, s.me, rest.About{
			ID: "get-current-user", Tag: "auth", Summary: "Show the current user",
			Text: "Returns the user or the key of this request.",
		}),
		rest.Op("POST /api/v1/auth/password", viewer, s.changePassword, rest.About{
			ID: "change-password", Tag: "auth", Summary: "Change your password", Status: http.StatusNoContent, Errors: []int{http.StatusTooManyRequests},
			Text: "Ends your other sessions.", MaxBody: maxForm,
		}),
		rest.Op("GET /api/v1/auth/users", admin, s.listUsers, rest.About{
			ID: "list-users", Tag: "auth", Summary: "List users", Text: "Lists users by name.",
		}),
		rest.Op("POST /api/v1/auth/users", admin, s.createUser, rest.About{
			ID: "create-user", Tag: "auth", Summary: "Create a user", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The user logs in with name and password.", MaxBody: maxForm,
		}),
		rest.Op("GET /api/v1/auth/users/{id}", admin, s.getUser, rest.About{
			ID: "get-user", Tag: "auth", Summary: "Show a user", Errors: []int{http.StatusNotFound}, Text: "Returns one user without the password.",
		}),
		rest.Op("PATCH /api/v1/auth/users/{id}", admin, s.updateUser, rest.About{
			ID: "update-user", Tag: "auth", Summary: "Update a user", Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Omitted fields are unchanged. The role of the last active admin cannot change.", MaxBody: maxForm,
		}),
		rest.Op("DELETE /api/v1/auth/users/{id}", admin, s.deleteUser, rest.About{
			ID: "delete-user", Tag: "auth", Summary: "Delete a user", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Ends the user's sessions. The last active admin cannot be deleted.",
		}),
		rest.Op("GET /api/v1/auth/keys", admin, s.listKeys, rest.About{
			ID: "list-keys", Tag: "auth", Summary: "List API keys", Text: "Lists keys, including revoked ones, newest first. The keys themselves are not returned.",
		}),
		rest.Op("POST /api/v1/auth/keys", admin, s.createKey, rest.About{
			ID: "create-key", Tag: "auth", Summary: "Create an API key", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The key itself is returned only in this response.", MaxBody: maxForm,
		}),
		rest.Op("DELETE /api/v1/auth/keys/{id}", admin, s.revokeKey, rest.About{
			ID: "revoke-key", Tag: "auth", Summary: "Revoke an API key", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Revokes the key permanently and ends its open streams.",
		}),
		rest.Op("GET /api/v1/auth/sessions", viewer, s.listSessions, rest.About{
			ID: "list-sessions", Tag: "auth", Summary: "List sessions",
			Text: "Lists your own sessions, newest first. Admins can list all sessions with `all=true`.",
		}),
		rest.Op("DELETE /api/v1/auth/sessions/{id}", viewer, s.revokeSession, rest.About{
			ID: "revoke-session", Tag: "auth", Summary: "End a session", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Ends one of your own sessions. Admins can end any session.",
		}),
	}
}

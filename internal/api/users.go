package api

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// UserView is a user as the API shows it.
type UserView struct {
	ID        agented.UserID `json:"id"`
	Name      string         `json:"name" doc:"Unique, ignoring case"`
	Role      agented.Role   `json:"role" enum:"viewer,operator,admin"`
	Disabled  bool           `json:"disabled" doc:"Cannot log in"`
	CreatedAt time.Time      `json:"created_at"`
}

func viewUser(u *store.User) UserView {
	return UserView{ID: u.ID, Name: u.Name, Role: u.Role, Disabled: u.Disabled, CreatedAt: shown(u.CreatedAt)}
}

// UserCreate is a new user.
type UserCreate struct {
	Name     string       `json:"name" maxLength:"200"`
	Password string       `json:"password" maxLength:"2000" format:"password" doc:"At least 10 characters"`
	Role     agented.Role `json:"role" enum:"viewer,operator,admin"`
}

// UserUpdate is a change of a user; what is left out stays.
type UserUpdate struct {
	Name     optional[string] `json:"name,omitzero" doc:"Unique, ignoring case"`
	Password optional[string] `json:"password,omitzero" doc:"A new password, at least 10 characters; ends the user's other sessions"`
	Role     optional[string] `json:"role,omitzero" doc:"viewer, operator or admin"`
	Disabled optional[bool]   `json:"disabled,omitzero" doc:"A disabled user cannot log in; the sessions end"`
}

type pageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
}

func (p *pageInput) page() store.Page { return store.Page{Limit: p.Limit, Cursor: p.Cursor} }

func (s *Server) listUsers(ctx context.Context, in *pageInput) (*listOutput[UserView], error) {
	items, next, err := s.o.DB.Users(ctx, in.page())
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, viewUser), nil
}

type userPath struct {
	ID string `path:"id" maxLength:"100" doc:"The user's id, usr-…"`
}

type createdUser struct {
	Location string `header:"Location" doc:"Path of the new user"`
	Body     UserView
}

func (s *Server) createUser(ctx context.Context, in *createInput[UserCreate]) (*createdUser, error) {
	b := &in.Body
	bad := append(newName("name", b.Name), newPassword("password", b.Password)...)
	if b.Role != agented.RoleAdmin && s.empty(ctx) {
		// With a user there is no setup any more, and nobody could log in to
		// make an admin.
		bad = append(bad, agented.Field{Path: "role", Text: "must be admin for the first user"})
	}
	if err := agented.InvalidFields(bad); err != nil {
		return nil, err
	}
	hash, err := s.o.Passwords.Hash(ctx, b.Password)
	if err != nil {
		return nil, err
	}
	u := &store.User{Name: b.Name, PasswordHash: hash, Role: b.Role, CreatedAt: s.now()}
	if err := s.o.DB.CreateUser(ctx, u, principal(ctx).Name); err != nil {
		return nil, err
	}
	return &createdUser{Location: "/api/v1/auth/users/" + string(u.ID), Body: viewUser(u)}, nil
}

func (s *Server) user(ctx context.Context, id string) (*store.User, error) {
	if !agented.ValidID("usr", id) {
		return nil, agented.Errorf(agented.NotFound, "no user has this id")
	}
	return s.o.DB.User(ctx, agented.UserID(id))
}

func (s *Server) getUser(ctx context.Context, in *userPath) (*output[UserView], error) {
	u, err := s.user(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &output[UserView]{viewUser(u)}, nil
}

type userChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The user's id, usr-…"`
	Body UserUpdate
}

func (s *Server) updateUser(ctx context.Context, in *userChange) (*output[UserView], error) {
	var hash string
	b := &in.Body
	var bad []agented.Field
	if b.Name.set {
		bad = append(bad, newName("name", b.Name.value)...)
	}
	if b.Role.set && !agented.Role(b.Role.value).Valid() {
		bad = append(bad, agented.Field{Path: "role", Text: "must be viewer, operator or admin"})
	}
	if b.Password.set {
		bad = append(bad, newPassword("password", b.Password.value)...)
	}
	if err := agented.InvalidFields(bad); err != nil {
		return nil, err
	}
	if b.Password.set {
		var err error
		if hash, err = s.o.Passwords.Hash(ctx, b.Password.value); err != nil {
			return nil, err
		}
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	u, err := s.user(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	who := principal(ctx)
	if b.Name.set || b.Role.set || b.Disabled.set {
		b.Name.into(&u.Name, u.Name)
		b.Disabled.into(&u.Disabled, false)
		if b.Role.set {
			u.Role = agented.Role(b.Role.value)
		}
		if err := s.o.DB.UpdateUser(ctx, u, who.Name); err != nil {
			return nil, err
		}
	}
	if hash != "" {
		keep := agented.SessionID("")
		if u.ID == who.User {
			keep = who.Sess
		}
		if err := s.o.DB.SetPassword(ctx, u.ID, hash, keep, who.Name); err != nil {
			return nil, err
		}
	}
	return &output[UserView]{viewUser(u)}, nil
}

func (s *Server) deleteUser(ctx context.Context, in *userPath) (*struct{}, error) {
	if !agented.ValidID("usr", in.ID) {
		return nil, agented.Errorf(agented.NotFound, "no user has this id")
	}
	return nil, s.o.DB.DeleteUser(ctx, agented.UserID(in.ID), principal(ctx).Name)
}

// PasswordInput is a person's own new password, with the old one.
type PasswordInput struct {
	Current string `json:"current" maxLength:"2000" format:"password"`
	New     string `json:"new" maxLength:"2000" format:"password" doc:"At least 10 characters"`
}

func (s *Server) changePassword(ctx context.Context, in *createInput[PasswordInput]) (*struct{}, error) {
	who := principal(ctx)
	if who.User == "" {
		return nil, agented.Errorf(agented.Denied, "an API key has no password: log in as the user whose password shall change")
	}
	if err := s.mayGuess(requestIn(ctx).http, "password", who.Name); err != nil {
		return nil, err
	}
	if err := agented.InvalidFields(newPassword("new", in.Body.New)); err != nil {
		return nil, err
	}
	u, err := s.o.DB.User(ctx, who.User)
	if err != nil {
		return nil, err
	}
	ok, _, err := s.o.Passwords.Verify(ctx, u.PasswordHash, in.Body.Current)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, agented.InvalidFields([]agented.Field{{Path: "current", Text: "is not your password"}})
	}
	hash, err := s.o.Passwords.Hash(ctx, in.Body.New)
	if err != nil {
		return nil, err
	}
	return nil, s.o.DB.SetPassword(ctx, u.ID, hash, who.Sess, who.Name)
}

// KeyView is an API key as the API shows it, without the key itself.
type KeyView struct {
	ID        agented.KeyID `json:"id"`
	Name      string        `json:"name" doc:"Unique among the keys that are good"`
	Prefix    string        `json:"prefix" doc:"The start of the key, to tell it by"`
	Role      agented.Role  `json:"role" enum:"viewer,operator,admin"`
	CreatedBy string        `json:"created_by"`
	CreatedAt time.Time     `json:"created_at"`
	UsedAt    *time.Time    `json:"used_at" nullable:"true" doc:"Last use, to the minute"`
	RevokedAt *time.Time    `json:"revoked_at" nullable:"true" doc:"null: it is good"`
}

func viewKey(k *store.Key) KeyView {
	return KeyView{
		ID: k.ID, Name: k.Name, Prefix: k.Prefix, Role: k.Role, CreatedBy: k.CreatedBy,
		CreatedAt: shown(k.CreatedAt), UsedAt: known(k.UsedAt), RevokedAt: known(k.RevokedAt),
	}
}

// KeyCreate is a new API key.
type KeyCreate struct {
	Name string       `json:"name" maxLength:"200" doc:"What it is for"`
	Role agented.Role `json:"role" enum:"viewer,operator,admin"`
}

// NewKey is a key right after it was made: the only time that it is shown.
type NewKey struct {
	KeyView
	Key string `json:"key" doc:"The key itself. It is shown this once and kept nowhere"`
}

type createdKey struct {
	CacheControl string `header:"Cache-Control" doc:"no-store"`
	Body         NewKey
}

func (s *Server) listKeys(ctx context.Context, in *pageInput) (*listOutput[KeyView], error) {
	items, next, err := s.o.DB.Keys(ctx, in.page())
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, viewKey), nil
}

func (s *Server) createKey(ctx context.Context, in *createInput[KeyCreate]) (*createdKey, error) {
	if err := agented.InvalidFields(newName("name", in.Body.Name)); err != nil {
		return nil, err
	}
	plain, prefix, hash := secret.NewAPIKey()
	k := &store.Key{Name: in.Body.Name, Prefix: prefix, Role: in.Body.Role, CreatedAt: s.now()}
	if err := s.o.DB.CreateKey(ctx, k, digest(hash), principal(ctx).Name); err != nil {
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
	return nil, s.o.DB.RevokeKey(ctx, agented.KeyID(in.ID), principal(ctx).Name, s.now())
}

// SessionView is a login as the API shows it.
type SessionView struct {
	ID        agented.SessionID `json:"id"`
	User      agented.UserID    `json:"user_id"`
	UserName  string            `json:"user_name"`
	Current   bool              `json:"current" doc:"The session of this request"`
	CreatedAt time.Time         `json:"created_at"`
	SeenAt    time.Time         `json:"seen_at" doc:"Last use, to the minute"`
	ExpiresAt time.Time         `json:"expires_at"`
	Address   string            `json:"address" doc:"Where it was last used from"`
	UserAgent string            `json:"user_agent"`
}

type sessionListInput struct {
	All bool `query:"all" doc:"Those of all users; only for an admin"`
}

func (s *Server) listSessions(ctx context.Context, in *sessionListInput) (*listOutput[SessionView], error) {
	who := principal(ctx)
	user := who.User
	switch {
	case in.All && !who.May(agented.RoleAdmin):
		return nil, agented.Errorf(agented.Denied, "only an admin sees the sessions of others")
	case in.All:
		user = ""
	case user == "":
		return page(nil, "", func(*store.Session) SessionView { return SessionView{} }), nil // a key has none
	}
	items, err := s.o.DB.Sessions(ctx, user, s.now())
	if err != nil {
		return nil, err
	}
	return page(items, "", func(v *store.Session) SessionView {
		return SessionView{
			ID: v.ID, User: v.User, UserName: v.UserName, Current: v.ID == who.Sess, CreatedAt: shown(v.CreatedAt), SeenAt: shown(v.SeenAt),
			ExpiresAt: shown(v.ExpiresAt), Address: v.Address, UserAgent: v.UserAgent,
		}
	}), nil
}

type sessionPath struct {
	ID string `path:"id" maxLength:"100" doc:"The session's id, ses-…"`
}

func (s *Server) revokeSession(ctx context.Context, in *sessionPath) (*struct{}, error) {
	who := principal(ctx)
	user := who.User
	switch {
	case !agented.ValidID("ses", in.ID):
		return nil, agented.Errorf(agented.NotFound, "no session has this id")
	case who.May(agented.RoleAdmin):
		user = "" // anybody's
	case user == "":
		return nil, agented.Errorf(agented.NotFound, "no session has this id")
	}
	return nil, s.o.DB.RevokeSession(ctx, agented.SessionID(in.ID), user)
}

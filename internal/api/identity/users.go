package identity

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

// users handles the requests about users.
type users struct {
	db   *store.DB
	auth *auth.Service
}

// UserView is a user in responses.
type UserView struct {
	ID        agented.UserID `json:"id"`
	Name      string         `json:"name" doc:"Unique, ignoring case"`
	Role      agented.Role   `json:"role" enum:"viewer,operator,admin"`
	Disabled  bool           `json:"disabled" doc:"Cannot log in"`
	CreatedAt time.Time      `json:"created_at"`
	ETag      string         `json:"etag" doc:"Version of the object, for If-Match in an update"`
}

// userETag returns the version of a user.
func userETag(u *store.User) string { return rest.ETag(u.ID, u.Name, u.Role, u.Disabled) }

func viewUser(u *store.User) UserView {
	return UserView{ID: u.ID, Name: u.Name, Role: u.Role, Disabled: u.Disabled, CreatedAt: rest.Time(u.CreatedAt), ETag: userETag(u)}
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

func (h *users) list(ctx context.Context, in *rest.PageInput) (*rest.ListOutput[UserView], error) {
	items, next, err := h.db.Users(ctx, in.Page())
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

func (h *users) create(ctx context.Context, in *rest.Input[UserCreate]) (*createdUser, error) {
	u, err := h.auth.CreateUser(ctx, in.Body.Name, in.Body.Password, in.Body.Role, rest.Principal(ctx).Name)
	if err != nil {
		return nil, err
	}
	return &createdUser{Location: "/api/v1/auth/users/" + string(u.ID), Body: viewUser(u)}, nil
}

// errNoUser is the response to an id that no user can have.
var errNoUser = agented.Errorf(agented.NotFound, "no user has this id")

func (h *users) find(ctx context.Context, id string) (*store.User, error) {
	if !agented.ValidID("usr", id) {
		return nil, errNoUser
	}
	return h.db.User(ctx, agented.UserID(id))
}

func (h *users) get(ctx context.Context, in *userPath) (*rest.Tagged[UserView], error) {
	u, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Versioned(viewUser(u), userETag(u)), nil
}

type userChange struct {
	ID string `path:"id" maxLength:"100" doc:"The user's id, usr-…"`
	rest.IfMatch
	Body UserUpdate
}

func (h *users) update(ctx context.Context, in *userChange) (*rest.Tagged[UserView], error) {
	b := &in.Body
	c := auth.UserChange{Name: b.Name.Pointer(), Password: b.Password.Pointer(), Disabled: b.Disabled.Pointer()}
	c.Check = func(u *store.User) error { return in.Check("user", userETag(u), func() any { return viewUser(u) }) }
	if b.Role.Set {
		c.Role = new(agented.Role(b.Role.Value))
	}
	u, err := h.auth.UpdateUser(ctx, agented.UserID(in.ID), c, rest.Principal(ctx))
	if errors.Is(err, agented.NotFound) && !agented.ValidID("usr", in.ID) {
		err = errNoUser
	}
	if err != nil {
		return nil, err
	}
	return rest.Versioned(viewUser(u), userETag(u)), nil
}

func (h *users) remove(ctx context.Context, in *userPath) (*struct{}, error) {
	if !agented.ValidID("usr", in.ID) {
		return nil, errNoUser
	}
	return nil, h.auth.DeleteUser(ctx, agented.UserID(in.ID), rest.Principal(ctx).Name)
}

// routes returns the routes of users.
func (h *users) routes() []rest.Route {
	const admin = agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/auth/users", admin, h.list, rest.About{
			ID: "list-users", Tag: "auth", Summary: "List users", Text: "Lists users by name.",
		}),
		rest.Op("POST /api/v1/auth/users", admin, h.create, rest.About{
			ID: "create-user", Tag: "auth", Summary: "Create a user", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "The user logs in with name and password.", MaxBody: maxForm,
		}),
		rest.Op("GET /api/v1/auth/users/{id}", admin, h.get, rest.About{
			ID: "get-user", Tag: "auth", Summary: "Show a user", Errors: []int{http.StatusNotFound}, Text: "Returns one user without the password.",
		}),
		rest.Op("PATCH /api/v1/auth/users/{id}", admin, h.update, rest.About{
			ID: "update-user", Tag: "auth", Summary: "Update a user", Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
			Text: "Omitted fields are unchanged. The role of the last active admin cannot change.", MaxBody: maxForm,
		}),
		rest.Op("DELETE /api/v1/auth/users/{id}", admin, h.remove, rest.About{
			ID: "delete-user", Tag: "auth", Summary: "Delete a user", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Ends the user's sessions. The last active admin cannot be deleted.",
		}),
	}
}

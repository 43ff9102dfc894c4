package auth

import (
	"context"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// CreateUser creates a user. The first one must be an admin.
func (a *Service) CreateUser(ctx context.Context, name, password string, role agented.Role, by string) (*store.User, error) {
	bad := append(checkUserName("name", name), checkPassword("password", password, name)...)
	if role != agented.RoleAdmin && a.HasNoUsers(ctx) {
		// Once a user exists there is no setup, and without an admin no user
		// could create one.
		bad = append(bad, agented.Field{Path: "role", Text: "must be admin for the first user"})
	}
	if err := agented.InvalidFields(bad); err != nil {
		return nil, err
	}
	hash, err := a.o.Passwords.Hash(ctx, password)
	if err != nil {
		return nil, err
	}
	u := &store.User{Name: name, PasswordHash: hash, Role: role, CreatedAt: a.o.Now()}
	if err := a.o.DB.CreateUser(ctx, u, by); err != nil {
		return nil, err
	}
	return u, nil
}

// UserChange is a change of a user. Nil fields are unchanged.
type UserChange struct {
	Name     *string
	Password *string
	Role     *agented.Role
	Disabled *bool
	Check    func(*store.User) error // is called with the user before the change; may be nil
}

// UpdateUser changes a user, and ends the streams that the user may no longer
// read. If the callers change their own password, their session remains.
func (a *Service) UpdateUser(ctx context.Context, id agented.UserID, c UserChange, by agented.Principal) (*store.User, error) {
	if err := a.checkChange(ctx, id, c); err != nil {
		return nil, err
	}
	var hash string
	if c.Password != nil {
		var err error
		if hash, err = a.o.Passwords.Hash(ctx, *c.Password); err != nil {
			return nil, err
		}
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	u, err := a.o.DB.User(ctx, id)
	if err == nil && c.Check != nil {
		err = c.Check(u)
	}
	if err != nil {
		return nil, err
	}
	if c.Name != nil || c.Role != nil || c.Disabled != nil {
		if c.Name != nil {
			u.Name = *c.Name
		}
		if c.Disabled != nil {
			u.Disabled = *c.Disabled
		}
		if c.Role != nil {
			u.Role = *c.Role
		}
		if err := a.o.DB.UpdateUser(ctx, u, by.Name); err != nil {
			return nil, err
		}
	}
	defer a.Recheck(ctx)
	if hash != "" {
		keep := agented.SessionID("")
		if u.ID == by.User {
			keep = by.Sess
		}
		if err := a.o.DB.SetPassword(ctx, u.ID, hash, keep, by.Name); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// checkChange validates a change. A user that does not exist is reported later.
func (a *Service) checkChange(ctx context.Context, id agented.UserID, c UserChange) error {
	var bad []agented.Field
	if c.Name != nil {
		if u, err := a.o.DB.User(ctx, id); err != nil || u.Name != *c.Name {
			bad = append(bad, checkUserName("name", *c.Name)...)
		}
	}
	if c.Role != nil && !c.Role.Valid() {
		bad = append(bad, agented.Field{Path: "role", Text: "must be viewer, operator or admin"})
	}
	if c.Password != nil {
		var names []string // that the password must not contain
		if c.Name != nil {
			names = append(names, *c.Name)
		}
		if u, err := a.o.DB.User(ctx, id); err == nil {
			names = append(names, u.Name)
		}
		bad = append(bad, checkPassword("password", *c.Password, names...)...)
	}
	return agented.InvalidFields(bad)
}

// DeleteUser deletes a user and ends the user's streams.
func (a *Service) DeleteUser(ctx context.Context, id agented.UserID, by string) error {
	defer a.Recheck(ctx)
	return a.o.DB.DeleteUser(ctx, id, by)
}

// ChangePassword changes the caller's own password, and ends the caller's other
// sessions.
func (a *Service) ChangePassword(ctx context.Context, c Client, who agented.Principal, current, fresh string) error {
	if who.User == "" {
		return agented.Errorf(agented.Denied, "an API key has no password: log in as the user whose password you want to change")
	}
	if err := a.checkRate(c, "password", who.Name); err != nil {
		return err
	}
	if err := agented.InvalidFields(checkPassword("new", fresh, who.Name)); err != nil {
		return err
	}
	u, err := a.o.DB.User(ctx, who.User)
	if err != nil {
		return err
	}
	ok, _, err := a.o.Passwords.Verify(ctx, u.PasswordHash, current)
	if err != nil {
		return err
	}
	if !ok {
		return agented.InvalidFields([]agented.Field{{Path: "current", Text: "is not your current password"}})
	}
	hash, err := a.o.Passwords.Hash(ctx, fresh)
	if err != nil {
		return err
	}
	defer a.Recheck(ctx)
	return a.o.DB.SetPassword(ctx, u.ID, hash, who.Sess, who.Name)
}

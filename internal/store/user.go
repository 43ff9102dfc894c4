package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// User is a person who can log in.
type User struct {
	ID           agented.UserID
	Name         string // unique, ignoring case
	PasswordHash string // never leaves the server
	Role         agented.Role
	Disabled     bool
	CreatedAt    time.Time
}

const userColumns = `id, name, password_hash, role, disabled, created_at`

func scanUser(u *User, scan func(...any) error) error {
	return scan(&u.ID, &u.Name, &u.PasswordHash, &u.Role, &u.Disabled, toTime{&u.CreatedAt})
}

// CreateFirstAdmin stores the first user, as an admin. It is a Conflict when
// there is any user: of two that try at once, one succeeds.
func (db *DB) CreateFirstAdmin(ctx context.Context, u *User) error {
	return db.write(ctx, "create first admin", func(tx *tx) error {
		var n int
		if err := tx.row(`SELECT COUNT(*) FROM user_`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return agented.Errorf(agented.Conflict, "the first user has been created already: log in instead")
		}
		u.Role, u.Disabled = agented.RoleAdmin, false
		return tx.createUser(u, u.Name)
	})
}

// CreateUser stores a new user. Empty ID and CreatedAt are filled in. A taken
// name is a Conflict.
func (db *DB) CreateUser(ctx context.Context, u *User, by string) error {
	return db.write(ctx, "create user", func(tx *tx) error { return tx.createUser(u, by) })
}

func (tx *tx) createUser(u *User, by string) error {
	if u.CreatedAt.IsZero() {
		u.CreatedAt = time.Now()
	}
	u.CreatedAt = stored(u.CreatedAt)
	if u.ID == "" {
		u.ID = agented.UserID(agented.NewID("usr", u.CreatedAt))
	}
	err := tx.exec(`INSERT INTO user_ (id, name, name_key, password_hash, role, disabled, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		u.ID, u.Name, fold(u.Name), u.PasswordHash, u.Role, u.Disabled, micros(u.CreatedAt))
	if duplicate(err) {
		return nameTaken("user", u.Name, err)
	}
	if err != nil {
		return err
	}
	return tx.audit(AuditEntry{Actor: by, Action: "user.create", Subject: string(u.ID), Detail: fmt.Sprintf("%s, %s", u.Name, u.Role)})
}

// UserCount is how many users there are, disabled ones too.
func (db *DB) UserCount(ctx context.Context) (int, error) {
	var n int
	err := db.r.QueryRowContext(ctx, `SELECT COUNT(*) FROM user_`).Scan(&n)
	return n, db.explain("count users", err)
}

// User returns one user, or NotFound.
func (db *DB) User(ctx context.Context, id agented.UserID) (*User, error) {
	var u User
	err := scanUser(&u, db.r.QueryRowContext(ctx, `SELECT `+userColumns+` FROM user_ WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noUser(id)
	}
	if err != nil {
		return nil, db.explain("user", err)
	}
	return &u, nil
}

// UserByName returns the user of that name, ignoring case, or NotFound.
func (db *DB) UserByName(ctx context.Context, name string) (*User, error) {
	var u User
	err := scanUser(&u, db.r.QueryRowContext(ctx, `SELECT `+userColumns+` FROM user_ WHERE name_key = $1`, fold(name)).Scan)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "no user named %q", name)
	}
	if err != nil {
		return nil, db.explain("user by name", err)
	}
	return &u, nil
}

func noUser(id agented.UserID) error { return agented.Errorf(agented.NotFound, "no user %q", id) }

// Users returns a page of users in the order of their names.
func (db *DB) Users(ctx context.Context, p Page) ([]User, string, error) {
	var w where
	after, err := p.after("user", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.and(`name_key > $?`, after[0])
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT `+userColumns+` FROM user_`+w.sql()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, scanUser)
	if err != nil {
		return nil, "", db.explain("users", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	return list[:limit], cursor("user", fold(list[limit-1].Name)), nil
}

// UpdateUser replaces name, role and Disabled of the user with u.ID. Disabling
// ends the user's sessions. The last active admin stays one: anything else is a
// Conflict.
func (db *DB) UpdateUser(ctx context.Context, u *User, by string) error {
	return db.write(ctx, "update user", func(tx *tx) error {
		err := tx.row(`UPDATE user_ SET name = $2, name_key = $3, role = $4, disabled = $5 WHERE id = $1
			RETURNING password_hash, created_at`, u.ID, u.Name, fold(u.Name), u.Role, u.Disabled).Scan(&u.PasswordHash, toTime{&u.CreatedAt})
		switch {
		case missing(err):
			return noUser(u.ID)
		case duplicate(err):
			return nameTaken("user", u.Name, err)
		case err != nil:
			return err
		}
		if err := tx.adminLeft(); err != nil {
			return err
		}
		if u.Disabled {
			if err := tx.exec(`DELETE FROM session WHERE user_id = $1`, u.ID); err != nil {
				return err
			}
		}
		detail := fmt.Sprintf("%s, %s", u.Name, u.Role)
		if u.Disabled {
			detail += ", disabled"
		}
		return tx.audit(AuditEntry{Actor: by, Action: "user.update", Subject: string(u.ID), Detail: detail})
	})
}

// SetPassword replaces a user's password hash and ends the user's sessions but
// keep, which may be empty.
func (db *DB) SetPassword(ctx context.Context, id agented.UserID, hash string, keep agented.SessionID, by string) error {
	return db.write(ctx, "set password", func(tx *tx) error {
		n, err := tx.affected(`UPDATE user_ SET password_hash = $2 WHERE id = $1`, id, hash)
		if err != nil {
			return err
		}
		if n == 0 {
			return noUser(id)
		}
		if err := tx.exec(`DELETE FROM session WHERE user_id = $1 AND id <> $2`, id, keep); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "user.password", Subject: string(id)})
	})
}

// DeleteUser removes a user with the user's sessions. The last active admin
// cannot be removed: that is a Conflict.
func (db *DB) DeleteUser(ctx context.Context, id agented.UserID, by string) error {
	return db.write(ctx, "delete user", func(tx *tx) error {
		var name string
		err := tx.row(`DELETE FROM user_ WHERE id = $1 RETURNING name`, id).Scan(&name)
		if missing(err) {
			return noUser(id)
		}
		if err != nil {
			return err
		}
		if err := tx.adminLeft(); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "user.delete", Subject: string(id), Detail: name})
	})
}

// adminLeft refuses what the transaction did when nobody could undo it.
func (tx *tx) adminLeft() error {
	var n int
	if err := tx.row(`SELECT COUNT(*) FROM user_ WHERE role = 'admin' AND NOT disabled`).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return agented.Errorf(agented.Conflict, "this is the last active admin: make somebody else an admin first")
	}
	return nil
}

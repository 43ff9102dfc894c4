package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
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

// CreateFirstAdmin stores the first user as an admin. It returns Conflict if
// any user exists: of two concurrent calls, one succeeds.
func (db *DB) CreateFirstAdmin(ctx context.Context, u *User) error {
	return db.write(ctx, "create first admin", func(tx *tx) error {
		var n int
		if err := tx.row(`SELECT COUNT(*) FROM user_`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return agented.Errorf(agented.Conflict, "the first user already exists: log in instead")
		}
		u.Role, u.Disabled = agented.RoleAdmin, false
		return tx.createUser(u, u.Name)
	})
}

// CreateUser stores a new user. It fills in an empty ID and CreatedAt. It
// returns Conflict if the name is in use.
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
	err := tx.execNow(`INSERT INTO user_ (id, name, name_key, password_hash, role, disabled, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		u.ID, u.Name, fold(u.Name), u.PasswordHash, u.Role, u.Disabled, micros(u.CreatedAt))
	if duplicate(err) {
		return nameTaken("user", u.Name, err)
	}
	if err != nil {
		return err
	}
	return tx.audit(AuditEntry{Actor: by, Action: "user.create", Subject: string(u.ID), Detail: fmt.Sprintf("%s, %s", u.Name, u.Role)})
}

// UserCount returns the number of users, including disabled ones.
func (db *DB) UserCount(ctx context.Context) (int, error) {
	var n int
	err := db.row(ctx, `SELECT COUNT(*) FROM user_`).Scan(&n)
	return n, explain("count users", err)
}

// User returns one user, or NotFound.
func (db *DB) User(ctx context.Context, id agented.UserID) (*User, error) {
	var u User
	err := scanUser(&u, db.row(ctx, `SELECT `+userColumns+` FROM user_ WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noUser(id)
	}
	if err != nil {
		return nil, explain("user", err)
	}
	return &u, nil
}

// UserByName returns the user with that name, ignoring case, or NotFound.
func (db *DB) UserByName(ctx context.Context, name string) (*User, error) {
	var u User
	err := scanUser(&u, db.row(ctx, `SELECT `+userColumns+` FROM user_ WHERE `+byName, nameKeys(name)...).Scan)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "no user named %q", name)
	}
	if err != nil {
		return nil, explain("user by name", err)
	}
	return &u, nil
}

func noUser(id agented.UserID) error { return agented.Errorf(agented.NotFound, "no user %q", id) }

// Users returns a page of users by name.
func (db *DB) Users(ctx context.Context, p Page) ([]User, string, error) {
	var w where
	after, err := pageKey(p, "user", 1)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		w.And(`name_key > $?`, after[0])
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT `+userColumns+` FROM user_`+w.SQL()+` ORDER BY name_key LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, scanUser)
	if err != nil {
		return nil, "", explain("users", err)
	}
	return cut(p, list, "user", func(last *User) []string { return []string{fold(last.Name)} })
}

// UpdateUser replaces name, role and Disabled of the user with u.ID. Disabling
// ends the user's sessions. If no active admin would remain, it returns
// Conflict.
func (db *DB) UpdateUser(ctx context.Context, u *User, by string) error {
	return db.write(ctx, "update user", func(tx *tx) error {
		var old User
		if err := scanUser(&old, tx.row(`SELECT `+userColumns+` FROM user_ WHERE id = $1`, u.ID).Scan); err != nil && !missing(err) {
			return err
		}
		err := tx.row(`UPDATE user_ SET name = $2, name_key = CASE WHEN name = $2 THEN name_key ELSE $3 END, role = $4, disabled = $5 WHERE id = $1
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
			if err := tx.revokeKeysOf(u.ID, by, "its owner was disabled"); err != nil {
				return err
			}
		}
		detail := fmt.Sprintf("%s, %s", u.Name, u.Role)
		if u.Disabled {
			detail += ", disabled"
		}
		var fields []string
		for _, f := range []struct {
			name    string
			changed bool
		}{{"name", old.Name != u.Name}, {"role", old.Role != u.Role}, {"disabled", old.Disabled != u.Disabled}} {
			if f.changed {
				fields = append(fields, f.name)
			}
		}
		return tx.audit(AuditEntry{Actor: by, Action: "user.update", Subject: string(u.ID), Detail: detail + changedText(fields)})
	})
}

// SetPassword replaces a user's password hash and ends the user's sessions
// except keep, which may be empty.
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

// DeleteUser deletes a user with the user's sessions. For the last active admin
// it returns Conflict.
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
		if err := tx.revokeKeysOf(id, by, "its owner was deleted"); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "user.delete", Subject: string(id), Detail: name})
	})
}

// adminLeft returns an error if the transaction leaves no active admin.
func (tx *tx) adminLeft() error {
	var n int
	if err := tx.row(`SELECT COUNT(*) FROM user_ WHERE role = 'admin' AND NOT disabled`).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return agented.Errorf(agented.Conflict, "this is the last active admin: make another user an admin first")
	}
	return nil
}

// touchEvery is the least time between two records of a last use.
const touchEvery = time.Minute

// Session is a login session.
type Session struct {
	ID        agented.SessionID
	User      agented.UserID
	CreatedAt time.Time
	SeenAt    time.Time // last use, to the minute
	ExpiresAt time.Time
	Address   string // address of the last use
	UserAgent string
	UserName  string // set by Sessions
}

const sessionColumns = `s.id, s.user_id, s.created_at, s.seen_at, s.expires_at, s.address, s.user_agent`

func scanSession(s *Session, scan func(...any) error) error {
	return scan(&s.ID, &s.User, toTime{&s.CreatedAt}, toTime{&s.SeenAt}, toTime{&s.ExpiresAt}, &s.Address, &s.UserAgent)
}

// CreateSession stores a session with the hash of its cookie. An empty ID is
// derived from CreatedAt; SeenAt becomes CreatedAt.
func (db *DB) CreateSession(ctx context.Context, s *Session, hash []byte) error {
	s.CreatedAt, s.ExpiresAt = stored(s.CreatedAt), stored(s.ExpiresAt)
	s.SeenAt = s.CreatedAt
	if s.ID == "" {
		s.ID = agented.SessionID(agented.NewID("ses", s.CreatedAt))
	}
	s.UserAgent = format.Truncate(s.UserAgent, 512)
	return db.write(ctx, "create session", func(tx *tx) error {
		return tx.exec(`INSERT INTO session (id, hash, user_id, created_at, seen_at, expires_at, address, user_agent)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, s.ID, hex.EncodeToString(hash), s.User,
			micros(s.CreatedAt), micros(s.SeenAt), micros(s.ExpiresAt), s.Address, s.UserAgent)
	})
}

// SessionByHash returns the session and its user. It returns Unauthenticated if
// there is none, if it has expired by now, or if its user is disabled.
func (db *DB) SessionByHash(ctx context.Context, hash []byte, now time.Time) (*Session, *User, error) {
	var s Session
	var u User
	err := db.row(ctx, `SELECT `+sessionColumns+`, u.name, u.role, u.created_at
		FROM session s JOIN user_ u ON u.id = s.user_id
		WHERE s.hash = $1 AND s.expires_at > $2 AND NOT u.disabled`, hex.EncodeToString(hash), micros(now)).
		Scan(&s.ID, &s.User, toTime{&s.CreatedAt}, toTime{&s.SeenAt}, toTime{&s.ExpiresAt}, &s.Address, &s.UserAgent,
			&u.Name, &u.Role, toTime{&u.CreatedAt})
	if missing(err) {
		return nil, nil, agented.Errorf(agented.Unauthenticated, "not logged in, or the session has expired: log in again")
	}
	if err != nil {
		return nil, nil, explain("session", err)
	}
	u.ID = s.User
	return &s, &u, nil
}

// TouchSession records a use of s, and extends its expiry if expires is later.
// It writes at most once a minute.
func (db *DB) TouchSession(ctx context.Context, s *Session, address string, now, expires time.Time) error {
	if now.Sub(s.SeenAt) < touchEvery && s.Address == address {
		return nil
	}
	return db.write(ctx, "touch session", func(tx *tx) error {
		return tx.exec(`UPDATE session SET seen_at = $2, address = $3, expires_at = CASE WHEN expires_at < $4 THEN $4 ELSE expires_at END
			WHERE id = $1`, s.ID, micros(now), address, micros(expires))
	})
}

// Sessions returns the sessions of a user that have not expired by now, newest
// first; of all users if user is empty. It returns at most MaxLimit.
func (db *DB) Sessions(ctx context.Context, user agented.UserID, now time.Time) ([]Session, error) {
	var w where
	w.And(`s.expires_at > $?`, micros(now))
	if user != "" {
		w.And(`s.user_id = $?`, user)
	}
	rows, err := db.query(ctx, `SELECT `+sessionColumns+`, u.name FROM session s JOIN user_ u ON u.id = s.user_id`+w.SQL()+
		` ORDER BY s.created_at DESC, s.id DESC LIMIT `+fmt.Sprint(MaxLimit), w.Args()...)
	list, err := collect(rows, err, func(s *Session, scan func(...any) error) error {
		return scanSession(s, func(to ...any) error { return scan(append(to, &s.UserName)...) })
	})
	return list, explain("sessions", err)
}

// RevokeSession ends one session, or returns NotFound. If user is not empty,
// the session must belong to that user.
func (db *DB) RevokeSession(ctx context.Context, id agented.SessionID, user agented.UserID) error {
	return db.write(ctx, "revoke session", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM session WHERE id = $1 AND ($2 = '' OR user_id = $2)`, id, user)
		if err == nil && n == 0 {
			err = agented.Errorf(agented.NotFound, "no session %q", id)
		}
		return err
	})
}

// SweepSessions deletes the sessions that have expired by now and returns their
// number.
func (db *DB) SweepSessions(ctx context.Context, now time.Time) (int64, error) {
	var n int64
	err := db.write(ctx, "sweep sessions", func(tx *tx) (err error) {
		n, err = tx.affected(`DELETE FROM session WHERE expires_at <= $1`, micros(now))
		return err
	})
	return n, err
}

package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// touchEvery is how often a last use is written down at most.
const touchEvery = time.Minute

// Session is a login.
type Session struct {
	ID        agented.SessionID
	User      agented.UserID
	CreatedAt time.Time
	SeenAt    time.Time // last use, to the minute
	ExpiresAt time.Time
	Address   string // where it was last used from
	UserAgent string
	UserName  string // filled in by Sessions
}

const sessionColumns = `s.id, s.user_id, s.created_at, s.seen_at, s.expires_at, s.address, s.user_agent`

func scanSession(s *Session, scan func(...any) error) error {
	return scan(&s.ID, &s.User, toTime{&s.CreatedAt}, toTime{&s.SeenAt}, toTime{&s.ExpiresAt}, &s.Address, &s.UserAgent)
}

// CreateSession stores a login under the hash of its cookie's value. An empty
// ID is filled in from CreatedAt; SeenAt becomes CreatedAt.
func (db *DB) CreateSession(ctx context.Context, s *Session, hash []byte) error {
	s.CreatedAt, s.ExpiresAt = stored(s.CreatedAt), stored(s.ExpiresAt)
	s.SeenAt = s.CreatedAt
	if s.ID == "" {
		s.ID = agented.SessionID(agented.NewID("ses", s.CreatedAt))
	}
	s.UserAgent = clip(s.UserAgent, 512)
	return db.write(ctx, "create session", func(tx *tx) error {
		return tx.exec(`INSERT INTO session (id, hash, user_id, created_at, seen_at, expires_at, address, user_agent)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, s.ID, hex.EncodeToString(hash), s.User,
			micros(s.CreatedAt), micros(s.SeenAt), micros(s.ExpiresAt), s.Address, s.UserAgent)
	})
}

// SessionByHash returns the session and its user. It is Unauthenticated when
// there is none, when it has expired by now, or when its user is disabled.
func (db *DB) SessionByHash(ctx context.Context, hash []byte, now time.Time) (*Session, *User, error) {
	var s Session
	var u User
	err := db.r.QueryRowContext(ctx, `SELECT `+sessionColumns+`, u.name, u.role, u.created_at
		FROM session s JOIN user_ u ON u.id = s.user_id
		WHERE s.hash = $1 AND s.expires_at > $2 AND NOT u.disabled`, hex.EncodeToString(hash), micros(now)).
		Scan(&s.ID, &s.User, toTime{&s.CreatedAt}, toTime{&s.SeenAt}, toTime{&s.ExpiresAt}, &s.Address, &s.UserAgent,
			&u.Name, &u.Role, toTime{&u.CreatedAt})
	if missing(err) {
		return nil, nil, agented.Errorf(agented.Unauthenticated, "not logged in, or the session has expired: log in again")
	}
	if err != nil {
		return nil, nil, db.explain("session", err)
	}
	u.ID = s.User
	return &s, &u, nil
}

// TouchSession notes a use of s, and moves its expiry when expires is later. It
// writes at most once a minute.
func (db *DB) TouchSession(ctx context.Context, s *Session, address string, now, expires time.Time) error {
	if now.Sub(s.SeenAt) < touchEvery && s.Address == address {
		return nil
	}
	return db.write(ctx, "touch session", func(tx *tx) error {
		return tx.exec(`UPDATE session SET seen_at = $2, address = $3, expires_at = CASE WHEN expires_at < $4 THEN $4 ELSE expires_at END
			WHERE id = $1`, s.ID, micros(now), address, micros(expires))
	})
}

// Sessions lists the sessions of a user that have not expired by now, the
// newest first; of all users when user is empty. At most MaxLimit are listed.
func (db *DB) Sessions(ctx context.Context, user agented.UserID, now time.Time) ([]Session, error) {
	w := where{}
	w.and(`s.expires_at > $?`, micros(now))
	if user != "" {
		w.and(`s.user_id = $?`, user)
	}
	rows, err := db.r.QueryContext(ctx, `SELECT `+sessionColumns+`, u.name FROM session s JOIN user_ u ON u.id = s.user_id`+w.sql()+
		` ORDER BY s.created_at DESC, s.id DESC LIMIT `+fmt.Sprint(MaxLimit), w.args...)
	list, err := collect(rows, err, func(s *Session, scan func(...any) error) error {
		return scanSession(s, func(to ...any) error { return scan(append(to, &s.UserName)...) })
	})
	return list, db.explain("sessions", err)
}

// RevokeSession ends one session, or NotFound. A user who is not empty must be
// the session's.
func (db *DB) RevokeSession(ctx context.Context, id agented.SessionID, user agented.UserID) error {
	return db.write(ctx, "revoke session", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM session WHERE id = $1 AND ($2 = '' OR user_id = $2)`, id, user)
		if err == nil && n == 0 {
			err = agented.Errorf(agented.NotFound, "no session %q", id)
		}
		return err
	})
}

// RevokeSessions ends all sessions of a user but keep, which may be empty, and
// returns how many.
func (db *DB) RevokeSessions(ctx context.Context, user agented.UserID, keep agented.SessionID) (int64, error) {
	var n int64
	err := db.write(ctx, "revoke sessions", func(tx *tx) (err error) {
		n, err = tx.affected(`DELETE FROM session WHERE user_id = $1 AND id <> $2`, user, keep)
		return err
	})
	return n, err
}

// SweepSessions removes the sessions that have expired by now and returns how
// many.
func (db *DB) SweepSessions(ctx context.Context, now time.Time) (int64, error) {
	var n int64
	err := db.write(ctx, "sweep sessions", func(tx *tx) (err error) {
		n, err = tx.affected(`DELETE FROM session WHERE expires_at <= $1`, micros(now))
		return err
	})
	return n, err
}

package auth

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// The names of the session cookie. Over TLS, browsers reject a cookie with the
// __Host- prefix if another host or a plain connection set it.
const (
	CookieTLS = "__Host-agented"
	// __Host- requires the path /, but under a base path another application
	// may share the host.
	cookieTLSPath = "__Secure-agented"
	CookiePlain   = "agented"
)

// Lifetime of a login: without use, and in total.
const (
	sessionIdle = 30 * 24 * time.Hour
	sessionMax  = 90 * 24 * time.Hour
)

func (a *Service) cookieName(encrypted bool) string {
	switch {
	case encrypted && a.o.BasePath != "":
		return cookieTLSPath
	case encrypted:
		return CookieTLS
	}
	return CookiePlain
}

// cookie returns the session cookie for a client; an age below 0 removes it.
func (a *Service) cookie(c Client, value string, age int) http.Cookie {
	path := a.o.BasePath
	if path == "" {
		path = "/"
	}
	return http.Cookie{
		Name: a.cookieName(c.Encrypted), Value: value, Path: path, MaxAge: age,
		HttpOnly: true, Secure: c.Encrypted, SameSite: http.SameSiteLaxMode,
	}
}

// NoSession returns the cookie that removes the client's session cookie.
func (a *Service) NoSession(c Client) http.Cookie { return a.cookie(c, "", -1) }

// Rate limits for login attempts, as a burst and a refill interval: for one
// name from one address, and for an address regardless of the name.
const (
	nameBurst    = 5
	nameEvery    = 12 * time.Second
	addressBurst = 30
	addressEvery = 2 * time.Second
)

// checkRate rejects a client with too many attempts. The address is counted
// first, so that a rejected address adds no key for the name that it sends.
func (a *Service) checkRate(c Client, what, name string) error {
	// Use the monotonic clock, so that a changed date cannot reset the limit.
	now := time.Now()
	ok, wait := a.logins.Allow(addressKey(c, what), addressBurst, addressEvery, now)
	if ok {
		ok, wait = a.logins.Allow(nameKey(c, what, name), nameBurst, nameEvery, now)
	}
	if ok {
		return nil
	}
	a.o.LoginEnded(LoginLimited)
	return &agented.Error{Kind: agented.RateLimited, Text: "too many attempts: wait a minute, then try again", RetryAfter: wait}
}

// addressKey and nameKey return the limiter's keys of a client's network, and
// of a name tried from it.
func addressKey(c Client, what string) string { return what + "\x00" + c.Network }

func nameKey(c Client, what, name string) string {
	return addressKey(c, what) + "\x00" + strings.ToLower(name)
}

// LogIn checks a name and a password. Every failure has the same response and
// takes the same time, so that callers cannot find out which names exist.
func (a *Service) LogIn(ctx context.Context, c Client, name, password string) (*store.User, error) {
	if err := a.checkRate(c, "login", name); err != nil {
		return nil, err
	}
	user, err := a.o.DB.UserByName(ctx, name)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return nil, err
	}
	hash := ""
	if err == nil && !user.Disabled {
		hash = user.PasswordHash
	}
	ok, _, verr := a.o.Passwords.Verify(ctx, hash, password)
	if verr != nil {
		return nil, verr
	}
	if !ok {
		a.o.LoginEnded(LoginRefused)
		// An unknown name may be a password typed into the wrong field.
		actor, subject := "unknown", ""
		if err == nil {
			actor, subject = user.Name, string(user.ID)
		}
		a.audit(ctx, c, actor, "login.refused", subject, "")
		if a.HasNoUsers(ctx) {
			return nil, agented.Errorf(agented.Unauthenticated, "%s", notSetUp)
		}
		return nil, agented.Errorf(agented.Unauthenticated, "name or password is wrong")
	}
	a.o.LoginEnded(LoginSuccess)
	a.logins.Forget(nameKey(c, "login", name))
	return user, nil
}

// NewSession creates a session for a user and returns its cookie.
func (a *Service) NewSession(ctx context.Context, c Client, user *store.User) (http.Cookie, error) {
	now := a.o.Now()
	value, hash := a.o.Key.NewSession()
	session := &store.Session{
		User: user.ID, CreatedAt: now, ExpiresAt: now.Add(sessionIdle),
		Address: c.Address, UserAgent: strings.ToValidUTF8(c.UserAgent, "?"),
	}
	if err := a.o.DB.CreateSession(ctx, session, digest(hash)); err != nil {
		return http.Cookie{}, err
	}
	a.note(ctx, "session", func(ctx context.Context) error {
		_, err := a.o.DB.SweepSessions(ctx, now)
		return err
	})
	a.audit(ctx, c, user.Name, "login", string(user.ID), string(session.ID))
	if c.Exposed() {
		a.o.Log.Warn("login over a connection that is not encrypted", "user", user.Name, "address", c.Address)
	}
	return a.cookie(c, value, int(sessionMax/time.Second)), nil
}

// LogOut ends the session of a caller, if there is one.
func (a *Service) LogOut(ctx context.Context, c Client, who Caller) error {
	if who.Session == nil {
		return nil
	}
	err := a.o.DB.RevokeSession(ctx, who.Session.ID, who.User)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return err
	}
	a.Recheck(ctx)
	a.audit(ctx, c, who.Name, "logout", string(who.User), string(who.Session.ID))
	return nil
}

// RevokeSession ends a session of a user, or of any user if user is empty.
func (a *Service) RevokeSession(ctx context.Context, id agented.SessionID, user agented.UserID) error {
	defer a.Recheck(ctx)
	return a.o.DB.RevokeSession(ctx, id, user)
}

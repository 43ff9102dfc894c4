package api

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// The names of the session cookie. Over TLS the __Host- prefix makes browsers
// refuse one that another host or a plain connection set.
const (
	cookieTLS   = "__Host-agented"
	cookiePlain = "agented"
)

// How long a login lasts: so long without use, and so long at all.
const (
	sessionIdle = 30 * 24 * time.Hour
	sessionMax  = 90 * 24 * time.Hour
)

// notSetUp is what everybody is told until there is a user.
const notSetUp = "this server has not been set up: open the one-time link in the file setup-link of its data folder, or use an API key"

func cookieName(r *http.Request) string {
	if secure(r) {
		return cookieTLS
	}
	return cookiePlain
}

// presentedKey is the API key that a request carries. Basic credentials are
// not for us: a proxy in front may have asked for them.
func presentedKey(r *http.Request) (string, bool) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(key), true
	}
	if keys := r.Header.Values("X-API-Key"); len(keys) > 0 {
		return strings.TrimSpace(keys[0]), true
	}
	return "", false
}

// identify finds out who asks, by key or by session. A request with a key never
// falls back to its cookie: the check against other sites' pages let it pass
// because of the key.
func (s *Server) identify(q *request, r *http.Request) error {
	if key, ok := presentedKey(r); ok {
		return s.byKey(q, r, key)
	}
	cookie, err := r.Cookie(cookieName(r))
	if err == nil && cookie.Value != "" {
		return s.bySession(q, r, cookie.Value)
	}
	if s.empty(r.Context()) {
		return agented.Errorf(agented.Unauthenticated, "%s", notSetUp)
	}
	return agented.Errorf(agented.Unauthenticated, "log in, or send an API key as Authorization: Bearer KEY or X-API-Key: KEY")
}

// empty reports whether there is no user yet.
func (s *Server) empty(ctx context.Context) bool {
	if s.hasUsers.Load() {
		return false
	}
	n, err := s.o.DB.UserCount(ctx)
	if n > 0 {
		s.hasUsers.Store(true)
	}
	return err == nil && n == 0
}

func (s *Server) byKey(q *request, r *http.Request, key string) error {
	if static := s.live.Load().config.APIKey; static.IsSet() && secret.Equal(key, static.Reveal()) {
		q.who = agented.Principal{Name: "key AGENTED_API_KEY", Role: agented.RoleAdmin}
		return nil
	}
	if strings.HasPrefix(key, tokenPrefix) {
		return s.byToken(q, r, key)
	}
	k, err := s.o.DB.KeyByHash(r.Context(), digest(secret.HashToken(key)))
	if err != nil {
		return err
	}
	q.who = agented.Principal{Name: "key " + k.Name, Role: k.Role, Key: k.ID}
	s.note(r.Context(), "key", func(ctx context.Context) error { return s.o.DB.TouchKey(ctx, k, s.now()) })
	return nil
}

func (s *Server) bySession(q *request, r *http.Request, cookie string) error {
	hash, ok := s.o.Key.Session(cookie)
	if !ok {
		return agented.Errorf(agented.Unauthenticated, "not logged in, or the session has expired: log in again")
	}
	now := s.now()
	session, user, err := s.o.DB.SessionByHash(r.Context(), digest(hash), now)
	if err != nil {
		return err
	}
	s.hasUsers.Store(true)
	q.session = session
	q.who = agented.Principal{Name: user.Name, Role: user.Role, User: user.ID, Sess: session.ID}
	expires := now.Add(sessionIdle)
	if last := session.CreatedAt.Add(sessionMax); expires.After(last) {
		expires = last
	}
	s.note(r.Context(), "session", func(ctx context.Context) error {
		return s.o.DB.TouchSession(ctx, session, peer(r).String(), now, expires)
	})
	return nil
}

// note writes down a use. A full disk must not lock people out, so that it
// could not be written is logged and no more.
func (s *Server) note(ctx context.Context, what string, write func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := write(ctx); err != nil {
		s.o.Log.Debug("note the use of a "+what, "err", err)
	}
}

// digest is a hash as the store takes it.
func digest(hexadecimal string) []byte {
	b, err := hex.DecodeString(hexadecimal)
	if err != nil {
		panic(err) // our own hashes are hexadecimal
	}
	return b
}

// audit writes down what the store does not write by itself.
func (s *Server) audit(ctx context.Context, r *http.Request, actor, action, subject, detail string) {
	s.note(ctx, "login", func(ctx context.Context) error {
		return s.o.DB.Audit(ctx, store.AuditEntry{
			At: s.now(), Actor: actor, Action: action, Subject: subject, Detail: detail, Address: peer(r).String(),
		})
	})
}

// The limits on guessing: attempts at once and one more every while, for one
// name from one address, and for an address whatever the name.
const (
	nameBurst    = 5
	nameEvery    = 12 * time.Second
	addressBurst = 30
	addressEvery = 2 * time.Second
)

// mayGuess refuses who has tried too often.
func (s *Server) mayGuess(r *http.Request, what, name string) error {
	// The monotonic clock: a test's or an operator's idea of the date must not
	// open the gate.
	now := time.Now()
	from := peer(r).String()
	for _, b := range []struct {
		key   string
		burst int
		every time.Duration
	}{
		{what + "\x00" + from + "\x00" + strings.ToLower(name), nameBurst, nameEvery},
		{what + "\x00" + from, addressBurst, addressEvery},
	} {
		if ok, wait := s.logins.allow(b.key, b.burst, b.every, now); !ok {
			s.m.logins.WithLabelValues("limited").Inc()
			return &Problem{
				Status: http.StatusTooManyRequests, Kind: agented.RateLimited, retryAfter: int(wait/time.Second) + 1,
				Detail: "too many attempts: wait a little, then try again",
			}
		}
	}
	return nil
}

// logIn checks a name and a password. Whatever is wrong, the answer is the same
// and takes as long: nobody finds out which names there are.
func (s *Server) logIn(r *http.Request, name, password string) (*store.User, error) {
	ctx := r.Context()
	if err := s.mayGuess(r, "login", name); err != nil {
		return nil, err
	}
	user, err := s.o.DB.UserByName(ctx, name)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return nil, err
	}
	hash := ""
	if err == nil && !user.Disabled {
		hash = user.PasswordHash
	}
	ok, _, verr := s.o.Passwords.Verify(ctx, hash, password)
	if verr != nil {
		return nil, verr
	}
	if !ok {
		s.m.logins.WithLabelValues("refused").Inc()
		// A name that nobody has may be a password in the wrong field.
		actor, subject := "unknown", ""
		if err == nil {
			actor, subject = user.Name, string(user.ID)
		}
		s.audit(ctx, r, actor, "login.refused", subject, "")
		if s.empty(ctx) {
			return nil, agented.Errorf(agented.Unauthenticated, "%s", notSetUp)
		}
		return nil, agented.Errorf(agented.Unauthenticated, "name or password is wrong")
	}
	s.m.logins.WithLabelValues("success").Inc()
	s.logins.forget("login\x00" + peer(r).String() + "\x00" + strings.ToLower(name))
	return user, nil
}

// newSession makes a login for a user and returns its cookie.
func (s *Server) newSession(r *http.Request, user *store.User) (http.Cookie, error) {
	now := s.now()
	value, hash := s.o.Key.NewSession()
	session := &store.Session{
		User: user.ID, CreatedAt: now, ExpiresAt: now.Add(sessionIdle),
		Address: peer(r).String(), UserAgent: strings.ToValidUTF8(r.UserAgent(), "?"),
	}
	if err := s.o.DB.CreateSession(r.Context(), session, digest(hash)); err != nil {
		return http.Cookie{}, err
	}
	s.note(r.Context(), "session", func(ctx context.Context) error {
		_, err := s.o.DB.SweepSessions(ctx, now)
		return err
	})
	s.audit(r.Context(), r, user.Name, "login", string(user.ID), string(session.ID))
	if plainAndFar(r) {
		s.o.Log.Warn("login over a connection that is not encrypted", "user", user.Name, "address", peer(r).String())
	}
	return s.cookie(r, value, int(sessionMax/time.Second)), nil
}

// cookie is the session cookie; age below 0 removes it.
func (s *Server) cookie(r *http.Request, value string, age int) http.Cookie {
	return http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: secure(r), SameSite: http.SameSiteLaxMode,
	}
}

// endSession ends the session that the request came with.
func (s *Server) endSession(r *http.Request) error {
	q := requestOf(r)
	if q.session == nil {
		return nil
	}
	err := s.o.DB.RevokeSession(r.Context(), q.session.ID, q.who.User)
	if err != nil && agented.KindOf(err) != agented.NotFound {
		return err
	}
	s.audit(r.Context(), r, q.who.Name, "logout", string(q.who.User), string(q.session.ID))
	return nil
}

// plainAndFar reports whether a password would cross a network in the clear.
func plainAndFar(r *http.Request) bool { return !secure(r) && !peer(r).local }

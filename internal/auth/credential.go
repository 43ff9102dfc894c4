package auth

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Credential identifies what authenticated a request, in a form that can be
// checked again and that contains no secret.
type Credential struct {
	kind      credentialKind
	hash      [32]byte // of a key or a session's cookie
	execution agented.ExecutionID
	attempt   int
}

type credentialKind byte

const (
	byNothing credentialKind = iota
	byStatic                 // AGENTED_API_KEY
	byKey
	bySession
	byExecution
	byProcess // the local socket
)

var staticPrincipal = agented.Principal{Name: "key AGENTED_API_KEY", Role: agented.RoleAdmin}

func keyPrincipal(k *store.Key) agented.Principal {
	return agented.Principal{Name: "key " + k.Name, Role: k.Role, Key: k.ID, Owner: k.Owner, Triggers: k.Triggers}
}

func sessionPrincipal(s *store.Session, u *store.User) agented.Principal {
	return agented.Principal{Name: u.Name, Role: u.Role, User: u.ID, Sess: s.ID, Owner: u.ID}
}

// notSetUp is the response to all requests until a user exists.
const notSetUp = "this server has not been set up: open the one-time link in the file setup-link of its data folder, or use an API key"

// PresentedKey returns the API key of a request. Basic credentials are ignored:
// they may be meant for a proxy in front of the server.
func PresentedKey(r *http.Request) (string, bool) {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(key), true
	}
	if keys := r.Header.Values("X-API-Key"); len(keys) > 0 {
		return strings.TrimSpace(keys[0]), true
	}
	return "", false
}

// Identify authenticates the caller of a request by key, as a process on the
// local socket, or by session. A request
// with a key never falls back to its cookie, since the cross-origin check
// accepted it because of the key.
func (a *Service) Identify(r *http.Request, c Client) (Caller, error) {
	ctx := r.Context()
	if key, ok := PresentedKey(r); ok {
		return a.byKey(ctx, c, key)
	}
	if c.Process != nil {
		return byLocalSocket(c.Process)
	}
	cookie, err := r.Cookie(a.cookieName(c.Encrypted))
	if err == nil && cookie.Value != "" {
		return a.bySession(ctx, c, cookie.Value)
	}
	if a.HasNoUsers(ctx) {
		return Caller{}, agented.Errorf(agented.Unauthenticated, "%s", notSetUp)
	}
	return Caller{}, agented.Errorf(agented.Unauthenticated, "log in, or send an API key as Authorization: Bearer KEY or X-API-Key: KEY")
}

// byLocalSocket authenticates a process of this machine. It has no owner: keys
// that it creates end with no user unless the request names one.
func byLocalSocket(p *Process) (Caller, error) {
	if p.Refused != nil {
		return Caller{}, p.Refused
	}
	return Caller{Principal: agented.Principal{Name: "local " + p.User, Role: agented.RoleAdmin}, Credential: Credential{kind: byProcess}}, nil
}

func (a *Service) byKey(ctx context.Context, c Client, key string) (Caller, error) {
	if static := a.o.Static(); static.IsSet() && secret.Equal(key, static.Reveal()) {
		return Caller{Principal: staticPrincipal, Credential: Credential{kind: byStatic, hash: sha256.Sum256([]byte(key))}}, nil
	}
	if strings.HasPrefix(key, tokenPrefix) {
		return a.byToken(ctx, key)
	}
	hash := digest(secret.HashToken(key))
	k, err := a.keyByHash(ctx, hash)
	if err != nil {
		return Caller{}, err
	}
	if err := validFrom(k, c); err != nil {
		return Caller{}, err
	}
	a.note(ctx, "key", func(ctx context.Context) error { return a.o.DB.TouchKey(ctx, k, a.o.Now()) })
	return Caller{Principal: keyPrincipal(k), Credential: Credential{kind: byKey, hash: [32]byte(hash)}}, nil
}

func (a *Service) bySession(ctx context.Context, c Client, cookie string) (Caller, error) {
	hash, ok := a.o.Key.Session(cookie)
	if !ok {
		return Caller{}, agented.Errorf(agented.Unauthenticated, "not logged in, or the session has expired: log in again")
	}
	now := a.o.Now()
	session, user, err := a.o.DB.SessionByHash(ctx, digest(hash), now)
	if err != nil {
		return Caller{}, err
	}
	a.hasUsers.Store(true)
	expires := now.Add(sessionIdle)
	if last := session.CreatedAt.Add(sessionMax); expires.After(last) {
		expires = last
	}
	a.note(ctx, "session", func(ctx context.Context) error {
		return a.o.DB.TouchSession(ctx, session, c.Address, now, expires)
	})
	return Caller{
		Principal: sessionPrincipal(session, user), Credential: Credential{kind: bySession, hash: [32]byte(digest(hash))}, Session: session,
	}, nil
}

// keyByHash returns a key that is neither revoked nor expired.
func (a *Service) keyByHash(ctx context.Context, hash []byte) (*store.Key, error) {
	k, err := a.o.DB.KeyByHash(ctx, hash)
	if err == nil && !k.ExpiresAt.IsZero() && !a.o.Now().Before(k.ExpiresAt) {
		return nil, agented.Errorf(agented.Unauthenticated, "the API key expired at %s: create another one", k.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return k, err
}

// role returns the current role of a credential. ok is false if it is no longer
// valid; after an error its validity is unknown.
func (a *Service) role(ctx context.Context, c Credential) (role agented.Role, ok bool, err error) {
	switch c.kind {
	case byStatic:
		static := a.o.Static()
		return agented.RoleAdmin, static.IsSet() && sha256.Sum256([]byte(static.Reveal())) == c.hash, nil
	case byKey:
		k, err := a.keyByHash(ctx, c.hash[:])
		if err != nil {
			return "", false, unlessRefused(err)
		}
		return k.Role, true, nil
	case bySession:
		_, u, err := a.o.DB.SessionByHash(ctx, c.hash[:], a.o.Now())
		if err != nil {
			return "", false, unlessRefused(err)
		}
		return u.Role, true, nil
	case byExecution:
		e, err := a.o.DB.Execution(ctx, c.execution)
		if err != nil {
			return "", false, unlessRefused(err)
		}
		return "", e.State == agented.StateRunning && e.AttemptNo == c.attempt, nil
	}
	if c.kind == byProcess {
		return agented.RoleAdmin, true, nil // a process cannot become part of an execution
	}
	return "", true, nil
}

// unlessRefused drops an error that means that a credential is not valid.
func unlessRefused(err error) error {
	if k := agented.KindOf(err); k == agented.Unauthenticated || k == agented.NotFound {
		return nil
	}
	return err
}

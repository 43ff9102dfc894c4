package githubtest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// App is a GitHub App of the server.
type App struct {
	ID, Slug string
	// Key is its private key in PEM.
	Key []byte

	public *rsa.PublicKey
	// TokenLife is the life of installation tokens; GitHub's is one hour.
	TokenLife time.Duration
}

// installation is an App's installation on an account.
type installation struct {
	id        int64
	app       *App
	owner     string
	suspended bool
}

// credential is what a request authenticates with.
type credential struct {
	name    string
	login   string // the account that it writes as
	app     *App   // for an App or an installation
	jwt     bool
	expires time.Time // zero: never
	repos   []string  // lower-case full names; nil: all
}

func contextWith(ctx context.Context, q *request) context.Context {
	return context.WithValue(ctx, requestKey{}, q)
}

// key is generated once for all tests of a process, because it is slow.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// AddApp adds an App that is installed on the accounts.
func (s *Server) AddApp(slug string, owners ...string) *App {
	k := key()
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &App{
		ID: strconv.FormatInt(s.id(), 10), Slug: slug, public: &k.PublicKey, TokenLife: time.Hour,
		Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}),
	}
	s.apps[a.ID] = a
	for _, owner := range owners {
		in := &installation{id: s.id(), app: a, owner: owner}
		s.installations[in.id] = in
	}
	return a
}

// Suspend suspends the installations of an account.
func (s *Server) Suspend(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.installations {
		in.suspended = in.suspended || strings.EqualFold(in.owner, owner)
	}
}

// RevokeTokens makes all installation tokens invalid.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, c := range s.tokens {
		if c.app != nil {
			delete(s.tokens, text)
		}
	}
}

// AddToken adds a personal access token and returns it.
func (s *Server) AddToken(login string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("github_pat_%s_%d", login, s.id())
	s.tokens[text] = credential{name: "token " + login, login: login}
	return text
}

// authenticate returns the credential of a request.
func (s *Server) authenticate(r *http.Request) (credential, *answer) {
	if strings.HasPrefix(r.URL.Path, "/blob/") { // another host in reality: a credential must not arrive
		if r.Header.Get("Authorization") != "" {
			a := fail(http.StatusBadRequest, "a credential was sent to the storage")
			return credential{}, &a
		}
		return credential{name: "storage"}, nil
	}
	bad := fail(http.StatusUnauthorized, "Bad credentials")
	text, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found {
		text, found = strings.CutPrefix(r.Header.Get("Authorization"), "token ")
	}
	if !found {
		return credential{}, &bad
	}
	if c, found := s.tokens[text]; found {
		if !c.expires.IsZero() && !s.now().Before(c.expires) {
			return credential{}, &bad
		}
		return c, nil
	}
	if strings.Count(text, ".") == 2 {
		return s.verify(text)
	}
	return credential{}, &bad
}

// verify checks the JSON Web Token of an App as GitHub does.
func (s *Server) verify(text string) (credential, *answer) {
	refuse := func(format string, args ...any) (credential, *answer) {
		a := fail(http.StatusUnauthorized, format, args...)
		return credential{}, &a
	}
	parts := strings.Split(text, ".")
	var header struct{ Alg, Typ string }
	var claims struct {
		IAT, EXP int64
		ISS      json.RawMessage
	}
	raw, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	signature, err3 := base64.RawURLEncoding.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || json.Unmarshal(raw, &header) != nil || json.Unmarshal(payload, &claims) != nil || header.Alg != "RS256" {
		return refuse("A JSON web token could not be decoded")
	}
	a := s.apps[strings.Trim(string(claims.ISS), `"`)]
	if a == nil {
		return refuse("Integration not found")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(a.public, crypto.SHA256, sum[:], signature) != nil {
		return refuse("A JSON web token could not be decoded")
	}
	now := s.now()
	switch iat, exp := time.Unix(claims.IAT, 0), time.Unix(claims.EXP, 0); {
	case iat.After(now.Add(5 * time.Second)):
		return refuse("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	case !exp.After(now):
		return refuse("'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	case exp.After(now.Add(10 * time.Minute)):
		return refuse("'Expiration time' claim ('exp') is too far in the future")
	}
	return credential{name: "app " + a.ID, login: a.Slug + "[bot]", app: a, jwt: true}, nil
}

// appRoutes adds the routes of Apps.
func (s *Server) appRoutes() {
	s.handle("GET /user", func(q *request) answer {
		if q.as.app != nil {
			return fail(http.StatusForbidden, "Resource not accessible by integration")
		}
		return ok(map[string]any{"login": q.as.login, "type": "User"})
	})
	s.handle("GET /app", s.jwt(func(q *request) answer {
		n := 0
		for _, in := range s.installations {
			if in.app == q.as.app {
				n++
			}
		}
		id, _ := strconv.ParseInt(q.as.app.ID, 10, 64)
		return ok(map[string]any{"id": id, "slug": q.as.app.Slug, "name": q.as.app.Slug, "installations_count": n, "permissions": permissions, "events": []string{"push", "pull_request"}})
	}))
	s.handle("GET /repos/{owner}/{repo}/installation", s.jwt(func(q *request) answer {
		r := s.repos[fullName(q)]
		for _, in := range s.installations {
			if r != nil && in.app == q.as.app && strings.EqualFold(in.owner, q.PathValue("owner")) {
				out := map[string]any{"id": in.id, "account": map[string]string{"login": in.owner}, "permissions": permissions, "suspended_at": nil}
				if in.suspended {
					out["suspended_at"] = s.now()
				}
				return ok(out)
			}
		}
		return notFound
	}))
	s.handle("POST /app/installations/{id}/access_tokens", s.jwt(s.newToken))
}

var permissions = map[string]string{
	"contents": "write", "pull_requests": "write", "issues": "write", "checks": "write", "statuses": "write", "actions": "read", "metadata": "read",
}

// newToken creates an installation token.
func (s *Server) newToken(q *request) answer {
	id, _ := strconv.ParseInt(q.PathValue("id"), 10, 64)
	in := s.installations[id]
	if in == nil || in.app != q.as.app {
		return notFound
	}
	if in.suspended {
		return fail(http.StatusForbidden, "This installation has been suspended")
	}
	var body struct{ Repositories []string }
	if len(q.body) > 0 {
		if a := q.decode(&body); a != nil {
			return *a
		}
	}
	c := credential{name: fmt.Sprintf("installation %d", id), login: in.app.Slug + "[bot]", app: in.app, expires: s.now().Add(in.app.TokenLife)}
	for _, name := range body.Repositories {
		full := strings.ToLower(in.owner + "/" + name)
		if s.repos[full] == nil {
			return fail(http.StatusUnprocessableEntity, "There is at least one repository that does not exist or is not accessible to the parent installation.")
		}
		c.repos = append(c.repos, full)
	}
	text := fmt.Sprintf("ghs_%040d", s.id())
	s.tokens[text] = c
	return created(map[string]any{"token": text, "expires_at": c.expires.UTC().Format(time.RFC3339), "permissions": permissions})
}

// jwt wraps a route that only an App itself may call.
func (s *Server) jwt(h func(*request) answer) func(*request) answer {
	return func(q *request) answer {
		if !q.as.jwt {
			return fail(http.StatusUnauthorized, "A JSON web token could not be decoded")
		}
		return h(q)
	}
}

package github

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
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
)

const (
	jwtLife = 9 * time.Minute // GitHub accepts at most 10 minutes
	jwtBack = time.Minute     // for clocks that differ
	// tokenMargin is how long before its end an installation token is replaced.
	// A git push or a download may take minutes.
	tokenMargin = 10 * time.Minute
	maxTokens   = 1000 // cached installation tokens
)

// Token is an installation token for one repository.
type Token struct {
	Token     string
	ExpiresAt time.Time
	key       string // of its installation, for rate limits
}

// Installation is an App's installation on an account.
type Installation struct {
	ID          int64             `json:"id"`
	Permissions map[string]string `json:"permissions"`
	Events      []string          `json:"events"`
	SuspendedAt *time.Time        `json:"suspended_at"`
	Account     struct {
		Login string `json:"login"`
	} `json:"account"`
}

// app is the credential of a GitHub App.
type app struct {
	id     string
	key    *rsa.PrivateKey
	issued func(string)

	mu     sync.Mutex // guards tokens
	tokens map[string]*tokenEntry
}

// tokenEntry is a token, or the request for it that is running.
type tokenEntry struct {
	done  chan struct{} // closed when token and err are set
	token Token
	err   error
}

func newApp(id string, key []byte, issued func(string)) (*app, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	return &app{id: id, key: k, issued: issued, tokens: map[string]*tokenEntry{}}, nil
}

// parseKey parses an RSA key in PEM, PKCS #1 as GitHub creates it or PKCS #8.
func parseKey(text []byte) (*rsa.PrivateKey, error) {
	const fix = "download a private key on the settings page of the GitHub App"
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, agented.Errorf(agented.Invalid, "the private key of the GitHub App is not in PEM format: %s", fix)
	}
	if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "the private key of the GitHub App cannot be read: %s", fix)
	}
	rsaKey, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, agented.Errorf(agented.Invalid, "the private key of the GitHub App is no RSA key: %s", fix)
	}
	return rsaKey, nil
}

// jwt returns a JSON Web Token of the App.
func (a *app) jwt(now time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{"iat": now.Add(-jwtBack).Unix(), "exp": now.Add(jwtLife).Unix(), "iss": a.id})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign the token of the GitHub App: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// forget removes a token that GitHub refused from the cache. It reports whether
// another try is useful.
func (a *app) forget(repo, token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.tokens[repo]
	if e == nil {
		return true
	}
	select {
	case <-e.done:
		if e.token.Token == token {
			delete(a.tokens, repo)
		}
	default:
	}
	return true
}

// entry returns the cached token of a repository, or a new entry that the caller
// must fill.
func (a *app) entry(repo string, now time.Time) (e *tokenEntry, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.tokens[repo]; e != nil {
		select {
		case <-e.done:
			if e.err == nil && now.Add(tokenMargin).Before(e.token.ExpiresAt) {
				return e, false
			}
		default:
			return e, false
		}
	}
	if len(a.tokens) >= maxTokens {
		clear(a.tokens) // running requests are still delivered to their waiters
	}
	e = &tokenEntry{done: make(chan struct{})}
	a.tokens[repo] = e
	return e, true
}

// RepositoryToken returns a token that is valid for at least ten minutes and for
// git over HTTPS: an installation token of the App for this repository only, or
// the token of the client.
func (c *Client) RepositoryToken(ctx context.Context, r Repository) (Token, error) {
	if c.app == nil {
		return Token{Token: c.token}, nil
	}
	return c.installationToken(ctx, r)
}

// installationToken returns a token of the App for a repository. Concurrent
// callers share one request; it ends when the first of them gives up, and the
// others then try themselves.
func (c *Client) installationToken(ctx context.Context, r Repository) (Token, error) {
	for {
		e, mine := c.app.entry(r.key(), c.now())
		if mine {
			e.token, e.err = c.newToken(ctx, r)
			close(e.done)
			return e.token, e.err
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
		if e.err == nil || ctx.Err() != nil || !isContext(e.err) {
			return e.token, e.err
		}
	}
}

// newToken requests a token.
func (c *Client) newToken(ctx context.Context, r Repository) (Token, error) {
	in, err := c.RepositoryInstallation(ctx, r)
	if err != nil {
		return Token{}, err
	}
	if in.SuspendedAt != nil {
		return Token{}, &Error{Kind: agented.Denied, Method: http.MethodGet, Path: r.path("installation"), Text: "the GitHub App is suspended on " + line(in.Account.Login)}
	}
	var out struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	path := join("app", "installations", strconv.FormatInt(in.ID, 10), "access_tokens")
	body := map[string]any{"repositories": []string{r.Name}}
	if err := c.do(ctx, call{method: http.MethodPost, path: path, in: body, out: &out, as: credential{jwt: true}}); err != nil {
		return Token{}, err
	}
	if out.Token == "" || strings.ContainsAny(out.Token, " \r\n") {
		return Token{}, &Error{Kind: agented.Unavailable, Method: http.MethodPost, Path: path, Text: "the answer contains no token"}
	}
	if c.app.issued != nil {
		c.app.issued(out.Token)
	}
	// ExpiresAt in terms of this machine's clock.
	return Token{Token: out.Token, ExpiresAt: out.ExpiresAt.Add(-c.clockSkew()), key: fmt.Sprintf("installation %d", in.ID)}, nil
}

// RepositoryInstallation returns the App's installation for a repository. It
// returns NotFound if the App is not installed there.
func (c *Client) RepositoryInstallation(ctx context.Context, r Repository) (Installation, error) {
	var out Installation
	err := c.do(ctx, call{method: http.MethodGet, path: r.path("installation"), out: &out, as: credential{jwt: true}})
	if e, ok := err.(*Error); ok && e.Status == http.StatusNotFound {
		e.Text = "the GitHub App is not installed on " + r.String() + ", or the repository does not exist"
	}
	return out, err
}

// App is the GitHub App itself.
type App struct {
	ID          int64             `json:"id"`
	Slug        string            `json:"slug"`
	Name        string            `json:"name"`
	Permissions map[string]string `json:"permissions"`
	Events      []string          `json:"events"`
	// Installations is the number of accounts that have installed it.
	Installations int `json:"installations_count"`
}

// Login returns the account that the App writes as.
func (a App) Login() string { return a.Slug + "[bot]" }

// App returns the App that the client calls as.
func (c *Client) App(ctx context.Context) (App, error) {
	var out App
	err := c.do(ctx, call{method: http.MethodGet, path: "/app", out: &out, as: credential{jwt: true}})
	return out, err
}

// User returns the login of the client's token.
func (c *Client) User(ctx context.Context) (string, error) {
	var out struct {
		Login string `json:"login"`
	}
	err := c.do(ctx, call{method: http.MethodGet, path: "/user", out: &out, as: credential{user: true}})
	return out.Login, err
}

// Login returns the account that the client writes as: APP[bot], or the owner of
// the token.
func (c *Client) Login(ctx context.Context) (string, error) {
	if c.app == nil {
		return c.User(ctx)
	}
	a, err := c.App(ctx)
	return a.Login(), err
}

// isContext reports whether an error is that of a caller that gave up.
func isContext(err error) bool {
	_, answered := errors.AsType[*Error](err)
	return !answered && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

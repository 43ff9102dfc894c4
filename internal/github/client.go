// Package github calls the REST API of github.com and GitHub Enterprise Server
// as a GitHub App or with a token. Errors of calls are [*Error]: they state
// whether and when a call may be repeated.
package github

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
)

// DefaultURL is the address of the API of github.com.
const DefaultURL = "https://api.github.com"

const (
	apiVersion = "2022-11-28"
	callTime   = 30 * time.Second
	// MaxAnswer is the maximum size of an answer in bytes. The largest ones
	// contain the body of a webhook, which GitHub limits to 25 MB.
	MaxAnswer = 32 << 20
	pageSize  = 100
)

// Options configures a Client. A client needs a Token, or an AppID with its
// PrivateKey; with both, the App is used for repositories.
type Options struct {
	// URL is the address of the API; empty for [DefaultURL]. That of GitHub
	// Enterprise Server is https://HOST/api/v3.
	URL string
	// Token is a fine-grained or classic personal access token.
	Token string
	// AppID is the id or the client id of a GitHub App, PrivateKey its key in PEM.
	AppID      string
	PrivateKey []byte
	// Issued is called with each installation token before its first use, so
	// that it is masked; may be nil.
	Issued func(token string)
	// Transport sends the requests; if nil, http.DefaultTransport.
	Transport http.RoundTripper
	// Now returns the current time; if nil, time.Now.
	Now func() time.Time
}

// Client calls the API. Its methods may be called concurrently.
type Client struct {
	base  *url.URL
	token string
	app   *app // nil without one
	http  *http.Client
	now   func() time.Time

	mu      sync.Mutex           // guards the fields below
	blocked map[string]time.Time // by credential: until when GitHub refuses its calls
	quotas  map[string]Quota     // by credential
	skew    time.Duration        // GitHub's clock minus the clock of this machine
}

// New returns a client. It sends nothing.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	base, err := url.Parse(strings.TrimRight(o.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_GITHUB_API_URL is no http or https URL")
	}
	if base.Scheme == "http" && !loopback(base.Hostname()) {
		return nil, agented.Errorf(agented.Invalid, "AGENTED_GITHUB_API_URL would send the credential without encryption: use https")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	c := &Client{
		base: base, token: o.Token, now: o.Now, blocked: map[string]time.Time{}, quotas: map[string]Quota{},
		http: &http.Client{Transport: o.Transport, CheckRedirect: sameHost},
	}
	switch {
	case o.AppID != "" && len(o.PrivateKey) == 0:
		return nil, agented.Errorf(agented.Invalid, "GITHUB_APP_ID is set without a key: set GITHUB_APP_PRIVATE_KEY_FILE to the file of the App's private key")
	case o.AppID == "" && len(o.PrivateKey) > 0:
		return nil, agented.Errorf(agented.Invalid, "GITHUB_APP_PRIVATE_KEY_FILE is set without an App: set GITHUB_APP_ID")
	case o.AppID != "":
		if c.app, err = newApp(o.AppID, o.PrivateKey, o.Issued); err != nil {
			return nil, err
		}
	}
	if c.app == nil && c.token == "" {
		return nil, agented.Errorf(agented.Invalid, "there is no credential for GitHub's API: set a GitHub App or a token")
	}
	return c, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// HasApp reports whether the client calls as a GitHub App.
func (c *Client) HasApp() bool { return c.app != nil }

// sameHost follows redirects of renamed repositories, but sends a credential to
// no other host.
func sameHost(r *http.Request, via []*http.Request) error {
	if len(via) > 5 || r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// Repository names a repository.
type Repository struct{ Owner, Name string }

// ParseRepository parses OWNER/NAME.
func ParseRepository(text string) (Repository, error) {
	owner, name, ok := strings.Cut(text, "/")
	r := Repository{owner, name}
	if !ok || !validName(owner) || !validName(name) {
		return r, agented.Errorf(agented.Invalid, "%q is no repository: write OWNER/NAME", text)
	}
	return r, nil
}

func (r Repository) String() string { return r.Owner + "/" + r.Name }

// path returns the path of a resource of the repository. Parts are escaped.
func (r Repository) path(parts ...string) string {
	return join(append([]string{"repos", r.Owner, r.Name}, parts...)...)
}

// key identifies the repository in caches; names are not case-sensitive.
func (r Repository) key() string { return strings.ToLower(r.String()) }

// validName reports whether a text may be the name of an owner or a repository.
func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 100 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	})
}

func join(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// call is one request.
type call struct {
	method, path string
	query        url.Values
	in, out      any // JSON; may be nil
	as           credential
	next         *string // set to the query of the next page
}

// credential is what a call authenticates with.
type credential struct {
	repo Repository // installation token of the repository, or the token
	jwt  bool       // the App itself
	user bool       // the token
}

// do sends a call. If a cached installation token was revoked, or the clock of
// this machine is wrong, it sends the call once more: GitHub refused the first
// one before it did anything.
func (c *Client) do(ctx context.Context, k call) error {
	for try := 0; ; try++ {
		secret, key, err := c.authorize(ctx, k.as)
		if err != nil {
			return err
		}
		skew := c.clockSkew()
		err = c.send(ctx, k, secret, key)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Status != http.StatusUnauthorized || try > 0 {
			return err
		}
		switch moved := c.clockSkew() - skew; {
		case k.as.jwt && moved.Abs() > skewTolerance:
		case !k.as.jwt && !k.as.user && c.app != nil && c.app.forget(k.as.repo.key(), secret):
		default:
			return err
		}
	}
}

// send sends a call once.
func (c *Client) send(ctx context.Context, k call, secret, key string) error {
	if err := c.mayCall(key, k); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.request(timed, k, secret)
	if err != nil {
		return err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return lost(ctx, k, err)
	}
	defer res.Body.Close()
	c.observe(key, res)
	body, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	switch {
	case err != nil:
		return lost(ctx, k, err)
	case len(body) > MaxAnswer:
		return &Error{Kind: agented.TooLarge, Method: k.method, Path: k.path, Status: res.StatusCode, Text: fmt.Sprintf("the answer is larger than %d bytes", MaxAnswer)}
	case res.StatusCode < 200 || res.StatusCode > 299:
		e := c.failure(k, res, body)
		if e.Kind == agented.RateLimited {
			c.block(key, e.RetryAt)
		}
		return e
	}
	if k.next != nil {
		*k.next = nextPage(res.Header.Get("Link"))
	}
	if k.out == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, k.out); err != nil {
		// A proxy may answer in place of GitHub: the call may have been done.
		return &Error{Kind: agented.Unavailable, Method: k.method, Path: k.path, Status: res.StatusCode, Text: "the answer is not the expected JSON", Cause: err}
	}
	return nil
}

// request builds the HTTP request of a call.
func (c *Client) request(ctx context.Context, k call, secret string) (*http.Request, error) {
	var body io.Reader
	if k.in != nil {
		b, err := json.Marshal(k.in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	address := c.base.String() + k.path
	if len(k.query) > 0 {
		address += "?" + k.query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, k.method, address, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Accept", "application/vnd.github+json")
	r.Header.Set("X-GitHub-Api-Version", apiVersion)
	r.Header.Set("User-Agent", "agented")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// authorize returns the secret for a call, and a key of the credential for limits.
func (c *Client) authorize(ctx context.Context, as credential) (secret, key string, err error) {
	switch {
	case as.jwt && c.app == nil:
		return "", "", agented.Errorf(agented.Unavailable, "this call needs a GitHub App, and none is set")
	case as.jwt:
		secret, err = c.app.jwt(c.now().Add(c.clockSkew()))
		return secret, "app", err
	case as.user || c.app == nil:
		if c.token == "" {
			return "", "", agented.Errorf(agented.Unavailable, "this call needs a token, and none is set")
		}
		return c.token, "token", nil
	}
	t, err := c.installationToken(ctx, as.repo)
	return t.Token, t.key, err
}

// get reads a resource of a repository.
func (c *Client) get(ctx context.Context, r Repository, path string, out any) error {
	return c.do(ctx, call{method: http.MethodGet, path: path, out: out, as: credential{repo: r}})
}

// write sends a writing call about a repository.
func (c *Client) write(ctx context.Context, r Repository, method, path string, in, out any) error {
	return c.do(ctx, call{method: method, path: path, in: in, out: out, as: credential{repo: r}})
}

// list reads all pages of a list, at most limit items.
func list[T any](ctx context.Context, c *Client, as credential, path string, query url.Values, limit int) ([]T, error) {
	q := url.Values{}
	for name, values := range query {
		q[name] = values
	}
	q.Set("per_page", fmt.Sprint(min(pageSize, limit)))
	var all []T
	for len(all) < limit {
		var page []T
		next := ""
		if err := c.do(ctx, call{method: http.MethodGet, path: path, query: q, out: &page, as: as, next: &next}); err != nil {
			return nil, err
		}
		all = append(all, page...)
		n, err := url.ParseQuery(next)
		if next == "" || err != nil || len(page) == 0 {
			break
		}
		for _, name := range []string{"page", "cursor", "after"} {
			if v := n.Get(name); v != "" {
				q.Set(name, v)
			}
		}
	}
	return all[:min(len(all), limit)], nil
}

// nextPage returns the query of the next page in a Link header, or "".
func nextPage(link string) string {
	for _, part := range strings.Split(link, ",") {
		target, params, ok := strings.Cut(part, ">")
		if !ok || !strings.Contains(params, `rel="next"`) {
			continue
		}
		u, err := url.Parse(strings.TrimLeft(target, " <"))
		if err != nil {
			return ""
		}
		return u.RawQuery
	}
	return ""
}

// Host returns the host of the API.
func (c *Client) Host() string { return c.base.Host }

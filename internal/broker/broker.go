package broker

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented/internal/egress"
)

// Limits of a broker.
const (
	maxConns      = 256
	maxHeader     = 256 << 10
	headerTimeout = 30 * time.Second
	idleTimeout   = 5 * time.Minute
	dialTimeout   = 30 * time.Second
	// closePatience is how long Close waits for answers that are still being sent.
	closePatience = time.Second
)

// Config is what a broker forwards. It contains secrets and must not be written to disk.
type Config struct {
	Routes []Route `json:"routes"`
	// ExtraCA is a file with certificates that count besides those of the system; "" means none.
	ExtraCA string `json:"extra_ca,omitempty"`
	// Allow are the hosts that a proxy at the same address reaches; nil means that there is no proxy.
	Allow []string `json:"allow,omitempty"`
	// Git is the repository of the workspace; nil means none.
	Git *GitRoute `json:"git,omitempty"`
	// Env are variables of the broker's process: proxies and certificates.
	Env map[string]string `json:"env,omitempty"`
}

// Options are what a broker tells the process that it runs in.
type Options struct {
	File string              // where it appends its records; see [Record]
	Mask func(string) string // masks secrets in what the agent has sent; nil masks nothing
	Note func(string)        // receives lines for the run log; nil drops them
}

// Route is one vendor.
type Route struct {
	Vendor   string `json:"vendor"`
	Prefix   string `json:"prefix,omitempty"` // path of the base address that the CLI received, such as /v1; "" means none
	Upstream string `json:"upstream"`         // base address of the vendor's API
	Keys     []Key  `json:"keys"`
}

// Key is a credential and what the CLI received in its place.
type Key struct {
	Placeholder string `json:"placeholder"`
	Secret      string `json:"secret"`
}

// Broker forwards the calls of one attempt.
type Broker struct {
	server    *http.Server
	transport *http.Transport
	routes    []route
	report    *report
	serving   sync.WaitGroup // listeners that are open
	git       *gitProxy      // nil: none
	proxy     *egress.Proxy  // nil: none
	refusals  *egress.Refusals
	mask      func(string) string // of what the agent has sent, if there is a proxy
	inner     *innerListener      // of connections to itself through the proxy
}

// route is a Route that is ready to forward.
type route struct {
	Route
	proxy *httputil.ReverseProxy
}

// New returns a broker that forwards nothing before Serve. The proxies and certificates of the
// process's environment apply.
func New(c Config, o Options) (*Broker, error) {
	b := &Broker{report: newReport(o.File)}
	if err := b.openProxy(c.Allow, o); err != nil {
		return nil, err
	}
	b.transport = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	if c.ExtraCA != "" {
		pool, err := poolWith(c.ExtraCA)
		if err != nil {
			return nil, err
		}
		b.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	for _, r := range c.Routes {
		to, err := url.Parse(r.Upstream)
		if err != nil || to.Scheme != "https" && to.Scheme != "http" || to.Host == "" {
			return nil, fmt.Errorf("the address of the %s API is not a URL", r.Vendor)
		}
		b.routes = append(b.routes, route{Route: r, proxy: b.proxyTo(r, to)})
	}
	var err error
	if b.git, err = newGitProxy(c.Git, b.transport); err != nil {
		return nil, err
	}
	b.server = &http.Server{
		Handler: b, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return b, nil
}

// Serve forwards the connections of a listener, which it closes, until Close. It returns at once.
func (b *Broker) Serve(l net.Listener) {
	b.serving.Go(func() {
		_ = b.server.Serve(&limitedListener{Listener: l, free: make(chan struct{}, maxConns)})
	})
	if b.inner != nil {
		b.serving.Go(func() { _ = b.server.Serve(b.inner) })
	}
}

// poolWith returns the certificates of the system and those of a file.
func poolWith(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read additional certificates: %w", err)
	}
	pool.AppendCertsFromPEM(pem)
	return pool, nil
}

// Close ends the broker. Model answers that are being sent have a moment to complete.
func (b *Broker) Close() {
	if b == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	b.proxy.Close()
	if b.server.Shutdown(ctx) != nil {
		_ = b.server.Close()
	}
	b.serving.Wait()
	b.transport.CloseIdleConnections()
	b.reportRefused()
	b.report.close()
}

// ServeHTTP handles one call of the CLI.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if b.proxy != nil && egress.For(r) && b.proxied(w, r) {
		return
	}
	if b.git.handles(w, r) {
		return
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK) // a probe of the address, which needs no credential
		return
	}
	if r.Header.Get("Upgrade") != "" {
		// Codex tries a WebSocket first, and uses HTTP at once after this answer.
		refuse(w, http.StatusUpgradeRequired, "invalid_request_error", "the credential broker of this execution supports HTTP only")
		return
	}
	to := b.routeOf(r)
	if to == nil {
		refuse(w, http.StatusForbidden, "permission_error", "the credential broker of this execution forwards calls of models only, not "+r.Method+" "+clip(r.URL.Path, 200))
		return
	}
	if !to.authorize(r) {
		refuse(w, http.StatusUnauthorized, "authentication_error", "the credential broker of this execution did not receive the placeholder that the execution was given")
		return
	}
	to.proxy.ServeHTTP(w, r)
}

// routeOf returns the route of a call, or nil if no vendor allows its path.
func (b *Broker) routeOf(r *http.Request) *route {
	if r.URL.RawPath != "" { // a path with an unusual encoding
		return nil
	}
	for i := range b.routes {
		to := &b.routes[i]
		if path, ok := strings.CutPrefix(r.URL.Path, to.Prefix); ok && strings.HasPrefix(path, "/") && allows(to.Vendor, r.Method, path) {
			return to
		}
	}
	return nil
}

// authorize replaces the placeholders of a call. It returns false if the call has none, or another
// credential.
func (to *route) authorize(r *http.Request) bool {
	found := false
	for _, name := range keyHeaders(to.Vendor) {
		values := r.Header.Values(name)
		if len(values) == 0 {
			continue
		}
		scheme, value := "", strings.TrimSpace(values[0])
		if name == "Authorization" {
			var ok bool
			if scheme, value, ok = strings.Cut(value, " "); !ok || !strings.EqualFold(scheme, "Bearer") {
				return false
			}
			scheme += " "
		}
		secret, ok := to.secretFor(value)
		if !ok || len(values) > 1 {
			return false
		}
		r.Header.Set(name, scheme+secret)
		found = true
	}
	if to.Vendor == Gemini && strings.Contains(r.URL.RawQuery, "key=") {
		query := r.URL.Query()
		if keys := query["key"]; len(keys) > 0 {
			secret, ok := to.secretFor(keys[0])
			if !ok || len(keys) > 1 {
				return false
			}
			query.Del("key")
			r.URL.RawQuery = query.Encode()
			r.Header.Set("X-Goog-Api-Key", secret)
			found = true
		}
	}
	return found
}

// secretFor returns the credential of a placeholder. Its duration is independent of the value.
func (to *route) secretFor(value string) (secret string, ok bool) {
	for _, k := range to.Keys {
		if subtle.ConstantTimeCompare([]byte(k.Placeholder), []byte(value)) == 1 {
			secret, ok = k.Secret, true
		}
	}
	return secret, ok
}

// proxyTo returns the proxy of a route.
func (b *Broker) proxyTo(r Route, to *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     b.transport,
		FlushInterval: -1, // at once
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Path = strings.TrimPrefix(p.Out.URL.Path, r.Prefix)
			p.SetURL(to)
			p.Out.Host = to.Host
			// The usage can be read only in answers without compression.
			p.Out.Header.Set("Accept-Encoding", "identity")
		},
		ModifyResponse: func(res *http.Response) error {
			b.report.limits(r.Vendor, res)
			if s := newScanner(res.Header.Get("Content-Type")); s != nil && res.StatusCode == http.StatusOK {
				res.Body = &meteredBody{ReadCloser: res.Body, scan: s, done: func() { b.report.usage(r.Vendor, s) }}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if req.Context().Err() != nil {
				panic(http.ErrAbortHandler) // the CLI has closed the connection
			}
			refuse(w, http.StatusBadGateway, "api_error", "the API at "+to.Host+" could not be reached: "+clip(err.Error(), 300))
		},
	}
}

// refuse sends an error that the clients of all vendors can read.
func refuse(w http.ResponseWriter, status int, kind, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // ignore a disconnected client
		"type": "error", "error": map[string]any{"type": kind, "code": status, "message": text},
	})
}

func clip(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// meteredBody is the body of an answer that is scanned while it is forwarded.
type meteredBody struct {
	io.ReadCloser
	scan *scanner
	once sync.Once
	done func()
}

func (m *meteredBody) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.scan.write(p[:n])
	if err != nil {
		m.once.Do(m.done)
	}
	return n, err
}

func (m *meteredBody) Close() error {
	m.once.Do(m.done)
	return m.ReadCloser.Close()
}

// limitedListener bounds the number of open connections; further ones wait.
type limitedListener struct {
	net.Listener
	free chan struct{}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.free <- struct{}{}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.free })}, nil
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

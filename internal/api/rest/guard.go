package rest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/jub0bs/cors"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/ratelimit"
	"github.com/agented/agented/internal/store"
)

// contentPolicy lets pages load resources of this server only, and nothing
// inline.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// headers sets the headers of every response.
func (m *Router) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", permissionsPolicy)
		if r.TLS != nil {
			// Without subdomains, and for a month, so that a return to plain
			// HTTP remains possible.
			h.Set("Strict-Transport-Security", "max-age=2592000")
		}
		next.ServeHTTP(w, r)
	})
}

// permissionsPolicy turns off browser features that no page of the server uses.
const permissionsPolicy = "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), bluetooth=(), display-capture=(), browsing-topics=()"

// limitConnections rejects connections over the limit. Health endpoints stay
// reachable, because a full server is not dead, and webhooks have a small
// reserve.
func (m *Router) limitConnections(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if over, _ := r.Context().Value(overKey{}).(bool); over {
			w.Header().Set("Connection", "close")
			if isWebhook(r) {
				if leave, ok := m.reserve.enter(ratelimit.Network(peer(r).ip)); ok {
					defer leave()
					next.ServeHTTP(w, r)
					return
				}
			}
			if !exempt(r, "/health/") {
				m.o.Metrics.ConnectionRefused()
				m.fail(w, r, &Problem{
					Status: http.StatusServiceUnavailable, Kind: agented.Unavailable, retryAfter: 5,
					Detail: "too many connections: try again, or raise AGENTED_MAX_CONNECTIONS",
				})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// exempt reports whether the request's path is under one of the prefixes. A
// path that the mux would clean first is not exempt.
func exempt(r *http.Request, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(r.URL.Path, p) && !strings.Contains(r.URL.Path, "/.") && !strings.Contains(r.URL.Path, "//") {
			return true
		}
	}
	return false
}

// hosts are the allowed host names. Otherwise a page of another name that
// points its DNS at this server could read responses as same-origin (DNS
// rebinding).
type hosts struct {
	any      bool
	names    map[string]bool
	suffixes []string // ".example.org" for *.example.org
}

func newHosts(allowed []string, bind config.Address) hosts {
	h := hosts{names: map[string]bool{"localhost": true}}
	for _, name := range append([]string{bind.Host}, allowed...) {
		name = hostName(name)
		switch {
		case name == "":
		case name == "*":
			h.any = true
		case strings.HasPrefix(name, "*."):
			h.suffixes = append(h.suffixes, name[1:])
		default:
			h.names[name] = true
		}
	}
	return h
}

// hostName returns a Host header in lower case without port, brackets and final
// dot.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

func (h hosts) allow(host string) bool {
	name := hostName(host)
	if h.any || h.names[name] || strings.HasSuffix(name, ".localhost") {
		return true
	}
	// An IP literal cannot be rebound.
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	for _, suffix := range h.suffixes {
		if strings.HasSuffix(name, suffix) && len(name) > len(suffix) {
			return true
		}
	}
	return false
}

// isWebhook reports whether a request is a webhook call, which is authenticated
// by its own proof.
func isWebhook(r *http.Request) bool {
	return exempt(r, "/hooks/", "/api/webhooks/") || r.Method == http.MethodPost && r.URL.Path == "/"
}

func (m *Router) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !exempt(r, "/health/") && !isWebhook(r) && !m.live.Load().hosts.allow(r.Host) {
			m.fail(w, r, &Problem{
				Status: http.StatusMisdirectedRequest, Kind: agented.Denied,
				Detail: "this server does not accept the host name of the request: add the name to AGENTED_ALLOWED_HOSTS, or use an IP address or localhost",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// corsConfig returns which other origins may call the API; nil: none.
func corsConfig(origins []string) *cors.Config {
	if len(origins) == 0 {
		return nil
	}
	c := &cors.Config{
		Origins:         origins,
		Credentialed:    true,
		Methods:         []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete},
		RequestHeaders:  []string{"Authorization", "Cache-Control", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID", "X-API-Key", "X-Request-ID"},
		ResponseHeaders: []string{"ETag", "Idempotent-Replayed", "Location", "Retry-After", "X-Request-ID"},
		MaxAgeInSeconds: 600,
		// Agented is often used over plain HTTP inside a network, and so are
		// the dashboards that call it.
		DangerouslyTolerateInsecureOrigins: true,
	}
	for _, o := range origins {
		if o == "*" { // browsers refuse cookies with it; keys still work
			c.Credentialed = false
		}
	}
	return c
}

// handleCORS handles CORS: preflight requests, and the response headers that name
// the origins that may read the API. Pages are never shared.
func (m *Router) handleCORS(next http.Handler) http.Handler {
	wrapped := m.cors.Wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.URL.Path, "/openapi.") {
			if r.Method == http.MethodOptions && len(m.Config().CORSAllowedOrigins) > 0 {
				// Some caches store responses to OPTIONS, although they should
				// not.
				w.Header().Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
			}
			wrapped.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newOriginCheck returns the protection against cross-site requests.
func newOriginCheck(origins []string, refuse http.HandlerFunc) (*http.CrossOriginProtection, error) {
	c := http.NewCrossOriginProtection()
	c.SetDenyHandler(refuse)
	for _, o := range origins {
		if o == "*" || strings.Contains(o, "*") {
			continue // a pattern may read, but not write with a user's cookie
		}
		if err := c.AddTrustedOrigin(o); err != nil {
			return nil, fmt.Errorf("CORS_ALLOWED_ORIGINS: %w", err)
		}
	}
	return c, nil
}

func (m *Router) refuseOrigin(w http.ResponseWriter, r *http.Request) {
	m.fail(w, r, agented.Errorf(agented.Denied,
		"a page of another site sent this request with your login: use an API key, or add the page's origin to CORS_ALLOWED_ORIGINS"))
}

// checkOrigin protects requests that a cookie authenticates. A request with a
// key needs no protection: browsers do not add keys.
func (m *Router) checkOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := auth.PresentedKey(r); ok || isWebhook(r) {
			next.ServeHTTP(w, r)
			return
		}
		m.live.Load().origin.Handler(next).ServeHTTP(w, r)
	})
}

// guard wraps the handler of a route: it authenticates the caller, checks the
// role, and limits the body size and the time.
func (m *Router) guard(rt *Route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := requestOf(r)
		q.route = rt
		r = r.WithContext(store.WithAddress(r.Context(), peer(r).String()))
		if err := m.admit(rt, q, r); err != nil {
			if rt.page && agented.KindOf(err) == agented.Unauthenticated && strings.Contains(r.Header.Get("Accept"), "text/html") {
				m.toLogin(w, r)
				return
			}
			m.fail(w, r, err)
			return
		}
		control := http.NewResponseController(w)
		if rt.stream {
			// An earlier request on this connection may have set a deadline.
			_ = control.SetWriteDeadline(time.Time{})
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			q.open = m.o.Auth.OpenStream(q.who, cancel)
			defer func() {
				if !q.hijacked {
					q.open.Close()
				}
			}()
			next.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		if r.ContentLength > rt.maxBody() {
			m.fail(w, r, agented.Errorf(agented.TooLarge, "the body is too large: the limit is %d bytes", rt.maxBody()))
			return
		}
		timeout := m.Config().RequestTimeout
		if timeout <= 0 {
			timeout = 5 * time.Minute
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		// Later than the handler's own timeout, so that the handler can still
		// respond.
		_ = control.SetWriteDeadline(time.Now().Add(timeout + 15*time.Second))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// admit authenticates the caller and checks the route's role.
func (m *Router) admit(rt *Route, q *request, r *http.Request) error {
	if rt.role == agented.RoleNone {
		return nil
	}
	if rt.local && m.o.Loopback && !forwarded(r) {
		return nil
	}
	if err := m.identify(q, r); err != nil {
		return err
	}
	if q.who.Execution != "" {
		if rt.agents {
			return nil
		}
		return agented.Errorf(agented.Denied, "the token of an execution can only send messages and read its agent's inbox: use an API key")
	}
	if !q.who.May(rt.role) {
		return agented.Errorf(agented.Denied, "this requires the role %s, but %s has the role %s", rt.role, q.who.Name, q.who.Role)
	}
	return m.checkReach(rt, r, q.who.Principal)
}

// checkReach refuses what an API key that is limited to triggers does not reach.
func (m *Router) checkReach(rt *Route, r *http.Request, who agented.Principal) error {
	if !who.Limited() {
		return nil
	}
	id := r.PathValue("id")
	switch rt.reach {
	case Everything, Filtered:
		return nil
	case OwnTrigger:
		if !who.Reaches(agented.TriggerID(id)) {
			return agented.Errorf(agented.NotFound, "no trigger of this API key has this id")
		}
		return nil
	case OwnExecution:
		trigger, err := m.o.TriggerOf(r.Context(), agented.ExecutionID(id))
		if err != nil && agented.KindOf(err) != agented.NotFound {
			return err
		}
		if err != nil || !who.Reaches(trigger) {
			return agented.Errorf(agented.NotFound, "no execution of the triggers of this API key has this id")
		}
		return nil
	}
	return agented.Errorf(agented.Denied, "%s is limited to some triggers, and this operation is not limited to them: use a key without that limit", who.Name)
}

// toLogin redirects a browser to the login page, which returns to the current
// page.
func (m *Router) toLogin(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, m.published("/login?next="+url.QueryEscape(r.URL.RequestURI())), http.StatusSeeOther)
}

// ToLogin redirects a browser to the login page, which returns to the current
// page.
func ToLogin(w http.ResponseWriter, r *http.Request) { requestOf(r).router.toLogin(w, r) }

// identify authenticates the caller of a request.
func (m *Router) identify(q *request, r *http.Request) error {
	who, err := m.o.Auth.Identify(r, Client(r))
	if err != nil {
		return err
	}
	q.who = who
	return nil
}

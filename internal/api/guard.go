package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/jub0bs/cors"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
)

// contentPolicy lets pages load what this server serves, and nothing inline.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// headers sets what every answer has.
func (s *Server) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if r.TLS != nil {
			// Not for subdomains, and for a month: somebody who goes back to
			// plain HTTP is not locked out for ever.
			h.Set("Strict-Transport-Security", "max-age=2592000")
		}
		next.ServeHTTP(w, r)
	})
}

// refuseCrowd answers connections beyond the limit. Health stays reachable: a
// server that is full is not dead.
func (s *Server) refuseCrowd(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if over, _ := r.Context().Value(overKey{}).(bool); over && !exempt(r, "/health/") {
			s.m.refused.Inc()
			w.Header().Set("Connection", "close")
			s.fail(w, r, &Problem{
				Status: http.StatusServiceUnavailable, Kind: agented.Unavailable, retryAfter: 5,
				Detail: "too many connections: try again, or raise AGENTED_MAX_CONNECTIONS",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// exempt reports whether the request's path is under one of the prefixes. A
// path that the mux would clean first is under none.
func exempt(r *http.Request, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(r.URL.Path, p) && !strings.Contains(r.URL.Path, "/.") && !strings.Contains(r.URL.Path, "//") {
			return true
		}
	}
	return false
}

// hosts are the names under which the server may be addressed. A page on
// another name that points its DNS here would otherwise read answers as if it
// were ours.
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

// hostName is a Host header without port, brackets, final dot and case.
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
	// An IP literal cannot be rebound: there is no name to point elsewhere.
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

// calledIn reports whether a request is a call from outside, which proves for
// itself that it is genuine.
func calledIn(r *http.Request) bool {
	return exempt(r, "/hooks/", "/api/webhooks/") || r.Method == http.MethodPost && r.URL.Path == "/"
}

func (s *Server) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !exempt(r, "/health/") && !calledIn(r) && !s.live.Load().hosts.allow(r.Host) {
			s.fail(w, r, &Problem{
				Status: http.StatusMisdirectedRequest, Kind: agented.Denied,
				Detail: "this server is not known under the host name of the request: add the name to AGENTED_ALLOWED_HOSTS, or use an IP address or localhost",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// corsConfig says which pages of other origins may call; nil: none.
func corsConfig(origins []string) *cors.Config {
	if len(origins) == 0 {
		return nil
	}
	c := &cors.Config{
		Origins:         origins,
		Credentialed:    true,
		Methods:         []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete},
		RequestHeaders:  []string{"Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-API-Key", "X-Request-ID"},
		ResponseHeaders: []string{"Idempotent-Replayed", "Location", "Retry-After", "X-Request-ID"},
		MaxAgeInSeconds: 600,
		// Agented itself is often reached by plain HTTP inside a network, and
		// then so is the dashboard that may call it.
		DangerouslyTolerateInsecureOrigins: true,
	}
	for _, o := range origins {
		if o == "*" { // browsers refuse cookies with it; keys still work
			c.Credentialed = false
		}
	}
	return c
}

// cross answers preflights and tells browsers which other origins may read the
// API's answers. Pages are for nobody else.
func (s *Server) cross(next http.Handler) http.Handler {
	wrapped := s.cors.Wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.URL.Path, "/openapi.") {
			if r.Method == http.MethodOptions && len(s.live.Load().config.CORSAllowedOrigins) > 0 {
				// There are caches that keep answers to OPTIONS, though they should not.
				w.Header().Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
			}
			wrapped.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newOriginCheck builds the protection against requests that another site makes
// a person's browser send.
func newOriginCheck(origins []string, refuse http.HandlerFunc) (*http.CrossOriginProtection, error) {
	c := http.NewCrossOriginProtection()
	c.SetDenyHandler(refuse)
	for _, o := range origins {
		if o == "*" || strings.Contains(o, "*") {
			continue // a pattern may read, but not write with a person's cookie
		}
		if err := c.AddTrustedOrigin(o); err != nil {
			return nil, fmt.Errorf("CORS_ALLOWED_ORIGINS: %w", err)
		}
	}
	return c, nil
}

func (s *Server) refuseOrigin(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, agented.Errorf(agented.Denied,
		"a page of another site made this request with your login: use an API key, or add the page's origin to CORS_ALLOWED_ORIGINS"))
}

// checkOrigin guards what a cookie can authenticate. A request with a key needs
// no guard: a browser does not add one by itself.
func (s *Server) checkOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := presentedKey(r); ok || calledIn(r) {
			next.ServeHTTP(w, r)
			return
		}
		s.live.Load().origin.Handler(next).ServeHTTP(w, r)
	})
}

// guard stands before the handler of a route: it finds out who asks, checks the
// role, bounds the body and the time.
func (s *Server) guard(rt *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := requestOf(r)
		q.route = rt
		if err := s.admit(rt, q, r); err != nil {
			if rt.page && agented.KindOf(err) == agented.Unauthenticated && strings.Contains(r.Header.Get("Accept"), "text/html") {
				s.toLogin(w, r)
				return
			}
			s.fail(w, r, err)
			return
		}
		control := http.NewResponseController(w)
		if rt.stream {
			// An earlier request on this connection may have left its deadline.
			_ = control.SetWriteDeadline(time.Time{})
			next.ServeHTTP(w, r)
			return
		}
		if r.ContentLength > rt.maxBody() {
			s.fail(w, r, agented.Errorf(agented.TooLarge, "the body is too large: the limit is %d bytes", rt.maxBody()))
			return
		}
		timeout := s.live.Load().config.RequestTimeout
		if timeout <= 0 {
			timeout = 5 * time.Minute
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		// Somewhat later than the handler's own, so that it can still say why.
		_ = control.SetWriteDeadline(time.Now().Add(timeout + 15*time.Second))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// admit identifies the asker and checks the route's role.
func (s *Server) admit(rt *route, q *request, r *http.Request) error {
	if rt.role == agented.RoleNone {
		return nil
	}
	if rt.local && s.o.Loopback && !forwarded(r) {
		return nil
	}
	if err := s.identify(q, r); err != nil {
		return err
	}
	if q.who.Execution != "" {
		if rt.agents {
			return nil
		}
		return agented.Errorf(agented.Denied, "the token of an execution sends messages and reads its agent's inbox, and does nothing else")
	}
	if !q.who.May(rt.role) {
		return agented.Errorf(agented.Denied, "this needs the role %s; %s has the role %s", rt.role, q.who.Name, q.who.Role)
	}
	return nil
}

package rest

import (
	"net/http"
	"net/url"
	"strings"
)

// underBase strips the base path from request paths. A request without it is
// served unchanged, since its proxy has already stripped the path.
func (m *Router) underBase(next http.Handler) http.Handler {
	base := m.base
	if base == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == base && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			to := base + "/"
			if r.URL.RawQuery != "" {
				to += "?" + r.URL.RawQuery
			}
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		path, under := strings.CutPrefix(r.URL.Path, base)
		if !under || path != "" && path[0] != '/' {
			next.ServeHTTP(w, r)
			return
		}
		u := new(url.URL)
		*u = *r.URL
		if u.Path = path; path == "" {
			u.Path = "/"
		}
		u.RawPath = strings.TrimPrefix(r.URL.RawPath, base)
		inner := new(http.Request)
		*inner = *r
		inner.URL = u
		next.ServeHTTP(w, inner)
	})
}

// published returns a path on this server as a browser must request it.
func (m *Router) published(path string) string {
	base := m.base
	if base == "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || path == base || strings.HasPrefix(path, base+"/") {
		return path
	}
	return base + path
}

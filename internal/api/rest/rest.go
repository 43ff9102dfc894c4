// Package rest is the HTTP layer under the API's handlers: the table of routes
// with their roles, the OpenAPI document, problems (RFC 9457), and the checks
// that precede a handler: connections, hosts, origins, authentication, limits.
//
// A handler returns an error; one adapter converts it into a problem.
package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jub0bs/cors"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/metrics"
)

// Options configures a Router. Fields are required unless stated otherwise.
type Options struct {
	Auth      *auth.Service
	Config    *config.Config
	Log       *slog.Logger
	AccessLog io.Writer // one Write per line; nil disables it
	Metrics   *metrics.Metrics
	Mask      func(string) string // masks known secrets
	Loopback  bool                // all listeners are reachable from this machine only
	Document  Document
	// TriggerOf returns the trigger of an execution, or NotFound.
	TriggerOf func(ctx context.Context, id agented.ExecutionID) (agented.TriggerID, error)
}

// Router serves the routes that Mount registers, an http.Handler.
type Router struct {
	o       Options
	base    string // path under which a proxy publishes the server; empty at the root of a host
	mux     *http.ServeMux
	huma    huma.API
	doc     *huma.OpenAPI
	spec    spec
	table   []Route
	current *Route       // the route being mounted
	page    http.Handler // for browsers, where no route matches; may be nil
	handler http.Handler
	cors    *cors.Middleware
	live    atomic.Pointer[live]
	conns   *connTable
	reserve reserve
}

// live is the state that a reload replaces.
type live struct {
	config *config.Config
	hosts  hosts
	origin *http.CrossOriginProtection
}

// New returns a Router without routes.
func New(o Options) (*Router, error) {
	installProblems()
	m := &Router{o: o, base: o.Config.BasePath, mux: http.NewServeMux(), cors: new(cors.Middleware)}
	m.conns = newConnTable(func() int { return m.Config().MaxConnections })
	if err := m.Reload(o.Config); err != nil {
		return nil, err
	}
	m.doc = newDocument(o.Document, m.base)
	m.huma = humago.New(m, huma.Config{OpenAPI: m.doc, Formats: huma.DefaultFormats, DefaultFormat: "application/json"})
	m.handler = m.track(m.headers(m.limitConnections(m.checkHost(m.handleCORS(m.checkOrigin(http.HandlerFunc(m.route)))))))
	m.handler = m.underBase(m.handler)
	return m, nil
}

// Mount registers all routes, and checks that the document is complete. Call it
// once.
func (m *Router) Mount(routes []Route) error {
	m.table = routes
	for i := range m.table {
		m.current = &m.table[i]
		m.table[i].mount(m, &m.table[i])
	}
	m.current = nil
	if err := m.checkDocument(); err != nil {
		return fmt.Errorf("api: the document: %w", err)
	}
	m.spec = spec{
		json: sync.OnceValues(func() ([]byte, error) { return json.Marshal(m.doc) }),
		yaml: sync.OnceValues(m.doc.YAML),
	}
	return nil
}

// Unmatched sets the handler of requests by browsers that match no route.
func (m *Router) Unmatched(page http.Handler) { m.page = page }

// ServeHTTP handles a request.
func (m *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// HTTP returns an http.Server with suitable limits. It has no write timeout:
// streams last for hours, and ordinary requests have their own deadlines.
func (m *Router) HTTP() *http.Server {
	return &http.Server{
		Handler:           m,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       m.connContext,
		ConnState:         m.connState,
		ErrorLog:          slog.NewLogLogger(m.o.Log.Handler(), slog.LevelDebug),
	}
}

// Config returns the current settings.
func (m *Router) Config() *config.Config { return m.live.Load().config }

// Reload applies the settings that can change at run time: allowed hosts and
// origins, limits, timeouts. On an error nothing changes.
func (m *Router) Reload(c *config.Config) error {
	origin, err := newOriginCheck(c.CORSAllowedOrigins, m.refuseOrigin)
	if err != nil {
		return err
	}
	if err := m.cors.Reconfigure(corsConfig(c.CORSAllowedOrigins)); err != nil {
		return fmt.Errorf("CORS_ALLOWED_ORIGINS: %w", err)
	}
	m.live.Store(&live{config: c, hosts: newHosts(c.AllowedHosts, c.Bind), origin: origin})
	return nil
}

// Package api is everything that is spoken over HTTP: the JSON API with its
// description, logins, keys and sessions, health, metrics, and the pages that
// need no script.
//
// A handler returns an error; one adapter turns it into a problem. Every way in
// is in one table (routes.go) and states the role that it needs.
package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/jub0bs/cors"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Dispatcher is what starts and stops work. *dispatch.Dispatcher is one; tests
// that only look at HTTP bring their own.
type Dispatcher interface {
	Fire(ctx context.Context, f dispatch.Firing) (e *agented.Execution, repeated bool, err error)
	Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	Retry(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	WakeSchedules()
	Wake()
	Send(ctx context.Context, m agented.BusMessage) (store.MessageResult, error)
	ReloadAgents(ctx context.Context) error
	Say(ctx context.Context, p *store.Post) (repeated bool, err error)
	Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error)
	CloseConversation(ctx context.Context, id agented.ConversationID, by agented.Principal) error
	AgentName(id agented.AgentID) string
	AgentID(idOrName string) agented.AgentID
	Deliver(ctx context.Context, in dispatch.Inbound) (store.DeliveryResult, error)
	Pause(ctx context.Context, id agented.ExecutionID, p dispatch.Pausing) (*agented.Execution, error)
	Continue(ctx context.Context, id agented.ExecutionID, c dispatch.Continuing) (*agented.Execution, error)
	BudgetsChanged(ctx context.Context) error
	Running() int
	ToResume() int
	Healthy() error
}

// Options is what a Server works with.
type Options struct {
	DB        *store.DB
	Dispatch  Dispatcher
	Hub       *hub.Hub
	Layout    agented.Layout
	Config    *config.Config
	Key       secret.Key
	Masker    *atomic.Pointer[redact.Masker] // nil, or holding nil: nothing is masked
	Log       *slog.Logger
	AccessLog io.Writer // one Write a line; nil is off
	Metrics   *Metrics  // from NewMetrics
	Version   string
	Node      agented.NodeID
	Passwords *secret.Passwords // nil: the default cost, two at once
	Now       func() time.Time  // nil is time.Now
	Loopback  bool              // every listener can be reached from this machine only
	Keep      Keep
	// Operator reloads and drains; nil: neither is offered.
	Operator Operator
	// SecretsChanged is called when WebhookSecrets may have changed; nil is not.
	SecretsChanged func()
	Prices         *agented.Prices // from which costs are estimated; nil: none are
}

// Server is the API. It is an http.Handler; HTTP makes the http.Server that it
// wants around itself.
type Server struct {
	o       Options
	m       *Metrics
	huma    huma.API
	doc     *huma.OpenAPI
	routes  *routes
	streams *Streams
	table   []route
	handler http.Handler
	cors    *cors.Middleware
	live    atomic.Pointer[live]
	logins  *limiter
	hooks   *hooks
	changes changes
	feeds   *feeds
	pages   *pages
	spec    spec
	started time.Time

	draining atomic.Bool
	hasUsers atomic.Bool // once true it stays so: the last admin cannot be removed
	conns    atomic.Int64
	changing sync.Mutex // held while a trigger is read, changed and written
}

// live is what a reload replaces.
type live struct {
	config *config.Config
	hosts  hosts
	origin *http.CrossOriginProtection
}

// New builds the server. It starts nothing.
func New(o Options) (*Server, error) {
	installProblems()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(o.Version)
	}
	if o.Passwords == nil {
		o.Passwords = secret.NewPasswords(secret.DefaultCost, 2)
	}
	s := &Server{o: o, m: o.Metrics, logins: newLimiter(), cors: new(cors.Middleware), started: o.Now(), feeds: newFeeds()}
	s.hooks = newHooks(s)
	if err := s.Reload(o.Config); err != nil {
		return nil, err
	}
	var err error
	if s.pages, err = newPages(); err != nil {
		return nil, err
	}
	s.routes = &routes{s: s, mux: http.NewServeMux()}
	s.doc = newDocument(o.Version)
	s.huma = humago.New(s.routes, huma.Config{
		OpenAPI:       s.doc,
		Formats:       huma.DefaultFormats,
		DefaultFormat: "application/json",
	})
	s.streams = &Streams{
		Hub: o.Hub, Layout: o.Layout, Execution: o.DB.Execution, ReplayLimit: o.Config.SSEReplayLimit,
		Masker: s.masker, Log: o.Log, Fail: s.fail, Running: s.running, changes: &s.changes,
	}
	s.table = s.allRoutes()
	for i := range s.table {
		s.routes.current = &s.table[i]
		s.table[i].mount(s, &s.table[i])
	}
	s.routes.current = nil
	if err := s.finishDocument(); err != nil {
		return nil, err
	}
	s.m.watch(s)
	s.handler = s.track(s.headers(s.refuseCrowd(s.checkHost(s.cross(s.checkOrigin(s.routes))))))
	return s, nil
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// HTTP returns a server for s with the limits that it expects. There is no
// write timeout: streams last for hours, and ordinary requests get a deadline
// of their own.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       s.ConnContext,
		ConnState:         s.ConnState,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
}

// Reload takes over the settings that can change while the server runs: allowed
// hosts and origins, limits, timeouts, the static key. On an error nothing has
// changed.
func (s *Server) Reload(c *config.Config) error {
	if c == nil {
		return fmt.Errorf("api: no configuration")
	}
	origin, err := newOriginCheck(c.CORSAllowedOrigins, s.refuseOrigin)
	if err != nil {
		return err
	}
	if err := s.cors.Reconfigure(corsConfig(c.CORSAllowedOrigins)); err != nil {
		return fmt.Errorf("CORS_ALLOWED_ORIGINS: %w", err)
	}
	s.live.Store(&live{config: c, hosts: newHosts(c.AllowedHosts, c.Bind), origin: origin})
	return nil
}

// Expired tells who follows an inbox that a message in it has expired.
func (s *Server) Expired(inbox agented.Address, seq int64) {
	s.feeds.note(inbox.String(), "expired", fmt.Appendf(nil, `{"seq":%d}`, seq))
}

// Told wakes who follows a conversation: it has new events.
func (s *Server) Told(id agented.ConversationID) {
	s.feeds.tell(string(id))
	s.changes.tell(changedConversations)
}

// Drain makes readiness fail, so that a balancer sends its requests elsewhere.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.feeds.end()
}

func (s *Server) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// masker is what masks secrets at this moment; nil masks nothing.
func (s *Server) masker() *redact.Masker {
	if s.o.Masker == nil {
		return nil
	}
	return s.o.Masker.Load()
}

// mask takes the secrets that the server knows out of a text.
func (s *Server) mask(text string) string { return s.masker().MaskString(text) }

type (
	overKey struct{}
	connKey struct{}
)

// ConnContext counts a new connection and marks it when there are too many. It
// is http.Server's ConnContext.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	n := s.conns.Add(1)
	ctx = context.WithValue(ctx, connKey{}, c)
	if limit := s.live.Load().config.MaxConnections; limit > 0 && n > int64(limit) {
		return context.WithValue(ctx, overKey{}, true)
	}
	return ctx
}

// ConnState notes the end of connections. It is http.Server's ConnState.
func (s *Server) ConnState(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		s.conns.Add(-1)
	}
}

// Connections is the number of open connections.
func (s *Server) Connections() int64 { return s.conns.Load() }

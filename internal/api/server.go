// Package api implements the HTTP interface: the JSON API with its OpenAPI
// document, logins, keys and sessions, health, metrics, and the pages that work
// without scripts.
//
// A handler returns an error; one adapter converts it into a problem. Every
// route is in one table (routes.go), which states the role that it requires.
package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/channels"
	"github.com/agented/agented/internal/api/conversations"
	"github.com/agented/agented/internal/api/hooks"
	"github.com/agented/agented/internal/api/messages"
	"github.com/agented/agented/internal/api/pages"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/intake"
	"github.com/agented/agented/internal/metrics"
	"github.com/agented/agented/internal/notify"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/vault"
)

// Dispatcher runs executions. *dispatch.Dispatcher implements it; tests of HTTP
// alone use their own. Each part is declared in the file of its users.
type Dispatcher interface {
	Executions
	AgentDirectory
	Queue
	Node
	messages.Messenger
}

// Node is the state of this node, and the admission of webhook calls to it.
type Node interface {
	Deliver(ctx context.Context, in dispatch.Inbound) (store.DeliveryResult, error)
	Running() int
	ToResume() int
	Healthy() error
}

// Scheduler fires schedules. Wake is called after each change of them.
type Scheduler interface {
	Wake()
	Healthy() error
}

// Options configures a Server.
type Options struct {
	DB        *store.DB
	Dispatch  Dispatcher
	Turns     conversations.Turns
	Budgets   BudgetGuard
	Scheduler Scheduler
	Hub       *hub.Hub
	Layout    agented.Layout
	Config    *config.Config
	Key       secret.Key
	Masker    *atomic.Pointer[redact.Masker] // nil, or a nil masker, masks nothing
	Log       *slog.Logger
	AccessLog io.Writer        // one Write per line; nil disables it
	Metrics   *metrics.Metrics // nil: new ones
	Version   string
	Node      agented.NodeID
	Passwords *secret.Passwords // nil: the default cost, two concurrent hashes
	Now       func() time.Time  // nil means time.Now
	Loopback  bool              // all listeners are reachable from this machine only
	Keep      Maintenance
	Sandbox   func() SandboxState // state of sandboxes; nil: off
	// Operator reloads and drains; nil disables both.
	Operator Operator
	// SecretsChanged is called when WebhookSecrets may have changed; may be
	// nil.
	SecretsChanged func()
	// PublicationDecided is called after a publication was approved or rejected; may be nil.
	PublicationDecided func()
	Vault              *vault.Vault     // named secrets; nil: those of DB and Key
	Notifier           *notify.Notifier // sends notifications; nil: a new one, which does not run
	NotifyGuard        *notify.Guard    // decides which addresses channels may reach; nil: public ones only
	Prices             *agented.Prices  // for cost estimates; nil: no estimates
	// Pulls returns what is fetched from GitHub, nil if nothing is; may be nil.
	Pulls func() *hooks.Pulls
}

// Server is the HTTP API, an http.Handler. HTTP returns an http.Server for it.
// It connects the handlers of each noun, which are types of their own.
type Server struct {
	o        Options
	rest     *rest.Router
	streams  *sse.Streams
	auth     *auth.Service
	sealer   auth.Sealer
	intake   *intake.Intake
	accounts *accounts
	channels *channels.Channels
	started  time.Time
	draining atomic.Bool
}

// New builds the server. It starts nothing.
func New(o Options) (*Server, error) {
	if o.Config == nil {
		return nil, errors.New("api: no configuration")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.New(o.Version)
	}
	if o.Vault == nil {
		o.Vault = vault.New(vault.Options{DB: o.DB, Key: o.Key})
	}
	if o.NotifyGuard == nil {
		o.NotifyGuard = notify.PublicOnly()
	}
	if o.Notifier == nil {
		sealer := auth.NewSealer(o.Key)
		o.Notifier = notify.New(notify.Options{DB: o.DB, Guard: o.NotifyGuard, Open: sealer.OpenChannel, Secret: o.Vault.ForServer, Now: o.Now, Log: o.Log})
	}
	if o.Passwords == nil {
		o.Passwords = secret.NewPasswords(secret.DefaultCost, 2)
	}
	s := &Server{o: o, sealer: auth.NewSealer(o.Key), started: o.Now()}
	s.auth = auth.New(auth.Options{
		DB: o.DB, Layout: o.Layout, Key: o.Key, Passwords: o.Passwords, Log: o.Log, Now: s.now, LoginEnded: o.Metrics.Login,
		Static: func() config.Secret { return s.rest.Config().APIKey }, BasePath: o.Config.BasePath,
	})
	var err error
	s.rest, err = rest.New(rest.Options{
		Auth: s.auth, Config: o.Config, Log: o.Log, AccessLog: o.AccessLog, Metrics: o.Metrics, Mask: s.mask, Loopback: o.Loopback,
		Document: newDocument(o.Version), TriggerOf: o.DB.TriggerOf,
	})
	if err != nil {
		return nil, err
	}
	s.streams = &sse.Streams{
		Hub: o.Hub, Layout: o.Layout, Execution: o.DB.Execution, ReplayLimit: o.Config.SSEReplayLimit,
		Masker: s.masker, Log: o.Log, Running: s.running,
		Changes: new(sse.Changes), Feeds: sse.NewFeeds(),
	}
	s.intake = intake.New(intake.Options{
		DB: o.DB, Sealer: s.sealer, Log: o.Log, Now: s.now, Config: s.rest.Config,
		Deliver: o.Dispatch.Deliver, SecretsChanged: o.SecretsChanged, Count: o.Metrics.Delivery,
		Changed: func() { s.streams.Changes.Notify(sse.ChangedDeliveries) }, Delivered: s.logDelivered,
	})
	html, err := pages.New(s.auth, s.rest, o.Config.BasePath)
	if err != nil {
		return nil, err
	}
	if err := s.rest.Mount(s.allRoutes(html.Routes())); err != nil {
		return nil, err
	}
	s.rest.Unmatched(html.Unmatched())
	if err := finishDocument(s.rest.OpenAPI()); err != nil {
		return nil, err
	}
	o.Metrics.Watch(metrics.Sources{
		DB: o.DB, Log: o.Log, Now: s.now, Started: s.started, Connections: s.Connections, Running: o.Dispatch.Running, ToResume: o.Dispatch.ToResume,
		Readers: o.Hub.Readers, Disk: o.Keep.disk, Backup: o.Keep.backup, FailedRemovals: o.Keep.failedRemovals, Pulls: s.pullStatus,
	})
	return s, nil
}

// ServeHTTP handles a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.rest.ServeHTTP(w, r) }

// HTTP returns an http.Server for s with suitable limits.
func (s *Server) HTTP() *http.Server { return s.rest.HTTP() }

// Connections returns the number of open connections.
func (s *Server) Connections() int64 { return s.rest.Connections() }

// Undocumented returns the patterns that are not in the document: files of the
// pages and of the user interface.
func (s *Server) Undocumented() []string { return s.rest.Undocumented() }

// Reload applies the settings that can change at run time: allowed hosts and
// origins, limits, timeouts, the static key. On an error nothing changes.
func (s *Server) Reload(c *config.Config) error {
	if c == nil {
		return errors.New("api: no configuration")
	}
	if err := s.rest.Reload(c); err != nil {
		return err
	}
	s.auth.Recheck(context.Background()) // AGENTED_API_KEY may have changed
	return nil
}

// Expired notifies the readers of an inbox that a message in it has expired.
func (s *Server) Expired(inbox agented.Address, seq int64) {
	s.streams.Feeds.Note(inbox.String(), "expired", fmt.Appendf(nil, `{"seq":%d}`, seq))
}

// TicksChanged reports that the ticker decided due times.
func (s *Server) TicksChanged() { s.streams.Changes.Notify(sse.ChangedTicks) }

// ConversationChanged notifies the readers of a conversation of new events.
func (s *Server) ConversationChanged(id agented.ConversationID) {
	s.streams.Feeds.Notify(string(id))
	s.streams.Changes.Notify(sse.ChangedConversations)
}

// Drain makes readiness fail, so that a load balancer sends requests elsewhere.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.auth.StopRechecks()
	s.streams.Feeds.End()
}

func (s *Server) now() time.Time { return s.o.Now().UTC().Truncate(time.Microsecond) }

// masker returns the current masker; nil masks nothing.
func (s *Server) masker() *redact.Masker {
	if s.o.Masker == nil {
		return nil
	}
	return s.o.Masker.Load()
}

// mask masks the known secrets in a text.
func (s *Server) mask(text string) string { return s.masker().MaskString(text) }

// healthy returns an error if no execution would be started or no schedule fired.
func (s *Server) healthy() error { return errors.Join(s.o.Dispatch.Healthy(), s.o.Scheduler.Healthy()) }

// WebhookSecrets returns the webhook secrets that the server has loaded, for
// masking.
func (s *Server) WebhookSecrets() []string { return s.intake.Secrets() }

// Intake returns what receives webhook calls.
func (s *Server) Intake() *intake.Intake { return s.intake }

// pulls returns what is fetched from GitHub, nil if nothing is.
func (s *Server) pulls() *hooks.Pulls {
	if s.o.Pulls == nil {
		return nil
	}
	return s.o.Pulls()
}

// pullStatus returns the state of what is fetched from GitHub.
func (s *Server) pullStatus() []agented.PullStatus {
	if p := s.pulls(); p != nil {
		return p.Sources
	}
	return nil
}

// LoadWebhooks loads all webhooks, so that their secrets are masked before the
// first call arrives.
func (s *Server) LoadWebhooks() error { return s.intake.Load() }

// StoredSecrets returns the credentials of all accounts, the values of named secrets and the secrets of
// channels, for masking.
// With an error the list is incomplete.
func (s *Server) StoredSecrets() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	credentials, err := s.accounts.secrets()
	named, namedErr := s.o.Vault.Known(ctx)
	sealed, sealedErr := s.channels.Secrets(ctx)
	return slices.Concat(credentials, named, sealed), errors.Join(err, namedErr, sealedErr)
}

const (
	maxRunning     = 50 // executions whose last lines are sent
	runningTimeout = 5 * time.Second
)

// running returns the running executions whose last lines are sent.
func (s *Server) running(ctx context.Context) ([]agented.ExecutionID, error) {
	ctx, cancel := context.WithTimeout(ctx, runningTimeout)
	defer cancel()
	list, err := s.o.DB.Running(ctx, maxRunning)
	ids := make([]agented.ExecutionID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, err
}

// logDelivered logs a delivery and the executions that it fired.
func (s *Server) logDelivered(ctx context.Context, got store.DeliveryResult) {
	d := &got.Delivery
	s.o.Log.Info("delivery accepted", "request", rest.ID(ctx), "delivery", d.ID, "endpoint", d.Endpoint,
		"verdict", got.Verdict(), "executions", d.Executions())
}

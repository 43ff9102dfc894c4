// Package app assembles a server and controls its lifecycle: start, serve, reload, shut down.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/conversation"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/localsocket"
	"github.com/agented/agented/internal/metrics"
	"github.com/agented/agented/internal/notify"
	"github.com/agented/agented/internal/publish"
	"github.com/agented/agented/internal/pull"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/retention"
	"github.com/agented/agented/internal/scheduler"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/trace"
	"github.com/agented/agented/internal/vault"
)

// Limits of every attempt on this node.
const (
	grace     = 10 * time.Second // between SIGTERM and SIGKILL
	outputCap = 1 << 30          // of output, in bytes
	leaseTTL  = 30 * time.Second
)

// Options configures a server.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar                 // level of Log; changed by a reload
	Masker  *atomic.Pointer[redact.Masker] // masker that Log uses
	// Supervisor is the service manager that started the server and may keep its socket.
	Supervisor Supervisor
	Trace      *trace.Tracer // nil means off
	Sample     bool          // create the sample trigger at the very first start
	// Announce is called once the server is ready, with its URL and, until the server is set up,
	// the one-time setup link.
	Announce func(url, setupLink string)
}

// App is a server. New performs every step that can fail; Run serves.
type App struct {
	o             Options
	layout        agented.Layout
	key           secret.Key
	db            *store.DB
	hub           *hub.Hub
	metrics       *metrics.Metrics
	dispatch      *dispatch.Dispatcher
	conversations *conversation.Manager
	costs         *costs.Guard
	scheduler     *scheduler.Scheduler
	publisher     *publish.Publisher
	writesAs      account
	pruner        *retention.Pruner
	api           *api.Server
	listener      net.Listener
	local         *localsocket.Listener // nil if it cannot be opened
	http          *http.Server
	conns         connections
	notify        *notifier
	guard         *notify.Guard
	notifications *notify.Notifier
	draining      atomic.Bool
	prices        *agented.Prices
	drained       atomic.Pointer[api.Drained] // nil unless drain mode is on
	certs         *certificates               // nil without TLS
	backups       *backup.Scheduler           // nil without a backup folder
	config        atomic.Pointer[config.Config]
	github        atomic.Pointer[github.Client] // nil without a credential
	githubTokens  issuedTokens
	puller        *pull.Puller

	sandboxes sandboxes

	reloading sync.Mutex // held while settings or drained change

	masking sync.Mutex               // held while known is rebuilt
	known   atomic.Pointer[[]string] // secret values to mask
	partial atomic.Bool              // some secrets could not be read

	mu    sync.Mutex // guards steps
	steps []step     // cleanup steps, run in reverse order by Close
}

// step is a named cleanup step.
type step struct {
	name string
	undo func() error
}

func (a *App) onClose(name string, undo func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps = append(a.steps, step{name, undo})
}

// Close runs the cleanup steps in reverse order. A failing step does not stop the others.
func (a *App) Close() error {
	a.mu.Lock()
	steps := a.steps
	a.steps = nil
	a.mu.Unlock()
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		if err := steps[i].undo(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", steps[i].name, err))
		}
	}
	return errors.Join(errs...)
}

// New opens and binds everything that a server needs. Each step may use the results of earlier
// ones; if one fails, the earlier ones are undone.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{o: o, notify: newNotifier(o.Supervisor, o.Log), layout: agented.Layout{Root: o.Config.DataDir}}
	a.config.Store(o.Config)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := a.openData(); err != nil {
		return nil, err
	}
	a.examineSandboxes()
	if err := a.loadKey(); err != nil {
		return nil, err
	}
	node, err := nodeID(a.layout.NodeID())
	if err != nil {
		return nil, err
	}
	if err := a.openStore(ctx); err != nil {
		return nil, err
	}
	a.setMasker()
	if err := a.assemble(ctx, node); err != nil {
		return nil, err
	}
	if err := a.bind(); err != nil {
		return nil, err
	}
	if a.backups, err = a.planBackups(ctx); err != nil {
		return nil, err
	}
	access, err := a.accessLog()
	if err != nil {
		return nil, err
	}
	if err := a.serveAPI(access, node); err != nil {
		return nil, err
	}
	if err := a.api.LoadWebhooks(); err != nil {
		return nil, err
	}
	a.setMasker() // includes the API's secrets
	return a, nil
}

// openData prepares and locks the data folder.
func (a *App) openData() error {
	// The memory and the environment of the server contain all secrets.
	if err := secret.Undumpable(); err != nil {
		a.o.Log.Warn("this process can be inspected by other processes of the same user", "err", err)
	}
	warnings, err := config.PrepareDataDir(a.o.Config.DataDir)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		a.o.Log.Warn(w)
	}
	lock, err := lockData(a.layout.ServerLock())
	if err != nil {
		return err
	}
	a.onClose("unlock the data folder", lock.Close)
	return nil
}

// loadKey reads or creates SECRET_KEY.
func (a *App) loadKey() (err error) {
	c := a.o.Config
	a.key, err = secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: a.layout.SecretKey(),
	})
	if err != nil {
		return err
	}
	a.o.Log.Info("secret key", "source", a.key.Source(), "fingerprint", a.key.Fingerprint())
	for _, w := range a.key.Warnings() {
		a.o.Log.Warn(w)
	}
	return nil
}

// openStore opens the database, and stores what every server has.
func (a *App) openStore(ctx context.Context) (err error) {
	c := a.o.Config
	a.db, err = store.Open(ctx, c.DBPath, store.Options{Log: a.o.Log})
	if err != nil {
		return err
	}
	a.onClose("close the database", a.db.Close)
	if err := a.reseal(ctx); err != nil {
		return err
	}
	if err := a.defaultAccounts(ctx, c); err != nil {
		return err
	}
	if err := a.keepCommands(ctx); err != nil {
		return err
	}
	return a.openLocal(ctx)
}

// assemble creates the parts that run executions.
func (a *App) assemble(ctx context.Context, node agented.NodeID) (err error) {
	c := a.o.Config
	a.metrics = metrics.New(a.o.Version)
	if a.prices, err = agentcli.ReadPrices(c.PricesFile); err != nil {
		return err
	}
	hub, err := a.newGitHub(c)
	if err != nil {
		return err
	}
	a.github.Store(hub)
	a.db.SetZone(zone(c))
	a.db.CheckAccounts(a.checkAccount)
	a.openNotifications()
	a.pruner = retention.New(retention.Options{DB: a.db, Layout: a.layout, Settings: a.retention, Hold: a.hold, Log: a.o.Log})
	a.costs = costs.New(costs.Options{DB: a.db, Layout: a.layout, Prices: a.prices, Notified: a.metrics.BudgetNotified, Log: a.o.Log})
	a.dispatch = dispatch.New(a.dispatchOptions(node))
	a.conversations = conversation.New(conversation.Options{
		DB: a.db, Layout: a.layout, Executions: a.dispatch, StaleAfter: c.StaleConversation, Log: a.o.Log,
		Notified: func(id agented.ConversationID) { a.api.ConversationChanged(id) },
	})
	a.publisher = a.newPublisher()
	a.scheduler = scheduler.New(scheduler.Options{DB: a.db, Dispatcher: a.dispatch, Zone: c.Zone, Log: a.o.Log, Ticked: a.ticked})
	return a.restoreDrained(ctx)
}

// bind opens the listening socket and loads the certificates.
func (a *App) bind() (err error) {
	c := a.o.Config
	if a.listener, err = listen(c.Bind, a.o.Supervisor, a.notify); err != nil {
		return err
	}
	a.onClose("close the socket", func() error {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if c.TLSCert != "" {
		a.certs, err = loadCertificates(c.TLSCert, c.TLSKey)
	}
	return err
}

// vault returns the named secrets.
func (a *App) vault() *vault.Vault {
	return vault.New(vault.Options{
		DB: a.db, Key: a.key, Now: a.now,
		Lookup: func(name string) (string, bool) { return a.config.Load().Variable(name) },
	})
}

// dispatchOptions returns the options of the dispatcher.
func (a *App) dispatchOptions(node agented.NodeID) dispatch.Options {
	c := a.o.Config
	sealer := auth.NewSealer(a.key)
	return dispatch.Options{
		DB: a.db, Layout: a.layout, Node: node, Log: a.o.Log, Costs: a.costs,
		Workspaces: a.workspaces(), KeepWorkspaces: keepWorkspaces(c), BodyStored: a.pruner.BodyStored,
		Chains: func() agented.ChainLimits { return a.config.Load().Chains() },
		Limits: dispatch.Limits{
			MaxConcurrent: c.MaxConcurrent, LeaseTTL: leaseTTL, StaleAfter: c.StaleExecution,
			Grace: grace, OutputCap: outputCap, MinFree: reserve(c) / 4, Reserve: reserve(c),
			Resources: agented.Limits{Memory: c.MaxMemoryMB, Swap: c.MaxSwapMB, PIDs: c.MaxProcesses, CPUWeight: c.CPUWeight, Disk: c.MaxDiskMB},
			PauseFor:  c.PauseLimit,
		},
		Environment: dispatch.Environment{
			Account: func(backend string) map[string]string { return a.config.Load().BackendEnv(backend) },
			Lookup:  func(name string) (string, bool) { return a.config.Load().Variable(name) },
			OpenEnv: sealer.OpenEnv, OpenCredential: sealer.OpenCredential, Vault: a.vault(), Sandbox: a.sandbox, Hidden: a.hidden, Forward: a.forward, Broker: a.broker, PublishesAs: a.publishesAs,
			Secrets: a.toMask,
			Token:   func(id agented.ExecutionID, attempt int) string { return auth.ExecutionToken(a.key, id, attempt) },
			URL:     func() string { return baseURL(a.config.Load(), a.listener.Addr()) },
		},
		Observe: dispatch.Observer{
			Expired: func(inbox agented.Address, seq int64) { a.api.Expired(inbox, seq) },
			Claimed: a.metrics.Claimed, AttemptEnded: a.metrics.AttemptEnded, Paused: a.metrics.Paused,
			Proposed: func() { a.publisher.Wake() },
		},
	}
}

// defaultAccounts records where the default accounts, which come from the environment, keep their
// logins and sessions.
func (a *App) defaultAccounts(ctx context.Context, c *config.Config) error {
	for _, backend := range agented.Backends {
		if home := agented.ConfigVariable(backend); home != "" {
			if err := a.db.SetDefaultAccount(ctx, backend, c.BackendEnv(backend)[home], a.now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// serveAPI creates the hub, the API and the http.Server.
func (a *App) serveAPI(access io.Writer, node agented.NodeID) error {
	c := a.o.Config
	a.hub = hub.New(hub.Options{
		Layout: a.layout, Masker: a.o.Masker.Load, Encode: api.EncodeExecution,
		Changed: a.db.ChangedSince, LastEvent: a.db.LastEventSeq, Log: a.o.Log,
	})
	a.db.OnChange(func(e agented.ExecutionEvent) {
		a.hub.Publish(e)
		a.conversations.Changed(e)
		a.metrics.Changed(e, a.layout)
		a.o.Trace.Changed(e, time.Now())
	})
	var err error
	a.api, err = api.New(api.Options{
		Sandbox: a.sandboxState,
		Keep: api.Maintenance{
			Disk: a.dispatch.Disk, Retention: a.retention, Expirable: a.pruner.Expirable, Prune: a.pruner.Prune,
			FailedRemovalCount: a.pruner.FailedRemovalCount, FailedRemovals: a.pruner.FailedRemovals, Backup: a.backups.Status,
		},
		DB: a.db, Dispatch: a.traced(), Turns: a.conversations, Budgets: a.costs, Scheduler: a.scheduler, Hub: a.hub, Layout: a.layout, Config: c, Key: a.key,
		Masker: a.o.Masker, Log: a.o.Log, AccessLog: access, Metrics: a.metrics, Version: a.o.Version,
		Notifier: a.notifications, NotifyGuard: a.guard,
		Node: node, Loopback: loopback(a.listener.Addr()), SecretsChanged: a.setMasker, Vault: a.vault(), Prices: a.prices, Operator: a, Pulls: a.pulls,
		PublicationDecided: a.publisher.Wake,
	})
	if err != nil {
		return err
	}
	a.puller = pull.New(pull.Options{DB: a.db, Intake: a.api.Intake(), Client: a.github.Load, Config: a.config.Load, Log: a.o.Log, Now: a.now})
	a.http = a.api.HTTP()
	a.http.Handler = a.o.Trace.Middleware(a.http.Handler)
	counted := a.http.ConnState
	a.http.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			a.conns.opened(conn)
		case http.StateClosed, http.StateHijacked:
			a.conns.closed(conn)
		}
		counted(conn, state)
	}
	return nil
}

// ticked counts the result of a due time.
func (a *App) ticked(outcome agented.TickOutcome, lag time.Duration) {
	a.metrics.Ticked(outcome, lag)
	a.api.TicksChanged()
}

// Addr returns the listen address; it is bound before Run.
func (a *App) Addr() net.Addr { return a.listener.Addr() }

// loopback reports whether only this machine can reach the address.
func loopback(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// setMasker rebuilds the list of secrets that are masked in the server's log, in its answers and
// in the logs of new attempts.
func (a *App) setMasker() {
	a.masking.Lock() // the last reader must also be the last writer
	defer a.masking.Unlock()
	known, err := a.secrets()
	if err != nil {
		a.o.Log.Error("read the secrets to mask", "err", err)
		known = append(known, *a.known.Load()...) // keep the earlier secrets: masking too many is safer
	}
	known = slices.Clip(known) // callers append to it
	a.partial.Store(err != nil)
	a.known.Store(&known)
	a.o.Masker.Store(redact.New(known))
}

// toMask lists the values to mask in the log of a new attempt.
func (a *App) toMask() []string {
	if a.partial.Load() {
		a.setMasker()
	}
	return *a.known.Load()
}

// secrets returns all secret values of the server. With an error the list is incomplete.
func (a *App) secrets() (out []string, err error) {
	out = append(a.config.Load().Secrets(), a.key.Reveal())
	if key, err := os.ReadFile(a.layout.CLIKey()); err == nil {
		out = append(out, string(key))
	}
	out = append(out, a.githubTokens.list()...)
	if a.api != nil {
		out = append(out, a.api.WebhookSecrets()...)
		var values []string
		values, err = a.api.StoredSecrets()
		out = append(out, values...)
	}
	return out, err
}

// accessLog opens the access log; it returns nil for off.
func (a *App) accessLog() (io.Writer, error) {
	switch sink := a.o.Config.AccessLog; sink {
	case "off":
		return nil, nil
	case "stdout":
		return os.Stdout, nil
	case "stderr":
		return os.Stderr, nil
	default:
		if err := os.MkdirAll(filepath.Dir(sink), 0o700); err != nil {
			return nil, agented.Errorf(agented.Invalid, "AGENTED_ACCESS_LOG: the folder of %s cannot be created: choose another path", sink).Because(err)
		}
		// Without O_NONBLOCK, opening a pipe without a reader never returns.
		f, err := os.OpenFile(sink, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
		if errors.Is(err, syscall.ENXIO) {
			return nil, agented.Errorf(agented.Invalid, "AGENTED_ACCESS_LOG: %s is a pipe without a reader: start its reader first, or choose a file or off", sink)
		}
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "AGENTED_ACCESS_LOG: %s is not writable: choose another path, or off", sink).Because(err)
		}
		a.onClose("close the access log", f.Close)
		return f, nil
	}
}

// nodeID returns the id of this node, which is stored in the data folder.
func nodeID(path string) (agented.NodeID, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		id := string(b[:max(0, len(b)-1)])
		if agented.ValidID("node", id) {
			return agented.NodeID(id), nil
		}
		return "", agented.Errorf(agented.Invalid, "%s is damaged: remove it while no server is running; the next start creates a new one", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	id := agented.NewID("node", time.Now())
	if err := disk.ReplaceFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the node's id: %w", err)
	}
	return agented.NodeID(id), nil
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (a *App) now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// broker reports whether credentials are kept from agents.
func (a *App) broker() bool { return a.config.Load().Broker == "on" }

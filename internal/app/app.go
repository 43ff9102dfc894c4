// Package app puts the pieces of a server together and holds its life: start,
// serve, reload, drain.
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
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/backup"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/hub"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/trace"
)

// Limits of every attempt on this node.
const (
	grace     = 10 * time.Second // between SIGTERM and SIGKILL
	outputCap = 1 << 30          // bytes of output
	leaseTTL  = 30 * time.Second
)

// Options is what a server is started with.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar                 // of Log; a reload sets it
	Masker  *atomic.Pointer[redact.Masker] // that Log writes through
	// Supervisor is what started the server and may keep its socket.
	Supervisor Supervisor
	Trace      *trace.Tracer // nil: off
	Sample     bool          // make the sample trigger if this is the very first start
	// Announce is told once the server is ready: its address as a URL, and the
	// one-time link of the first start if nobody has set it up yet.
	Announce func(url, setupLink string)
}

// App is a server: New makes everything that can fail, Run serves.
type App struct {
	o        Options
	layout   agented.Layout
	key      secret.Key
	db       *store.DB
	hub      *hub.Hub
	metrics  *api.Metrics
	dispatch *dispatch.Dispatcher
	api      *api.Server
	listener net.Listener
	http     *http.Server
	conns    connections
	notify   *notifier
	draining atomic.Bool
	prices   *agented.Prices
	drained  atomic.Pointer[api.Drained] // nil: executions are started
	certs    *certificates               // nil without TLS
	backups  *backup.Keeper              // nil without a folder for them
	config   atomic.Pointer[config.Config]

	reloading sync.Mutex // held while settings or drained change

	masking sync.Mutex               // held while known is made anew
	known   atomic.Pointer[[]string] // values to hide
	partial atomic.Bool              // known may lack some that could not be read

	mu    sync.Mutex // guards steps
	steps []step     // what Close undoes, in reverse
}

// step is one thing to undo, by name for the log.
type step struct {
	name string
	undo func() error
}

func (a *App) onClose(name string, undo func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps = append(a.steps, step{name, undo})
}

// Close undoes what New did, last first. It goes on when one step fails.
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

// New opens and binds everything that a server needs. It is one straight line:
// each step may use those before it, and a failure undoes them.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{o: o, notify: newNotifier(o.Supervisor, o.Log), layout: agented.Layout{Root: o.Config.DataDir}}
	a.config.Store(o.Config)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	c := o.Config
	// The server's memory and environment hold every secret.
	if err := secret.Undumpable(); err != nil {
		o.Log.Warn("the process can be inspected by other processes of this user", "err", err)
	}
	warnings, err := config.PrepareDataDir(c.DataDir)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		o.Log.Warn(w)
	}
	lock, err := lockData(a.layout.ServerLock())
	if err != nil {
		return nil, err
	}
	a.onClose("unlock the data folder", lock.Close)

	a.key, err = secret.Load(secret.Options{
		Value: c.SecretKey.Reveal(), ValueSource: c.Origin("SECRET_KEY").String(),
		File: c.SecretKeyFile, Path: a.layout.SecretKey(),
	})
	if err != nil {
		return nil, err
	}
	o.Log.Info("secret key", "source", a.key.Source(), "fingerprint", a.key.Fingerprint())
	for _, w := range a.key.Warnings() {
		o.Log.Warn(w)
	}
	node, err := nodeID(a.layout.NodeID())
	if err != nil {
		return nil, err
	}

	a.db, err = store.Open(ctx, c.DBPath, store.Options{Log: o.Log})
	if err != nil {
		return nil, err
	}
	a.onClose("close the database", a.db.Close)
	if err := a.defaultAccounts(ctx, c); err != nil {
		return nil, err
	}
	if err := api.EnsureCLIKey(ctx, a.db, a.layout, o.Log); err != nil {
		return nil, err
	}
	a.setMasker()

	a.metrics = api.NewMetrics(o.Version)
	prices, err := readPrices(c)
	if err != nil {
		return nil, err
	}
	a.prices = prices
	a.db.SetZone(zone(c))
	a.dispatch = dispatch.New(dispatch.Options{
		Workspaces: a.workspaces(), KeepWorkspaces: keepWorkspaces(c), PauseFor: c.PauseLimit, Prices: a.prices,
		DB: a.db, Layout: a.layout, Node: node,
		MaxConcurrent: c.MaxConcurrent, LeaseTTL: leaseTTL, StaleAfter: c.StaleExecution,
		Grace: grace, OutputCap: outputCap, MinFree: reserve(c) / 4, Reserve: reserve(c), Retention: a.retention, Hold: a.hold,
		Account: func(backend string) map[string]string { return a.config.Load().BackendEnv(backend) },
		Lookup:  func(name string) (string, bool) { return a.config.Load().Variable(name) },
		OpenEnv: func(name, sealed string) (string, error) { return a.key.OpenText(api.EnvPurpose, name, sealed) },
		OpenCredential: func(id agented.AccountID, name, sealed string) (string, error) {
			return a.key.OpenText(api.AccountPurpose, api.SealedCredential(id, name), sealed)
		},
		Secrets:           a.toMask,
		Token:             func(id agented.ExecutionID, attempt int) string { return api.ExecutionToken(a.key, id, attempt) },
		URL:               func() string { return baseURL(a.config.Load(), a.listener.Addr()) },
		Chains:            func() agented.ChainLimits { return a.config.Load().Chains() },
		StaleConversation: c.StaleConversation,
		Log:               o.Log,
		Zone:              c.Zone,
		Observe:           dispatch.Observer{Told: func(id agented.ConversationID) { a.api.Told(id) }, Expired: func(inbox agented.Address, seq int64) { a.api.Expired(inbox, seq) }, Claimed: a.metrics.Claimed, AttemptEnded: a.metrics.AttemptEnded, Ticked: a.ticked, Paused: a.metrics.Paused, Budget: a.metrics.BudgetTold},
	})
	if err := a.restoreDrained(ctx); err != nil {
		return nil, err
	}
	if a.listener, err = listen(c.Bind, o.Supervisor, a.notify); err != nil {
		return nil, err
	}
	a.onClose("close the socket", func() error {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if c.TLSCert != "" {
		if a.certs, err = loadCertificates(c.TLSCert, c.TLSKey); err != nil {
			return nil, err
		}
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
	a.setMasker() // with what the API knows
	return a, nil
}

// defaultAccounts notes where the accounts that the environment forms keep
// their logins and sessions.
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

// serveAPI makes the hub, the API and the http.Server around it.
func (a *App) serveAPI(access io.Writer, node agented.NodeID) error {
	c := a.o.Config
	a.hub = hub.New(hub.Options{
		Layout: a.layout, Masker: a.o.Masker.Load, Encode: api.EncodeExecution,
		Changed: a.db.ChangedSince, LastEvent: a.db.LastEventSeq, Log: a.o.Log,
	})
	a.db.OnChange(func(e agented.ExecutionEvent) {
		a.hub.Publish(e)
		a.dispatch.Changed(e)
		a.metrics.Changed(e, a.layout)
		a.o.Trace.Changed(e, time.Now())
	})
	var err error
	a.api, err = api.New(api.Options{
		Keep: api.Keep{Disk: a.dispatch.Disk, Retention: a.retention, Expirable: a.dispatch.Expirable, Prune: a.dispatch.Prune, Backup: a.backups.Status},
		DB:   a.db, Dispatch: a.traced(), Hub: a.hub, Layout: a.layout, Config: c, Key: a.key,
		Masker: a.o.Masker, Log: a.o.Log, AccessLog: access, Metrics: a.metrics, Version: a.o.Version,
		Node: node, Loopback: loopback(a.listener.Addr()), SecretsChanged: a.setMasker, Prices: a.prices, Operator: a,
	})
	if err != nil {
		return err
	}
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

// ticked notes what was done about a due time.
func (a *App) ticked(outcome agented.TickOutcome, lag time.Duration) {
	a.metrics.Ticked(outcome, lag)
	a.api.TicksChanged()
}

// Addr is where the server listens; it is bound before Run.
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

// setMasker makes the server's own log, its answers and the logs of attempts that
// start from now on hide what it knows.
func (a *App) setMasker() {
	a.masking.Lock() // whoever reads last stores last
	defer a.masking.Unlock()
	known, err := a.secrets()
	if err != nil {
		a.o.Log.Error("read what is to be masked", "err", err)
		known = append(known, *a.known.Load()...) // better too many than too few
	}
	known = slices.Clip(known) // others append to it
	a.partial.Store(err != nil)
	a.known.Store(&known)
	a.o.Masker.Store(redact.New(known))
}

// toMask lists what the log of an attempt that starts now must not show.
func (a *App) toMask() []string {
	if a.partial.Load() {
		a.setMasker()
	}
	return *a.known.Load()
}

// secrets reads every secret value that the server holds. With an error the list
// is not complete.
func (a *App) secrets() (out []string, err error) {
	out = append(a.config.Load().Secrets(), a.key.Reveal())
	if key, err := os.ReadFile(a.layout.CLIKey()); err == nil {
		out = append(out, string(key))
	}
	if a.api != nil {
		out = append(out, a.api.WebhookSecrets()...)
		var values []string
		values, err = a.api.AccountSecrets()
		out = append(out, values...)
	}
	return out, err
}

// accessLog opens the place of the access log; nil is off.
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
			return nil, agented.Errorf(agented.Invalid, "AGENTED_ACCESS_LOG: the folder of %s cannot be made: choose another place", sink).Because(err)
		}
		f, err := os.OpenFile(sink, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, agented.Errorf(agented.Invalid, "AGENTED_ACCESS_LOG: %s cannot be written: choose another place, or off", sink).Because(err)
		}
		a.onClose("close the access log", f.Close)
		return f, nil
	}
}

// nodeID returns this node's id, which lives as long as its data folder.
func nodeID(path string) (agented.NodeID, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		id := string(b[:max(0, len(b)-1)])
		if agented.ValidID("node", id) {
			return agented.NodeID(id), nil
		}
		return "", agented.Errorf(agented.Invalid, "%s is damaged: remove it while no server runs, and a new one is made", path)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	id := agented.NewID("node", time.Now())
	if err := secret.WritePrivate(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("keep the node's id: %w", err)
	}
	return agented.NodeID(id), nil
}

// now is the time in UTC, to the microsecond that the store keeps.
func (a *App) now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Package dispatch runs every execution from admission to its final status: it claims due
// executions, starts a shim for each attempt, waits until it ends, classifies the result, and
// records it once.
package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/workspace"
)

// Options configures a Dispatcher.
type Options struct {
	DB     *store.DB
	Layout agented.Layout
	Node   agented.NodeID
	Limits
	Environment
	Chains     func() agented.ChainLimits                       // limits of what one cause may start; nil means the defaults
	StatDisk   func(path string) (free, files int64, err error) // if nil, the system is asked
	BodyStored func(bytes int)                                  // is called for each stored body of a delivery; may be nil
	Observe    Observer
	Now        func() time.Time // nil means time.Now
	Log        *slog.Logger

	Workspaces     *workspace.Manager // nil disables workspaces
	KeepWorkspaces workspace.Keep
	Costs          *costs.Guard // nil means one without prices and budgets
}

// Limits are the limits of one node and of its attempts.
type Limits struct {
	MaxConcurrent int           // maximum concurrent executions on this node
	LeaseTTL      time.Duration // duration of a lease without renewal
	StaleAfter    time.Duration // how long a running execution without owner is left alone
	Grace         time.Duration // between SIGTERM and SIGKILL
	OutputCap     int64         // output in bytes that ends an attempt
	MinFree       int64         // free bytes on the disk below which an attempt is stopped
	Reserve       int64         // free bytes on the disk below which no attempt is started; 0 disables the check
	PauseFor      time.Duration // default maximum pause; 0 means agented.DefaultPause
	// Resources are the default limits of an attempt's processes, where the system supports them; 0
	// means none.
	Resources agented.Limits
}

// Environment provides what goes into the environment of attempts, and what is masked in their
// output.
type Environment struct {
	Account func(backend string) map[string]string           // variables of the backend's default account
	Lookup  func(name string) (string, bool)                 // reads the server's environment
	OpenEnv func(name, sealed string) (string, error)        // decrypts a value of a trigger's variable; if nil, values are not encrypted
	Secrets func() []string                                  // returns the values to mask in run logs
	Token   func(id agented.ExecutionID, attempt int) string // creates the bus token of an attempt of an agent; nil means none
	URL     func() string                                    // base URL of this server for local clients
	// OpenCredential decrypts a value of an account; if nil, values are not encrypted.
	OpenCredential func(id agented.AccountID, name, sealed string) (string, error)
	Vault          Vault // named secrets; if nil, there are none
	// Sandbox returns the default level and its reason; nil means off. Hidden returns files and folders outside of
	// the data folder that sandboxes hide, and XDG_RUNTIME_DIR. Forward returns the port in sandboxes
	// of level strict that is connected with a Unix socket; nil or port 0 means none.
	Sandbox func() agented.Isolation
	Hidden  func() (paths []string, runtime string)
	Forward func() (port int, socket string)
	// Broker reports whether credentials are kept from agents by a broker; nil means no.
	Broker func() bool
	// PublishesAs returns the forge account that the server writes as; nil, or empty, if it is
	// unknown.
	PublishesAs func() string
}

// Observer receives events for metrics. Nil functions are not called.
type Observer struct {
	Claimed      func(wait time.Duration)
	AttemptEnded func(backend string, state agented.State, took time.Duration)
	Expired      func(inbox agented.Address, seq int64) // a message in it has expired
	Paused       func(why agented.Question)
	Proposed     func() // an execution that ended has something to publish
}

// Dispatcher runs the executions of one node. Create it with New, call Recover once, then Run,
// and call the function that Recover returned as soon as the server accepts requests.
type Dispatcher struct {
	o        Options
	versions *agentcli.Versions
	wake     chan struct{}
	lapse    chan struct{} // signals a new message with an expiry

	waitsForRoom atomic.Pointer[string] // reason shown by executions while disk space is low; otherwise nil
	agents       atomic.Pointer[agentBook]
	resuming     chan struct{} // limits concurrent resumptions
	toResume     atomic.Int64  // executions of a previous server that are not resumed yet
	full         time.Time     // when the claim loop last found no free slot; used by it only
	beat         atomic.Int64  // time of the claim loop's last round since epoch
	epoch        time.Time     // start of the monotonic clock of beat

	limit   atomic.Int64           // maximum concurrent executions on this node
	drained atomic.Pointer[string] // why nothing is claimed; nil if claiming

	live    sync.RWMutex     // guards liveCtx
	liveCtx *context.Context // context of the claim loop; nil while it is not running

	mu      sync.Mutex // guards running and closed
	running map[agented.ExecutionID]*work
	closed  bool // no more stops are started

	quit     chan struct{} // closed when closed is set
	stoppers sync.WaitGroup

	// attempts counts the goroutines that watch attempts; finishing counts those that record an
	// end and must not be interrupted by a shutdown.
	attempts  sync.WaitGroup
	finishing sync.WaitGroup
}

// work is an execution that this node is processing.
type work struct {
	handle   *shim.Handle  // nil until the shim runs
	stop     bool          // a stop was requested
	stopping bool          // and the shim is being stopped
	done     chan struct{} // closed when this node has finished with it
	cut      func()        // cancels the work before the shim starts; may be nil
	found    chan struct{} // for an adopted execution: closed when it is resumed; otherwise nil
}

// errDraining is the reason why Run's goroutines end.
var errDraining = errors.New("draining")

// New returns a dispatcher that is not running yet.
func New(o Options) *Dispatcher {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Costs == nil {
		o.Costs = costs.New(costs.Options{DB: o.DB, Layout: o.Layout, Now: o.Now, Log: o.Log})
	}
	d := &Dispatcher{
		o:        o,
		epoch:    time.Now(),
		versions: agentcli.NewVersions(),
		wake:     make(chan struct{}, 1),
		resuming: make(chan struct{}, resumeAtOnce),
		lapse:    make(chan struct{}, 1),
		running:  map[agented.ExecutionID]*work{},
		quit:     make(chan struct{}),
	}
	d.limit.Store(int64(o.MaxConcurrent))
	return d
}

// now returns the time in UTC, truncated to the microseconds that the store keeps.
func (d *Dispatcher) now() time.Time { return d.o.Now().UTC().Truncate(time.Microsecond) }

// Wake makes the claim loop look for due executions.
func (d *Dispatcher) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Running returns the number of executions that this node is processing.
func (d *Dispatcher) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running)
}

// ToResume returns the number of executions of a previous server that are not resumed yet.
func (d *Dispatcher) ToResume() int { return int(d.toResume.Load()) }

// Healthy returns an error if the claim loop is overdue; the readiness probe and
// the watchdog use it. It uses the monotonic clock, so changes of the wall clock have no effect.
func (d *Dispatcher) Healthy() error {
	last := d.beat.Load()
	if last == 0 {
		return errors.New("dispatcher has not started")
	}
	now := int64(d.uptime())
	if age := time.Duration(now - last); age > 3*maxIdle {
		return errors.New("the last round of the dispatcher was before " + age.Round(time.Second).String())
	}
	return nil
}

// uptime returns the monotonic time since the dispatcher was created. It is never 0.
func (d *Dispatcher) uptime() time.Duration { return time.Since(d.epoch) + 1 }

// Run works until ctx is cancelled and returns when all its goroutines have ended. Running
// attempts are left to their shims.
func (d *Dispatcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.claimLoop(ctx) })
	g.Go(func() error { return d.renewLoop(ctx) })
	g.Go(func() error { return d.cleanUpLoop(ctx) })
	g.Go(func() error { return d.sweepLoop(ctx) })
	g.Go(func() error { return d.expireLoop(ctx) })
	err := g.Wait()
	d.endStops()
	d.attempts.Wait()
	d.finishing.Wait()
	if errors.Is(err, errDraining) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// register registers that this node processes id. It returns false and the existing work if the node
// already does.
func (d *Dispatcher) register(id agented.ExecutionID, stop bool) (*work, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w, ok := d.running[id]; ok {
		return w, false
	}
	w := &work{stop: stop, done: make(chan struct{})}
	d.running[id] = w
	return w, true
}

// attach sets the shim handle of a work, and stops the attempt if a stop was requested meanwhile.
func (d *Dispatcher) attach(id agented.ExecutionID, w *work, h *shim.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.handle = h
	if w.stop {
		d.stopSoon(id, w)
	}
}

func (d *Dispatcher) asked(w *work) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.stop
}

func (d *Dispatcher) drop(id agented.ExecutionID) {
	d.o.Costs.Forget(id) // first, because the next attempt begins when the work is done
	d.mu.Lock()
	if w := d.running[id]; w != nil {
		close(w.done)
	}
	delete(d.running, id)
	d.mu.Unlock()
	d.Wake()
}

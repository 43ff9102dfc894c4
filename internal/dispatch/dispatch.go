// Package dispatch carries every execution from admission to its final state:
// it claims what is due, starts a shim for each attempt, waits for it, reads
// what its end means and writes that down once.
package dispatch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/workspace"
)

// Options is what a Dispatcher works with.
type Options struct {
	DB            *store.DB
	Layout        agented.Layout
	Node          agented.NodeID
	MaxConcurrent int                                              // executions at once on this node
	LeaseTTL      time.Duration                                    // how long a lease lasts without renewal
	StaleAfter    time.Duration                                    // how long a running execution that nobody owns is left alone
	Grace         time.Duration                                    // between SIGTERM and SIGKILL
	OutputCap     int64                                            // bytes of output that end an attempt
	MinFree       int64                                            // free bytes on the disk below which an attempt is ended
	Reserve       int64                                            // free bytes on the disk below which no attempt is started; 0: it is not looked
	StatDisk      func(path string) (free, files int64, err error) // nil asks the system
	Retention     func() Retention                                 // nil keeps all but bodies of deliveries
	Hold          func() (io.Closer, error)                        // keeps others from copying files while they are removed; nil: nobody does
	Account       func(backend string) map[string]string
	Lookup        func(name string) (string, bool)          // the server's environment
	OpenEnv       func(name, sealed string) (string, error) // opens a value of a trigger's variable; nil: they are not sealed
	// OpenCredential opens a value of an account; nil: they are not sealed.
	OpenCredential func(id agented.AccountID, name, sealed string) (string, error)
	Secrets        func() []string            // values to mask in run logs
	Chains         func() agented.ChainLimits // what one cause may set going; nil: the defaults
	// Token makes what an attempt that plays an agent sends messages with; nil: none.
	Token func(id agented.ExecutionID, attempt int) string
	URL   func() string // of this server, for what runs here
	// StaleConversation is the idle time after which a conversation is closed; 0: never.
	StaleConversation time.Duration
	Now               func() time.Time // nil is time.Now
	Zone              *time.Location   // of schedules that name none; nil is time.Local
	Log               *slog.Logger
	Observe           Observer

	Workspaces     *workspace.Manager // nil: triggers cannot have one
	KeepWorkspaces workspace.Keep
	PauseFor       time.Duration   // longest pause when nobody says it; 0 is agented.DefaultPause
	Prices         *agented.Prices // for CLIs that print tokens and no cost; nil: such costs are not known
}

// Observer is told what happened, for metrics. Nil functions are not called.
type Observer struct {
	Claimed      func(wait time.Duration)
	AttemptEnded func(backend string, state agented.State, took time.Duration)
	Ticked       func(outcome agented.TickOutcome, lag time.Duration) // lag: from the time at which it was to fire
	Told         func(agented.ConversationID)                         // a conversation has new events
	Expired      func(inbox agented.Address, seq int64)               // a message in it expired
	Paused       func(why agented.Question)
	Budget       func(b agented.Budget, reached bool) // it is near its limit, or has reached it
}

// Dispatcher owns the work of one node. Make it with New, call Recover once,
// then Run, and what Recover returned as soon as the server answers.
type Dispatcher struct {
	o        Options
	versions *backend.Versions
	wake     chan struct{}
	wakeTick chan struct{}
	tickBy   atomic.Int64  // unix nanoseconds by which the ticker means to come round; 0: when it is woken
	lapse    chan struct{} // a message came that will expire
	prune    chan struct{} // many bodies of deliveries have come
	bodies   atomic.Int64  // their bytes since it was last looked
	pruning  sync.Mutex    // held by whoever removes what lies beyond the limits

	waitsForRoom atomic.Pointer[string] // what executions are told while the disk is low; nil: it is not
	agents       atomic.Pointer[agentBook]
	talks        talks
	budgets      atomic.Pointer[[]agented.Budget]
	resuming     chan struct{} // holds a place for each execution that is being taken up
	toResume     atomic.Int64  // executions of a previous server with which this one does not go on yet
	full         time.Time     // when the claim loop last found all slots taken; its own
	beat         atomic.Int64  // unix nanoseconds at which the claim loop last came round

	limit   atomic.Int64           // executions at once on this node
	drained atomic.Pointer[string] // why nothing is claimed; nil: it is

	live    sync.RWMutex     // guards liveCtx
	liveCtx *context.Context // of the claim loop; nil while it does not run

	mu      sync.Mutex // guards running and closed
	running map[agented.ExecutionID]*work

	// attempts holds the goroutines that watch attempts; finishing those that
	// must not be cut short by a drain because they write an end down.
	attempts  sync.WaitGroup
	finishing sync.WaitGroup
}

// work is one execution that this node is at.
type work struct {
	handle *shim.Handle  // nil until the shim is up
	stop   bool          // someone asked for the end
	done   chan struct{} // closed when this node is done with it
	cut    func()        // ends what is done before the shim; may be nil
	bill   *bill         // what it costs; nil: nobody looks
	found  chan struct{} // of one that was taken over: closed when this node goes on with it; else nil
}

// errDraining is why Run's goroutines end.
var errDraining = errors.New("draining")

// New returns a dispatcher that does nothing yet.
func New(o Options) *Dispatcher {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Zone == nil {
		o.Zone = time.Local
	}
	d := &Dispatcher{
		o:        o,
		versions: backend.NewVersions(),
		wake:     make(chan struct{}, 1),
		resuming: make(chan struct{}, resumeAtOnce),
		prune:    make(chan struct{}, 1),
		lapse:    make(chan struct{}, 1),
		wakeTick: make(chan struct{}, 1),
		talks:    talks{active: map[agented.ConversationID]chan struct{}{}, wake: make(chan struct{}, 1)},
		running:  map[agented.ExecutionID]*work{},
	}
	d.limit.Store(int64(o.MaxConcurrent))
	return d
}

// now is the time in UTC, to the microsecond that the store keeps.
func (d *Dispatcher) now() time.Time { return d.o.Now().UTC().Truncate(time.Microsecond) }

// Wake tells the claim loop that something may be due.
func (d *Dispatcher) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Running is the number of executions that this node works on.
func (d *Dispatcher) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running)
}

// ToResume is the number of executions that a previous server left running and
// with which this one does not go on yet.
func (d *Dispatcher) ToResume() int { return int(d.toResume.Load()) }

// Healthy reports an error when the claim loop or the ticker has not come round
// for longer than it ever should; readiness and the watchdog ask it.
func (d *Dispatcher) Healthy() error {
	last := d.beat.Load()
	if last == 0 {
		return errors.New("dispatcher has not started")
	}
	if age := time.Since(time.Unix(0, last)); age > 3*maxIdle {
		return errors.New("dispatcher has not come round for " + age.Round(time.Second).String())
	}
	if by := d.tickBy.Load(); by != 0 && time.Since(time.Unix(0, by)) > 3*maxIdle {
		return errors.New("the ticker of the schedules is overdue since " + time.Unix(0, by).UTC().Format(time.RFC3339))
	}
	return nil
}

// Run works until ctx is cancelled, then returns when every goroutine it
// started has. Attempts that still run are left to their shims.
func (d *Dispatcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.claimLoop(ctx) })
	g.Go(func() error { return d.tickLoop(ctx) })
	g.Go(func() error { return d.talkLoop(ctx) })
	g.Go(func() error { return d.renewLoop(ctx) })
	g.Go(func() error { return d.tidyLoop(ctx) })
	g.Go(func() error { return d.pruneLoop(ctx) })
	g.Go(func() error { return d.sweepLoop(ctx) })
	g.Go(func() error { return d.expireLoop(ctx) })
	err := g.Wait()
	d.attempts.Wait()
	d.finishing.Wait()
	if errors.Is(err, errDraining) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stop ends the execution's attempt if it runs here. It does not wait.
func (d *Dispatcher) stop(id agented.ExecutionID) {
	d.mu.Lock()
	w := d.running[id]
	var h *shim.Handle
	if w != nil {
		w.stop = true
		h = w.handle
		if w.cut != nil {
			w.cut()
		}
	}
	d.mu.Unlock()
	if h == nil {
		return // not started yet: begin sees w.stop; or not ours
	}
	if err := h.Stop(agented.CauseCancelled); err != nil {
		d.o.Log.Warn("stop", "execution", id, "err", err)
	}
}

// take notes that this node works on id; false means that it does already, and
// returns that work.
func (d *Dispatcher) take(id agented.ExecutionID, stop bool) (*work, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w, ok := d.running[id]; ok {
		return w, false
	}
	w := &work{stop: stop, done: make(chan struct{})}
	d.running[id] = w
	return w, true
}

// attach gives a work its handle and reports whether it was asked to stop in
// the meantime.
func (d *Dispatcher) attach(w *work, h *shim.Handle) (stop bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w.handle = h
	return w.stop
}

func (d *Dispatcher) asked(w *work) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.stop
}

func (d *Dispatcher) drop(id agented.ExecutionID) {
	d.mu.Lock()
	if w := d.running[id]; w != nil {
		close(w.done)
	}
	delete(d.running, id)
	d.mu.Unlock()
	d.Wake()
}

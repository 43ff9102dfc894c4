package dispatch_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// The test binary is also the shim that the dispatcher starts.
func TestMain(m *testing.M) {
	if len(os.Args) >= 2 && os.Args[1] == "shim" {
		os.Exit(shim.Main())
	}
	if len(os.Args) == 5 && os.Args[1] == "call-model" {
		os.Exit(callModel(os.Args[2], os.Args[3], os.Args[4]))
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(m.Run())
}

const node = agented.NodeID("node-00000000000000000000000000")

// house is a data folder with its database.
type house struct {
	t      *testing.T
	db     *store.DB
	layout agented.Layout

	mu     sync.Mutex // guards states and waits
	states map[agented.ExecutionID]chan agented.Execution
	waits  []time.Duration
}

// create makes a database by running every migration.
func create(path string) error {
	db, err := store.Open(context.Background(), path, store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return db.Close()
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, layout: agented.Layout{Root: testrun.DataFolder(t)}, states: map[agented.ExecutionID]chan agented.Execution{}}
	path := filepath.Join(h.layout.Root, "agented.db")
	testrun.Database(t, path, create)
	db, err := store.Open(t.Context(), path, store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h.db = db
	db.OnChange(func(e agented.ExecutionEvent) {
		if e.Execution.State.Final() {
			h.final(e.Execution.ID) <- *e.Execution
		}
	})
	return h
}

// final returns a channel that receives an execution's final state once.
func (h *house) final(id agented.ExecutionID) chan agented.Execution {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.states[id] == nil {
		h.states[id] = make(chan agented.Execution, 8)
	}
	return h.states[id]
}

func (h *house) await(id agented.ExecutionID) agented.Execution {
	h.t.Helper()
	select {
	case e := <-h.final(id):
		return e
	case <-time.After(time.Minute):
		h.t.Fatalf("%s did not end", id)
		panic("unreachable")
	}
}

func (h *house) dispatcher(change func(*dispatch.Options)) *dispatch.Dispatcher {
	o := dispatch.Options{
		DB: h.db, Layout: h.layout, Node: node,
		Limits: dispatch.Limits{
			MaxConcurrent: 10, LeaseTTL: 30 * time.Second, StaleAfter: 15 * time.Minute,
			Grace: time.Second, OutputCap: 1 << 30, MinFree: 1,
		},
		Environment: dispatch.Environment{Lookup: func(name string) (string, bool) { return "/usr/bin:/bin", name == "PATH" }},
		Log:         slog.New(slog.DiscardHandler),
		Observe: dispatch.Observer{Claimed: func(wait time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.waits = append(h.waits, wait)
		}},
	}
	if change != nil {
		change(&o)
	}
	return dispatch.New(o)
}

// run recovers and runs a dispatcher until the returned function is called.
func (h *house) run(d *dispatch.Dispatcher) (stop func()) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	resume, err := d.Recover(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	resume()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func command(args ...string) *agented.Spec {
	return &agented.Spec{Backend: agented.BackendCommand, Command: args, TimeoutSeconds: 60}
}

func (h *house) fire(d *dispatch.Dispatcher, spec *agented.Spec) agented.ExecutionID {
	h.t.Helper()
	e, _, err := d.Fire(h.t.Context(), dispatch.Firing{Spec: spec, Name: "test", Source: agented.SourceManual})
	if err != nil {
		h.t.Fatal(err)
	}
	return e.ID
}

// text returns what an execution printed.
func (h *house) text(id agented.ExecutionID) string {
	h.t.Helper()
	r, err := runlog.OpenReader(h.layout.Execution(id))
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	var b strings.Builder
	for {
		lines, err := r.Next(nil, 100, 1<<20)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(lines) == 0 {
			return b.String()
		}
		for _, l := range lines {
			if l.Stream != agented.System {
				b.Write(l.Content)
				b.WriteByte('\n')
			}
		}
	}
}

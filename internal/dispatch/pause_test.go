package dispatch_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

var somebody = agented.Principal{Name: "somebody"}

// until waits for events that take milliseconds.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (h *house) now(id agented.ExecutionID) *agented.Execution {
	h.t.Helper()
	e, err := h.db.Execution(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// systemLines returns the system lines of an execution's log.
func (h *house) systemLines(id agented.ExecutionID) string {
	h.t.Helper()
	r, err := runlog.OpenReader(h.layout.Execution(id))
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	lines, err := r.Next(nil, 10000, 1<<24)
	if err != nil {
		h.t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range lines {
		if l.Stream == agented.System {
			b.Write(l.Content)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func TestPause_over_restart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ticks := filepath.Join(h.layout.Root, "ticks")
	size := func() int64 {
		info, err := os.Stat(ticks)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	d := h.dispatcher(nil)
	stop := h.run(d)
	id := h.fire(d, command("sh", "-c", "while :; do echo x >>"+ticks+"; sleep 0.01; done"))
	until(t, "it to run", func() bool { return size() > 4 })
	var e *agented.Execution
	var err error
	until(t, "the server to know its shim", func() bool { // the command may print before that
		e, err = d.Pause(t.Context(), id, dispatch.Pausing{By: somebody, Reason: "the disk is slow", For: time.Hour})
		return err == nil || !strings.Contains(err.Error(), "try again in a moment")
	})
	if err != nil || e.Pause == nil || e.Pause.By != "somebody" || e.State != agented.StateRunning || time.Until(e.Pause.Until) < 59*time.Minute {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := d.Pause(t.Context(), id, dispatch.Pausing{By: somebody}); !errors.Is(err, agented.Conflict) {
		t.Errorf("paused twice: %v", err)
	}
	stop()
	// A server crashed between pausing the shim and recording it: the next one asks the shim.
	if err := h.db.Continued(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	d = h.dispatcher(nil)
	stop = h.run(d)
	until(t, "the next server to find the pause", func() bool { return h.now(id).Pause != nil })
	if p := h.now(id).Pause; p.Reason != "the disk is slow" || p.By != "somebody" {
		t.Errorf("the next server finds %+v", p)
	}
	before := size()
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody}); err != nil {
		t.Fatal(err)
	}
	until(t, "it to go on", func() bool { return size() > before+10 })
	if e := h.now(id); e.Pause != nil {
		t.Errorf("it goes on and has %+v", e.Pause)
	}
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody}); !errors.Is(err, agented.Conflict) {
		t.Errorf("continued twice: %v", err)
	}
	if _, err := d.Pause(t.Context(), id, dispatch.Pausing{By: somebody}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Cancel(t.Context(), id, somebody); err != nil {
		t.Fatal(err)
	}
	if e := h.await(id); e.State != agented.StateCancelled || e.Pause != nil {
		t.Errorf("it ended as %s with %+v", e.State, e.Pause)
	}
	if _, err := d.Pause(t.Context(), id, dispatch.Pausing{By: somebody}); !errors.Is(err, agented.Conflict) {
		t.Errorf("paused after its end: %v", err)
	}
	if said := h.systemLines(id); !strings.Contains(said, "Paused by somebody: the disk is slow.") || !strings.Contains(said, "Continued by somebody") {
		t.Errorf("its log says %q", said)
	}
	stop()
}

func TestPause_expires(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(func(o *dispatch.Options) { o.PauseFor = 300 * time.Millisecond })
	defer h.run(d)()
	id := h.fire(d, command("sh", "-c", "echo ready; sleep 1000"))
	until(t, "it to run", func() bool {
		_, err := d.Pause(t.Context(), id, dispatch.Pausing{By: somebody, Reason: "lunch"})
		return err == nil
	})
	e := h.await(id)
	if e.State != agented.StateTimeout || !strings.Contains(e.Reason, "paused for") || !strings.Contains(e.Reason, "lunch") {
		t.Errorf("it ended as %s: %s", e.State, e.Reason)
	}
}

// fakeClaude puts a claude on the PATH that runs a script.
func (h *house) fakeClaude(script string) func(*dispatch.Options) {
	h.t.Helper()
	dir := h.t.TempDir()
	text := "#!/bin/sh\n[ \"$1\" = --version ] && { echo '2.1.330 (Claude Code)'; exit; }\n" + script
	if err := testrun.WriteProgram(filepath.Join(dir, "claude"), []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
	prices := testPrices(h.t)
	return func(o *dispatch.Options) {
		o.Lookup = func(name string) (string, bool) { return dir + ":/usr/bin:/bin", name == "PATH" }
		o.Costs = h.costs(prices, nil)
	}
}

// testPrices is a list in which a million output tokens of the model m cost a million dollars.
func testPrices(t *testing.T) *agented.Prices {
	t.Helper()
	prices, err := agented.ParsePrices([]byte(`{"date":"2030-01-01","source":"a test","models":[{"model":"m","input":0,"output":1000000}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return prices
}

// costs returns a cost guard with the prices.
func (h *house) costs(prices *agented.Prices, notified func(agented.Budget, bool)) *costs.Guard {
	return costs.New(costs.Options{DB: h.db, Layout: h.layout, Prices: prices, Notified: notified, Log: slog.New(slog.DiscardHandler)})
}

func agent() *agented.Spec {
	return &agented.Spec{Backend: agented.BackendClaude, Prompt: "work", Permission: agented.PermissionEdit, TimeoutSeconds: 60}
}

// turn returns claude's output for a message with the given cost in dollars.
func turn(id string, usd int) string {
	return fmt.Sprintf(`echo '{"type":"assistant","session_id":"s","message":{"id":"%s","model":"m","usage":{"input_tokens":1,"output_tokens":%d},"content":[{"type":"text","text":"x"}]}}'`+"\n", id, usd)
}

const goodEnd = `echo '{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s","total_cost_usd":%d,"usage":{"input_tokens":2,"output_tokens":%d}}'` + "\n"

func gateLine(path string) string { return "while [ ! -e " + path + " ]; do sleep 0.02; done\n" }

func TestCeiling_pauses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gate := filepath.Join(t.TempDir(), "gate")
	d := h.dispatcher(h.fakeClaude(turn("a", 2) + turn("a", 3) + turn("b", 3) + gateLine(gate) + turn("c", 10) + gateLine(gate+"2") + fmt.Sprintf(goodEnd, 16, 16)))
	stop := h.run(d)
	spec := agent()
	spec.CeilingUSD = 5
	id := h.fire(d, spec)
	until(t, "the cost guard", func() bool { return h.now(id).Pause != nil })
	p := h.now(id).Pause
	if p.Question != agented.QuestionCeiling || p.SpentUSD != 6 || p.LimitUSD != 5 || !strings.Contains(p.Reason, "$6.00") || p.By != "" {
		t.Errorf("it asks %+v", p)
	}
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody}); !errors.Is(err, agented.Invalid) {
		t.Errorf("without a new ceiling: %v", err)
	}
	low, higher := 6.0, 8.0
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody, Ceiling: &low}); !errors.Is(err, agented.Invalid) {
		t.Errorf("with one that is reached: %v", err)
	}
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody, Ceiling: &higher}); err != nil {
		t.Fatal(err)
	}
	stop() // the raised ceiling holds for the next server
	d2 := h.dispatcher(h.fakeClaude(""))
	defer h.run(d2)()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, "the cost guard again", func() bool { return h.now(id).Pause != nil })
	if p := h.now(id).Pause; p.SpentUSD != 16 || p.LimitUSD != 8 {
		t.Errorf("it asks %+v", p)
	}
	none := 0.0
	if _, err := d2.Continue(t.Context(), id, dispatch.Continuing{By: somebody, Ceiling: &none}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate+"2", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := h.await(id)
	if e.State != agented.StateSuccess || *e.Usage.CostUSD != 16 || e.Usage.Estimated {
		t.Errorf("it ended as %s (%s), %+v", e.State, e.Reason, e.Usage)
	}
}

func TestCeiling_unanswered_cancels(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	fake := h.fakeClaude(turn("a", 7) + "sleep 1000\n")
	d := h.dispatcher(func(o *dispatch.Options) { fake(o); o.PauseFor = 200 * time.Millisecond })
	defer h.run(d)()
	spec := agent()
	spec.CeilingUSD = 5
	id := h.fire(d, spec)
	e := h.await(id)
	if e.State != agented.StateTimeout || !strings.Contains(e.Reason, "the ceiling is $5.00") || e.Usage.CostUSD == nil || *e.Usage.CostUSD != 7 || !e.Usage.Estimated {
		t.Errorf("it ended as %s (%s), %+v", e.State, e.Reason, e.Usage)
	}
	sum, err := h.db.Usage(t.Context(), store.UsageByBackend, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil || len(sum) != 1 || math.Abs(*sum[0].Usage.CostUSD-7) > 1e-9 {
		t.Errorf("the ledger contains %+v, %v", sum, err)
	}
}

func TestBudget_hard_pauses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gate := filepath.Join(t.TempDir(), "gate")
	var mu sync.Mutex
	var told []string
	fake := h.fakeClaude(turn("a", 7) + gateLine(gate) + fmt.Sprintf(goodEnd, 7, 7))
	guard := h.costs(testPrices(t), func(b agented.Budget, reached bool) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprint(b.Name, reached))
	})
	d := h.dispatcher(func(o *dispatch.Options) {
		fake(o)
		o.Costs = guard
	})
	defer h.run(d)()
	b := &agented.Budget{Name: "B", Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Limit: 5, Hard: true, Pause: true}
	if err := h.db.SaveBudget(t.Context(), b, "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := guard.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := h.fire(d, agent())
	until(t, "the cost guard", func() bool { return h.now(id).Pause != nil })
	if p := h.now(id).Pause; p.Question != agented.QuestionBudget || p.SpentUSD != 7 || !strings.Contains(p.Reason, `"B"`) {
		t.Errorf("it asks %+v", p)
	}
	if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Errorf("it ended as %s: %s", e.State, e.Reason)
	}
	waits := h.fire(d, agent())
	until(t, "the next one to wait", func() bool { return strings.Contains(h.now(waits).Reason, `the budget "B"`) })
	until(t, "the notice", func() bool { // it comes after the end was stored
		mu.Lock()
		defer mu.Unlock()
		return len(told) > 0
	})
	b.Limit = 100
	if err := h.db.SaveBudget(t.Context(), b, "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := guard.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := h.await(waits); e.State != agented.StateSuccess {
		t.Errorf("raised: it ended as %s: %s", e.State, e.Reason)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(told, " ") != "Btrue" {
		t.Errorf("told %q", told)
	}
}

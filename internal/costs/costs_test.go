package costs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/costs"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

const node = agented.NodeID("node-00000000000000000000000000")

// scene is a guard of executions that have a log, but no process.
type scene struct {
	t      *testing.T
	db     *store.DB
	layout agented.Layout
	guard  *costs.Guard
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, layout: agented.Layout{Root: t.TempDir()}}
	path := filepath.Join(s.layout.Root, "agented.db")
	log := slog.New(slog.DiscardHandler)
	s.db = storetest.Open(t, path, store.Options{Log: log})
	prices, err := agented.ParsePrices([]byte(`{"date":"2030-01-01","source":"a test","models":[{"model":"m","input":0,"output":1000000}]}`))
	if err != nil {
		t.Fatal(err)
	}
	s.guard = costs.New(costs.Options{DB: s.db, Layout: s.layout, Prices: prices, Log: log})
	return s
}

// start returns a running execution with a ceiling; 0 means none.
func (s *scene) start(ceiling float64) *agented.Execution {
	s.t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	spec := agented.Spec{Backend: agented.BackendClaude, CeilingUSD: ceiling, TimeoutSeconds: 60}
	got, err := s.db.Admit(s.t.Context(), store.Admission{Execution: &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "test", Backend: spec.Backend, State: agented.StatePending,
		Source: agented.SourceManual, Snapshot: spec, CreatedAt: now, ScheduledAt: now,
	}, Overlap: agented.OverlapQueue}, now)
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := s.db.Claim(s.t.Context(), node, 10, time.Now(), time.Minute)
	if err != nil || e == nil || e.ID != got.Execution.ID {
		s.t.Fatalf("claim: %+v, %v", e, err)
	}
	text, err := json.Marshal(shim.Spec{Execution: e.ID, Attempt: e.AttemptNo, FirstSeq: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	bundle := s.layout.Attempt(e.ID, e.AttemptNo)
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "spec.json"), text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return e
}

// use appends a message of a model that used a number of output tokens to the log.
func (s *scene) use(e *agented.Execution, model string, tokens int) {
	s.t.Helper()
	w, err := runlog.OpenWriter(s.layout.Execution(e.ID), time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	line := fmt.Sprintf(`{"type":"assistant","session_id":"s","message":{"id":"%s-%d","model":"%s","usage":{"input_tokens":1,"output_tokens":%d},"content":[{"type":"text","text":"x"}]}}`, model, tokens, model, tokens)
	err = w.Append([]runlog.Record{{LogLine: agented.LogLine{Attempt: e.AttemptNo, Stream: agented.Stdout, At: time.Now(), Content: []byte(line)}}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// watch watches an execution until the end of the test, and returns its questions.
func (s *scene) watch(e *agented.Execution) <-chan agented.Pause {
	ctx, cancel := context.WithCancel(context.Background())
	asked, done := make(chan agented.Pause, 100), make(chan struct{})
	go func() {
		defer close(done)
		s.guard.Watch(ctx, costs.Attempt{
			Execution: e, Backend: e.Backend,
			Text: printed.New(printed.Source{
				Bundle: func(n int) string { return s.layout.Attempt(e.ID, n) },
				Masker: func(context.Context) (*redact.Masker, error) { return redact.New(nil), nil },
				Log:    slog.New(slog.DiscardHandler),
			}),
			Pause: func(_ context.Context, p agented.Pause) error {
				select {
				case asked <- p:
				default:
				}
				return nil
			},
		})
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	return asked
}

func (s *scene) question(asked <-chan agented.Pause) agented.Pause {
	s.t.Helper()
	select {
	case p := <-asked:
		return p
	case <-time.After(time.Minute):
		s.t.Fatal("no question")
		panic("unreachable")
	}
}

func TestWatch_ceiling(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	e := s.start(5)
	s.guard.Begin(e)
	asked := s.watch(e)
	s.use(e, "m", 7)
	if p := s.question(asked); p.Question != agented.QuestionCeiling || p.SpentUSD != 7 || p.LimitUSD != 5 || p.At.IsZero() {
		t.Errorf("it asks %+v", p)
	}
}

// TestWatch_new_ceiling sets a ceiling before Watch has read the stored one.
func TestWatch_new_ceiling(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	e := s.start(5)
	if err := s.db.RaiseCeiling(t.Context(), e.ID, 6); err != nil {
		t.Fatal(err)
	}
	s.guard.Begin(e)
	s.guard.SetCeiling(e.ID, 20, false)
	asked := s.watch(e)
	s.use(e, "m", 7)
	s.use(e, "m", 30)
	if p := s.question(asked); p.SpentUSD != 37 || p.LimitUSD != 20 {
		t.Errorf("it asks %+v", p)
	}
}

func TestWatch_unpriced(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	e := s.start(5)
	s.guard.Begin(e)
	asked := s.watch(e)
	s.use(e, "house-model", 1)
	if p := s.question(asked); p.Question != agented.QuestionCeiling || p.LimitUSD != 5 || !strings.Contains(p.Reason, `"house-model" has no price`) {
		t.Errorf("it asks %+v", p)
	}
}

// TestWatch_budget counts the costs of two executions together.
func TestWatch_budget(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	b := &agented.Budget{Name: "B", Enabled: true, Scope: agented.BudgetAll, Period: agented.PeriodMonth, Limit: 10, Hard: true, Pause: true}
	if err := s.db.SaveBudget(t.Context(), b, "x", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.guard.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, second := s.start(0), s.start(0)
	s.guard.Begin(first)
	s.guard.Begin(second)
	s.use(first, "m", 6)
	s.use(second, "m", 7)
	one, two := s.watch(first), s.watch(second)
	var p agented.Pause
	select { // whichever is read last
	case p = <-one:
	case p = <-two:
	case <-time.After(time.Minute):
		t.Fatal("no question")
	}
	if p.Question != agented.QuestionBudget || p.SpentUSD != 13 || p.LimitUSD != 10 {
		t.Errorf("it asks %+v", p)
	}
}

func TestRemaining(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	spent := 3.0
	e := s.start(5)
	e.AttemptNo, e.Attempts = 2, []agented.Attempt{{Number: 1, Usage: agented.Usage{CostUSD: &spent}}}
	if got := s.guard.Remaining(t.Context(), e, ""); got != 2 {
		t.Errorf("remaining %v, want 2", got)
	}
	if got := s.guard.Remaining(t.Context(), e, "session"); got != 0 {
		t.Errorf("a resumed session has the limit %v, want none", got)
	}
	if err := s.db.RaiseCeiling(t.Context(), e.ID, 8); err != nil {
		t.Fatal(err)
	}
	if got := s.guard.Remaining(t.Context(), e, ""); got != 5 {
		t.Errorf("after a change %v, want 5", got)
	}
}

// TestJudge_session is about a CLI that prints the usage of its whole session at the end of a turn.
func TestJudge_session(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	whole := func(tokens int64) agented.Usage {
		return agented.Usage{InputTokens: new(int64), OutputTokens: &tokens, CumulativeSession: true}
	}
	first := s.start(0)
	now := time.Now()
	_, err := s.db.EndAttempt(t.Context(), store.AttemptEnd{
		Attempt: agented.Attempt{
			Execution: first.ID, Number: 1, Backend: agented.BackendClaude, State: agented.StateSuccess, SessionID: "s", Usage: whole(3),
			StartedAt: now, FinishedAt: now,
		},
		Next: agented.StateSuccess, Retry: &agented.RetryPolicy{}, Now: now,
	}, first.Lease, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		model string
		total int64
		want  string
	}{
		"above":    {"m", 10, "the cost reached $7.00: the ceiling of $5.00 could not be enforced"},
		"below":    {"m", 8, ""},
		"no price": {"house-model", 10, `the ceiling of $5.00 could not be enforced: model "house-model" has no price`},
	} {
		t.Run(name, func(t *testing.T) {
			e := &agented.Execution{ID: "exec-x", AttemptNo: 1, Snapshot: agented.Spec{CeilingUSD: 5}}
			end := store.AttemptEnd{Attempt: agented.Attempt{Backend: agented.BackendClaude}, Next: agented.StateSuccess, Retry: &agented.RetryPolicy{}}
			r := &agented.Result{SessionID: "s", Usage: whole(test.total)}
			s.guard.Judge(e, agented.Exit{Cause: agented.CauseExit}, r, &end, s.guard.NewMeter(test.model))
			if end.Reason != test.want || end.Attempt.Reason != test.want {
				t.Errorf("reason %q, want %q", end.Reason, test.want)
			}
		})
	}
}

// TestWatch_higher_ceiling continues an execution whose cost was known until then.
func TestWatch_higher_ceiling(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	e := s.start(5)
	s.guard.Begin(e)
	s.guard.SetCeiling(e.ID, 20, false)
	asked := s.watch(e)
	s.use(e, "house-model", 1)
	if p := s.question(asked); p.LimitUSD != 20 || !strings.Contains(p.Reason, `"house-model" has no price`) {
		t.Errorf("it asks %+v", p)
	}
}

package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 11, 23, 8, 0, 0, 123456000, time.UTC)

const ttl = 30 * time.Second

// locate returns what Open opens for a path: the path, or with
// AGENTED_TEST_DATABASE=postgres the URL of a database that stands for it.
func locate(t testing.TB, path string) string {
	t.Helper()
	if !pgtest.Selected() {
		return path
	}
	if url, ok := places.Load(path); ok {
		return url.(string)
	}
	return place(t, path, pgtest.Shared(t).Create(t))
}

// places are the databases on PostgreSQL by path.
var places sync.Map

func place(t testing.TB, path, url string) string {
	places.Store(path, url)
	t.Cleanup(func() { places.Delete(path) })
	return url
}

// copyOf makes the database of a path a copy of a closed one.
func copyOf(t testing.TB, model, path string) {
	t.Helper()
	if pgtest.Selected() {
		place(t, path, pgtest.Shared(t).Copy(t, locate(t, model)))
		return
	}
	content, err := os.ReadFile(model)
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openAt(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(context.Background(), locate(t, path), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// create makes a database by running every migration.
func create(path string) error {
	db, err := Open(context.Background(), path, Options{})
	if err != nil {
		return err
	}
	return db.Close()
}

// openNewAt opens a new database at path: a copy of one that create made.
func openNewAt(t testing.TB, path string) *DB {
	t.Helper()
	if pgtest.Selected() {
		place(t, path, pgtest.New(t, create))
	} else {
		testrun.Database(t, path, create)
	}
	return openAt(t, path)
}

func openNew(t testing.TB) *DB {
	t.Helper()
	return openNewAt(t, filepath.Join(t.TempDir(), "agented.db"))
}

// queryPlan returns how SQLite executes a statement.
func queryPlan(t testing.TB, db *DB, statement string, args ...any) string {
	t.Helper()
	pgtest.SkipSelected(t, "the plans are SQLite's; TestPostgres_query_plans has the others")
	rows, err := db.query(t.Context(), `EXPLAIN QUERY PLAN `+statement, args...)
	plan, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(new(int), new(int), new(int), v) })
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return strings.Join(plan, "; ")
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantKind(t interface {
	Helper()
	Fatalf(string, ...any)
}, err error, kind agented.Kind,
) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got error %v, want one of kind %s", err, kind)
	}
}

func newExecution(trigger agented.TriggerID, now time.Time) *agented.Execution {
	return &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), Trigger: trigger, TriggerName: "Name of " + string(trigger),
		Backend: agented.BackendCommand, Source: agented.SourceManual, Actor: "ann", Prompt: "do it", CreatedAt: now, ScheduledAt: now,
		Snapshot: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, MaxConcurrent: 1, Overlap: agented.OverlapQueue},
	}
}

// admit queues one execution of a trigger with limit 1.
func admit(t testing.TB, db *DB, trigger agented.TriggerID, now time.Time, more ...func(*Admission)) *agented.Execution {
	t.Helper()
	a := Admission{Execution: newExecution(trigger, now), MaxConcurrent: 1, Overlap: agented.OverlapQueue}
	for _, f := range more {
		f(&a)
	}
	return must(db.Admit(t.Context(), a, now))(t).Execution
}

func claim(t testing.TB, db *DB, now time.Time) *agented.Execution {
	t.Helper()
	return must(db.Claim(t.Context(), "node-a", 1000, now, ttl))(t)
}

func ended(e *agented.Execution, state agented.State, at time.Time) AttemptEnd {
	return AttemptEnd{
		Attempt: agented.Attempt{Execution: e.ID, Number: e.AttemptNo, State: state, StartedAt: at, FinishedAt: at},
		Next:    state, LastSeq: 7,
	}
}

func endAttempt(db *DB, ctx context.Context, end AttemptEnd, lease agented.Lease, at time.Time) error {
	_, err := db.EndAttempt(ctx, end, lease, at)
	return err
}

func finish(t testing.TB, db *DB, e *agented.Execution, state agented.State, at time.Time) {
	t.Helper()
	if err := endAttempt(db, t.Context(), ended(e, state, at), e.Lease, at); err != nil {
		t.Fatal(err)
	}
}

func TestExecution_lifecycle(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	var events []agented.ExecutionEvent
	db.OnChange(func(e agented.ExecutionEvent) { events = append(events, e) })

	e := admit(t, db, "trg-a", start)
	if e.State != agented.StatePending || e.Reason != "" || e.Prompt != "do it" || e.Snapshot.Command[0] != "true" {
		t.Fatalf("admitted: %+v", e)
	}
	c := claim(t, db, start.Add(time.Second))
	if c == nil || c.ID != e.ID || c.State != agented.StateRunning || c.AttemptNo != 1 || len(c.Attempts) != 1 ||
		!c.Attempts[0].StartedAt.IsZero() || c.Lease.Token != 1 || c.Lease.Owner != "node-a" || c.Prompt != "do it" {
		t.Fatalf("claimed: %+v", c)
	}
	if err := db.AttemptStarted(ctx, c.ID, c.Lease, 1, "1.2.3", agented.Isolation{Level: "guard", Reason: "default"}, start.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	code, tokens, cost := 3, int64(12), 0.25
	end := AttemptEnd{
		Attempt: agented.Attempt{
			Execution: c.ID, Number: 1, Backend: c.Backend, State: agented.StateFailed, ExitCode: &code, Reason: "no",
			Usage: agented.Usage{InputTokens: &tokens, CostUSD: &cost}, SessionID: "s", StartedAt: start.Add(3 * time.Second), FinishedAt: start.Add(4 * time.Second),
		},
		Next: agented.StateFailed, Reason: "it said no", Error: "no", Result: "text", LastSeq: 9,
	}
	if err := endAttempt(db, ctx, end, c.Lease, start.Add(5*time.Second)); err != nil {
		t.Fatal(err)
	}
	got := must(db.Execution(ctx, c.ID))(t)
	want := *e
	want.State, want.Reason, want.Error, want.Result, want.LastSeq, want.ExitCode = agented.StateFailed, "it said no", "no", "text", 9, &code
	want.AttemptNo, want.Usage, want.EventSeq = 1, end.Attempt.Usage, 4
	want.Lease = agented.Lease{Token: 1}
	want.StartedAt, want.FinishedAt = start.Add(2*time.Second), start.Add(5*time.Second)
	a := end.Attempt
	a.CLIVersion, a.Sandbox = "1.2.3", agented.Isolation{Level: "guard", Reason: "default"}
	want.Attempts = []agented.Attempt{a}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
	wantKind(t, endAttempt(db, ctx, end, c.Lease, start.Add(6*time.Second)), agented.Conflict)
	_, err := db.RequestCancel(ctx, c.ID, "bob", start)
	wantKind(t, err, agented.Conflict)

	if len(events) != 4 {
		t.Fatalf("%d events, want admitted, claimed, started, finished", len(events))
	}
	for i, e := range events {
		if e.Seq != int64(i+1) || e.Execution.EventSeq != e.Seq || e.Execution.Prompt != "" || e.Execution.Result != "" {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if n := must(db.Counts(ctx))(t); n[agented.StateFailed] != 1 || n[agented.StateRunning] != 0 || n[agented.StatePending] != 0 {
		t.Errorf("counts: %v", n)
	}
}

func TestKeepCommandsUnsandboxed(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	specs := map[string]agented.Spec{
		"command": {Backend: agented.BackendCommand, Command: []string{"true"}},
		"guarded": {Backend: agented.BackendCommand, Command: []string{"true"}, Sandbox: agented.SandboxGuard},
		"claude":  {Backend: agented.BackendClaude, Prompt: "x"},
	}
	want := map[string]agented.Sandbox{"command": agented.SandboxOff, "guarded": agented.SandboxGuard, "claude": ""}
	ids := map[string]agented.ExecutionID{}
	for name, spec := range specs {
		if err := db.CreateTrigger(ctx, &agented.Trigger{Name: name, Enabled: true, Spec: spec}, "test"); err != nil {
			t.Fatal(err)
		}
		ids[name] = admit(t, db, "", start, func(a *Admission) { a.Execution.Backend, a.Execution.Snapshot = spec.Backend, spec }).ID
	}
	names, err := db.KeepCommandsUnsandboxed(ctx)
	if err != nil || !slices.Equal(names, []string{"command"}) {
		t.Fatalf("%v %v", names, err)
	}
	list, _, err := db.Triggers(ctx, TriggerFilter{}, Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range list {
		if tr.Spec.Sandbox != want[tr.Name] {
			t.Errorf("trigger %s: %q, want %q", tr.Name, tr.Spec.Sandbox, want[tr.Name])
		}
	}
	for name, id := range ids {
		e, err := db.Execution(ctx, id)
		if err != nil || e.Snapshot.Sandbox != want[name] {
			t.Errorf("execution %s: %q %v, want %q", name, e.Snapshot.Sandbox, err, want[name])
		}
	}
	// Later triggers have the default.
	if err := db.CreateTrigger(ctx, &agented.Trigger{Name: "later", Enabled: true, Spec: specs["command"]}, "test"); err != nil {
		t.Fatal(err)
	}
	if names, err = db.KeepCommandsUnsandboxed(ctx); err != nil || len(names) > 0 {
		t.Errorf("the second time: %v %v", names, err)
	}
}

package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/google/go-cmp/cmp"
)

// pages reads all pages and returns the ids.
func pages(t *testing.T, db *DB, f ExecutionFilter, limit int, between func()) []agented.ExecutionID {
	t.Helper()
	var ids []agented.ExecutionID
	cursor := ""
	for range 1000 {
		list, next, err := db.Executions(t.Context(), f, Page{Limit: limit, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > limit {
			t.Fatalf("a page of %d", len(list))
		}
		for _, e := range list {
			ids = append(ids, e.ID)
			if e.Prompt != "" || e.Result != "" || e.Snapshot.Backend != "" {
				t.Errorf("a list shows %+v", e)
			}
			if len(e.Attempts) != e.AttemptNo {
				t.Errorf("%d of %d attempts", len(e.Attempts), e.AttemptNo)
			}
		}
		if next == "" {
			return ids
		}
		cursor = next
		between()
	}
	t.Fatal("the pages do not end")
	return nil
}

func TestExecutions_pages(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var all []*agented.Execution
	for i := range 60 {
		e := admit(t, db, agented.TriggerID(fmt.Sprint("trg-", i%4)), start.Add(time.Duration(i/3)*time.Second))
		all = append(all, e)
	}
	for range 4 {
		claim(t, db, start.Add(time.Hour))
	}
	running := map[agented.ExecutionID]bool{}
	for _, e := range must(db.TakeOver(t.Context(), "node-a", start, ttl))(t) {
		running[e.ID] = true
	}
	slices.SortFunc(all, func(a, b *agented.Execution) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		if a.ID > b.ID {
			return -1
		}
		return 1
	})
	want := func(keep func(*agented.Execution) bool) (ids []agented.ExecutionID) {
		for _, e := range all {
			if keep(e) {
				ids = append(ids, e.ID)
			}
		}
		return ids
	}
	arrive := func() { admit(t, db, "trg-1", start.Add(2*time.Hour)) }
	before := start.Add(time.Hour)
	one := all[20]
	for _, c := range []struct {
		name string
		f    ExecutionFilter
		keep func(*agented.Execution) bool
	}{
		{"all", ExecutionFilter{}, func(*agented.Execution) bool { return true }},
		{"trigger", ExecutionFilter{Trigger: "trg-1"}, func(e *agented.Execution) bool { return e.Trigger == "trg-1" }},
		{"running", ExecutionFilter{States: []agented.State{agented.StateRunning}}, func(e *agented.Execution) bool { return running[e.ID] }},
		{"two states", ExecutionFilter{States: []agented.State{agented.StateRunning, agented.StatePending, agented.StatePending}}, func(e *agented.Execution) bool { return true }},
		{"trigger and state", ExecutionFilter{Trigger: "trg-2", States: []agented.State{agented.StatePending}}, func(e *agented.Execution) bool { return e.Trigger == "trg-2" && !running[e.ID] }},
		{"source", ExecutionFilter{Source: agented.SourceManual}, func(*agented.Execution) bool { return true }},
		{"no such source", ExecutionFilter{Source: agented.SourceGitHub}, func(*agented.Execution) bool { return false }},
		{"time", ExecutionFilter{CreatedAfter: start.Add(5 * time.Second), CreatedBefore: start.Add(7 * time.Second)}, func(e *agented.Execution) bool {
			return !e.CreatedAt.Before(start.Add(5*time.Second)) && e.CreatedAt.Before(start.Add(7*time.Second))
		}},
		{"name", ExecutionFilter{Query: "NAME of trg-3"}, func(e *agented.Execution) bool { return e.Trigger == "trg-3" }},
		{"all names", ExecutionFilter{Query: "name"}, func(e *agented.Execution) bool { return true }},
		{"name and trigger", ExecutionFilter{Query: "name", Trigger: "trg-0"}, func(e *agented.Execution) bool { return e.Trigger == "trg-0" }},
		{"name and state", ExecutionFilter{Query: "name", States: []agented.State{agented.StateRunning}}, func(e *agented.Execution) bool { return running[e.ID] }},
		{"id", ExecutionFilter{Query: string(one.ID)}, func(e *agented.Execution) bool { return e == one }},
		{"start of an id", ExecutionFilter{Query: string(one.ID[:len(one.ID)-2])}, func(e *agented.Execution) bool { return e == one }},
		{"nothing", ExecutionFilter{Query: "%"}, func(*agented.Execution) bool { return false }},
	} {
		for _, limit := range []int{1, 7, 60, 500} {
			c.f.CreatedBefore = firstOf(c.f.CreatedBefore, before)
			if diff := cmp.Diff(want(c.keep), pages(t, db, c.f, limit, arrive)); diff != "" {
				t.Errorf("%s by %d: %s", c.name, limit, diff)
			}
		}
	}
	// No upper time limit: later executions are newer than the first page.
	if diff := cmp.Diff(want(func(e *agented.Execution) bool { return e.Trigger == "trg-2" }),
		pages(t, db, ExecutionFilter{Trigger: "trg-2"}, 2, func() { admit(t, db, "trg-2", start.Add(3*time.Hour)) })); diff != "" {
		t.Error(diff)
	}
}

func firstOf(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func TestExecutions_invalid_cursor(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, c := range []string{
		"x", "%%%", database.Cursor("trigger", "a"), database.Cursor("execution", "1"), database.Cursor("execution", "x", "exec-00000000000000000000000000"),
		database.Cursor("execution", "1", "../../etc"), database.Cursor("execution"),
	} {
		_, _, err := db.Executions(t.Context(), ExecutionFilter{}, Page{Cursor: c})
		wantKind(t, err, agented.Invalid)
	}
	_, _, err := db.Executions(t.Context(), ExecutionFilter{States: []agented.State{"asleep"}}, Page{})
	wantKind(t, err, agented.Invalid)
}

func TestChangedSince(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for range 5 {
		admit(t, db, "", start)
	}
	first := must(db.ChangedSince(t.Context(), 0, 3))(t)
	if len(first) != 3 || first[2].Seq != 3 {
		t.Fatalf("%+v", first)
	}
	claimed := claim(t, db, start) // changes the first one again
	rest := must(db.ChangedSince(t.Context(), 3, 100))(t)
	if len(rest) != 3 || rest[2].Seq != 6 || rest[2].Execution.ID != claimed.ID || rest[2].Execution.State != agented.StateRunning || len(rest[2].Execution.Attempts) != 1 {
		t.Fatalf("%+v", rest)
	}
	if none := must(db.ChangedSince(t.Context(), 6, 100))(t); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestTriggers_unique_names(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	for _, name := range []string{"beta", "Alpha", "Ärger", "gamma"} {
		if err := db.CreateTrigger(ctx, &agented.Trigger{Name: name, Enabled: name != "beta", Spec: agented.Spec{Backend: "command", Command: []string{"a"}}}, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, db.CreateTrigger(ctx, &agented.Trigger{Name: "ärGER"}, "ann"), agented.Conflict)
	a := must(db.TriggerByName(ctx, "ALPHA"))(t)
	a.Name = "BETA"
	wantKind(t, db.UpdateTrigger(ctx, a, "ann"), agented.Conflict)
	a.Name = "ALPHA"
	a.Spec.Model = "m"
	if err := db.UpdateTrigger(ctx, a, "ann"); err != nil {
		t.Fatal(err)
	}
	if got := must(db.Trigger(ctx, a.ID))(t); !cmp.Equal(got, a) || got.Spec.Model != "m" || got.UpdatedAt.Before(got.CreatedAt) {
		t.Error(cmp.Diff(a, got))
	}
	wantKind(t, db.UpdateTrigger(ctx, &agented.Trigger{ID: "trg-x", Name: "x"}, "ann"), agented.NotFound)
	_, err := db.Trigger(ctx, "trg-x")
	wantKind(t, err, agented.NotFound)
	var names []string
	cursor := ""
	for {
		list, next, err := db.Triggers(ctx, TriggerFilter{}, Page{Limit: 2, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			names = append(names, x.Name)
		}
		if cursor = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"ALPHA", "beta", "gamma", "Ärger"}, names); diff != "" {
		t.Error(diff)
	}
	enabled := false
	list, _, err := db.Triggers(ctx, TriggerFilter{Enabled: &enabled, Query: "B"}, Page{})
	if err != nil || len(list) != 1 || list[0].Name != "beta" {
		t.Error(list, err)
	}
}

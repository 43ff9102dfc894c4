package store

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
	"pgregory.net/rapid"
)

// model is the simplest implementation of the queue.
type model struct {
	t    *rapid.T
	db   *DB
	now  time.Time
	byID map[agented.ExecutionID]*modelled
	ids  []agented.ExecutionID
	keys map[string]agented.ExecutionID
	seq  int64 // of the latest event that OnChange reported
	seen map[agented.ExecutionID]int64
}

type modelled struct {
	state    agented.State
	trigger  agented.TriggerID
	limit    int
	due      time.Time
	order    int
	asked    bool
	lease    agented.Lease
	attempts int
	finals   int // final states that OnChange reported
}

const modelNodeCap = 4

func (m *model) of(f func(*modelled) bool) (out []agented.ExecutionID) {
	for _, id := range m.ids {
		if f(m.byID[id]) {
			out = append(out, id)
		}
	}
	return out
}

func (m *model) is(s agented.State) func(*modelled) bool {
	return func(e *modelled) bool { return e.state == s }
}

func (m *model) running(trigger agented.TriggerID) int {
	return len(m.of(func(e *modelled) bool { return e.state == agented.StateRunning && e.trigger == trigger }))
}

// next returns the execution that a claim must return; empty: none.
func (m *model) next(node agented.NodeID) agented.ExecutionID {
	if len(m.of(func(e *modelled) bool { return e.state == agented.StateRunning && e.lease.Owner == node })) >= modelNodeCap {
		return ""
	}
	var best agented.ExecutionID
	for _, id := range m.of(m.is(agented.StatePending)) {
		e := m.byID[id]
		if e.due.After(m.now) || e.trigger != "" && e.limit > 0 && m.running(e.trigger) >= e.limit {
			continue
		}
		if b := m.byID[best]; b == nil || e.due.Before(b.due) || e.due.Equal(b.due) && e.order < b.order {
			best = id
		}
	}
	return best
}

func (m *model) changed(ev agented.ExecutionEvent) {
	if ev.Seq <= m.seq {
		m.t.Errorf("event %d came after %d", ev.Seq, m.seq)
	}
	m.seq = ev.Seq
	m.seen[ev.Execution.ID] = ev.Seq
	if ev.Execution.State.Final() {
		if e := m.byID[ev.Execution.ID]; e != nil {
			e.finals++
		}
	}
}

func (m *model) admit(t *rapid.T) {
	trigger := rapid.SampledFrom([]agented.TriggerID{"", "trg-a", "trg-b", "trg-c"}).Draw(t, "trigger")
	limits := map[agented.TriggerID]int{"": 0, "trg-a": 1, "trg-b": 2, "trg-c": 0}
	a := Admission{
		Execution: newExecution(trigger, m.now), MaxConcurrent: limits[trigger],
		Overlap: rapid.SampledFrom([]agented.Overlap{agented.OverlapQueue, agented.OverlapQueue, agented.OverlapSkip, agented.OverlapReplace}).Draw(t, "overlap"),
	}
	if rapid.IntRange(0, 5).Draw(t, "later") == 0 {
		a.Execution.ScheduledAt = m.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "delay")) * time.Second)
	}
	if rapid.IntRange(0, 3).Draw(t, "keyed") == 0 {
		a.IdempotencyKey = fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "key"))
	}
	scoped := string(trigger) + "/" + a.IdempotencyKey
	earlier := m.of(func(e *modelled) bool { return trigger != "" && e.trigger == trigger && !e.state.Final() })
	id := a.Execution.ID
	first, repeated := m.keys[scoped]
	if !repeated {
		e := &modelled{state: agented.StatePending, trigger: trigger, limit: a.MaxConcurrent, due: a.Execution.ScheduledAt, order: len(m.ids)}
		m.byID[id], m.ids = e, append(m.ids, id)
		if a.IdempotencyKey != "" {
			m.keys[scoped] = id
		}
		switch {
		case a.Overlap == agented.OverlapSkip && len(earlier) > 0:
			e.state = agented.StateCancelled
		case a.Overlap == agented.OverlapReplace:
			for _, old := range earlier {
				if o := m.byID[old]; o.state == agented.StatePending {
					o.state = agented.StateCancelled
				} else {
					o.asked = true
				}
			}
		}
		first = id
	}
	got, err := m.db.Admit(m.t.Context(), a, m.now)
	if err != nil || got.Repeated != repeated || got.Execution.ID != first {
		t.Fatalf("admit: %+v, %v; want %s, repeated %v", got, err, first, repeated)
	}
}

func (m *model) claim(t *rapid.T) {
	node := rapid.SampledFrom([]agented.NodeID{"node-a", "node-b"}).Draw(t, "node")
	want := m.next(node)
	e, err := m.db.Claim(m.t.Context(), node, modelNodeCap, m.now, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		if want != "" {
			t.Fatalf("claimed nothing, want %s", want)
		}
		return
	}
	// The order of executions of one trigger that wait for a slot and have
	// different due times is unspecified.
	if want == "" || e.ID != want {
		t.Fatalf("claimed %s, want %q", e.ID, want)
	}
	x := m.byID[e.ID]
	x.attempts++
	if e.Lease.Token <= x.lease.Token || e.AttemptNo != x.attempts || len(e.Attempts) != x.attempts {
		t.Fatalf("claimed %+v after %+v", e, x)
	}
	x.state, x.lease = agented.StateRunning, e.Lease
}

func (m *model) finish(t *rapid.T) {
	running := m.of(m.is(agented.StateRunning))
	if len(running) == 0 {
		t.Skip()
	}
	id := rapid.SampledFrom(running).Draw(t, "execution")
	x := m.byID[id]
	end := ended(&agented.Execution{ID: id, AttemptNo: x.attempts}, agented.StateFailed, m.now)
	end.Next = rapid.SampledFrom(append(agented.States[2:], agented.StatePending, agented.StatePending)).Draw(t, "next")
	lease := x.lease
	if rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
		lease.Token--
		wantKind(m.t, endAttempt(m.db, m.t.Context(), end, lease, m.now), agented.Conflict)
		return
	}
	if end.Next == agented.StatePending {
		end.ScheduledAt = m.now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "delay")) * time.Second)
		x.due = end.ScheduledAt
	}
	if err := endAttempt(m.db, m.t.Context(), end, lease, m.now); err != nil {
		t.Fatal(err)
	}
	x.state = end.Next
	if x.asked && end.Next == agented.StatePending {
		x.state = agented.StateCancelled
	}
	if x.state.Final() {
		wantKind(m.t, endAttempt(m.db, m.t.Context(), end, lease, m.now), agented.Conflict)
	}
}

func (m *model) cancel(t *rapid.T) {
	if len(m.ids) == 0 {
		t.Skip()
	}
	id := rapid.SampledFrom(m.ids).Draw(t, "execution")
	x := m.byID[id]
	_, err := m.db.RequestCancel(m.t.Context(), id, "ann", m.now)
	switch {
	case x.state.Final():
		wantKind(m.t, err, agented.Conflict)
	case err != nil:
		t.Fatal(err)
	case x.state == agented.StatePending:
		x.state = agented.StateCancelled
	default:
		x.asked = true
	}
}

func (m *model) takeOver(t *rapid.T) {
	node := rapid.SampledFrom([]agented.NodeID{"node-a", "node-b"}).Draw(t, "node")
	want := m.of(func(e *modelled) bool {
		return e.state == agented.StateRunning && (e.lease.Owner == node || !e.lease.ExpiresAt.After(m.now))
	})
	got, err := m.db.TakeOver(m.t.Context(), node, m.now, ttl)
	if err != nil || len(got) != len(want) {
		t.Fatalf("took over %d, %v, want %d", len(got), err, len(want))
	}
	for _, e := range got {
		x := m.byID[e.ID]
		if e.Lease.Token <= x.lease.Token || e.Lease.Owner != node {
			t.Fatalf("lease %+v after %+v", e.Lease, x.lease)
		}
		x.lease = e.Lease
	}
}

func (m *model) check(t *rapid.T) {
	since := map[agented.ExecutionID]int64{}
	last := int64(0)
	events, err := m.db.ChangedSince(m.t.Context(), 0, 100000)
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range events {
		if ev.Seq <= last {
			t.Fatalf("ChangedSince: %d after %d", ev.Seq, last)
		}
		last = ev.Seq
		since[ev.Execution.ID] = ev.Seq
		x := m.byID[ev.Execution.ID]
		if x == nil || ev.Execution.State != x.state || ev.Execution.CancelAsked != x.asked || ev.Execution.AttemptNo != x.attempts {
			t.Fatalf("%+v, want %+v", ev.Execution, x)
		}
		if ev.Execution.State.Final() == ev.Execution.FinishedAt.IsZero() {
			t.Fatalf("%s is %s and finished at %v", ev.Execution.ID, ev.Execution.State, ev.Execution.FinishedAt)
		}
		if m.seen[ev.Execution.ID] != ev.Seq {
			t.Fatalf("the latest event of %s is %d, OnChange told %d", ev.Execution.ID, ev.Seq, m.seen[ev.Execution.ID])
		}
	}
	if len(since) != len(m.ids) {
		t.Fatalf("ChangedSince knows %d of %d executions", len(since), len(m.ids))
	}
	counts, err := m.db.Counts(m.t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range agented.States {
		if got, want := counts[s], int64(len(m.of(m.is(s)))); got != want {
			t.Fatalf("%d are counted as %s, want %d", got, s, want)
		}
	}
	for id, x := range m.byID {
		if x.finals > 1 {
			t.Fatalf("%s became final %d times", id, x.finals)
		}
		if x.limit > 0 && m.running(x.trigger) > x.limit {
			t.Fatalf("%s runs %d at once", x.trigger, m.running(x.trigger))
		}
	}
}

func TestQueue_model(t *testing.T) {
	t.Parallel()
	outer, dir := t, t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		testrun.Database(outer, path, create)
		db, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		m := &model{
			t: t, db: db, now: start, byID: map[agented.ExecutionID]*modelled{},
			keys: map[string]agented.ExecutionID{}, seen: map[agented.ExecutionID]int64{},
		}
		db.OnChange(m.changed)
		t.Repeat(map[string]func(*rapid.T){
			"admit":    m.admit,
			"claim":    m.claim,
			"claim2":   m.claim, // as frequent as all actions that add work
			"finish":   m.finish,
			"cancel":   m.cancel,
			"takeOver": m.takeOver,
			"pass": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			},
			"": m.check,
		})
	})
}

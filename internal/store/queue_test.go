package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/google/go-cmp/cmp"
)

func overlap(o agented.Overlap) func(*Admission) { return func(a *Admission) { a.Overlap = o } }
func key(k string) func(*Admission)              { return func(a *Admission) { a.IdempotencyKey = k } }

func TestClaim_concurrent(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	const n = 300
	for range n {
		admit(t, db, "", start)
	}
	var mu sync.Mutex
	seen := map[agented.ExecutionID]int{}
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for {
				e, err := db.Claim(t.Context(), agented.NodeID(fmt.Sprint("node-", g)), 1000, start, ttl)
				if err != nil {
					t.Error(err)
					return
				}
				if e == nil {
					return
				}
				mu.Lock()
				seen[e.ID]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != n {
		t.Errorf("%d of %d executions were claimed", len(seen), n)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was claimed %d times", id, times)
		}
	}
}

func TestClaim_order(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	late := newExecution("", start)
	late.ScheduledAt = start.Add(time.Hour)
	if _, err := db.Admit(t.Context(), Admission{Execution: late}, start); err != nil {
		t.Fatal(err)
	}
	b := admit(t, db, "", start.Add(time.Second))
	a := admit(t, db, "", start)
	now := start.Add(time.Minute)
	for _, want := range []agented.ExecutionID{a.ID, b.ID} {
		if got := claim(t, db, now); got == nil || got.ID != want {
			t.Fatalf("claimed %v, want %s", got, want)
		}
	}
	if got := claim(t, db, now); got != nil {
		t.Fatalf("claimed %s before its time", got.ID)
	}
	_, at, err := db.Due(t.Context(), now)
	if err != nil || !at.Equal(late.ScheduledAt) {
		t.Errorf("next due %v, %v", at, err)
	}
	if got := claim(t, db, at); got == nil || got.ID != late.ID {
		t.Errorf("claimed %v at its due time", got)
	}
	if due, next, err := db.Due(t.Context(), at); due || !next.IsZero() || err != nil {
		t.Error("nothing is left, yet something is due")
	}
}

func TestClaim_trigger_limit(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	first := admit(t, db, "trg-a", start)
	second := admit(t, db, "trg-a", start)
	third := admit(t, db, "trg-a", start)
	other := admit(t, db, "trg-b", start.Add(time.Second))
	now := start.Add(time.Minute)
	running := claim(t, db, now)
	if running.ID != first.ID {
		t.Fatal("not in order")
	}
	if got := claim(t, db, now); got == nil || got.ID != other.ID {
		t.Fatalf("claimed %v, want the other trigger's", got)
	}
	if got := claim(t, db, now); got != nil {
		t.Fatalf("claimed %s past the trigger's limit", got.ID)
	}
	for _, id := range []agented.ExecutionID{second.ID, third.ID} {
		if e := must(db.Execution(t.Context(), id))(t); !strings.Contains(e.Reason, "one at a time") {
			t.Errorf("why it waits: %q", e.Reason)
		}
	}
	// The next one is cancelled; the last one in the queue must not be stuck.
	if _, err := db.RequestCancel(t.Context(), second.ID, "ann", now); err != nil {
		t.Fatal(err)
	}
	finish(t, db, running, agented.StateSuccess, now)
	if got := claim(t, db, now); got == nil || got.ID != third.ID || got.Reason != "" {
		t.Fatalf("claimed %+v, want the third without a reason", got)
	}
}

func TestRequestCancel_releases_next(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for range 2 {
		admit(t, db, "trg-a", start)
	}
	third := admit(t, db, "trg-a", start)
	running := claim(t, db, start)
	if got := claim(t, db, start); got != nil { // now both are held
		t.Fatal("past the limit")
	}
	finish(t, db, running, agented.StateSuccess, start) // releases the second
	list, _, err := db.Executions(t.Context(), ExecutionFilter{States: []agented.State{agented.StatePending}}, Page{})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, e := range list {
		if e.ID != third.ID {
			if _, err := db.RequestCancel(t.Context(), e.ID, "", start); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := claim(t, db, start); got == nil || got.ID != third.ID {
		t.Fatalf("claimed %v", got)
	}
}

func TestClaim_due_later(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	a := admit(t, db, "trg-a", start)
	c := claim(t, db, start)
	b := admit(t, db, "trg-a", start)
	end := ended(c, agented.StateFailed, start)
	end.Next, end.ScheduledAt, end.Reason = agented.StatePending, start.Add(time.Hour), "the limit resets at nine"
	if err := endAttempt(db, t.Context(), end, c.Lease, start); err != nil {
		t.Fatal(err)
	}
	d := claim(t, db, start)
	if d == nil || d.ID != b.ID {
		t.Fatalf("claimed %v, want the one behind the waiting one", d)
	}
	if got := must(db.Execution(t.Context(), a.ID))(t); got.State != agented.StatePending || got.Reason != end.Reason || !got.FinishedAt.IsZero() {
		t.Errorf("waiting: %+v", got)
	}
	// It becomes due while the other one still runs, and then resumes.
	if got := claim(t, db, start.Add(time.Hour)); got != nil {
		t.Fatal("past the limit")
	}
	finish(t, db, d, agented.StateSuccess, start.Add(time.Hour))
	again := claim(t, db, start.Add(time.Hour))
	if again == nil || again.ID != a.ID || again.AttemptNo != 2 || len(again.Attempts) != 2 || again.Lease.Token != 2 {
		t.Fatalf("second attempt: %+v", again)
	}
}

func TestClaim_full_node_reason(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "", start)
	waiting := admit(t, db, "", start)
	first := must(db.Claim(t.Context(), "node-a", 1, start, ttl))(t)
	before := must(db.LastEventSeq(t.Context()))(t)
	for range 3 {
		if got := must(db.Claim(t.Context(), "node-a", 1, start, ttl))(t); got != nil {
			t.Fatal("past the node's limit")
		}
	}
	e := must(db.Execution(t.Context(), waiting.ID))(t)
	if e.Reason != "waits for a free slot: 1 of 1 executions are running" {
		t.Errorf("reason %q", e.Reason)
	}
	if after := must(db.LastEventSeq(t.Context()))(t); after != before+1 {
		t.Errorf("%d events for one reason", after-before)
	}
	if got := must(db.Claim(t.Context(), "node-b", 1, start, ttl))(t); got == nil || got.ID != waiting.ID || got.Reason != "" {
		t.Errorf("another node claimed %v", got)
	}
	finish(t, db, first, agented.StateSuccess, start)
}

func TestUpdateTrigger_raised_limit(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	trigger := &agented.Trigger{Name: "A", Enabled: true, Spec: newExecution("", start).Snapshot}
	if err := db.CreateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		admit(t, db, trigger.ID, start)
	}
	count := func() (n int) {
		for claim(t, db, start) != nil {
			n++
		}
		return n
	}
	if n := count(); n != 1 {
		t.Fatalf("claimed %d with limit 1", n)
	}
	trigger.Spec.MaxConcurrent = 3
	if err := db.UpdateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 2 {
		t.Fatalf("claimed %d more with limit 3, want 2", n)
	}
	trigger.Spec.MaxConcurrent = 0
	if err := db.UpdateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 3 {
		t.Fatalf("claimed %d more without limit, want 3", n)
	}
}

func TestOverlapSkip(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	first := admit(t, db, "trg-a", start, overlap(agented.OverlapSkip))
	if first.State != agented.StatePending {
		t.Fatal("the first was skipped")
	}
	skipped := admit(t, db, "trg-a", start, overlap(agented.OverlapSkip), key("k"))
	if skipped.State != agented.StateCancelled || !strings.Contains(skipped.Reason, string(first.ID)) || skipped.FinishedAt.IsZero() {
		t.Errorf("skipped: %+v", skipped)
	}
	_, err := db.Admit(t.Context(), Admission{
		Execution: newExecution("trg-a", start), Overlap: agented.OverlapSkip, SkipIsConflict: true,
	}, start)
	wantKind(t, err, agented.Conflict)
	if !strings.Contains(agented.Message(err), string(first.ID)) {
		t.Error(err)
	}
	finish(t, db, claim(t, db, start), agented.StateSuccess, start)
	if e := admit(t, db, "trg-a", start, overlap(agented.OverlapSkip)); e.State != agented.StatePending {
		t.Error("skipped although nothing is under way")
	}
	if again := admit(t, db, "trg-a", start, overlap(agented.OverlapSkip), key("k")); again.ID != skipped.ID {
		t.Error("the key of a skipped firing made a new execution")
	}
}

func TestOverlapReplace(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "trg-a", start)
	running := claim(t, db, start)
	waiting := admit(t, db, "trg-a", start)
	unrelated := admit(t, db, "trg-b", start)
	got := must(db.Admit(t.Context(), Admission{Execution: newExecution("trg-a", start), MaxConcurrent: 1, Overlap: agented.OverlapReplace}, start))(t)
	if diff := cmp.Diff([]agented.ExecutionID{running.ID}, got.Replaced); diff != "" {
		t.Error(diff)
	}
	if e := must(db.Execution(t.Context(), waiting.ID))(t); e.State != agented.StateCancelled || e.Reason != "replaced by "+string(got.Execution.ID) {
		t.Errorf("waiting one: %+v", e)
	}
	if e := must(db.Execution(t.Context(), running.ID))(t); e.State != agented.StateRunning || !e.CancelAsked {
		t.Errorf("running one: %+v", e)
	}
	if e := must(db.Execution(t.Context(), unrelated.ID))(t); e.State != agented.StatePending {
		t.Errorf("another trigger's: %+v", e)
	}
	finish(t, db, running, agented.StateCancelled, start)
	ids := map[agented.ExecutionID]bool{claim(t, db, start).ID: true, claim(t, db, start).ID: true}
	if !ids[got.Execution.ID] || !ids[unrelated.ID] {
		t.Error("the new one did not run")
	}
}

func TestIdempotencyKey_restart(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/agented.db"
	db := openAt(t, path)
	first := admit(t, db, "trg-a", start, key("k"))
	for range 2 {
		got := must(db.Admit(t.Context(), Admission{Execution: newExecution("trg-a", start), IdempotencyKey: "k"}, start))(t)
		if !got.Repeated || got.Execution.ID != first.ID || got.Execution.Prompt != "do it" {
			t.Errorf("%+v", got)
		}
		if got := must(db.Admit(t.Context(), Admission{Execution: newExecution("trg-b", start), IdempotencyKey: "k"}, start))(t); got.Repeated && got.Execution.Trigger != "trg-b" {
			t.Error("the key of one trigger stands for another's execution")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = openAt(t, path)
	}
}

func TestIdempotencyKey_concurrent(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var mu sync.Mutex
	ids := map[agented.ExecutionID]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			got, err := db.Admit(t.Context(), Admission{Execution: newExecution("trg-a", start), IdempotencyKey: "k"}, start)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			ids[got.Execution.ID] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("%d executions for one key", len(ids))
	}
}

func TestLease_stale(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "trg-a", start)
	old := claim(t, db, start)
	if got := must(db.TakeOver(t.Context(), "node-b", start, ttl))(t); len(got) != 0 {
		t.Fatal("a live lease of another node was taken over")
	}
	later := start.Add(ttl)
	taken := must(db.TakeOver(t.Context(), "node-b", later, ttl))(t)
	if len(taken) != 1 || taken[0].ID != old.ID || taken[0].Lease.Token != 2 || taken[0].Lease.Owner != "node-b" || taken[0].Prompt == "" || len(taken[0].Attempts) != 1 {
		t.Fatalf("taken: %+v", taken)
	}
	wantKind(t, endAttempt(db, t.Context(), ended(old, agented.StateSuccess, later), old.Lease, later), agented.Conflict)
	wantKind(t, db.AttemptStarted(t.Context(), old.ID, old.Lease, 1, "", agented.Isolation{}, later), agented.Conflict)
	// The same node after a restart has a new token, too.
	again := must(db.TakeOver(t.Context(), "node-b", later, ttl))(t)
	wantKind(t, endAttempt(db, t.Context(), ended(taken[0], agented.StateSuccess, later), taken[0].Lease, later), agented.Conflict)
	finish(t, db, again[0], agented.StateFailed, later)
	if e := must(db.Execution(t.Context(), old.ID))(t); e.State != agented.StateFailed || e.Lease.Owner != "" {
		t.Errorf("%+v", e)
	}
}

func TestLease_renewed(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "trg-a", start)
	e := claim(t, db, start)
	if err := db.RenewLeases(t.Context(), "node-a", start.Add(20*time.Second), ttl); err != nil {
		t.Fatal(err)
	}
	if got := must(db.StaleRunning(t.Context(), start.Add(49*time.Second)))(t); len(got) != 0 {
		t.Error("stale before its lease ran out")
	}
	if got := must(db.TakeOverExpired(t.Context(), "node-b", start.Add(49*time.Second), start.Add(time.Hour), ttl))(t); len(got) != 0 {
		t.Error("taken over before its time")
	}
	got := must(db.TakeOverExpired(t.Context(), "node-b", start.Add(50*time.Second), start.Add(time.Hour), ttl))(t)
	if len(got) != 1 || got[0].ID != e.ID || got[0].Lease.Owner != "node-b" || !got[0].Lease.ExpiresAt.Equal(start.Add(time.Hour+ttl)) {
		t.Errorf("%+v", got)
	}
}

func TestEndAttempt_after_cancel_request(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "trg-a", start)
	e := claim(t, db, start)
	for range 2 {
		got := must(db.RequestCancel(t.Context(), e.ID, "ann", start))(t)
		if got.State != agented.StateRunning || !got.CancelAsked || got.EventSeq != 3 {
			t.Fatalf("%+v", got)
		}
	}
	end := ended(e, agented.StateFailed, start)
	end.Next = agented.StatePending
	if err := endAttempt(db, t.Context(), end, e.Lease, start); err != nil {
		t.Fatal(err)
	}
	if got := must(db.Execution(t.Context(), e.ID))(t); got.State != agented.StateCancelled || got.Reason != "cancelled by ann" || got.FinishedAt.IsZero() {
		t.Errorf("%+v", got)
	}
}

func TestEndAttempt_invalid_state(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	admit(t, db, "trg-a", start)
	e := claim(t, db, start)
	end := ended(e, agented.StateSuccess, start)
	end.Next = agented.StateRunning
	if err := endAttempt(db, t.Context(), end, e.Lease, start); err == nil {
		t.Error("running became running")
	}
	end.Next, end.Attempt.State = agented.StateSuccess, agented.StatePending
	if err := endAttempt(db, t.Context(), end, e.Lease, start); err == nil {
		t.Error("an attempt ended as pending")
	}
}

func TestEndAttempt_usage(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	f := func(v float64) *float64 { return &v }
	for _, c := range []struct {
		name string
		in   []agented.Attempt
		want agented.Usage
	}{
		{"nothing known", []agented.Attempt{{}, {}}, agented.Usage{}},
		{"unknown is not zero", []agented.Attempt{{Usage: agented.Usage{InputTokens: n(0)}}, {}}, agented.Usage{InputTokens: n(0)}},
		{
			"sum",
			[]agented.Attempt{{Usage: agented.Usage{InputTokens: n(2), CostUSD: f(1)}}, {Usage: agented.Usage{InputTokens: n(3), OutputTokens: n(4), CostUSD: f(.5)}}},
			agented.Usage{InputTokens: n(5), OutputTokens: n(4), CostUSD: f(1.5)},
		},
		{"one session counted as a whole", []agented.Attempt{
			{SessionID: "s", Usage: agented.Usage{InputTokens: n(2), CumulativeSession: true}},
			{SessionID: "s", Usage: agented.Usage{InputTokens: n(7), CumulativeSession: true}},
			{SessionID: "r", Usage: agented.Usage{InputTokens: n(1), CumulativeSession: true}},
		}, agented.Usage{InputTokens: n(8), CumulativeSession: true}},
	} {
		if diff := cmp.Diff(c.want, total(c.in)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestExpire_deletes_all_rows(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	e := admit(t, db, "trg-a", start, key("k"))
	if _, err := db.RequestCancel(t.Context(), e.ID, "ann", start); err != nil {
		t.Fatal(err)
	}
	all := RetentionLimits{ExecutionsBefore: start.Add(time.Hour)}
	if got := must(db.Expire(t.Context(), all, start))(t); got.Executions != 0 {
		t.Errorf("removed before its files were cleaned up: %+v", got)
	}
	if ids := must(db.PendingCleanups(t.Context(), 10))(t); len(ids) != 1 {
		t.Errorf("pending cleanups: %v", ids)
	}
	if err := db.CleanupDoneWithBytes(t.Context(), e.ID, 0); err != nil {
		t.Fatal(err)
	}
	if ids := must(db.PendingCleanups(t.Context(), 10))(t); len(ids) != 0 {
		t.Errorf("pending cleanups: %v", ids)
	}
	if got := must(db.Expire(t.Context(), all, start))(t); got.Executions != 1 {
		t.Errorf("removed: %+v", got)
	}
	_, err := db.Execution(t.Context(), e.ID)
	wantKind(t, err, agented.NotFound)
	var n int
	err = db.row(t.Context(), `SELECT (SELECT COUNT(*) FROM execution_text) + (SELECT COUNT(*) FROM idempotency) + (SELECT COUNT(*) FROM attempt)`).Scan(&n)
	if err != nil || n != 0 {
		t.Errorf("%d rows are left, error %v", n, err)
	}
	if c := must(db.Counts(t.Context()))(t); c[agented.StateCancelled] != 0 {
		t.Errorf("counts: %v", c)
	}
}

func TestDeleteTrigger_keeps_history(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	trigger := &agented.Trigger{Name: "A", Enabled: true}
	if err := db.CreateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	admit(t, db, trigger.ID, start)
	running := claim(t, db, start)
	waiting := admit(t, db, trigger.ID, start)
	if err := db.DeleteTrigger(t.Context(), trigger.ID, "ann"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, db.DeleteTrigger(t.Context(), trigger.ID, "ann"), agented.NotFound)
	if e := must(db.Execution(t.Context(), waiting.ID))(t); e.State != agented.StateCancelled || e.Reason != "its trigger was deleted" {
		t.Errorf("waiting: %+v", e)
	}
	finish(t, db, running, agented.StateSuccess, start)
	list, _, err := db.Executions(t.Context(), ExecutionFilter{Trigger: trigger.ID}, Page{})
	if err != nil || len(list) != 2 || list[0].TriggerName == "" {
		t.Errorf("history: %v, %v", list, err)
	}
}

func TestAdmit_with_claim(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var told []agented.ExecutionEvent
	db.OnChange(func(e agented.ExecutionEvent) { told = append(told, e) })
	claimed := func(trigger agented.TriggerID, limit int) AdmitResult {
		t.Helper()
		told = nil
		x := newExecution(trigger, start)
		got, err := db.Admit(t.Context(), Admission{
			Execution: x, MaxConcurrent: 1, Overlap: agented.OverlapQueue,
			Claim: &ClaimRequest{Node: "node-x", Limit: limit, TTL: ttl},
		}, start)
		if err != nil || got.Execution.ID != x.ID || got.Execution.State != agented.StatePending {
			t.Fatalf("%+v, %v", got, err)
		}
		return got
	}
	// Nothing precedes it: it is claimed, and both changes are reported.
	first := claimed("trg-a", 10)
	if e := first.Claimed; e == nil || e.ID != first.Execution.ID || e.State != agented.StateRunning || e.AttemptNo != 1 || e.Lease.Owner != "node-x" {
		t.Fatalf("claimed %+v", e)
	}
	if len(told) != 2 || told[0].Execution.State != agented.StatePending || told[1].Execution.State != agented.StateRunning || told[0].Seq >= told[1].Seq {
		t.Errorf("told %+v", told)
	}
	// Its trigger has no free slot.
	if second := claimed("trg-a", 10); second.Claimed != nil || must(db.Execution(t.Context(), second.Execution.ID))(t).State != agented.StatePending {
		t.Errorf("claimed %+v beside one that runs", second.Claimed)
	}
	// The node has no free slot.
	if third := claimed("trg-b", 1); third.Claimed != nil {
		t.Errorf("claimed %+v on a full node", third.Claimed)
	}
	// Another one precedes it.
	earlier := admit(t, db, "trg-c", start)
	if got := claimed("trg-d", 10); got.Claimed == nil || got.Claimed.ID == got.Execution.ID {
		t.Errorf("claimed %+v, not one that waited before (%s among them)", got.Claimed, earlier.ID)
	}
}

// An error in the queue does not prevent an admission.
func TestAdmit_failed_claim(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	if err := db.write(t.Context(), "test", func(tx *tx) error { return tx.exec(`ALTER TABLE budget RENAME TO lost`) }); err != nil {
		t.Fatal(err)
	}
	got, err := db.Admit(t.Context(), Admission{
		Execution: newExecution("", start), Overlap: agented.OverlapQueue,
		Claim: &ClaimRequest{Node: "node-x", Limit: 10, TTL: ttl},
	}, start)
	if err != nil || got.Claimed != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := db.Claim(t.Context(), "node-x", 10, start, ttl); err == nil {
		t.Fatal("a claim does not fail here, so this says nothing")
	}
	if e := must(db.Execution(t.Context(), got.Execution.ID))(t); e.State != agented.StatePending {
		t.Errorf("it is %s", e.State)
	}
}

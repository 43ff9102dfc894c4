package store

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestClaim_statements(t *testing.T) {
	const most = 16 // including BEGIN and COMMIT
	var counts []int
	for _, waiting := range []int{1, 500} {
		db := openNew(t)
		for range waiting {
			admit(t, db, "", start)
		}
		n := 0
		db.engine.Trace(func(string) { n++ })
		e, err := db.Claim(t.Context(), "node-x", 1000, start, ttl)
		db.engine.Trace(nil)
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		counts = append(counts, n)
	}
	t.Logf("%v statements", counts)
	if counts[0] != counts[1] || counts[1] > most {
		t.Errorf("a claim took %d statements with one execution that waits and %d with 500, want the same and at most %d", counts[0], counts[1], most)
	}
}

func TestTakeOver_statements(t *testing.T) {
	const most = 10 // including BEGIN and COMMIT
	var counts []int
	for _, running := range []int{1, 200} {
		db := openNew(t)
		for range running {
			admit(t, db, "", start)
			if e, err := db.Claim(t.Context(), "node-x", 1000, start, ttl); err != nil || e == nil {
				t.Fatal(e, err)
			}
		}
		n := 0
		db.engine.Trace(func(string) { n++ })
		list, err := db.TakeOver(t.Context(), "node-x", start, ttl)
		db.engine.Trace(nil)
		if err != nil || len(list) != running {
			t.Fatal(len(list), err)
		}
		for _, e := range list {
			if e.Lease.Token != 2 || len(e.Attempts) != 1 || len(e.Snapshot.Command) == 0 {
				t.Fatalf("taken over: %+v", e)
			}
		}
		counts = append(counts, n)
	}
	t.Logf("%v statements", counts)
	if counts[0] != counts[1] || counts[1] > most {
		t.Errorf("a take-over took %d statements with one execution that runs and %d with 200, want the same and at most %d", counts[0], counts[1], most)
	}
}

// statementsOf counts the writer's statements for jobs that share a
// transaction.
func statementsOf(t *testing.T, db *DB, jobs ...DeliveryAdmission) int {
	t.Helper()
	n := 0
	db.engine.Trace(func(string) { n++ })
	err := db.write(t.Context(), "admit", func(tx *tx) error {
		for _, a := range jobs {
			if _, err := tx.admitDelivery(a, a.Body, false, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	db.engine.Trace(nil)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAdmitDelivery_statements(t *testing.T) {
	db := openNew(t)
	var events int
	db.OnChange(func(agented.ExecutionEvent) { events++ })
	tr := hooked(t, db, "t")
	tr.Spec.MaxConcurrent = 1
	rules := db.HookVersion()
	fresh := func(n int) (list []DeliveryAdmission) {
		for range n {
			a := call(agented.NewID("key", time.Now()), []byte("{}"), tr)
			a.Rules = rules
			list = append(list, a)
		}
		return list
	}
	again := func(list []DeliveryAdmission) (out []DeliveryAdmission) {
		for _, a := range list {
			a.Delivery.ID = agented.DeliveryID(agented.NewID("dlv", time.Now()))
			out = append(out, a)
		}
		return out
	}
	statementsOf(t, db, fresh(1)...) // a waiting job makes the following ones wait too
	for _, c := range []struct {
		what    string
		jobs    []DeliveryAdmission
		most, n int
	}{
		// BEGIN, COMMIT, the version of the rules, the load of the trigger and
		// the event number, and for each delivery: the delivery, its body, the
		// execution, its text, and the result for the trigger.
		{"alone", fresh(1), 5 + 5, 1},
		// Also the last event number.
		{"in a group of 32", fresh(32), 6 + 32*5, 32},
	} {
		events = 0
		if n := statementsOf(t, db, c.jobs...); n > c.most {
			t.Errorf("%s: %d statements, want at most %d", c.what, n, c.most)
		}
		if events != c.n {
			t.Errorf("%s: %d events of %d executions", c.what, events, c.n)
		}
		// BEGIN, COMMIT, the version of the rules, and for each: the row that
		// its key rejects, the first delivery with its results, and its own
		// row.
		if n, most := statementsOf(t, db, again(c.jobs)...), 3+4*len(c.jobs); n > most {
			t.Errorf("%s, repeated: %d statements, want at most %d", c.what, n, most)
		}
	}
}

// The event of an execution that was only inserted is not read from the
// database, and must equal the stored row.
func TestOnChange_new_execution(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	told := map[agented.ExecutionID]*agented.Execution{}
	db.OnChange(func(e agented.ExecutionEvent) { told[e.Execution.ID] = e.Execution })
	now := time.Now()
	plain := hooked(t, db, "plain")
	limited := hooked(t, db, "limited")
	limited.Spec.MaxConcurrent = 1
	skips := hooked(t, db, "skips")
	skips.Spec.Overlap = agented.OverlapSkip
	replaces := hooked(t, db, "replaces")
	replaces.Spec.Overlap = agented.OverlapReplace
	due := agented.Origin{Kind: agented.SourceSchedule, Schedule: "sch-x", DueAt: now.UTC().Round(0)}
	for i := range 3 {
		a := call(fmt.Sprint(i), []byte("{}"), plain, limited, skips, replaces)
		e := a.Triggers[0].Admission.Execution
		e.Actor, e.Reason, e.Prompt, e.Result, e.ProbeAccount = "someone", "a reason", "a prompt", "none yet", "acc-x"
		e.Chain, e.Cause, e.ScheduledAt = agented.Chain{ID: "chn-x", Depth: 2, Parent: "msg-x"}, &due, now.Add(time.Hour)
		if i == 2 {
			e.RetryOf, e.Chain, e.Cause = a.Triggers[1].Admission.Execution.ID, agented.Chain{Depth: 7}, nil
		}
		must(db.AdmitDelivery(t.Context(), a, now))(t)
	}
	states := map[agented.State]int{}
	for id, got := range told {
		states[got.State]++
		var list []agented.Execution
		err := db.read(t.Context(), "look", func(r *reader) (err error) {
			list, err = loadBrief(r, []agented.ExecutionID{id})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := &list[0]; !reflect.DeepEqual(got, want) {
			t.Errorf("told\n\t%+v\nthere is\n\t%+v", got, want)
		}
	}
	if len(told) != 12 || states[agented.StateCancelled] != 4 {
		t.Errorf("%d were told of, %v", len(told), states)
	}
}

func TestGroup_rollback_keeps_event_order(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	var seqs []int64
	db.OnChange(func(e agented.ExecutionEvent) { seqs = append(seqs, e.Seq) })
	tr := hooked(t, db, "t")
	type job func(*tx) error
	admitAs := func(id agented.ExecutionID) job {
		a := call(agented.NewID("key", time.Now()), []byte("{}"), tr)
		if id != "" {
			a.Triggers[0].Admission.Execution.ID = id
		}
		return func(tx *tx) error {
			_, err := tx.admitDelivery(a, a.Body, false, time.Now())
			return err
		}
	}
	const taken = "exec-taken"
	failed := func(jobs ...job) (n int) { // as in a group with a failing job
		t.Helper()
		err := db.write(t.Context(), "admit", func(tx *tx) error {
			for _, j := range jobs {
				failed, err := tx.Savepoint(func() error { return j(tx) })
				if err != nil {
					return err
				}
				if failed != nil {
					n++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := failed(admitAs(taken), admitAs(taken), admitAs("")); n != 1 {
		t.Errorf("%d of the first group failed", n)
	}
	if n := failed(admitAs(taken), admitAs(""), admitAs(taken)); n != 2 {
		t.Errorf("%d of the second group failed", n)
	}
	if n := failed(admitAs(taken)); n != 1 {
		t.Errorf("%d of the third group failed", n)
	}
	if want := []int64{1, 2, 3}; !slices.Equal(seqs, want) {
		t.Errorf("the changes have the numbers %v, want %v", seqs, want)
	}
	if last := must(db.LastEventSeq(t.Context()))(t); last != 3 {
		t.Errorf("the last number that is kept is %d", last)
	}
}

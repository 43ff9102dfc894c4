package store

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
)

// call is a delivery that fires the triggers.
func call(key string, body []byte, fires ...*agented.Trigger) DeliveryAdmission {
	now := time.Now()
	a := DeliveryAdmission{
		Delivery: agented.Delivery{
			ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: agented.EndpointGitHub, Key: key, ReceivedAt: now,
			Address: "192.0.2.7", Headers: map[string]string{"X-Github-Event": "push"}, Event: "push", Size: int64(len(body)),
		},
		Body: body,
	}
	for _, t := range fires {
		e := &agented.Execution{
			ID: agented.ExecutionID(agented.NewID("exec", now)), Trigger: t.ID, TriggerName: t.Name, Backend: t.Spec.Backend,
			Source: agented.SourceGitHub, Snapshot: t.Spec, CreatedAt: now, ScheduledAt: now,
			Cause: &agented.Origin{Kind: agented.SourceGitHub, Delivery: a.Delivery.ID},
		}
		a.Triggers = append(a.Triggers, DeliveryFiring{
			DeliveryTrigger: agented.DeliveryTrigger{Trigger: t.ID, TriggerName: t.Name, Webhook: "whk-x"},
			Admission:       &Admission{Execution: e, Overlap: t.Spec.Overlap, MaxConcurrent: t.Spec.MaxConcurrent},
		})
	}
	return a
}

func hooked(t *testing.T, db *DB, name string) *agented.Trigger {
	t.Helper()
	tr := &agented.Trigger{
		Name: name, Enabled: true, Spec: agented.Spec{Backend: "command", Command: []string{"true"}, Overlap: agented.OverlapQueue},
		Webhooks: []agented.Webhook{{ID: "whk-" + name, Source: agented.SourceGitHub, Enabled: true, Match: []byte(`{"events":["push"]}`), Secret: "sealed"}},
	}
	if err := db.CreateTrigger(t.Context(), tr, "test"); err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestAdmitDelivery_repetition(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	db := openAt(t, path)
	a, b := hooked(t, db, "a"), hooked(t, db, "b")
	body := []byte(strings.Repeat(`{"x":1}`, 300))
	first := must(db.AdmitDelivery(t.Context(), call("github:1", body, a, b), time.Now()))(t)
	if first.Duplicate || first.Delivery.Verdict != agented.VerdictAccepted || len(first.Delivery.Executions()) != 2 {
		t.Fatalf("%+v", first)
	}
	e := must(db.Execution(t.Context(), first.Delivery.Executions()[0]))(t)
	if e.Cause == nil || e.Cause.Delivery != first.Delivery.ID || e.State != agented.StatePending {
		t.Errorf("the execution does not name its delivery: %+v", e.Cause)
	}
	if got := must(db.DeliveryBody(t.Context(), first.Delivery.ID))(t); !bytes.Equal(got, body) {
		t.Errorf("the body came back as %.100q", got)
	}
	if n := must(db.PruneDeliveries(t.Context(), DeliveryLimits{MaxBytes: 0, MaxRows: 10}))(t); n != 1 {
		t.Errorf("%d bodies were pruned", n)
	}
	if _, err := db.DeliveryBody(t.Context(), first.Delivery.ID); agented.KindOf(err) != agented.NotFound {
		t.Errorf("a pruned body: %v", err)
	}
	db.Close()
	db = openAt(t, path)
	again := must(db.AdmitDelivery(t.Context(), call("github:1", []byte("another body"), a, b), time.Now()))(t)
	if !again.Duplicate || again.Delivery.ID != first.Delivery.ID || fmt.Sprint(again.Delivery.Executions()) != fmt.Sprint(first.Delivery.Executions()) {
		t.Errorf("a repetition after a restart and a prune: %+v", again)
	}
	other := must(db.AdmitDelivery(t.Context(), call("github:2", body, a), time.Now()))(t)
	if other.Duplicate || other.Delivery.Executions()[0] == first.Delivery.Executions()[0] {
		t.Error("another delivery with the same body did not run")
	}
	list, _, err := db.Deliveries(t.Context(), DeliveryFilter{Verdict: agented.VerdictDuplicate}, Page{})
	if err != nil || len(list) != 1 || list[0].DuplicateOf != first.Delivery.ID {
		t.Errorf("%v %+v", err, list)
	}
	if n := must(db.Counts(t.Context()))(t)[agented.StatePending]; n != 3 {
		t.Errorf("%d executions wait", n)
	}
}

func TestAdmitDelivery_concurrent_repetitions(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "t")
	var wg sync.WaitGroup
	ids := make([]agented.ExecutionID, 32)
	for i := range ids {
		wg.Go(func() {
			got, err := db.AdmitDelivery(context.Background(), call("github:same", []byte("{}"), tr), time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = got.Delivery.Executions()[0]
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("%s and %s", id, ids[0])
		}
	}
}

func TestAdmitDelivery_stale_rules(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "t")
	list, version, err := db.HookTriggers(t.Context())
	if err != nil || len(list) != 1 || string(list[0].Webhooks[0].Match) != `{"events":["push"]}` {
		t.Fatalf("%v %+v", err, list)
	}
	a := call("github:1", []byte("{}"), tr)
	a.Rules = version
	if err := db.DeleteTrigger(t.Context(), tr.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if got := must(db.AdmitDelivery(t.Context(), a, time.Now()))(t); !got.Stale {
		t.Errorf("%+v", got)
	}
	if all, _, err := db.Deliveries(t.Context(), DeliveryFilter{}, Page{}); err != nil || len(all) != 0 {
		t.Errorf("%v %+v", err, all)
	}
	if list, now, err := db.HookTriggers(t.Context()); err != nil || len(list) != 0 || now == version {
		t.Errorf("%v %+v %s", err, list, now)
	}
}

func TestAdmitDelivery_supersede(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "t")
	about := func(key, subject string) agented.ExecutionID {
		a := call(key, []byte("{}"), tr)
		a.Triggers[0].Admission.Subject, a.Triggers[0].Admission.Supersede = subject, true
		a.Triggers[0].Admission.Overlap = agented.OverlapSkip
		if subject == "o/r#8" {
			a.Triggers[0].Admission.Overlap = agented.OverlapQueue
		}
		got := must(db.AdmitDelivery(t.Context(), a, time.Now()))(t)
		return got.Delivery.Executions()[0]
	}
	state := func(id agented.ExecutionID) *agented.Execution { return must(db.Execution(t.Context(), id))(t) }
	first := about("1", "o/r#7")
	other := about("2", "o/r#8")
	second := about("3", "o/r#7")
	if e := state(first); e.State != agented.StateCancelled || !strings.Contains(e.Reason, string(second)) {
		t.Errorf("the older one is %s: %s", e.State, e.Reason)
	}
	if e := state(other); e.State != agented.StatePending {
		t.Errorf("the one about another subject is %s", e.State)
	}
	if e := must(db.Claim(t.Context(), "node-1", 5, time.Now(), time.Minute))(t); e.ID != other {
		t.Fatalf("claimed %s", e.ID)
	}
	running := must(db.Claim(t.Context(), "node-1", 5, time.Now(), time.Minute))(t)
	if running == nil || running.ID != second {
		t.Fatalf("claimed %+v", running)
	}
	third := about("4", "o/r#7")
	if e := state(second); !e.CancelAsked || e.State != agented.StateRunning {
		t.Errorf("the running one: %+v", e)
	}
	if e := state(third); e.State != agented.StatePending {
		t.Errorf("the newest one is %s: %s", e.State, e.Reason)
	}
}

func TestPruneDeliveries(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "t")
	incompressible := make([]byte, 1000)
	for i := range incompressible {
		incompressible[i] = byte(rand.Int())
	}
	var kept []agented.DeliveryID
	began := time.Now().Add(-time.Minute)
	for i := range 10 {
		a := call(fmt.Sprint(i), incompressible, tr)
		a.Delivery.ReceivedAt = began.Add(time.Duration(i) * time.Second)
		a.Delivery.ID = agented.DeliveryID(agented.NewID("dlv", a.Delivery.ReceivedAt))
		got := must(db.AdmitDelivery(t.Context(), a, time.Now()))(t)
		kept = append(kept, got.Delivery.ID)
	}
	for range 20 {
		now := time.Now()
		if err := db.RejectDelivery(t.Context(), agented.Delivery{ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: "github", ReceivedAt: now}); err != nil {
			t.Fatal(err)
		}
	}
	n := must(db.PruneDeliveries(t.Context(), DeliveryLimits{Before: time.Now().Add(-time.Hour), MaxBytes: 5100, MaxRows: 5}))(t)
	if n < 5 || n > 6 {
		t.Errorf("%d bodies went", n)
	}
	for i, id := range kept {
		if d := must(db.Delivery(t.Context(), id))(t); d.BodyKept != (i >= n) || len(d.Executions()) != 1 {
			t.Errorf("delivery %d: %+v", i, d)
		}
	}
	list, _, err := db.Deliveries(t.Context(), DeliveryFilter{Verdict: agented.VerdictRejected}, Page{})
	if err != nil || len(list) != 5 {
		t.Errorf("%d refused calls are kept (%v)", len(list), err)
	}
	var ids []agented.DeliveryID
	for p := (Page{Limit: 4}); ; {
		list, next, err := db.Deliveries(t.Context(), DeliveryFilter{Trigger: tr.ID, Event: "push", Endpoint: "github", After: began, Before: time.Now()}, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			ids = append([]agented.DeliveryID{d.ID}, ids...)
		}
		if p.Cursor = next; next == "" {
			break
		}
	}
	if fmt.Sprint(ids) != fmt.Sprint(kept) {
		t.Errorf("paged: %v, want %v", ids, kept)
	}
}

func TestGroup_independent_deliveries(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "t")
	hold := make(chan struct{})
	held := make(chan struct{})
	go db.write(context.Background(), "hold", func(*tx) error { close(held); <-hold; return nil })
	<-held
	await := func(ok func(jobs int, working bool) bool) {
		for !ok(db.groups.Waiting()) {
			time.Sleep(time.Millisecond) // polling interval
		}
	}
	const n = 40
	var wg sync.WaitGroup
	errs := make([]error, n)
	taken := agented.ExecutionID(agented.NewID("exec", time.Now()))
	for i := range n {
		a := call(fmt.Sprint(i), []byte("{}"), tr)
		if i%4 == 0 {
			a.Triggers[0].Admission.Execution.ID = taken // one of these is the first; the others must leave no trace
		}
		wg.Go(func() { _, errs[i] = db.AdmitDelivery(context.Background(), a, time.Now()) })
		if i == 0 {
			await(func(jobs int, working bool) bool { return working && jobs == 0 }) // it waits for the writer
		}
	}
	await(func(jobs int, _ bool) bool { return jobs == n-1 })
	close(hold)
	wg.Wait()
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			if i%4 != 0 || agented.KindOf(err) != agented.Conflict {
				t.Errorf("delivery %d: %v", i, err)
			}
		}
	}
	list, _, err := db.Deliveries(t.Context(), DeliveryFilter{}, Page{Limit: 100})
	if failed != n/4-1 || err != nil || len(list) != n-failed {
		t.Errorf("%d failed, %d are stored (%v)", failed, len(list), err)
	}
	if pending := must(db.Counts(t.Context()))(t)[agented.StatePending]; pending != int64(n-failed) {
		t.Errorf("%d executions wait", pending)
	}
}

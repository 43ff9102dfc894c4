package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/agented/agented"
)

// TestAdmitDelivery_ping_pong lets two triggers answer each other's comments: each event joins the
// chain of the execution that wrote the comment, and the limit of the chain ends it.
func TestAdmitDelivery_ping_pong(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	triggers := []*agented.Trigger{hooked(t, db, "ping"), hooked(t, db, "pong")}
	var by agented.ExecutionID
	for depth := range 5 {
		a := call(fmt.Sprint("github:", depth), nil, triggers[depth%2])
		a.CausedBy, a.Repository, a.Limits = by, "Octo/Widgets", agented.ChainLimits{Depth: 3}
		now := time.Now().UTC().Truncate(time.Microsecond).Add(time.Second) // the execution is due
		got := must(db.AdmitDelivery(t.Context(), a, now))(t)
		if depth == 4 {
			if r := got.Delivery.Triggers[0]; len(got.Delivery.Executions()) != 0 || r.Rule != "chain" || r.Reason == "" || got.Delivery.Verdict != agented.VerdictIgnored {
				t.Fatalf("beyond the limit: %+v", got.Delivery)
			}
			return
		}
		e := claim(t, db, now)
		if e.Chain.Depth != depth || depth > 0 && e.Chain.Parent != string(by) {
			t.Fatalf("execution %d has the chain %+v", depth, e.Chain)
		}
		end := ended(e, agented.StateSuccess, now)
		end.Publications = []agented.Publication{{Attempt: 1, Kind: agented.PublishesComment, Status: agented.PublicationPending, Repository: "octo/widgets", Proposal: []byte("{}")}}
		if _, err := db.EndAttempt(t.Context(), end, e.Lease, now); err != nil {
			t.Fatal(err)
		}
		by = e.ID
	}
}

func TestAdmitDelivery_forged_cause(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	tr := hooked(t, db, "a")
	now := time.Now()
	e := admit(t, db, tr.ID, now) // it published nothing
	a := call("github:1", nil, tr)
	a.CausedBy, a.Repository, a.Limits = e.ID, "octo/widgets", agented.DefaultChainLimits
	got := must(db.AdmitDelivery(t.Context(), a, now))(t)
	fired := must(db.Execution(t.Context(), got.Delivery.Executions()[0]))(t)
	if fired.Chain.ID != "" {
		t.Errorf("chain %+v", fired.Chain)
	}
}

func TestPublications_only_of_success(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, state := range []agented.State{agented.StateFailed, agented.StateSuccess} {
		admit(t, db, "", now)
		e := claim(t, db, now)
		end := ended(e, state, now)
		end.Publications = []agented.Publication{{Attempt: 1, Kind: agented.PublishesComment, Status: agented.PublicationPending, Repository: "o/r", Proposal: []byte("{}")}}
		if _, err := db.EndAttempt(t.Context(), end, e.Lease, now); err != nil {
			t.Fatal(err)
		}
		list := must(db.Publications(t.Context(), e.ID))(t)
		if want := state == agented.StateSuccess; (len(list) == 1) != want {
			t.Errorf("%s: %d publications", state, len(list))
		}
	}
}

// TestOpenPublications_pending_first has held publications, of which any number may wait for weeks,
// before a pending one.
func TestOpenPublications_pending_first(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	admit(t, db, "", now)
	e := claim(t, db, now)
	end := ended(e, agented.StateSuccess, now)
	for _, s := range []agented.PublicationStatus{agented.PublicationHeld, agented.PublicationHeld, agented.PublicationPending} {
		end.Publications = append(end.Publications, agented.Publication{Attempt: 1, Kind: agented.PublishesComment, Status: s, Repository: "o/r", Proposal: []byte("{}")})
	}
	if _, err := db.EndAttempt(t.Context(), end, e.Lease, now); err != nil {
		t.Fatal(err)
	}
	if list := must(db.OpenPublications(t.Context(), 1))(t); len(list) != 1 || list[0].Number != 3 {
		t.Errorf("%+v", list)
	}
}

package store

import (
	"fmt"
	"slices"
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

// TestPublished evaluates expect.published again when the publication has its final status. The
// execution keeps its status.
func TestPublished(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		expects agented.PublicationKind
		status  agented.PublicationStatus
		met     bool
		notices []string
	}{
		{"published", "pull_request", agented.PublicationPublished, true, nil},
		{"refused", "pull_request", agented.PublicationRefused, false, []string{"all no_effect the pull request was refused by the rule base: It is a fork."}},
		{"failed", "pull_request", agented.PublicationFailed, false, []string{"all no_effect the pull request could not be published: It is a fork."}},
		{"superseded", "pull_request", agented.PublicationSuperseded, false, nil},
		{"rejected", "pull_request", agented.PublicationRejected, false, []string{"all held pull request for o/r waits for an approval", "all no_effect the pull request was rejected: rejected by ann"}},
		{"another kind", "comment", agented.PublicationFailed, true, nil},
		{"no contract", "", agented.PublicationFailed, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db := openNew(t)
			addChannel(t, db, "all", `["no_effect","held","failed"]`)
			now := time.Now().UTC().Truncate(time.Microsecond)
			admit(t, db, "", now, func(a *Admission) {
				if c.expects != "" {
					a.Execution.Snapshot.Expect = &agented.Expect{Published: c.expects}
				}
			})
			e := claim(t, db, now)
			end := ended(e, agented.StateSuccess, now)
			end.Publications = []agented.Publication{{Attempt: 1, Kind: agented.PublishesPullRequest, Status: agented.PublicationPending, Repository: "o/r", Proposal: []byte("{}")}}
			if c.expects != "" {
				end.Attempt.Contract = &agented.Contract{Met: true, Clauses: []agented.Clause{
					{Name: "text.not_empty", Met: true}, {Name: agented.ClausePublished, Met: true, Pending: true, Text: "so far"},
				}}
			}
			if err := endAttempt(db, t.Context(), end, e.Lease, now); err != nil {
				t.Fatal(err)
			}
			p := must(db.Publications(t.Context(), e.ID))(t)[0]
			p.Reason, p.Rule, p.URL = "It is a fork.", "base", "https://forge.example/o/r/pull/1"
			if p.Status = c.status; c.status == agented.PublicationRejected {
				p.Status = agented.PublicationHeld
			}
			if err := db.SetPublication(t.Context(), &p, now); err != nil {
				t.Fatal(err)
			}
			if c.status == agented.PublicationRejected {
				must(db.DecidePublication(t.Context(), e.ID, 1, false, "ann", time.Time{}, now))(t)
			}
			got := must(db.Execution(t.Context(), e.ID))(t)
			if got.State != agented.StateSuccess {
				t.Errorf("the execution is %s", got.State)
			}
			if list := noticed(t, db); !slices.Equal(list, c.notices) {
				t.Errorf("notifications %q, want %q", list, c.notices)
			}
			contract := got.Attempts[0].Contract
			if c.expects == "" {
				if contract != nil {
					t.Errorf("contract %+v", contract)
				}
				return
			}
			clause := contract.Clauses[1]
			if contract.Met != c.met || clause.Met != c.met || clause.Pending != (c.expects != "pull_request") || len(contract.Clauses) != 2 {
				t.Errorf("met %v: %+v", contract.Met, contract.Clauses)
			}
			if c.status == agented.PublicationPublished && clause.Evidence != p.URL {
				t.Errorf("evidence %q", clause.Evidence)
			}
		})
	}
}

// TestOpenPublications_fair has many publications of one repository before one of another.
func TestOpenPublications_fair(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	admit(t, db, "", now)
	e := claim(t, db, now)
	end := ended(e, agented.StateSuccess, now)
	for _, repo := range []string{"o/busy", "O/Busy", "o/busy", "o/busy", "o/other"} {
		end.Publications = append(end.Publications, agented.Publication{Attempt: 1, Kind: agented.PublishesComment, Status: agented.PublicationPending, Repository: repo, Proposal: []byte("{}")})
	}
	if err := endAttempt(db, t.Context(), end, e.Lease, now); err != nil {
		t.Fatal(err)
	}
	if list := must(db.OpenPublications(t.Context(), 3))(t); len(list) != 3 || list[0].Number != 1 || list[1].Number != 5 || list[2].Number != 2 {
		t.Errorf("%+v", list)
	}
}

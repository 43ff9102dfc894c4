package store

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
)

// addChannel stores a channel that wants the kinds from every trigger.
func addChannel(t testing.TB, db *DB, name, kinds string) {
	t.Helper()
	db.ChannelsChanged()
	err := db.Update(t.Context(), "channel", func(tx Tx) error {
		return tx.Exec(`INSERT INTO channel (id, name, name_key, kind, enabled, settings, events, created_at, created_by, updated_at)
			VALUES ($1, $2, $3, 'webhook', TRUE, '{}', $4, 0, 'ann', 0)`, "chan-"+name, name, fold(name), kinds)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// noticed lists the stored notifications as channel kind text, in order.
func noticed(t testing.TB, db *DB) []string {
	t.Helper()
	rows, err := db.query(t.Context(), `SELECT substr(channel_id, 6) || ' ' || kind || ' ' || text FROM notification ORDER BY seq`)
	list, err := collect(rows, err, func(s *string, scan func(...any) error) error { return scan(s) })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// runAs runs an execution of a trigger until it ends in a state.
func runAs(t testing.TB, db *DB, trigger agented.TriggerID, state agented.State, at time.Time) *agented.Execution {
	t.Helper()
	admit(t, db, trigger, at)
	e, err := db.Claim(t.Context(), "node-x", 100, at, ttl)
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	end := ended(e, state, at)
	if end.Reason = ""; state != agented.StateSuccess {
		end.Reason = "exit status 1"
	}
	if err := endAttempt(db, t.Context(), end, e.Lease, at); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestNotify_end(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	runAs(t, db, "trg-a", agented.StateFailed, start)
	if got := noticed(t, db); len(got) > 0 {
		t.Errorf("without a channel: %q", got)
	}
	addChannel(t, db, "all", `["failed","recovered"]`)
	addChannel(t, db, "none", `["backup"]`)
	for i, s := range []agented.State{agented.StateFailed, agented.StateTimeout, agented.StateCancelled, agented.StateSuccess, agented.StateSuccess, agented.StateInterrupted} {
		runAs(t, db, "trg-a", s, start.Add(time.Duration(i+1)*time.Hour))
	}
	runAs(t, db, "trg-b", agented.StateSuccess, start.Add(9*time.Hour))
	want := []string{"all failed exit status 1", "all failed exit status 1", "all recovered succeeded again", "all failed exit status 1"}
	if got := noticed(t, db); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNotify_one_transaction rolls a state change back: its notification must go too.
func TestNotify_one_transaction(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["held"]`)
	signals := 0
	db.OnNotice(func() { signals++ })
	failure := errors.New("later")
	err := db.write(t.Context(), "test", func(tx *tx) error {
		if err := tx.notify(agented.Notice{Kind: agented.NotifyHeld, Text: "waits"}); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) || len(noticed(t, db)) != 0 || signals != 0 {
		t.Errorf("%v, %q, %d signals", err, noticed(t, db), signals)
	}
	if err := db.Notify(t.Context(), agented.Notice{Kind: agented.NotifyHeld, Text: "waits"}); err != nil {
		t.Fatal(err)
	}
	if got := noticed(t, db); !slices.Equal(got, []string{"all held waits"}) || signals != 1 {
		t.Errorf("%q, %d signals", got, signals)
	}
}

func TestNotify_rules(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "a", `["failed","held"]`)
	addChannel(t, db, "b", `[]`)
	for _, c := range []struct {
		name  string
		rules agented.NotifyRules
		want  []string
	}{
		{"none", nil, []string{"a failed x", "a held x"}},
		{"one kind", agented.NotifyRules{"failed": {"B"}}, []string{"b failed x", "a held x"}},
		{"silent", agented.NotifyRules{"failed": {}}, []string{"a held x"}},
		{"other", agented.NotifyRules{"failed": {"a", "b"}, "other": {}}, []string{"a failed x", "b failed x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := agented.Trigger{ID: agented.TriggerID(agented.NewID("trg", start)), Name: c.name, Enabled: true, Spec: agented.Spec{
				Backend: agented.BackendCommand, Command: []string{"true"}, Overlap: agented.OverlapQueue, Notify: c.rules,
			}, CreatedAt: start, UpdatedAt: start}
			if err := db.CreateTrigger(t.Context(), &tr, "ann"); err != nil {
				t.Fatal(err)
			}
			before := len(noticed(t, db))
			for _, k := range []agented.NotificationKind{agented.NotifyFailed, agented.NotifyHeld, agented.NotifyBackup} {
				if err := db.Notify(t.Context(), agented.Notice{Kind: k, Trigger: tr.ID, Text: "x"}); err != nil {
					t.Fatal(err)
				}
			}
			if got := noticed(t, db)[before:]; !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestNotify_storm stores a bounded number of rows that count every event.
func TestNotify_storm(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["failed","held"]`)
	const events = 10_000
	err := db.write(t.Context(), "storm", func(tx *tx) error {
		for i := range events {
			if err := tx.notify(agented.Notice{Kind: agented.NotifyFailed, Text: "x", At: start.Add(time.Duration(i) * time.Millisecond)}); err != nil {
				return err
			}
		}
		return tx.notify(agented.Notice{Kind: agented.NotifyHeld, Text: "y", At: start.Add(time.Minute)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows, sum := len(noticed(t, db)), count(t, db, `SELECT SUM(more + 1) FROM notification`); rows != notices.Burst+2 || sum != events+1 {
		t.Errorf("%d rows that count %d events", rows, sum)
	}
}

func TestNotify_parked(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["parked"]`)
	e := admit(t, db, "trg-a", start)
	err := db.write(t.Context(), "park", func(tx *tx) error {
		if err := tx.exec(`UPDATE execution SET parked_on = 'q', reason = 'waits for an account' WHERE id = $1`, e.ID); err != nil {
			return err
		}
		return tx.noteParked(e.ID, start)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{start.Add(29 * time.Minute), start.Add(31 * time.Minute), start.Add(2 * time.Hour)} {
		if err := db.NotifyParked(t.Context(), now.Add(-30*time.Minute), now); err != nil {
			t.Fatal(err)
		}
	}
	if got := noticed(t, db); !slices.Equal(got, []string{"all parked has been parked for 31m0s: waits for an account"}) {
		t.Errorf("%q", got)
	}
}

func TestNotify_account_and_pause(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["needs_person","paused"]`)
	admit(t, db, "trg-a", start)
	e, err := db.Claim(t.Context(), "node-x", 100, start, ttl)
	if err != nil || e == nil {
		t.Fatal(e, err)
	}
	for _, p := range []agented.Pause{
		{At: start, Until: start.Add(ttl), By: "ann", Reason: "paused by ann"},
		{At: start, Until: start.Add(ttl), Reason: "the cost has reached $5", Question: agented.QuestionCeiling},
		{At: start, Until: start.Add(ttl), Reason: "may it run rm?", Question: "permission"},
	} {
		if err := db.Paused(t.Context(), e.ID, e.Lease, p); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"all paused the cost has reached $5", "all needs_person may it run rm?"}
	if got := noticed(t, db); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	withAccounts(t, db, "a")
	admit(t, db, "trg-b", start, agent)
	endAs(t, db, claim(t, db, start), agented.ClassAuth, time.Time{}, start)
	if got := noticed(t, db); len(got) != 3 || !strings.Contains(got[2], "needs_person account claude/") {
		t.Errorf("%q", got)
	}
}

func TestNotify_held_publication(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["held"]`)
	e := admit(t, db, "trg-a", start)
	p := agented.Publication{Execution: e.ID, Number: 1, Kind: "pull_request", Status: agented.PublicationPending, Repository: "acme/app", Hold: true}
	err := db.write(t.Context(), "publication", func(tx *tx) error { return tx.insertPublications(e.ID, []agented.Publication{p}, start) })
	if err != nil {
		t.Fatal(err)
	}
	p.Status = agented.PublicationHeld
	if err := db.SetPublication(t.Context(), &p, start); err != nil {
		t.Fatal(err)
	}
	if got := noticed(t, db); !slices.Equal(got, []string{"all held pull request for acme/app waits for an approval"}) {
		t.Errorf("%q", got)
	}
	var s *notices.Summary
	if err := db.View(t.Context(), "digest", func(q Querier) (err error) {
		s, err = notices.Summarize(q, start, start.Add(time.Hour))
		return err
	}); err != nil || len(s.Waiting) != 1 || !strings.HasSuffix(s.Waiting[0], ": pull request for acme/app waits for an approval") {
		t.Errorf("%+v, %v", s, err)
	}
}

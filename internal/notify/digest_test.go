package notify

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/store"
)

// run stores an execution that has ended.
func (s *scene) run(trigger string, state agented.State, at time.Time, result, reason string) {
	s.t.Helper()
	ctx := s.t.Context()
	id := agented.ExecutionID(agented.NewID("exec", at))
	_, err := s.db.Admit(ctx, store.Admission{Execution: &agented.Execution{
		ID: id, TriggerName: trigger, Backend: agented.BackendCommand, State: agented.StatePending, Source: agented.SourceManual,
		Snapshot: agented.Spec{Backend: agented.BackendCommand}, CreatedAt: at, ScheduledAt: at,
	}, Overlap: agented.OverlapQueue}, at)
	if err != nil {
		s.t.Fatal(err)
	}
	e, err := s.db.Claim(ctx, "node-x", 100, at, time.Minute)
	if err != nil || e == nil {
		s.t.Fatal(e, err)
	}
	cost := 0.25
	_, err = s.db.EndAttempt(ctx, store.AttemptEnd{
		Attempt: agented.Attempt{Execution: id, Number: 1, State: state, StartedAt: at, FinishedAt: at, Usage: agented.Usage{CostUSD: &cost}},
		Next:    state, Result: result, Reason: reason,
	}, e.Lease, at)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) set(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = at
}

func TestDigest(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, nil)
	due := start.Add(time.Hour)
	s.channel(notices.Channel{Name: "a", Digest: &notices.Digest{Cron: "0 13 * * *"}, DigestAt: due, DigestOf: start, Settings: notices.Settings{URL: r.URL}})
	s.run("nightly", agented.StateSuccess, start.Add(time.Minute), "Updated 3 packages and all tests pass. Details follow.\n\nMore", "")
	s.run("nightly", agented.StateSuccess, start.Add(2*time.Minute), "Nothing to update: everything is new. Bye.", "")
	s.run("review", agented.StateFailed, start.Add(3*time.Minute), "", "exited with code 3")
	s.run("old", agented.StateFailed, start.Add(-time.Minute), "", "before the period")
	for _, at := range []time.Time{due.Add(-time.Second), due, due.Add(time.Second), due.Add(23 * time.Hour)} {
		s.set(at)
		s.n = s.notifier() // a restart
		s.n.look(t.Context(), at)
		s.pass()
	}
	calls := r.all()
	if len(calls) != 1 {
		t.Fatalf("%d digests", len(calls))
	}
	text := s.list("chan-a")[0].Text
	for _, want := range []string{
		"Fri 1 Mar 12:00 to Fri 1 Mar 13:00 UTC", "3 executions: 2 succeeded, 1 failed, 0 cancelled.", "Cost: $0.75.",
		"Failed:\n- review failed: exited with code 3", "- nightly: Nothing to update: everything is new.\n",
	} {
		if !strings.Contains(text+"\n", want) {
			t.Errorf("the digest lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "before the period") || strings.Contains(text, "Updated 3") {
		t.Errorf("the digest has too much:\n%s", text)
	}
	s.set(due.Add(49 * time.Hour)) // two were missed
	s.n.look(t.Context(), s.now())
	s.pass()
	if list := s.list("chan-a"); len(list) != 2 || !strings.Contains(list[0].Text, "Fri 1 Mar 13:00 to Sun 3 Mar 14:00 UTC\nNothing ran.") {
		t.Errorf("%+v", list)
	}
}

func TestDigest_skips_nothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.channel(notices.Channel{Name: "a", Digest: &notices.Digest{Cron: "0 13 * * *", Empty: "skip"}, DigestAt: start, DigestOf: start.Add(-time.Hour), Settings: notices.Settings{URL: "http://127.0.0.1:1"}})
	s.n.look(t.Context(), start)
	if list := s.list("chan-a"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	s.run("x", agented.StateCancelled, start.Add(time.Hour), "", "")
	s.set(start.Add(2 * time.Hour))
	s.n.look(t.Context(), s.now())
	if list := s.list("chan-a"); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

// TestDigest_channel_changed changes a channel while its digest is stored: that is not sent
// again, and the next one begins where it ended.
func TestDigest_channel_changed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	c := s.channel(notices.Channel{Name: "a", Digest: &notices.Digest{Cron: "0 13 * * *"}, DigestAt: start.Add(time.Hour), DigestOf: start, Settings: notices.Settings{URL: "http://127.0.0.1:1"}})
	s.set(start.Add(time.Hour))
	s.n.look(t.Context(), s.now())
	update := func() error {
		return s.db.Update(t.Context(), "channel", func(tx store.Tx) error { return notices.Update(tx, c) })
	}
	c.Events = []agented.NotificationKind{agented.NotifyHeld}
	if err := update(); err != nil {
		t.Fatal(err)
	}
	s.n.look(t.Context(), s.now())
	if list := s.list("chan-a"); len(list) != 1 {
		t.Fatalf("%d digests", len(list))
	}
	if !c.DigestOf.Equal(s.now()) || !c.DigestAt.Equal(start.Add(25*time.Hour)) {
		t.Errorf("the next digest is due at %s and begins at %s", c.DigestAt, c.DigestOf)
	}
	if err := s.db.Update(t.Context(), "channel", func(tx store.Tx) error { return notices.Delete(tx, c) }); err != nil {
		t.Fatal(err)
	}
	if err := update(); !errors.Is(err, agented.NotFound) {
		t.Errorf("a deleted channel: %v", err)
	}
}

// TestNextDigest_clock_changes has one digest a day over both changes of the clock.
func TestNextDigest_clock_changes(t *testing.T) {
	t.Parallel()
	d := &notices.Digest{Cron: "30 2 * * *", Zone: "Europe/Berlin"}
	for _, c := range []struct{ from, first, second string }{
		{"2030-03-30T12:00:00Z", "2030-03-31T01:00:00Z", "2030-04-01T00:30:00Z"}, // 2:30 does not exist
		{"2030-10-26T12:00:00Z", "2030-10-27T00:30:00Z", "2030-10-28T01:30:00Z"}, // 2:30 comes twice
	} {
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		first := NextDigest(d, from, nil)
		second := NextDigest(d, first, nil)
		if first.Format(time.RFC3339) != c.first || second.Format(time.RFC3339) != c.second {
			t.Errorf("after %s: %s, %s", c.from, first.Format(time.RFC3339), second.Format(time.RFC3339))
		}
	}
}

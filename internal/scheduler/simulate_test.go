package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

// TestScheduler_one_tick_per_due_time simulates the ticker over a year in several zones, with
// downtime, clocks set forward and back, and executions that run too long.
func TestScheduler_one_tick_per_due_time(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := store.Open(ctx, filepath.Join(t.TempDir(), "agented.db"), store.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	begin := time.Date(2029, 12, 28, 9, 17, 3, 0, time.UTC)
	// Four months contain a clock change in most of the zones.
	end := testrun.Size(begin.AddDate(0, 4, 0), begin.AddDate(0, 4, 0), begin.AddDate(1, 0, 7))
	now := begin
	const node = agented.NodeID("node-00000000000000000000000000")
	sch := newScheduler(Options{DB: db, Now: func() time.Time { return now }, Zone: time.UTC})

	var schedules []agented.Schedule
	for i, s := range []agented.Schedule{
		{Cron: "30 2 * * *", Zone: "Europe/Berlin"},
		{Cron: "15 1 * * *", Zone: "America/New_York", Missed: agented.MissedSkip},
		{Cron: "45 1 * * *", Zone: "Australia/Lord_Howe", Missed: agented.MissedAll, MissedLimit: 5}, // changes by half an hour
		{Cron: "30 0 * * *", Zone: "Asia/Beirut", JitterSeconds: 7200},                               // changes at midnight
		{Cron: "0 */16 * * *", Zone: "America/St_Johns", Overlap: agented.OverlapQueue},
		{Every: "19h", Anchor: begin, Overlap: agented.OverlapReplace, WindowSeconds: 3600},
		{Cron: "0 9 * * MON", Zone: "Asia/Seoul", StartAt: begin.AddDate(0, 2, 0), EndAt: begin.AddDate(0, 9, 0)},
		{At: begin.AddDate(0, 5, 3), Zone: "Asia/Kathmandu"},
	} {
		s.Enabled = true
		if s.WindowSeconds == 0 {
			s.WindowSeconds = agented.DefaultWindowSeconds
		}
		s = s.WithDefaults()
		s.ID = agented.ScheduleID(fmt.Sprintf("sch-%026d", i))
		table, err := cron.Of(s, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		due, _ := table.Next(begin)
		s.NextDue, s.NextRun = due, table.Run(due)
		tr := agented.Trigger{Name: fmt.Sprint("trigger ", i), Enabled: true, Schedules: []agented.Schedule{s}, Spec: agented.Spec{
			Backend: agented.BackendCommand, Command: []string{"true"}, MaxConcurrent: 1,
		}.WithDefaults()}
		if err := db.CreateTrigger(ctx, &tr, "test"); err != nil {
			t.Fatal(err)
		}
		schedules = append(schedules, s)
	}

	rng := rand.New(rand.NewPCG(7, 11))
	away, jumps := 0, 0
	highest := begin // the latest time that the server has observed
	type running struct {
		e   *agented.Execution
		end time.Time
	}
	var busy []running
	for now.Before(end) {
		wait, some, err := sch.tickAll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if now.After(highest) {
			highest = now
		}
		// Executions end in time; some take longer than the schedule allows.
		for {
			e, err := db.Claim(ctx, node, 100, now, 24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if e == nil {
				break
			}
			took := time.Duration(rng.IntN(30)) * time.Minute
			if rng.IntN(12) == 0 {
				took = time.Duration(rng.IntN(40)) * time.Hour
			}
			busy = append(busy, running{e, now.Add(took)})
		}
		busy = slices.DeleteFunc(busy, func(r running) bool {
			if r.end.After(now) {
				return false
			}
			_, err := db.EndAttempt(ctx, store.AttemptEnd{
				Attempt: agented.Attempt{Execution: r.e.ID, Number: r.e.AttemptNo, State: agented.StateSuccess, FinishedAt: now}, Next: agented.StateSuccess,
			}, r.e.Lease, now)
			if err != nil {
				t.Fatal(err)
			}
			return true
		})
		if !some {
			break
		}
		switch x := rng.IntN(200); {
		case x < 4: // down for up to four days
			away++
			now = now.Add(time.Duration(rng.IntN(96*60)) * time.Minute)
		case x < 6: // set forward
			jumps++
			now = now.Add(time.Duration(rng.IntN(300)) * time.Minute)
		case x < 9: // set back
			jumps++
			now = now.Add(-time.Duration(rng.IntN(300)) * time.Minute)
		default:
			// The ticker's periodic wake-ups are not simulated: nothing is due meanwhile.
			if wait >= maxDoze {
				next, _, err := db.NextScheduleRun(ctx)
				if err != nil {
					t.Fatal(err)
				}
				wait = max(next.Sub(now), 0)
			}
			now = now.Add(wait).Add(time.Duration(rng.IntN(40)) * time.Millisecond)
		}
	}
	now = highest.Add(time.Second)
	if _, _, err := sch.tickAll(ctx); err != nil {
		t.Fatal(err)
	}

	total, outcomes := 0, map[agented.TickOutcome]int{}
	fired := map[agented.ExecutionID]agented.Tick{}
	coalesced := []agented.Tick{}
	for _, s := range schedules {
		table, err := cron.Of(s, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		for due, ok := table.Next(begin); ok && !table.Run(due).After(now); due, ok = table.Next(due) {
			want = append(want, due)
		}
		var got []time.Time
		for _, k := range allTicks(t, db, s.ID) {
			got = append(got, k.DueAt)
			outcomes[k.Outcome]++
			switch k.Outcome {
			case agented.TickFired, agented.TickLate, agented.TickSkipped:
				if other, twice := fired[k.Execution]; twice || k.Execution == "" {
					t.Errorf("%s of %v and %v are one execution %q", s.ID, k.DueAt, other.DueAt, k.Execution)
				}
				fired[k.Execution] = k
			case agented.TickCoalesced:
				coalesced = append(coalesced, k)
			}
		}
		slices.SortFunc(got, time.Time.Compare)
		if !slices.EqualFunc(want, got, time.Time.Equal) {
			t.Errorf("%s (%s): %d ticks for %d due times", s.ID, table.Rhythm, len(got), len(want))
		}
		total += len(got)
	}
	for _, k := range coalesced {
		if by, ok := fired[k.Execution]; !ok || !by.DueAt.After(k.DueAt) {
			t.Errorf("the tick due %v stands behind %q, which is not a later run", k.DueAt, k.Execution)
		}
	}
	executions := 0
	for cursor, more := "", true; more; more = cursor != "" {
		var list []agented.Execution
		list, cursor, err = db.Executions(ctx, store.ExecutionFilter{}, store.Page{Limit: store.MaxLimit, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			executions++
			k, ok := fired[e.ID]
			if !ok || e.Cause == nil || e.Cause.Schedule != k.Schedule || !e.Cause.DueAt.Equal(k.DueAt) {
				t.Errorf("%s was fired by %+v, the ticks say %+v", e.ID, e.Cause, k)
			}
			if k.Outcome == agented.TickSkipped && (e.State != agented.StateCancelled || e.AttemptNo != 0 || k.Reason != e.Reason) {
				t.Errorf("%s is %s, its tick %s", e.ID, e.State, k.Outcome)
			}
		}
	}
	if executions != len(fired) {
		t.Errorf("%d executions for %d ticks that fired or were skipped", executions, len(fired))
	}
	t.Logf("%d due times, %v; %d absences, %d jumps of the clock", total, outcomes, away, jumps)
	for _, o := range agented.TickOutcomes {
		if outcomes[o] == 0 && testrun.Long() {
			t.Errorf("the year has no tick that is %s", o)
		}
	}
}

func allTicks(t *testing.T, db *store.DB, id agented.ScheduleID) (out []agented.Tick) {
	t.Helper()
	for cursor, more := "", true; more; more = cursor != "" {
		list, next, err := db.Ticks(context.WithoutCancel(t.Context()), store.TickFilter{Schedule: id}, store.Page{Limit: store.MaxLimit, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		out, cursor = append(out, list...), next
	}
	return out
}

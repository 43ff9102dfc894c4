package store

import (
	"testing"
	"time"

	"github.com/agented/agented"
)

// BenchmarkTick measures a due time of one schedule, a hundred in a transaction,
// with the events that a server loads.
func BenchmarkTick(b *testing.B) {
	db := openNew(b)
	db.OnChange(func(agented.ExecutionEvent) {})
	scheduled(b, db, 100, agented.OverlapQueue)
	now := start
	for n := 0; b.Loop(); n++ {
		if n%100 != 0 {
			continue
		}
		got := must(db.TickDue(b.Context(), now, 100, everyMinute(now)))(b)
		if got.Schedules != 100 {
			b.Fatal(got.Schedules)
		}
		now = now.Add(time.Minute)
	}
}

// BenchmarkRest measures what 10,000 schedules cost at each look at the clock.
func BenchmarkRest(b *testing.B) {
	db := openNew(b)
	tr := agented.Trigger{Name: "many", Enabled: true, Spec: newExecution("", start).Snapshot}
	for i := range 10_000 {
		due := start.Add(time.Hour + time.Duration(i)*time.Second)
		tr.Schedules = append(tr.Schedules, agented.Schedule{Cron: "* * * * *", Enabled: true, NextDue: due, NextRun: due})
	}
	if err := db.CreateTrigger(b.Context(), &tr, "ann"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := must(db.TickDue(b.Context(), start, 100, nil))(b); got.Schedules > 0 {
			b.Fatal(got)
		}
		if _, ok, err := db.NextScheduleRun(b.Context()); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
)

var noon = time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)

func every(period string, change ...func(*agented.Schedule)) (agented.Schedule, cron.Timetable) {
	s := agented.Schedule{ID: "sch-x", Every: period, Anchor: noon, WindowSeconds: agented.DefaultWindowSeconds, Enabled: true}.WithDefaults()
	for _, f := range change {
		f(&s)
	}
	table, err := cron.Of(s, time.UTC)
	if err != nil {
		panic(err)
	}
	return s, table
}

func missed(m agented.Missed) func(*agented.Schedule) {
	return func(s *agented.Schedule) { s.Missed = m }
}

// brief formats decisions as minutes after noon and the first letter of the outcome.
func brief(list []tickDecision) string {
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprintf("%g%c", v.due.Sub(noon).Minutes(), v.outcome[0]))
	}
	return strings.Join(out, " ")
}

func TestDecide_missed_runs(t *testing.T) {
	t.Parallel()
	limit := func(n int) func(*agented.Schedule) { return func(s *agented.Schedule) { s.MissedLimit = n } }
	window := func(d time.Duration) func(*agented.Schedule) {
		return func(s *agented.Schedule) { s.WindowSeconds = int(d / time.Second) }
	}
	for _, c := range []struct {
		name   string
		change []func(*agented.Schedule)
		now    time.Duration // after noon; due times are at 0, 10, 20 … minutes
		want   string
		next   time.Duration
	}{
		{"not yet", nil, -time.Second, "", 0},
		{"on time", nil, time.Millisecond, "0f", 10 * time.Minute},
		{"a little behind", nil, 59 * time.Second, "0f", 10 * time.Minute},
		{"skip, a little behind", []func(*agented.Schedule){missed(agented.MissedSkip)}, 59 * time.Second, "0f", 10 * time.Minute},
		{"latest", nil, 25 * time.Minute, "0c 10c 20l", 30 * time.Minute},
		{"latest, back in time for the last", nil, 20*time.Minute + 30*time.Second, "0c 10c 20f", 30 * time.Minute},
		{"skip", []func(*agented.Schedule){missed(agented.MissedSkip)}, 25 * time.Minute, "0m 10m 20m", 30 * time.Minute},
		{"skip, back in time for the last", []func(*agented.Schedule){missed(agented.MissedSkip)}, 20*time.Minute + 30*time.Second, "0m 10m 20f", 30 * time.Minute},
		{"all", []func(*agented.Schedule){missed(agented.MissedAll)}, 20 * time.Minute, "0l 10l 20f", 30 * time.Minute},
		{"all, over the limit", []func(*agented.Schedule){missed(agented.MissedAll), limit(2)}, 25 * time.Minute, "0m 10l 20l", 30 * time.Minute},
		{"all, within the window", []func(*agented.Schedule){missed(agented.MissedAll), window(20 * time.Minute)}, 25 * time.Minute, "0m 10l 20l", 30 * time.Minute},
		{"latest, out of the window", []func(*agented.Schedule){window(2 * time.Minute)}, 25 * time.Minute, "0m 10m 20m", 30 * time.Minute},
		{"for ever", []func(*agented.Schedule){window(0), missed(agented.MissedAll)}, 25 * time.Minute, "0l 10l 20l", 30 * time.Minute},
	} {
		s, table := every("10m", c.change...)
		list, next := decide(s, table, noon, time.Time{}, noon.Add(c.now))
		if got := brief(list); got != c.want || !next.Equal(noon.Add(c.next)) {
			t.Errorf("%s: %q, next %v, want %q", c.name, got, next, c.want)
		}
		for _, v := range list {
			if v.reason == "" != (v.outcome == agented.TickFired) {
				t.Errorf("%s: %s has the reason %q", c.name, v.outcome, v.reason)
			}
		}
	}
}

func TestDecide_existing_ticks(t *testing.T) {
	t.Parallel()
	s, table := every("10m")
	list, next := decide(s, table, noon, noon.Add(10*time.Minute), noon.Add(25*time.Minute))
	if got := brief(list); got != "20l" || !next.Equal(noon.Add(30*time.Minute)) {
		t.Errorf("%q, next %v", got, next)
	}
	// The clock was set back before already decided due times.
	list, next = decide(s, table, noon, noon.Add(time.Hour), noon.Add(5*time.Minute))
	if len(list) != 0 || !next.Equal(noon.Add(70*time.Minute)) {
		t.Errorf("%q, next %v", brief(list), next)
	}
}

func TestDecide_long_downtime(t *testing.T) {
	t.Parallel()
	s, table := every("1s")
	now := noon.Add(400 * 24 * time.Hour)
	began := time.Now()
	list, next := decide(s, table, noon, time.Time{}, now)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	if len(list) != maxCatchUp+1 || !list[0].due.Equal(noon) || list[0].outcome != agented.TickMissed || !strings.Contains(list[0].reason, "not listed one by one") {
		t.Fatalf("%d verdicts, the first %+v", len(list), list[0])
	}
	last := list[len(list)-1]
	if !last.due.Equal(now) || last.outcome != agented.TickFired || !next.Equal(now.Add(time.Second)) {
		t.Errorf("the last is %+v, next %v", last, next)
	}
	if !slices.IsSortedFunc(list, func(a, b tickDecision) int { return a.due.Compare(b.due) }) {
		t.Error("not in order")
	}
	// A schedule that ended long ago.
	s, table = every("1s", func(s *agented.Schedule) { s.EndAt = noon.Add(10 * time.Second) })
	if list, next = decide(s, table, noon, time.Time{}, now); len(list) != 11 || !next.IsZero() {
		t.Errorf("%d verdicts, next %v", len(list), next)
	}
}

func TestJitter_stable_and_ordered(t *testing.T) {
	t.Parallel()
	_, table := every("1m", func(s *agented.Schedule) { s.JitterSeconds = 3600 })
	last, spread := time.Time{}, map[time.Duration]bool{}
	for i := range 500 {
		due := noon.Add(time.Duration(i) * time.Minute)
		run := table.Run(due)
		if !run.Equal(table.Run(due)) || run.Before(due) || !run.Before(due.Add(time.Minute)) || run.Before(last) {
			t.Fatalf("due %v runs %v, the one before %v", due, run, last)
		}
		last = run
		spread[run.Sub(due).Truncate(time.Second)] = true
	}
	if len(spread) < 50 {
		t.Errorf("only %d different seconds", len(spread))
	}
}

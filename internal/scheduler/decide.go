package scheduler

import (
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/format"
)

// onTime is how late a run may be and still count as on time. The scheduler checks the clock at
// least every maxDoze, and a busy machine or a restart adds a delay; these must not drop or mark
// a run.
const onTime = time.Minute

// maxCatchUp is the maximum number of due times per schedule that get a tick of their own after
// downtime. Earlier ones share one tick.
const maxCatchUp = 10_000

// longest bounds the search for due times.
const longest = 200 * 365 * 24 * time.Hour

// tickDecision is the decision about one due time.
type tickDecision struct {
	due     time.Time
	outcome agented.TickOutcome // fired and late start an execution
	reason  string
}

// decide returns the decisions about the due times of a schedule from first up to now, except
// those up to until, and the next due time. Every due time gets exactly one decision, in the
// order of the due times.
func decide(s agented.Schedule, table cron.Timetable, first, until, now time.Time) (list []tickDecision, next time.Time) {
	dues, more, next := dueTimes(table, first, until, now)
	if len(dues) == 0 {
		return nil, next
	}
	behind := func(due time.Time) time.Duration { return now.Sub(table.Run(due)) }
	last := len(dues) - 1
	list = make([]tickDecision, len(dues))
	fires := 0
	for i := last; i >= 0; i-- { // latest first, because catch-up with "all" has a limit
		v := tickDecision{due: dues[i]}
		late := behind(dues[i])
		window := time.Duration(s.WindowSeconds) * time.Second
		switch {
		case late > onTime && window > 0 && late > window:
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("found %s after it was due; missed runs are made up for within %s", span(late), span(window))
		case s.Missed == agented.MissedAll && fires >= max(s.MissedLimit, 1):
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("at most %d missed runs are made up for, and later ones took precedence", s.MissedLimit)
		case s.Missed == agented.MissedAll, i == last && (late <= onTime || s.Missed == agented.MissedLatest):
			fires++
			v.outcome = agented.TickFired
			if late > onTime {
				v.outcome = agented.TickLate
				v.reason = fmt.Sprintf("fired %s late: the server was not running", span(late))
			}
		case s.Missed == agented.MissedLatest:
			v.outcome = agented.TickCoalesced
			v.reason = "the run due at " + stamp(dues[last]) + " replaces it"
		default:
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("found %s after it was due, and missed runs are skipped", span(late))
		}
		list[i] = v
	}
	if more {
		// The oldest one represents all earlier ones.
		list[0].outcome = agented.TickMissed
		list[0].reason = fmt.Sprintf("missed, like every due time from here to %s: after long downtime they are not listed one by one", stamp(dues[1]))
	}
	return list, next
}

// dueTimes lists the due times from first up to now, except those up to until, and the one after
// them. If there are too many it returns the first and the latest maxCatchUp of them, and more is
// true.
func dueTimes(table cron.Timetable, first, until, now time.Time) (dues []time.Time, more bool, next time.Time) {
	from := first
	if !until.Before(first) {
		from, _ = table.Next(until) // already decided before the clock was set back
	}
	if from.IsZero() {
		return nil, false, time.Time{}
	}
	next = from
	start := from
	for back := time.Hour; ; back *= 2 {
		// Only the newest are needed, so search near the end first.
		start = from
		if at := now.Add(-back); at.After(from) && back < longest {
			var ok bool
			if start, ok = table.Next(at); !ok {
				continue
			}
		}
		dues, next = dues[:0], start
		for !next.IsZero() && !table.Run(next).After(now) {
			dues = append(dues, next)
			next, _ = table.Next(next)
		}
		if start.Equal(from) || len(dues) > maxCatchUp {
			break
		}
	}
	if len(dues) > maxCatchUp {
		dues = dues[len(dues)-maxCatchUp:]
	}
	if len(dues) > 0 && dues[0].After(from) {
		return append([]time.Time{from}, dues...), true, next
	}
	return dues, false, next
}

// span formats a duration for people.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return format.Plural(int(d/time.Second), "second", "seconds")
	case d < 2*time.Hour:
		return format.Plural(int(d/time.Minute), "minute", "minutes")
	case d < 48*time.Hour:
		return format.Plural(int(d/time.Hour), "hour", "hours")
	}
	return format.Plural(int(d/(24*time.Hour)), "day", "days")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

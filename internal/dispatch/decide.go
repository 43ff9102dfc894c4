package dispatch

import (
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
)

// onTime is how far behind its time a run still counts as on time. The ticker
// looks at the clock at least every maxDoze, and a busy machine or a restart
// takes a moment: none of that shall drop or rename a run.
const onTime = time.Minute

// maxCatchUp bounds how many due times of one schedule get a tick of their own
// after an absence. Those before share one.
const maxCatchUp = 10_000

// longest bounds the search for due times that are not too many.
const longest = 200 * 365 * 24 * time.Hour

// verdict is what is done about one due time.
type verdict struct {
	due     time.Time
	outcome agented.TickOutcome // fired and late: it fires
	reason  string
}

// decide says what is done about the due times of a schedule that have come by
// now, from the due time first on and after the due time until, and what comes
// next. Every due time gets exactly one verdict, in the order of the due times.
func decide(s agented.Schedule, table cron.Timetable, first, until, now time.Time) (list []verdict, next time.Time) {
	dues, more, next := dueTimes(table, first, until, now)
	if len(dues) == 0 {
		return nil, next
	}
	behind := func(due time.Time) time.Duration { return now.Sub(table.Run(due)) }
	last := len(dues) - 1
	list = make([]verdict, len(dues))
	fires := 0
	for i := last; i >= 0; i-- { // the latest first: all has a limit
		v := verdict{due: dues[i]}
		late := behind(dues[i])
		window := time.Duration(s.WindowSeconds) * time.Second
		switch {
		case late > onTime && window > 0 && late > window:
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("found %s after it was due, and a missed run counts for %s", span(late), span(window))
		case s.Missed == agented.MissedAll && fires >= max(s.MissedLimit, 1):
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("the limit of missed runs to make up for is %d, and as many were due after it", s.MissedLimit)
		case s.Missed == agented.MissedAll, i == last && (late <= onTime || s.Missed == agented.MissedLatest):
			fires++
			v.outcome = agented.TickFired
			if late > onTime {
				v.outcome = agented.TickLate
				v.reason = fmt.Sprintf("fired %s late: the server was away", span(late))
			}
		case s.Missed == agented.MissedLatest:
			v.outcome = agented.TickCoalesced
			v.reason = "the run due at " + stamp(dues[last]) + " stands for it"
		default:
			v.outcome = agented.TickMissed
			v.reason = fmt.Sprintf("found %s after it was due, and missed runs are skipped", span(late))
		}
		list[i] = v
	}
	if more {
		// The oldest stands for all before the others.
		list[0].outcome = agented.TickMissed
		list[0].reason = fmt.Sprintf("missed, and so is every due time from here to %s: after so long an absence they are not listed one by one", stamp(dues[1]))
	}
	return list, next
}

// dueTimes lists the due times from first on, those up to until left out, whose
// run has come by now, and the one after them. When there are too many it
// returns the first and the latest maxCatchUp of them, and more.
func dueTimes(table cron.Timetable, first, until, now time.Time) (dues []time.Time, more bool, next time.Time) {
	from := first
	if !until.Before(first) {
		from, _ = table.Next(until) // decided already, before the clock was set back
	}
	if from.IsZero() {
		return nil, false, time.Time{}
	}
	next = from
	start := from
	for back := time.Hour; ; back *= 2 {
		// Only the newest are wanted; the search for them begins near the end.
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

// span writes a duration for people.
func span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return plural(int(d/time.Second), "second")
	case d < 2*time.Hour:
		return plural(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return plural(int(d/time.Hour), "hour")
	}
	return plural(int(d/(24*time.Hour)), "day")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

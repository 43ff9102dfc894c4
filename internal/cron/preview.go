package cron

import (
	"fmt"
	"time"
)

// MaxPreview is the largest number of runs that Preview gives.
const MaxPreview = 1000

// Run is one coming run of a schedule.
type Run struct {
	At    time.Time    // in the zone that was asked for
	Clock *ClockChange // the change of the zone's clock on the day of the run; nil on the many other days
}

// ClockChange is a change of a zone's offset from UTC.
type ClockChange struct {
	At     time.Time     // the first moment of the new offset, in the zone
	Before time.Duration // offset from UTC until then, positive in the east
	After  time.Duration // offset from then on
	Text   string        // what happens to the clock and what it means for this run, without a full stop
}

// Preview returns the next runs after the given time, at most n and at most
// MaxPreview, earliest first. A run on a day on which the clock of the zone
// changes says so, and so does the first run after a day that the zone left out.
// Of several changes on one day the one nearest to the run is named.
func (s Schedule) Preview(after time.Time, n int, zone *time.Location) []Run {
	if zone == nil {
		zone = time.UTC
	}
	var runs []Run
	for range min(n, MaxPreview) {
		at, ok := s.Next(after, zone)
		if !ok {
			break
		}
		runs = append(runs, Run{At: at, Clock: s.clock(at, zone)})
		after = at
	}
	return runs
}

// clock returns the change of the clock on the day of the run, or nil.
func (s Schedule) clock(run time.Time, zone *time.Location) *ClockChange {
	at := run.Unix()
	seg := spanAt(at, zone)
	day := floorDiv(at+seg.offset, 86400)

	// The nearest changes are at the start of the run's span and at its end;
	// spans of one offset that only a table separates are one.
	var back, ahead *ClockChange
	for b := seg; back == nil && b.start > -forever && at-b.start <= 2*86400; {
		prev := b.before(zone)
		back = s.change(prev, b, at, day, zone)
		b = prev
	}
	for a := seg; ahead == nil && a.end < forever && a.end-at <= 2*86400; {
		next := a.next(zone)
		ahead = s.change(a, next, at, day, zone)
		a = next
	}
	if back == nil || ahead != nil && ahead.At.Sub(run) < run.Sub(back.At) {
		return ahead
	}
	return back
}

// change describes the step from one span to the next for a run at the instant,
// or returns nil if the day has no part in it.
func (s Schedule) change(old, span span, at, day int64, zone *time.Location) *ClockChange {
	if old.offset == span.offset {
		return nil
	}
	// The walls that are left out or repeated.
	from, to := span.start+old.offset, span.start+span.offset
	first, last := from, to
	if to < from {
		first, last = to, from-1
	}
	if day < floorDiv(first, 86400) || day > floorDiv(last, 86400) {
		return nil
	}
	c := &ClockChange{
		At:     time.Unix(span.start, 0).In(zone),
		Before: time.Duration(old.offset) * time.Second,
		After:  time.Duration(span.offset) * time.Second,
	}
	shift := span.offset - old.offset
	switch {
	case shift > maxShift || shift < -maxShift:
		c.Text = fmt.Sprintf("the calendar moves from %s %s to %s %s", dateText(floorDiv(from, 60)), wallText(from), dateText(floorDiv(to, 60)), wallText(to))
	case shift > 0:
		c.Text = fmt.Sprintf("clock goes forward at %s to %s", wallText(from), wallText(to))
		c.Text += s.inGap(from, to, at, span.start)
	default:
		c.Text = fmt.Sprintf("clock goes back at %s to %s", wallText(from), wallText(to))
		c.Text += s.inOverlap(at, to, from, span.start)
	}
	return c
}

// inGap says what a gap means for the run at the instant, when the walls from
// and to bound it and it happens at the instant start.
func (s Schedule) inGap(from, to, at, start int64) string {
	wall, skipped := int64(0), false
	switch s.kind {
	case kindCron:
		wall, skipped = s.fields.next(ceilDiv(from, 60))
	case kindWall:
		wall, skipped = s.at, s.at*60 >= from
	}
	switch {
	case !skipped || wall*60 >= to:
		return ""
	case s.kind == kindCron && !s.fields.fixed:
		return fmt.Sprintf("; what falls between does not run, as %s does not exist", clockText(wall))
	case at == start:
		return fmt.Sprintf("; %s does not exist, runs at %s", clockText(wall), wallText(to))
	}
	return ""
}

// inOverlap says what an overlap of the walls from low to high, which begins again
// at the instant start, means for the run at the instant.
func (s Schedule) inOverlap(at, low, high, start int64) string {
	length := high - low
	switch {
	case at < start-length || at >= start+length:
		return ""
	case s.kind == kindCron && s.fields.fixed, s.kind == kindWall:
		return "; runs once, the first time the clock shows it"
	case at < start:
		return "; this is the first time the clock shows it"
	}
	return "; this is the second time the clock shows it"
}

// wallText writes wall seconds as a time of the day, with seconds if there are
// any.
func wallText(wall int64) string {
	text := clockText(floorDiv(wall, 60))
	if s := floorMod(wall, 60); s != 0 {
		text += fmt.Sprintf(":%02d", s)
	}
	return text
}

package cron

import (
	"fmt"
	"time"
)

// MaxPreview is the maximum number of runs in a preview.
const MaxPreview = 1000

// Run is one coming run of a schedule.
type Run struct {
	At    time.Time    // in the requested zone
	Clock *ClockChange // change of the zone's clock on the day of the run; usually nil
}

// ClockChange is a change of a zone's offset from UTC.
type ClockChange struct {
	At     time.Time     // the first moment of the new offset, in the zone
	Before time.Duration // offset from UTC until then, positive in the east
	After  time.Duration // offset from then on
	Text   string        // the change and its effect on this run, without a full stop
}

// Preview returns the next runs after the given time, earliest first, at most n and at most
// MaxPreview. Clock is set for a run on a day on which the clock of the zone changes, and for the
// first run after a day that the zone skipped. Of several changes on one day it is the one
// nearest to the run.
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

	// The nearest changes are at the start and the end of the run's span; adjacent spans with the
	// same offset count as one.
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

// change describes the transition between two spans for a run at the instant. It returns nil if
// it does not affect the day.
func (s Schedule) change(old, span span, at, day int64, zone *time.Location) *ClockChange {
	if old.offset == span.offset {
		return nil
	}
	// The wall times that are skipped or repeated.
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

// inGap describes the effect of a gap on the run at the instant. The gap skips the wall times
// between from and to, at the instant start.
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
		return fmt.Sprintf("; runs in the skipped time are omitted, because %s does not exist", clockText(wall))
	case at == start:
		return fmt.Sprintf("; %s does not exist, runs at %s", clockText(wall), wallText(to))
	}
	return ""
}

// inOverlap describes the effect of an overlap on the run at the instant. It repeats the wall
// times from low to high from the instant start on.
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

// wallText formats wall seconds as a time of the day, with seconds if there are any.
func wallText(wall int64) string {
	text := clockText(floorDiv(wall, 60))
	if s := floorMod(wall, 60); s != 0 {
		text += fmt.Sprintf(":%02d", s)
	}
	return text
}

package cron

import "time"

// maxShift is the largest change of a zone's offset, in seconds, that counts as a daylight saving
// change. A larger one is a change of the calendar. cronie uses the same limit.
const maxShift = 3 * 3600

// The range of the search.
var (
	minUnix = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	maxUnix = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func inRange(unix int64) bool { return unix >= minUnix && unix <= maxUnix }

// Next returns the first time after the given one at which the schedule is due on the clock of
// the zone; a nil zone is UTC. The result has whole seconds and is in the zone. It returns false
// if there is none: a single time has passed, or the year would be after 9999.
func (s Schedule) Next(after time.Time, zone *time.Location) (time.Time, bool) {
	if zone == nil {
		zone = time.UTC
	}
	// Due times are whole seconds, so the search starts at the second after after, whatever
	// fraction after has.
	if after.Unix() >= maxUnix {
		return time.Time{}, false
	}
	from := max(after.Unix()+1, minUnix)
	var (
		due int64
		ok  bool
	)
	switch s.kind {
	case kindCron:
		due, ok = s.fields.nextIn(from, zone)
	case kindEvery:
		due, ok = s.at+ceilDiv(from-s.at, s.period)*s.period, true
	case kindOnce:
		due, ok = s.at, s.at >= from
	case kindWall:
		due = firstShown(s.at, zone)
		ok = due >= from
	}
	if !ok || due > maxUnix {
		return time.Time{}, false
	}
	return time.Unix(due, 0).In(zone), true
}

// nextIn returns the first due instant that is not before from.
func (c calendar) nextIn(from int64, zone *time.Location) (int64, bool) {
	var (
		seg       = spanAt(from, zone)
		low, wall int64 // wall is the first match from low on
		known     bool
	)
	for seg.start <= maxUnix {
		// Wall times before least, in seconds, are skipped: the clock shows them before from, or
		// has already shown them and they must not repeat.
		least := from + seg.offset
		if c.fixed && from-seg.start <= lookBack {
			if shown := seg.shown(zone); from == seg.start || shown > least {
				least = shown
			}
		}
		if m := ceilDiv(least, 60); !known || m < low || m > wall {
			w, ok := c.next(m)
			if !ok {
				return 0, false
			}
			low, wall, known = m, w, true
		}
		// A wall time that the clock skipped maps to an instant before the span.
		if due := max(wall*60-seg.offset, seg.start); due < seg.end {
			return due, true
		}
		from = seg.end
		seg = seg.next(zone)
	}
	return 0, false
}

// firstShown returns the first instant at which the zone's clock shows that minute or a later
// one.
func firstShown(wall int64, zone *time.Location) int64 {
	// No zone has been more than 26 hours from UTC.
	for seg := spanAt(wall*60-26*3600, zone); ; seg = seg.next(zone) {
		if due := max(wall*60-seg.offset, seg.start); due < seg.end {
			return due
		}
	}
}

// span is a period in which a zone's offset from UTC is constant. Two neighbours may have the
// same offset.
type span struct {
	start, end int64 // Unix seconds; end is the first second after it
	offset     int64 // seconds east of UTC
}

// lookBack is how far before an instant, in seconds, a change of the clock still matters. No
// overlap is longer than maxShift, so a day covers several in a row.
const lookBack = 86400

// forever bounds a span that has no end; adding an offset to it does not
// overflow.
const forever = 1 << 60

// spanAt returns the span that contains the instant.
func spanAt(unix int64, zone *time.Location) span {
	s := rawSpan(unix, zone)
	// After the last tabulated change the library computes the start by rule, and may return one
	// before that change. Walking back from it finds the actual start.
	if s.start > -forever {
		for p := rawSpan(s.start, zone); p.end <= unix; p = rawSpan(p.end, zone) {
			s.start = p.end
		}
	}
	return s
}

// next returns the span that follows.
func (s span) next(zone *time.Location) span {
	n := rawSpan(s.end, zone)
	n.start = s.end
	return n
}

// before returns the span that ends where this one starts.
func (s span) before(zone *time.Location) span {
	b := spanAt(s.start-1, zone)
	b.end = s.start
	return b
}

func rawSpan(unix int64, zone *time.Location) span {
	if unix >= forever {
		return span{start: forever, end: forever + 1}
	}
	t := time.Unix(unix, 0).In(zone)
	_, offset := t.Zone()
	s := span{start: -forever, end: forever, offset: int64(offset)}
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		s.start = start.Unix()
	}
	if !end.IsZero() {
		s.end = end.Unix()
	}
	if s.end <= unix {
		// On 31 December of a leap year the library returns an end in the past, because it
		// assumes 365 days. The next end is the end of the day.
		s.end = (floorDiv(unix, 86400) + 1) * 86400
	}
	return s
}

// shown returns how far the zone's clock had come when the span began: the latest wall time, in
// seconds, reached before it. It is below the span's first wall time after a gap, and above it in
// an overlap. After a change of the calendar, and at the start of the zone's data, it is the
// span's first wall time.
func (s span) shown(zone *time.Location) int64 {
	wall := s.start + s.offset
	latest, first := wall, true
	for at := s; at.start > -forever && at.start > s.start-lookBack; {
		prev := at.before(zone)
		if shift := at.offset - prev.offset; shift > maxShift || shift < -maxShift {
			break
		}
		if end := prev.end + prev.offset; first || end > latest {
			latest, first = end, false
		}
		at = prev
	}
	return latest
}

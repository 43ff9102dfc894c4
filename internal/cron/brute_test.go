package cron_test

import (
	"strconv"
	"strings"
	"time"
)

// This file is an independent implementation of cronie's rules, for comparison. A clock ticks
// through the instants one by one; the standard library supplies the wall time; a virtual time
// records how far the wall time has come.

// oracle is a parsed expression as sets, without bit masks.
type oracle struct {
	ok                         [5]func(int) bool
	wild, dayStar, weekdayStar bool
}

var oracleNames = strings.NewReplacer("JAN", "1", "FEB", "2", "MAR", "3", "APR", "4", "MAY", "5", "JUN", "6", "JUL", "7", "AUG", "8",
	"SEP", "9", "OCT", "10", "NOV", "11", "DEC", "12", "SUN", "0", "MON", "1", "TUE", "2", "WED", "3", "THU", "4", "FRI", "5", "SAT", "6", "?", "*")

var oracleShort = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

func newOracle(expr string) oracle {
	if long, ok := oracleShort[expr]; ok {
		expr = long
	}
	words := strings.Fields(oracleNames.Replace(strings.ToUpper(expr)))
	top := []int{59, 23, 31, 12, 6}
	bottom := []int{0, 0, 1, 1, 0}
	var o oracle
	for i, word := range words {
		set := map[int]bool{}
		for _, term := range strings.Split(word, ",") {
			by := 1
			if at := strings.Index(term, "/"); at >= 0 {
				by, _ = strconv.Atoi(term[at+1:])
			}
			head := strings.Split(term, "/")[0]
			from, to := bottom[i], top[i]
			if head != "*" {
				ends := strings.Split(head, "-")
				from, _ = strconv.Atoi(ends[0])
				if len(ends) == 2 {
					to, _ = strconv.Atoi(ends[1])
					if i == 4 && to < from {
						if from == 7 {
							from = 0
						} else {
							to += 7
						}
					}
				} else if !strings.Contains(term, "/") {
					to = from
				} else if i == 4 {
					to = 7
				}
			}
			for v := from; v <= to; v += by {
				if i == 4 {
					set[v%7] = true
				} else {
					set[v] = true
				}
			}
		}
		dense := make([]bool, 64)
		for v := range set {
			dense[v] = true
		}
		o.ok[i] = func(v int) bool { return dense[v] }
	}
	o.wild = words[0][0] == '*' || words[1][0] == '*'
	o.dayStar, o.weekdayStar = words[2][0] == '*', words[4][0] == '*'
	return o
}

// shows reports whether the expression matches that minute of the wall time.
func (o oracle) shows(wall int64) bool {
	minute := int(((wall % 60) + 60) % 60)
	if !o.ok[0](minute) {
		return false
	}
	t := time.Unix(wall*60, 0).UTC()
	if !o.ok[1](t.Hour()) || !o.ok[3](int(t.Month())) {
		return false
	}
	day, weekday := o.ok[2](t.Day()), o.ok[4](int(t.Weekday()))
	if o.dayStar || o.weekdayStar {
		return day && weekday
	}
	return day || weekday
}

func offsetAt(unix int64, zone *time.Location) int64 {
	_, offset := time.Unix(unix, 0).In(zone).Zone()
	return int64(offset)
}

// tick is one step of the clock: wall minutes that are due for fixed expressions, and one for
// wildcard ones.
type tick struct {
	at      int64
	wild    bool // the wall shows a whole minute now
	wall    int64
	caughtA int64 // fixed: walls from caughtA to caughtB are due now
	caughtB int64
}

// walk runs a clock from one instant to another in steps of the given seconds, which must divide
// the offsets of the zone.
func walk(zone *time.Location, from, to, step int64, each func(tick)) {
	var virtual int64
	started := false
	last := int64(1 << 40)
	for u := from; u < to; u += step {
		offset := offsetAt(u, zone)
		local := u + offset
		whole := ((local%60)+60)%60 == 0
		if !whole && offset == last {
			continue
		}
		jump := offset - last
		if !started {
			jump = 0
		}
		last = offset
		wall := local / 60
		if local%60 < 0 {
			wall--
		}
		t := tick{at: u, wild: whole, wall: wall, caughtA: 1, caughtB: 0}
		switch {
		case !started:
			started = true
			virtual = wall
			if whole {
				t.caughtA, t.caughtB = wall, wall
			}
		case jump > 180*60 || jump < -180*60: // the clock was set to another date
			virtual = wall
			if whole {
				t.caughtA, t.caughtB = wall, wall
			}
		case wall > virtual: // the next minute, or the clock went forward
			t.caughtA, t.caughtB = virtual+1, wall
			virtual = wall
		}
		each(t)
	}
}

// due reports whether the expression is due at the tick.
func (o oracle) due(t tick) bool {
	if o.wild {
		return t.wild && o.shows(t.wall)
	}
	for w := t.caughtA; w <= t.caughtB; w++ {
		if o.shows(w) {
			return true
		}
	}
	return false
}

// changes finds the offset changes of a zone between two instants, first in steps of half an hour
// and then exactly.
func changes(zone *time.Location, from, to int64) []int64 {
	var out []int64
	const look = 1800
	for u := from; u < to; u += look {
		before := offsetAt(u, zone)
		if offsetAt(u+look, zone) == before {
			continue
		}
		low, high := u, u+look
		for high-low > 1 {
			if mid := (low + high) / 2; offsetAt(mid, zone) == before {
				low = mid
			} else {
				high = mid
			}
		}
		out = append(out, high)
	}
	return out
}

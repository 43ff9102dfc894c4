package agented

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of Spec.ExpectEvery.
const (
	MinExpectEvery = 10 * time.Second
	MaxExpectEvery = 366 * 24 * time.Hour
)

// ParseExpectEvery returns the period of Spec.ExpectEvery, such as 26h, 1d12h or 2w. It returns false
// if the text is not a period within the limits.
func ParseExpectEvery(text string) (time.Duration, bool) {
	units := []struct {
		name byte
		unit time.Duration
	}{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	var sum time.Duration
	for rest := strings.TrimSpace(text); rest != ""; {
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 1 {
			return 0, false
		}
		n, err := strconv.ParseInt(rest[:end], 10, 32)
		if err != nil {
			return 0, false
		}
		for len(units) > 0 && units[0].name != rest[end] {
			units = units[1:]
		}
		if len(units) == 0 || n > int64(MaxExpectEvery/units[0].unit) {
			return 0, false
		}
		sum += time.Duration(n) * units[0].unit
		units, rest = units[1:], rest[end+1:]
	}
	return sum, sum >= MinExpectEvery && sum <= MaxExpectEvery
}

// validateExpectEvery validates the period of the dead man's switch.
func (s *Spec) validateExpectEvery(refuse func(path, format string, args ...any)) {
	if s.ExpectEvery == "" {
		return
	}
	if _, ok := ParseExpectEvery(s.ExpectEvery); !ok {
		refuse("expect_every", "is not a period: use whole numbers with w, d, h, m or s, from 10s to 366d, for example 26h")
	}
}

// Absence is the state of the dead man's switch of a trigger.
type Absence struct {
	Trigger   TriggerID
	Name      string        // of the trigger
	Every     time.Duration // within which a success is expected
	Since     time.Time     // of the last success, or since when a success is expected
	Succeeded bool          // Since is the time of a success
	DueAt     time.Time     // when the next notification is due, if the server runs until then; zero: the trigger is disabled
	RaisedAt  time.Time     // of the last notification since then; zero: none
	Unwatched time.Duration // time since Since in which no server ran, which does not count
}

// Overdue reports whether no success came in time.
func (a *Absence) Overdue() bool { return !a.RaisedAt.IsZero() }

// Text describes an absence at a time, in one sentence without its full stop.
func (a *Absence) Text(now time.Time) string {
	since := "since it is expected"
	if a.Succeeded {
		since = "since the last success"
	}
	text := fmt.Sprintf("no execution has succeeded for %s, %s at %s; one is expected every %s",
		round(now.Sub(a.Since)), since, a.Since.UTC().Format("2006-01-02 15:04 MST"), round(a.Every))
	if a.Unwatched >= time.Minute {
		text += fmt.Sprintf(" (the server did not run for %s of it, which do not count)", round(a.Unwatched))
	}
	return text
}

// round formats a duration with its two largest units.
func round(d time.Duration) string {
	unit, smaller, a, b := time.Second, time.Duration(0), "s", ""
	switch {
	case d >= 24*time.Hour:
		unit, smaller, a, b = 24*time.Hour, time.Hour, "d", "h"
	case d >= time.Hour:
		unit, smaller, a, b = time.Hour, time.Minute, "h", "m"
	case d >= time.Minute:
		unit, smaller, a, b = time.Minute, time.Second, "m", "s"
	}
	text := fmt.Sprintf("%d%s", max(d, 0)/unit, a)
	if smaller > 0 && d%unit >= smaller {
		text += fmt.Sprintf(" %d%s", d%unit/smaller, b)
	}
	return text
}

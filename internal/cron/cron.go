// Package cron reads the text of a schedule and says when it is due.
//
// A schedule has one of three forms:
//
//	30 2 * * MON-FRI               five cron fields, or @hourly @daily @midnight @weekly @monthly @yearly @annually
//	every 15m [from TIME]          a period of elapsed time, counted from an anchor
//	once TIME                      one run
//
// # Cron fields
//
// The fields are minute (0-59), hour (0-23), day-of-month (1-31), month (1-12
// or JAN-DEC) and day-of-week (0-7 or SUN-SAT; 0 and 7 are both Sunday). A field
// is * or a list, separated by commas, of numbers, ranges and steps: 5, 1-5,
// */15, 10-40/10, 5/20 (from 5 to the end of the field). In the two day fields
// ? stands for *. Names may be in any case.
//
// A field that begins with * counts as a star, also with a step: */2 is a star
// in the two rules below. This is the rule of cronie, the cron of most Linux
// systems, and of its ancestors.
//
// Days: when neither day-of-month nor day-of-week is a star, a day that meets
// either of them is a day of the schedule. Otherwise it has to meet both.
//
// # When the clock changes
//
// A schedule whose minute or hour is a star follows elapsed time: it runs in
// every minute that really happens and whose time on the clock matches. What a
// spring gap leaves out does not run, what an autumn overlap repeats runs again.
//
// A schedule whose minute and hour are both fixed runs once for each time that
// it names, at the first moment at which the clock shows that time or a later
// one: right after a gap that swallows the time, and in the first pass of an
// overlap. Several such times in one gap are one run.
//
// A change of more than three hours is a change of the calendar, as when
// Samoa left out 30 December 2011. The times that it leaves out do not
// exist and are not made up for, the times that it repeats run again.
//
// The package does no input or output, never asks the clock and starts no
// goroutine. Times are searched from year 1 to year 9999.
package cron

import (
	"math/bits"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Bounds of the period of "every".
const (
	MinPeriod = time.Second
	MaxPeriod = 3660 * 24 * time.Hour // about ten years
)

// MaxSpec is the maximum length of a schedule's text, in bytes. The longest useful one lists
// every minute.
const MaxSpec = 1000

// kind is the form of a schedule.
type kind uint8

const (
	kindNone  kind = iota // the zero Schedule
	kindCron              // fields
	kindEvery             // anchor + k*period
	kindOnce              // one instant
	kindWall              // a time on the clock of the zone
)

// Schedule is a parsed schedule. It is comparable; the zero Schedule is never due.
type Schedule struct {
	kind   kind
	text   string // canonical; Parse(text) gives this Schedule again
	fields calendar
	period int64 // every: seconds
	at     int64 // every: the anchor; once: the instant (both Unix seconds); wall: minutes on the clock since 1970-01-01 00:00
}

// String returns the schedule as text that Parse reads back to an equal
// Schedule: white space is single, names of cron fields are as they were given.
func (s Schedule) String() string { return s.text }

// IsZero reports whether s is the zero Schedule, which is never due.
func (s Schedule) IsZero() bool { return s.kind == kindNone }

// Once reports whether the schedule is due at most once.
func (s Schedule) Once() bool { return s.kind == kindOnce || s.kind == kindWall }

// shorthands maps the @ forms to cron fields.
var shorthands = map[string]string{
	"@hourly":   "0 * * * *",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@weekly":   "0 0 * * 0",
	"@monthly":  "0 0 1 * *",
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
}

const formsHint = `write five cron fields such as "30 2 * * MON", or "every 15m", or "once 2030-01-31T09:00:00Z"`

// invalid returns a validation error, a sentence that names the field and the fix.
func invalid(format string, args ...any) error {
	return agented.Errorf(agented.Invalid, format, args...)
}

// Parse parses a schedule. Errors are of kind Invalid and name the field and the fix. The zone is
// not part of the text; it is passed to Next.
func Parse(spec string) (Schedule, error) {
	if len(spec) > MaxSpec {
		return Schedule{}, invalid("schedule is too long: use at most %d bytes", MaxSpec)
	}
	words := strings.Fields(spec)
	if len(words) == 0 {
		return Schedule{}, invalid("schedule is empty: %s", formsHint)
	}
	if strings.Contains(spec, "=") {
		return Schedule{}, invalid("schedule contains =, but variables such as TZ= and CRON_TZ= are not supported: remove them and set the schedule's zone field")
	}
	if plain := ascii.Replace(spec); plain != spec {
		return Schedule{}, invalid("schedule %q contains a typographic dash, comma or star, as word processors insert them: write %q", clip(spec), clip(plain))
	}
	first := strings.ToLower(words[0])
	switch {
	case first == "every" || first == "@every":
		return parseEvery(words[1:])
	case first == "once" || first == "at":
		return parseOnce(words[1:])
	case first == "@reboot":
		return Schedule{}, invalid("schedule @reboot is not a time: use one of @hourly, @daily, @weekly, @monthly, @yearly")
	case strings.HasPrefix(first, "@"):
		fields, ok := shorthands[first]
		if !ok || len(words) > 1 {
			return Schedule{}, invalid("schedule %q is unknown: use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually alone, or five cron fields", clip(strings.Join(words, " ")))
		}
		s, err := parseFields(strings.Fields(fields))
		s.text = first
		return s, err
	}
	return parseFields(words)
}

func parseFields(words []string) (Schedule, error) {
	if text := beyond(words); text != "" {
		return Schedule{}, invalid("%s", text)
	}
	switch n := len(words); {
	case n == 6 || n == 7:
		return Schedule{}, invalid("schedule has %d fields, but cron has five (minute hour day-of-month month day-of-week): remove the field for seconds%s", n, map[bool]string{true: " and the one for years"}[n == 7])
	case n != 5:
		return Schedule{}, invalid("schedule %q has %d of the five cron fields (minute hour day-of-month month day-of-week): %s", clip(strings.Join(words, " ")), n, formsHint)
	}
	var (
		c     calendar
		stars [5]bool
	)
	for i, f := range fields {
		mask, star, err := f.parse(words[i])
		if err != nil {
			return Schedule{}, err
		}
		stars[i] = star
		switch i {
		case 0:
			c.minutes = mask
		case 1:
			c.hours = uint32(mask)
		case 2:
			c.days = uint32(mask)
		case 3:
			c.months = uint16(mask)
		case 4:
			c.weekdays = uint8(mask&0x7f | mask>>7) // 7 is Sunday too
		}
	}
	c.fixed = !stars[0] && !stars[1]
	c.either = !stars[2] && !stars[4]
	if !c.possible() {
		// Only days past the end of every month are left; the months are short ones, because a
		// month of 31 days has every day.
		day := bits.TrailingZeros32(c.days)
		last := 30
		if c.months == 1<<2 {
			last = 29
		}
		return Schedule{}, invalid("day-of-month: day %d does not exist in %s, so the schedule would never run: use a day from 1 to %d", day, list(monthNames(c.months), "or"), last)
	}
	return Schedule{kind: kindCron, text: strings.Join(words, " "), fields: c}, nil
}

// Every returns the schedule of all times anchor + k*period, for every whole k,
// negative ones too: the anchor is a phase and not a start. The times are in
// elapsed time, so a period of 24 hours does not follow a zone's clock. period
// is whole seconds from MinPeriod to MaxPeriod; a fraction of a second in the
// anchor is dropped.
func Every(period time.Duration, anchor time.Time) (Schedule, error) {
	switch {
	case period < MinPeriod:
		return Schedule{}, invalid("every: the period is shorter than a second: use at least 1s")
	case period > MaxPeriod:
		return Schedule{}, invalid("every: the period is too long: use at most 3660d")
	case period%time.Second != 0:
		return Schedule{}, invalid("every: the period has a fraction of a second: use whole seconds")
	case !inRange(anchor.Unix()):
		return Schedule{}, invalid("every: the anchor is out of range: use a year from 1 to 9999")
	}
	s := Schedule{kind: kindEvery, period: int64(period / time.Second), at: anchor.Unix()}
	s.text = "every " + periodText(s.period)
	if s.at != 0 {
		s.text += " from " + time.Unix(s.at, 0).UTC().Format(time.RFC3339)
	}
	return s, nil
}

// Anchored returns the schedule with the anchor in place of an "every" schedule's
// own if that names none (or names 1970-01-01T00:00:00Z, which is the same). Other
// schedules, and an anchor out of range, change nothing.
func (s Schedule) Anchored(anchor time.Time) Schedule {
	if s.kind != kindEvery || s.at != 0 {
		return s
	}
	if t, err := Every(time.Duration(s.period)*time.Second, anchor); err == nil {
		return t
	}
	return s
}

// OnceAt returns the schedule that is due once, at that instant. A fraction of a
// second is dropped.
func OnceAt(at time.Time) (Schedule, error) {
	if !inRange(at.Unix()) {
		return Schedule{}, invalid("once: the time is out of range: use a year from 1 to 9999")
	}
	return Schedule{kind: kindOnce, at: at.Unix(), text: "once " + time.Unix(at.Unix(), 0).UTC().Format(time.RFC3339)}, nil
}

func parseEvery(words []string) (Schedule, error) {
	const hint = `write for example "every 15m", "every 1h30m" or "every 2d from 2030-01-31T09:00:00Z"`
	if len(words) != 1 && (len(words) != 3 || !strings.EqualFold(words[1], "from")) {
		return Schedule{}, invalid("every: the period is missing or is followed by other text: %s", hint)
	}
	period, ok := parsePeriod(words[0])
	if !ok {
		return Schedule{}, invalid("every: %q is not a period: use whole numbers with w, d, h, m or s, up to 3660d; %s", clip(words[0]), hint)
	}
	anchor := time.Unix(0, 0)
	if len(words) == 3 {
		var err error
		if anchor, err = time.Parse(time.RFC3339, strings.ToUpper(words[2])); err != nil {
			return Schedule{}, invalid("every: %q after from is not a time with an offset: write it as 2030-01-31T09:00:00Z or 2030-01-31T09:00:00+01:00", clip(words[2]))
		}
	}
	return Every(period, anchor)
}

func parseOnce(words []string) (Schedule, error) {
	if len(words) > 1 && strings.EqualFold(words[0], "at") {
		words = words[1:]
	}
	text := strings.ToUpper(strings.Join(words, "T"))
	if at, err := time.Parse(time.RFC3339, text); err == nil && len(words) == 1 {
		return OnceAt(at)
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		at, err := time.Parse(layout, text)
		if err != nil {
			continue
		}
		if at.Second() != 0 {
			return Schedule{}, invalid("once: a time without an offset is given to the minute: leave the seconds out, or give the offset, as in 2030-01-31T09:00:30+01:00")
		}
		if !inRange(at.Unix()) {
			break
		}
		return Schedule{kind: kindWall, at: at.Unix() / 60, text: "once " + at.Format("2006-01-02 15:04")}, nil
	}
	return Schedule{}, invalid("once: %q is not a time: write 2030-01-31T09:00:00Z, 2030-01-31T09:00:00+01:00, or 2030-01-31 09:00 for the clock of the schedule's zone", clip(strings.Join(words, " ")))
}

// parsePeriod parses 1w2d3h4m5s: whole numbers, each unit at most once, largest first.
func parsePeriod(text string) (time.Duration, bool) {
	var (
		total int64
		next  int
		seen  bool
	)
	for text = strings.ToLower(text); text != ""; seen = true {
		n, i := int64(0), 0
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			if n = n*10 + int64(text[i]-'0'); n > int64(MaxPeriod/time.Second) {
				return 0, false
			}
			i++
		}
		if i == 0 || i == len(text) {
			return 0, false
		}
		for next < len(units) && units[next].letter != text[i] {
			next++
		}
		if next == len(units) {
			return 0, false
		}
		if total += n * units[next].seconds; total > int64(MaxPeriod/time.Second) {
			return 0, false
		}
		next++
		text = text[i+1:]
	}
	return time.Duration(total) * time.Second, seen
}

// units are the units of a period, largest first.
var units = []struct {
	letter  byte
	seconds int64
	name    string
}{
	{'w', 7 * 86400, "week"}, {'d', 86400, "day"}, {'h', 3600, "hour"}, {'m', 60, "minute"}, {'s', 1, "second"},
}

package agentcli

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a printed time. The longest limit is a month; a longer one is an error.
const (
	maxRetryAfter = 40 * 24 * time.Hour
	maxWhenText   = 8 << 10
	justPast      = time.Hour // a clock time that is at most this long ago is in the past, not tomorrow's
)

// The notations in which CLIs print the time at which a limit resets. Each begins with a word
// that marks it, because a message may contain other times: when it was written, or when the CLI
// itself retries.
var (
	lifts = `(?:resets?|again|back|retry|until|available|lifts?|renews?|refresh(?:es)?|after|wait)`
	clock = `(\d{1,2})(?::(\d{2}))?(?::\d{2})?\s*([ap]\.?m\b\.?)?`
	zone  = `(?:\s*\(([A-Za-z][\w/+-]*)\)|\s+(utc|gmt|z|pst|pdt|est|edt|cet|cest|[A-Za-z]+/[A-Za-z_]+(?:/[A-Za-z_]+)?|etc/gmt[+-]\d{1,2})\b)?`
	month = `(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?`

	whenEpoch    = regexp.MustCompile(`(?i)(?:limit reached\s*\||\breset(?:s|_)?_?(?:at|time|_timestamp)?"?\s*[:=|]\s*"?)(\d{10}|\d{13})(?:\.\d+)?\b`)
	whenISO      = regexp.MustCompile(`(?i)\b\w*` + lifts + `\w*"?[^0-9]{0,25}?(\d{4}-\d{2}-\d{2})[t ](\d{2}:\d{2}(?::\d{2})?)(?:[.,]\d+)?\s?(z\b|utc\b|gmt\b|[+-]\d{2}:?\d{2})?`)
	whenField    = regexp.MustCompile(`(?i)\b(retry[-_]?after(?:[-_]?ms)?|retry[-_]?delay(?:[-_]?ms)?|resets?_in(?:_seconds)?|resets?_after_seconds)"?\s*[:=]\s*"?(\d{1,12}(?:\.\d+)?)\s?(ms|s)?\b`)
	whenHTTP     = regexp.MustCompile(`(?i)\bretry-after"?\s*[:=]\s*"?((?:mon|tue|wed|thu|fri|sat|sun), \d{2} [a-z]{3} \d{4} \d{2}:\d{2}:\d{2} gmt)`)
	whenIn       = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:again\s+)?(?:in|after|for)?:?\s*(?:about |approximately |~)?((?:(?:\d+(?:\.\d+)?\s*|an?\s+)(?:milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)\b\.?(?:,?\s+(?:and\s+)?)?|\d+(?:\.\d+)?(?:ms|[wdhms]))+)`)
	whenSoon     = regexp.MustCompile(`(?i)\b` + lifts + `\s+in\s+less than a minute`)
	whenPart     = regexp.MustCompile(`(?i)(\d+(?:\.\d+)?\s*|\ban?\s+)(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|w)`)
	whenDate     = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:at |on |after )?` + month + `\s+(\d{1,2})(?:st|nd|rd|th)?\b(?:,?\s+(\d{4})\b)?(?:(?:,|\s+at)?\s+` + clock + `)?` + zone)
	whenDateBack = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:at |on |after )?(\d{1,2})(?:st|nd|rd|th)?\s+(?:de )?` + month + `(?:,?\s+(?:de )?(\d{4})\b)?(?:(?:,|\s+at)?\s+` + clock + `)?` + zone)
	whenWeekday  = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:at |on )?(mon|tue|wed|thu|fri|sat|sun)[a-z]*,?(?:\s+at)?\s+` + clock + zone)
	whenClock    = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:at |today at |tomorrow at )?` + clock + zone)
	whenMidnight = regexp.MustCompile(`(?i)\b` + lifts + `\s+(?:every day |daily )?at midnight(?:\s+\(?(pacific|pt|pst|pdt|utc|gmt)\b)?`)
)

// When returns the time at which a limit resets according to a CLI's message. It depends only on
// its arguments and the zone database: now is when the message was printed, and zone is the CLI's
// zone for clock times without one. The result is in UTC, after now and at most 40 days ahead;
// otherwise it is the zero time.
func When(text string, now time.Time, zone *time.Location) time.Time {
	if len(text) > maxWhenText {
		text = text[:maxWhenText]
	}
	text = strings.Join(strings.Fields(text), " ") // sentences may be wrapped
	for _, read := range []func(string, time.Time, *time.Location) (time.Time, bool){
		readEpoch, readISO, readHTTP, readField, readDate, readWeekday, readIn, readMidnight, readClock,
	} {
		if at, found := read(text, now, zone); found {
			return ahead(at, now)
		}
	}
	return time.Time{}
}

// ahead returns the time if it is within the limits, otherwise the zero time.
func ahead(at, now time.Time) time.Time {
	if !at.After(now) || at.Sub(now) > maxRetryAfter {
		return time.Time{}
	}
	return at.UTC()
}

func readEpoch(text string, _ time.Time, _ *time.Location) (time.Time, bool) {
	m := whenEpoch.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	if len(m[1]) == 13 {
		return time.UnixMilli(n), true
	}
	return time.Unix(n, 0), true
}

func readISO(text string, _ time.Time, zone *time.Location) (time.Time, bool) {
	m := whenISO.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	clock := m[2]
	if len(clock) == 5 {
		clock += ":00"
	}
	switch offset := strings.ReplaceAll(strings.ToLower(m[3]), ":", ""); {
	case offset == "z", offset == "utc", offset == "gmt":
		zone = time.UTC
	case offset != "":
		at, err := time.Parse("2006-01-02 15:04:05 -0700", m[1]+" "+clock+" "+offset)
		return at, err == nil
	}
	at, err := time.ParseInLocation("2006-01-02 15:04:05", m[1]+" "+clock, zone)
	return at, err == nil
}

func readHTTP(text string, _ time.Time, _ *time.Location) (time.Time, bool) {
	m := whenHTTP.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", m[1])
	return at, err == nil
}

func readField(text string, now time.Time, _ *time.Location) (time.Time, bool) {
	m := whenField.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	n, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		return time.Time{}, false
	}
	if strings.EqualFold(m[3], "ms") || strings.HasSuffix(strings.ToLower(m[1]), "ms") {
		n /= 1000
	}
	return plusSeconds(now, n), true
}

func readIn(text string, now time.Time, _ *time.Location) (time.Time, bool) {
	m := whenIn.FindStringSubmatch(text)
	if m == nil {
		return now.Add(time.Minute), whenSoon.MatchString(text)
	}
	total := 0.0
	for _, part := range whenPart.FindAllStringSubmatch(m[1], 10) {
		n := 1.0 // an hour
		if part[1][0] >= '0' && part[1][0] <= '9' {
			n, _ = strconv.ParseFloat(strings.TrimSpace(part[1]), 64) // digits only: an overflow is too far ahead
		}
		total += n * unitSeconds(strings.ToLower(part[2]))
	}
	return plusSeconds(now, total), true
}

func unitSeconds(unit string) float64 {
	switch {
	case unit == "ms", strings.HasPrefix(unit, "milli"), strings.HasPrefix(unit, "msec"):
		return 0.001
	case unit[0] == 's':
		return 1
	case unit[0] == 'm':
		return 60
	case unit[0] == 'h':
		return 3600
	case unit[0] == 'd':
		return 86400
	}
	return 7 * 86400
}

// plusSeconds returns the time so many seconds after now, or zero if that is out of range.
func plusSeconds(now time.Time, seconds float64) time.Time {
	if !(seconds > 0 && seconds <= maxRetryAfter.Seconds()) {
		return time.Time{}
	}
	return now.Add(time.Duration(seconds * float64(time.Second)))
}

var months = map[string]time.Month{
	"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}

func readDate(text string, now time.Time, zone *time.Location) (time.Time, bool) {
	m := whenDate.FindStringSubmatch(text)
	if m == nil {
		if m = whenDateBack.FindStringSubmatch(text); m == nil {
			return time.Time{}, false
		}
		m[1], m[2] = m[2], m[1]
	}
	day, _ := strconv.Atoi(m[2])
	hour, minute, ok := clockOf(m[4], m[5], m[6])
	if m[5] == "" && m[6] == "" {
		hour, minute, ok = 0, 0, true // not a clock time, or out of range
	}
	zone, known := zoneNamed(m[7]+m[8], zone)
	if !ok || !known || day < 1 || day > 31 {
		return time.Time{}, true
	}
	month, year := months[strings.ToLower(m[1])], now.In(zone).Year()
	if m[3] != "" {
		year, _ = strconv.Atoi(m[3])
	}
	at := wall(year, month, day, hour, minute, zone)
	if m[3] == "" && !at.After(now) {
		at = wall(year+1, month, day, hour, minute, zone) // January, printed in December
	}
	return at, true
}

var weekdays = map[string]time.Weekday{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

func readWeekday(text string, now time.Time, zone *time.Location) (time.Time, bool) {
	m := whenWeekday.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	hour, minute, ok := clockOf(m[2], m[3], m[4])
	zone, known := zoneNamed(m[5]+m[6], zone)
	if !ok || !known {
		return time.Time{}, true
	}
	here := now.In(zone)
	days := (int(weekdays[strings.ToLower(m[1])]) - int(here.Weekday()) + 7) % 7
	at := wall(here.Year(), here.Month(), here.Day()+days, hour, minute, zone)
	if !at.After(now) {
		at = wall(here.Year(), here.Month(), here.Day()+days+7, hour, minute, zone)
	}
	return at, true
}

// readMidnight parses "resets at midnight Pacific time".
func readMidnight(text string, now time.Time, zone *time.Location) (time.Time, bool) {
	m := whenMidnight.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	switch strings.ToLower(m[1]) {
	case "pacific", "pt", "pst", "pdt":
		zone = pacific()
	case "utc", "gmt":
		zone = time.UTC
	}
	return midnight(now, zone), true
}

func readClock(text string, now time.Time, zone *time.Location) (time.Time, bool) {
	for _, m := range whenClock.FindAllStringSubmatch(text, 5) {
		if m[2] == "" && m[3] == "" {
			continue // "try again after 5 attempts" is not a time
		}
		hour, minute, ok := clockOf(m[1], m[2], m[3])
		if !ok {
			continue
		}
		zone, known := zoneNamed(m[4]+m[5], zone)
		if !known {
			return time.Time{}, true
		}
		return nextClock(hour, minute, now, zone), true
	}
	return time.Time{}, false
}

// clockOf parses the hour, the minute and am or pm.
func clockOf(h, m, half string) (hour, minute int, ok bool) {
	hour, err := strconv.Atoi(h)
	if err != nil {
		return 0, 0, false
	}
	if m != "" {
		minute, _ = strconv.Atoi(m)
	}
	if half != "" {
		if hour < 1 || hour > 12 {
			return 0, 0, false
		}
		hour %= 12
		if half[0] == 'p' || half[0] == 'P' {
			hour += 12
		}
	}
	return hour, minute, hour < 24 && minute < 60
}

// zoneNamed returns the zone that a message names, or otherwise if it names none. It returns
// false for an unknown zone.
func zoneNamed(name string, otherwise *time.Location) (*time.Location, bool) {
	fixed := map[string]int{"utc": 0, "gmt": 0, "z": 0, "pst": -8, "pdt": -7, "est": -5, "edt": -4, "cet": 1, "cest": 2}
	switch hours, is := fixed[strings.ToLower(name)]; {
	case name == "":
		return otherwise, true
	case is:
		return time.FixedZone(strings.ToUpper(name), hours*3600), true
	case strings.EqualFold(name, "local") || len(name) > 60:
		return nil, false
	}
	zone, err := time.LoadLocation(name)
	return zone, err == nil
}

// nextClock returns the next time at which clocks in the zone show the given time, today or
// tomorrow; the end of the current minute if they show it now; the zero time if they showed it
// within the last hour. A time that daylight saving skips is shifted forward by the change.
func nextClock(hour, minute int, now time.Time, zone *time.Location) time.Time {
	here := now.In(zone)
	var next time.Time
	for day := here.Day() - 1; day <= here.Day()+1; day++ {
		first := wall(here.Year(), here.Month(), day, hour, minute, zone)
		for _, at := range []time.Time{first.Add(-time.Hour), first, first.Add(time.Hour)} {
			same := at.Hour() == first.Hour() && at.Minute() == first.Minute()
			if !same {
				continue
			}
			switch past := now.Sub(at); {
			case past >= 0 && past < time.Minute:
				return at.Add(time.Minute) // the printed minute may mean its end
			case past >= 0 && past < justPast:
				return time.Time{}
			}
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}

// wall returns the time at which clocks in the zone show the given time.
func wall(year int, month time.Month, day, hour, minute int, zone *time.Location) time.Time {
	if year < 1 || year > 9999 {
		return time.Time{}
	}
	return time.Date(year, month, day, hour, minute, 0, 0, zone)
}

// retryHeaders are the response headers with the time of a retry, in order of precedence.
var retryHeaders = []string{
	"retry-after-ms", "retry-after", "anthropic-ratelimit-unified-reset", "x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens",
}

// RetryHeaders returns the headers with the time of a retry, with names in lower case.
func RetryHeaders(headers map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range headers {
		if name = strings.ToLower(name); slices.Contains(retryHeaders, name) {
			out[name] = Clip(value, 100)
		}
	}
	return out
}

// headerTime parses a retry time in a response header: seconds, a duration, an epoch time or a
// date.
func headerTime(name, value string, now time.Time) time.Time {
	value = strings.TrimSpace(Clip(value, 100))
	switch n, err := strconv.ParseFloat(value, 64); {
	case err == nil && n >= 1e12 && n < 1e14:
		return ahead(time.UnixMilli(int64(n)), now)
	case err == nil && n >= 1e9 && n < 1e12:
		return ahead(time.Unix(int64(n), 0), now)
	case err == nil && strings.HasSuffix(name, "-ms"):
		return ahead(plusSeconds(now, n/1000), now)
	case err == nil:
		return ahead(plusSeconds(now, n), now)
	}
	if at, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", value); err == nil {
		return ahead(at, now)
	}
	if at, err := time.Parse(time.RFC3339, value); err == nil {
		return ahead(at, now)
	}
	if d, err := time.ParseDuration(value); err == nil && d > 0 {
		return ahead(now.Add(min(d, 2*maxRetryAfter)), now)
	}
	return time.Time{}
}

// epochTime converts an epoch time in seconds or milliseconds.
func epochTime(n float64, now time.Time) time.Time {
	switch {
	case n >= 1e12 && n < 1e14:
		return ahead(time.UnixMilli(int64(n)), now)
	case n >= 1e9 && n < 1e11:
		return ahead(time.Unix(int64(n), 0), now)
	}
	return time.Time{}
}

// midnight returns the next start of a day in the zone.
func midnight(now time.Time, zone *time.Location) time.Time {
	here := now.In(zone)
	return wall(here.Year(), here.Month(), here.Day()+1, 0, 0, zone)
}

// pacific returns the zone in which Google's days begin.
func pacific() *time.Location {
	zone, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		return time.FixedZone("PST", -8*3600) // a machine without a zone database
	}
	return zone
}

package cron

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
)

// Timetable is a trigger's schedule, ready for use: times in its zone, from its start to its end,
// with its jitter.
type Timetable struct {
	Rhythm Schedule
	Zone   *time.Location
	start  time.Time
	end    time.Time
	jitter time.Duration
	seed   string
}

// Of validates a schedule. local is the zone of one without a zone. The error is of kind Invalid
// and lists each invalid field with the fix.
func Of(s agented.Schedule, local *time.Location) (Timetable, error) {
	t, bad := read(s, local)
	return t, agented.InvalidFields(bad)
}

// Next returns the first due time after the given one, or false if there is none.
func (t Timetable) Next(after time.Time) (time.Time, bool) {
	if !t.start.IsZero() && after.Before(t.start) {
		after = t.start.Add(-time.Nanosecond) // the start itself may be due
	}
	at, ok := t.Rhythm.Next(after, t.Zone)
	if !ok || !t.end.IsZero() && at.After(t.end) {
		return time.Time{}, false
	}
	return at.UTC(), true
}

// Run returns when a due time is fired: up to the jitter later, always the same for the same due
// time of the same schedule, and before the next due time, so that jitter never changes the
// order.
func (t Timetable) Run(due time.Time) time.Time {
	if t.jitter <= 0 {
		return due
	}
	most := t.jitter
	if next, ok := t.Rhythm.Next(due, t.Zone); ok {
		most = min(most, next.Sub(due))
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", t.seed, due.Unix())
	x := h.Sum64()
	// The last bytes of FNV hardly reach its high bits; two rounds spread them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return due.Add(time.Duration(x % uint64(most)).Truncate(time.Microsecond))
}

// Preview is like Schedule.Preview within the timetable's start and end.
func (t Timetable) Preview(after time.Time, n int) []Run {
	if !t.start.IsZero() && after.Before(t.start) {
		after = t.start.Add(-time.Nanosecond)
	}
	runs := t.Rhythm.Preview(after, n, t.Zone)
	if !t.end.IsZero() {
		runs = slices.DeleteFunc(runs, func(r Run) bool { return r.At.After(t.end) })
	}
	return runs
}

// read is like Of and returns the invalid fields.
func read(s agented.Schedule, local *time.Location) (Timetable, []agented.Field) {
	var bad []agented.Field
	refuse := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	t := Timetable{Zone: local, start: s.StartAt, end: s.EndAt, seed: string(s.ID), jitter: time.Duration(s.JitterSeconds) * time.Second}
	if t.Zone == nil {
		t.Zone = time.UTC
	}
	if s.Zone != "" {
		zone, err := LoadZone(s.Zone)
		if err != nil {
			refuse("zone", "%s", agented.Message(err))
		} else {
			t.Zone = zone
		}
	}
	forms := 0
	for _, given := range []bool{s.Cron != "", s.Every != "", !s.At.IsZero()} {
		if given {
			forms++
		}
	}
	var err error
	switch {
	case forms == 0:
		refuse("cron", `is missing: set one of cron ("30 2 * * MON-FRI", "@hourly"), every ("15m") and at ("2030-01-31T09:00:00Z")`)
	case forms > 1:
		refuse("cron", "is one of several forms that are set: keep one of cron, every and at, and create a separate schedule for each other one")
	case s.Cron != "":
		if t.Rhythm, err = parseCron(s.Cron); err != nil {
			refuse("cron", "%s", strings.TrimPrefix(agented.Message(err), "schedule "))
		}
	case s.Every != "":
		if t.Rhythm, err = parsePeriodFrom(s.Every, s.Anchor); err != nil {
			refuse("every", "%s", strings.TrimPrefix(agented.Message(err), "every: "))
		}
	default:
		if t.Rhythm, err = OnceAt(s.At); err != nil {
			refuse("at", "%s", strings.TrimPrefix(agented.Message(err), "once: "))
		}
	}
	if !s.Anchor.IsZero() && s.Every == "" {
		refuse("anchor", "is allowed together with every only: remove it")
	}
	if !slices.Contains([]agented.Missed{agented.MissedLatest, agented.MissedAll, agented.MissedSkip}, s.Missed) {
		refuse("missed", "must be latest, all or skip%s", suggest(string(s.Missed), "latest", "all", "skip"))
	}
	if s.MissedLimit < 1 || s.MissedLimit > agented.MaxMissedLimit {
		refuse("missed_limit", "must be from 1 to %d", agented.MaxMissedLimit)
	}
	if s.WindowSeconds < 0 || s.WindowSeconds > agented.MaxWindowSeconds {
		refuse("window_seconds", "must be from 0 (no limit) to %d", agented.MaxWindowSeconds)
	}
	if s.JitterSeconds < 0 || s.JitterSeconds > agented.MaxJitterSeconds {
		refuse("jitter_seconds", "must be from 0 (none) to %d", agented.MaxJitterSeconds)
	}
	if !slices.Contains([]agented.Overlap{agented.OverlapQueue, agented.OverlapSkip, agented.OverlapReplace}, s.Overlap) {
		refuse("overlap", "must be queue, skip or replace%s", suggest(string(s.Overlap), "queue", "skip", "replace"))
	}
	if !s.StartAt.IsZero() && !s.EndAt.IsZero() && s.EndAt.Before(s.StartAt) {
		refuse("end_at", "is before start_at: give a later time, or remove one of them")
	}
	if len(s.Message) > agented.MaxPrompt || strings.ContainsRune(s.Message, 0) {
		refuse("message", "is too long or contains a NUL byte: use at most %d bytes of text", agented.MaxPrompt)
	}
	if len(bad) > 0 {
		return Timetable{}, bad
	}
	return t, nil
}

// parseCron is like Parse for a field that must contain a cron expression.
func parseCron(text string) (Schedule, error) {
	words := strings.Fields(text)
	if len(words) > 0 {
		switch strings.ToLower(words[0]) {
		case "every", "@every":
			return Schedule{}, invalid(`is a period: write it in the field every, as in {"every": "15m"}`)
		case "once", "at":
			return Schedule{}, invalid(`is a single time: write it in the field at, as in {"at": "2030-01-31T09:00:00Z"}`)
		}
	}
	return Parse(text)
}

// parsePeriodFrom parses the field every.
func parsePeriodFrom(text string, anchor time.Time) (Schedule, error) {
	words := strings.Fields(text)
	if len(words) == 2 && strings.EqualFold(words[0], "every") {
		words = words[1:]
	}
	period, ok := time.Duration(0), false
	if len(words) == 1 {
		period, ok = parsePeriod(words[0])
	}
	if !ok {
		return Schedule{}, invalid("%q is not a period: use whole numbers with w, d, h, m or s, up to 3660d, as in 15m or 1h30m", clip(text))
	}
	return Every(period, anchor)
}

// zones caches loaded zones, because loading reads a file and every tick needs one. Its size is
// limited by the number of existing zones.
var zones sync.Map // name → *time.Location

// LoadZone returns the zone of an IANA name. The error is of kind Invalid and suggests a similar
// name.
func LoadZone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	const hint = "use a name such as Europe/Berlin or UTC"
	if name == "" || len(name) > 100 || strings.EqualFold(name, "local") {
		return nil, invalid("is not the name of a time zone: %s", hint)
	}
	z, err := time.LoadLocation(name)
	if err == nil && z.String() != name {
		err = invalid("another zone")
	}
	if err != nil {
		near := nearestZone(name)
		if near != "" {
			near = fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, agented.Errorf(agented.Invalid, "%q is not a known time zone: %s%s", clip(name), hint, near).Because(err)
	}
	zones.Store(name, z)
	return z, nil
}

// nearestZone returns the zone that a misspelt name most likely means, or "".
func nearestZone(name string) string {
	// Usually only the case or the word separator is wrong.
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == ' ' || r == '_' })
	for i, w := range words {
		parts := strings.Split(w, "/")
		for j, p := range parts {
			if p != "" {
				parts[j] = strings.ToUpper(p[:1]) + p[1:]
			}
		}
		words[i] = strings.Join(parts, "/")
	}
	for _, guess := range []string{strings.Join(words, "_"), strings.ToUpper(name)} {
		if z, err := time.LoadLocation(guess); err == nil && z.String() == guess && guess != "" {
			return guess
		}
	}
	if near := agented.Nearest(name, commonZones); near != "" {
		return near
	}
	city := name[strings.LastIndexByte(name, '/')+1:]
	for _, z := range commonZones {
		if strings.EqualFold(strings.ReplaceAll(city, " ", "_"), z[strings.LastIndexByte(z, '/')+1:]) {
			return z
		}
	}
	return ""
}

// commonZones are compared with a misspelt name.
var commonZones = strings.Fields(`UTC
	Africa/Cairo Africa/Johannesburg Africa/Lagos Africa/Nairobi
	America/Anchorage America/Argentina/Buenos_Aires America/Bogota America/Chicago America/Denver America/Halifax
	America/Lima America/Los_Angeles America/Mexico_City America/New_York America/Phoenix America/Sao_Paulo
	America/Santiago America/St_Johns America/Toronto America/Vancouver
	Asia/Bangkok Asia/Dhaka Asia/Dubai Asia/Ho_Chi_Minh Asia/Hong_Kong Asia/Jakarta Asia/Jerusalem Asia/Karachi
	Asia/Kathmandu Asia/Kolkata Asia/Manila Asia/Riyadh Asia/Seoul Asia/Shanghai Asia/Singapore Asia/Taipei
	Asia/Tehran Asia/Tokyo
	Atlantic/Azores Atlantic/Reykjavik Australia/Adelaide Australia/Brisbane Australia/Melbourne Australia/Perth Australia/Sydney
	Europe/Amsterdam Europe/Athens Europe/Berlin Europe/Brussels Europe/Bucharest Europe/Budapest Europe/Copenhagen
	Europe/Dublin Europe/Helsinki Europe/Istanbul Europe/Kyiv Europe/Lisbon Europe/London Europe/Madrid Europe/Moscow
	Europe/Oslo Europe/Paris Europe/Prague Europe/Rome Europe/Sofia Europe/Stockholm Europe/Vienna Europe/Warsaw Europe/Zurich
	Pacific/Auckland Pacific/Honolulu`)

// suggest returns `; did you mean "x"?` for the nearest known word, or "".
func suggest(word string, known ...string) string {
	if near := agented.Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

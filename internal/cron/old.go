package cron

import (
	"fmt"
	"strings"
)

// Old is a schedule in the format of the Python version.
type Old struct {
	Type string // schedule_type: daily, weekly or monthly
	Time string // schedule_time: HH:MM
	Day  int    // schedule_day: weekly 0-6 from Monday, monthly 1-28
	Cron string // cron_expression: five fields, 0 = Monday in the last; it takes precedence over the others
}

// Rewrite converts the schedule to text for Parse that is due at the same times. note describes
// the conversion and is empty if nothing changed. An old expression that restricts day-of-month
// and day-of-week is rejected: it meant days that match both, which cron cannot express. The zone
// is not part of it.
func (o Old) Rewrite() (spec, note string, err error) {
	if strings.TrimSpace(o.Cron) != "" {
		return rewriteCron(o.Cron)
	}
	hour, minute, ok := timeOfDay(o.Time)
	if !ok {
		return "", "", invalid("schedule_time: %q is not a time of the day: write it as HH:MM, from 00:00 to 23:59", clip(o.Time))
	}
	when := fmt.Sprintf("%02d:%02d", hour, minute)
	switch strings.ToLower(strings.TrimSpace(o.Type)) {
	case "daily":
		spec = fmt.Sprintf("%d %d * * *", minute, hour)
		note = fmt.Sprintf("daily at %s is now the cron schedule %q", when, spec)
	case "weekly":
		if o.Day < 0 || o.Day > 6 {
			return "", "", invalid("schedule_day: %d is not a day of the week: use 0 (Monday) to 6 (Sunday)", o.Day)
		}
		spec = fmt.Sprintf("%d %d * * %s", minute, hour, shortDays[(o.Day+1)%7])
		note = fmt.Sprintf("weekly on day %d (%s, counted from 0 = Monday) at %s is now the cron schedule %q", o.Day, longDays[o.Day], when, spec)
	case "monthly":
		if o.Day < 1 || o.Day > 28 {
			return "", "", invalid("schedule_day: %d is not a day that every month has: use 1 to 28", o.Day)
		}
		spec = fmt.Sprintf("%d %d %d * *", minute, hour, o.Day)
		note = fmt.Sprintf("monthly on day %d at %s is now the cron schedule %q", o.Day, when, spec)
	default:
		return "", "", invalid("schedule_type: %q is unknown: use daily, weekly or monthly, or give cron_expression", clip(o.Type))
	}
	return spec, note, nil
}

// rewriteCron converts an expression whose day-of-week counts from Monday and whose days must
// match both day fields.
func rewriteCron(text string) (spec, note string, err error) {
	words := strings.Fields(text)
	if len(words) != 5 {
		_, err := parseFields(words)
		if err == nil {
			err = invalid("cron_expression: write five fields")
		}
		return "", "", err
	}
	old := words[4]
	weekdays, err := oldWeekdays(old)
	if err != nil {
		return "", "", err
	}
	everyDay, star, err := fields[2].parse(words[2])
	if err != nil {
		return "", "", err
	}
	// In this package, days must match both day fields if one of them begins with a star.
	restricted := !star && everyDay != 1<<32-2
	if weekdays == 1<<7-1 {
		words[4] = "*"
	} else {
		if restricted {
			return "", "", invalid("cron_expression: day-of-month %s and day-of-week %s are both set; this used to mean days that match both, but in cron it means days that match either: set one of them to * and let the command or the prompt check the other", clip(words[2]), clip(old))
		}
		if !star {
			words[2] = "*" // every day by list; a star keeps it from meaning "either"
		}
		words[4] = strings.Join(weekdayRuns(weekdays, append(shortDays[1:7:7], shortDays[0]), "-", 3), ",")
	}
	if strings.EqualFold(words[4], old) {
		words[4] = old
	}
	s, err := parseFields(words)
	if err != nil {
		return "", "", err
	}
	switch before := strings.Join(strings.Fields(text), " "); {
	case words[4] != old:
		note = fmt.Sprintf("day-of-week %s counted from 0 = Monday and is now %s, because cron counts from 0 = Sunday: %q is now %q", old, words[4], before, s.text)
	case s.text != before:
		note = fmt.Sprintf("%q is now %q, which means the same", before, s.text)
	}
	return s.text, note, nil
}

// oldWeekdays parses a day-of-week field that counts from 0 = Monday to a mask that counts from
// Sunday.
func oldWeekdays(text string) (uint8, error) {
	f := field{name: "day-of-week", min: 0, max: 6, names: append(shortDays[1:7:7], shortDays[0]), day: true}
	mask, _, err := f.parse(text)
	if err != nil {
		return 0, err
	}
	return uint8(mask<<1&0x7f | mask>>6&1), nil
}

// timeOfDay parses H:MM or HH:MM.
func timeOfDay(text string) (hour, minute int, ok bool) {
	h, m, _ := strings.Cut(strings.TrimSpace(text), ":")
	hour, okHour := number(h)
	minute, okMinute := number(m)
	return hour, minute, okHour && okMinute && len(h) <= 2 && len(m) == 2 && hour < 24 && minute < 60
}

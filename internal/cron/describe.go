package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

var (
	longMonths = []string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}
	longDays   = []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
)

// Describe returns a description of the schedule in English, without a full stop: "at 02:30 on
// Monday".
func (s Schedule) Describe() string {
	switch s.kind {
	case kindCron:
		return s.fields.describe()
	case kindEvery:
		text := "every " + periodWords(s.period)
		if s.at != 0 {
			text += ", counted from " + time.Unix(s.at, 0).UTC().Format("2006-01-02 15:04:05 MST")
		}
		return text
	case kindOnce:
		return "once, at " + time.Unix(s.at, 0).UTC().Format("2006-01-02 15:04:05 MST")
	case kindWall:
		return "once, on " + dateText(s.at) + " at " + clockText(s.at)
	}
	return "never"
}

func (c calendar) describe() string {
	when, days := c.describeTime(), c.describeDays()
	if days == "" && strings.HasPrefix(when, "at ") && !strings.HasPrefix(when, "at minute") {
		days = "every day"
	}
	text := when
	if days != "" {
		text += " " + days
	}
	if c.months != 1<<13-2 && !c.oneDate() {
		text += " in " + list(monthNames(c.months), "and")
	}
	return text
}

func (c calendar) describeTime() string {
	const everyHour, everyMinute = 1<<24 - 1, 1<<60 - 1
	hours, minutes := bits.OnesCount32(c.hours), bits.OnesCount64(c.minutes)
	one := bits.TrailingZeros64(c.minutes)
	at := fmt.Sprintf(" at minute %d", one)
	if one == 0 {
		at = ", on the hour"
	}
	switch step := even(c.minutes, 60); {
	case c.minutes == everyMinute:
		return "every minute" + c.describeHours()
	case step > 0:
		return fmt.Sprintf("every %d minutes", step) + c.describeHours()
	case minutes == 1 && c.hours == everyHour:
		return "every hour" + at
	case c.hours == everyHour:
		return "at minutes " + numbers(c.minutes) + " of every hour"
	case hours*minutes <= 6:
		var times []string
		for h := range 24 {
			for m := range 60 {
				if c.hours>>h&1 != 0 && c.minutes>>m&1 != 0 {
					times = append(times, fmt.Sprintf("%02d:%02d", h, m))
				}
			}
		}
		return "at " + list(times, "and")
	case minutes == 1 && even(uint64(c.hours), 24) > 0:
		return fmt.Sprintf("every %d hours", even(uint64(c.hours), 24)) + at
	case minutes == 1:
		return fmt.Sprintf("at minute %d of hours %s", one, numbers(uint64(c.hours)))
	case hours == 1:
		return fmt.Sprintf("at minutes %s of hour %d", numbers(c.minutes), bits.TrailingZeros32(c.hours))
	}
	return "at minutes " + numbers(c.minutes) + " of hours " + numbers(uint64(c.hours))
}

// describeHours describes the hours in which something repeats.
func (c calendar) describeHours() string {
	first, count := bits.TrailingZeros32(c.hours), bits.OnesCount32(c.hours)
	switch {
	case count == 24:
		return ""
	case c.hours>>first == 1<<count-1:
		return fmt.Sprintf(" from %02d:00 to %02d:59", first, first+count-1)
	}
	return " in hours " + numbers(uint64(c.hours))
}

// oneDate reports whether the days are best described as a date, as in 25 December.
func (c calendar) oneDate() bool {
	return !c.either && c.weekdays == 1<<7-1 && bits.OnesCount32(c.days) == 1 && bits.OnesCount16(c.months) == 1
}

func (c calendar) describeDays() string {
	const everyDay, everyWeekday = 1<<32 - 2, 1<<7 - 1
	var date, weekday string
	if c.days != everyDay {
		date = "on days " + numbers(uint64(c.days)) + " of the month"
		if bits.OnesCount32(c.days) == 1 {
			date = fmt.Sprintf("on day %d of the month", bits.TrailingZeros32(c.days))
		}
	}
	if c.weekdays != everyWeekday {
		weekday = "on " + strings.Join(weekdayRuns(c.weekdays, longDays, " to ", 3), ", ")
		if i := strings.LastIndex(weekday, ", "); i >= 0 {
			weekday = weekday[:i] + " and " + weekday[i+2:]
		}
	}
	switch {
	case c.oneDate():
		return fmt.Sprintf("on %d %s", bits.TrailingZeros32(c.days), longMonths[bits.TrailingZeros16(c.months)-1])
	case c.either && (date == "" || weekday == ""):
		return "" // then every day matches one of them
	case c.either:
		return date + " or " + weekday
	case date != "" && weekday != "":
		return date + ", but only " + weekday
	}
	return date + weekday
}

// weekdayRuns names the weekdays, starting on Monday; runs of at least least days become a range.
func weekdayRuns(mask uint8, names []string, to string, least int) []string {
	week := mask>>1&0x3f | mask&1<<6 // Monday first
	var out []string
	for i := 0; i < 7; i++ {
		if week>>i&1 == 0 {
			continue
		}
		j := i
		for j < 6 && week>>(j+1)&1 != 0 {
			j++
		}
		if j-i+1 >= least {
			out = append(out, names[i]+to+names[j])
			i = j
			continue
		}
		out = append(out, names[i])
	}
	return out
}

// even returns n if the mask contains every n-th of size values from 0 on, at equal distances
// also across the wrap; otherwise 0.
func even(mask uint64, size int) int {
	count := bits.OnesCount64(mask)
	if count < 2 || size%count != 0 {
		return 0
	}
	step := size / count
	for i := 0; i < size; i += step {
		if mask>>i&1 == 0 {
			return 0
		}
	}
	return step
}

// numbers lists the bits of a mask; runs of three or more become a range.
func numbers(mask uint64) string {
	var out []string
	for i := 0; i < 64; i++ {
		if mask>>i&1 == 0 {
			continue
		}
		j := i
		for j < 63 && mask>>(j+1)&1 != 0 {
			j++
		}
		if j-i >= 2 {
			out = append(out, fmt.Sprintf("%d to %d", i, j))
			i = j
			continue
		}
		out = append(out, strconv.Itoa(i))
	}
	return list(out, "and")
}

func monthNames(mask uint16) []string {
	var out []string
	for m := 1; m <= 12; m++ {
		if mask>>m&1 != 0 {
			out = append(out, longMonths[m-1])
		}
	}
	return out
}

// list joins words with commas and last, without a comma before last.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// periodText formats a period for parsePeriod.
func periodText(seconds int64) string {
	var b strings.Builder
	for _, u := range units {
		if n := seconds / u.seconds; n > 0 {
			fmt.Fprintf(&b, "%d%c", n, u.letter)
			seconds -= n * u.seconds
		}
	}
	return b.String()
}

func periodWords(seconds int64) string {
	var out []string
	rest := seconds
	for _, u := range units {
		n := rest / u.seconds
		rest -= n * u.seconds
		switch {
		case n == 1 && seconds == u.seconds:
			return u.name
		case n == 1:
			out = append(out, "1 "+u.name)
		case n > 1:
			out = append(out, fmt.Sprintf("%d %ss", n, u.name))
		}
	}
	return list(out, "and")
}

// dateText and clockText format wall minutes.
func dateText(wall int64) string {
	year, month, date := civil(floorDiv(wall, minutesPerDay))
	return fmt.Sprintf("%04d-%02d-%02d", year, month, date)
}

func clockText(wall int64) string {
	minute := floorMod(wall, minutesPerDay)
	return fmt.Sprintf("%02d:%02d", minute/60, minute%60)
}

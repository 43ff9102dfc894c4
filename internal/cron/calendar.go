package cron

import "math/bits"

// calendar holds the five fields as bit masks: the schedule in terms of a wall clock and a
// calendar, without a zone.
type calendar struct {
	minutes  uint64 // bit 0-59
	hours    uint32 // bit 0-23
	days     uint32 // bit 1-31
	months   uint16 // bit 1-12
	weekdays uint8  // bit 0-6, 0 = Sunday
	fixed    bool   // neither minute nor hour is a star
	either   bool   // neither day field is a star: a day must match one of them, otherwise both
}

const minutesPerDay = 24 * 60

// possible reports whether any date matches the fields. Each weekday falls on each date,
// including 29 February, within 40 years.
func (c calendar) possible() bool {
	if c.either {
		return true
	}
	for month := 1; month <= 12; month++ {
		if c.months&(1<<month) != 0 && c.days&(1<<(monthDays(2000, month)+1)-1) != 0 {
			return true
		}
	}
	return false
}

// next returns the first time of the schedule that is not before wall. Both count the minutes
// since 1970-01-01 00:00 on a clock that never changes. It returns false if there is none within
// 60 years, which does not happen for possible fields.
func (c calendar) next(wall int64) (int64, bool) {
	day, minute := floorDiv(wall, minutesPerDay), int(floorMod(wall, minutesPerDay))
	found, ok := c.nextDay(day)
	if ok && found == day {
		if m, ok := c.nextMinute(minute); ok {
			return day*minutesPerDay + int64(m), true
		}
		found, ok = c.nextDay(day + 1)
	}
	if !ok {
		return 0, false
	}
	m, _ := c.nextMinute(0)
	return found*minutesPerDay + int64(m), true
}

// nextMinute returns the first minute of a day, from minute on, that matches the hour and minute
// fields.
func (c calendar) nextMinute(minute int) (int, bool) {
	h, m := minute/60, minute%60
	if c.hours>>h&1 != 0 {
		if rest := c.minutes >> m; rest != 0 {
			return h*60 + m + bits.TrailingZeros64(rest), true
		}
	}
	rest := c.hours >> (h + 1)
	if rest == 0 {
		return 0, false
	}
	return (h+1+bits.TrailingZeros32(rest))*60 + bits.TrailingZeros64(c.minutes), true
}

// nextDay returns the first day, in days since 1970-01-01, from day on, that matches the month
// and the day fields.
func (c calendar) nextDay(day int64) (int64, bool) {
	year, month, date := civil(day)
	first := day - int64(date) + 1 // the first of the month
	for range 60 * 12 {
		length := monthDays(year, month)
		if c.months&(1<<month) != 0 {
			if rest := c.daysOf(first, length) >> date; rest != 0 {
				return first + int64(date+bits.TrailingZeros32(rest)) - 1, true
			}
		}
		first += int64(length)
		date = 1
		if month++; month > 12 {
			year, month = year+1, 1
		}
	}
	return 0, false
}

// daysOf returns the matching days of the month that begins on the day first,
// as bits 1 to length.
func (c calendar) daysOf(first int64, length int) uint32 {
	weekday := floorMod(first+4, 7) // 1970-01-01 was a Thursday
	week := (uint64(c.weekdays)>>weekday | uint64(c.weekdays)<<(7-weekday)) & 0x7f
	byWeekday := uint32((week | week<<7 | week<<14 | week<<21 | week<<28) << 1)
	days := c.days & byWeekday
	if c.either {
		days = c.days | byWeekday
	}
	return days & uint32(1<<(length+1)-2)
}

// civil turns days since 1970-01-01 into a date of the Gregorian calendar. The
// year is taken to begin in March, so that the leap day is its last.
func civil(day int64) (year, month, date int) {
	const cycle = 146097 // days in 400 years
	z := day + 719468    // days since 0000-03-01
	era, doe := floorDiv(z, cycle), floorMod(z, cycle)
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	shifted := (5*doy + 2) / 153
	date = int(doy - (153*shifted+2)/5 + 1)
	month = int(shifted) + 3
	year = int(yoe + era*400)
	if month > 12 {
		month, year = month-12, year+1
	}
	return year, month, date
}

func monthDays(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - floorDiv(a, b)*b }

func ceilDiv(a, b int64) int64 { return -floorDiv(-a, b) }

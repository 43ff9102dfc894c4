package cron

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agented/agented/internal/format"
)

// field is one of the five cron fields.
type field struct {
	name     string
	min, max int
	names    []string // of the values from min on; nil when it has none
	day      bool     // one of the two day fields, where ? is allowed
}

var (
	shortMonths = []string{"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"}
	shortDays   = []string{"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"}

	fields = [5]field{
		{name: "minute", min: 0, max: 59},
		{name: "hour", min: 0, max: 23},
		{name: "day-of-month", min: 1, max: 31, day: true},
		{name: "month", min: 1, max: 12, names: shortMonths},
		{name: "day-of-week", min: 0, max: 7, names: shortDays, day: true},
	}
)

func (f field) invalid(format string, args ...any) error {
	return invalid("%s: %s", f.name, fmt.Sprintf(format, args...))
}

// span describes the values of the field.
func (f field) span() string {
	s := fmt.Sprintf("%d to %d", f.min, f.max)
	if f.names != nil {
		s += fmt.Sprintf(" or %s to %s", f.names[0], f.names[len(f.names)-1])
	}
	return s
}

// parse returns the values of the field as a bit mask, and whether the field
// counts as a star.
func (f field) parse(text string) (mask uint64, star bool, err error) {
	if text == "?" {
		if !f.day {
			return 0, false, f.invalid("? is allowed in the two day fields only: write * for every %s", f.name)
		}
		text = "*"
	}
	for term := range strings.SplitSeq(text, ",") {
		if term == "" {
			return 0, false, f.invalid("%q contains an empty list item: remove the comma", clip(text))
		}
		m, err := f.term(term)
		if err != nil {
			return 0, false, err
		}
		mask |= m
	}
	return mask, text[0] == '*', nil
}

// term parses one item of a list: a value, a range or a star, each with or without a step.
func (f field) term(term string) (uint64, error) {
	if err := f.foreign(term); err != nil {
		return 0, err
	}
	span, stepText, stepped := strings.Cut(term, "/")
	low, high := f.min, f.max
	if lowText, highText, ranged := strings.Cut(span, "-"); span != "*" {
		var err error
		if low, err = f.value(lowText); err != nil {
			return 0, err
		}
		switch {
		case ranged:
			if high, err = f.value(highText); err != nil {
				return 0, err
			}
			if f.max == 7 && low == 7 && high < 7 {
				low = 0 // 7-2: Sunday to Tuesday
			}
			if f.max == 7 && high == 0 && low > 0 {
				high = 7 // FRI-SUN, where SUN is read as 0
			}
		case !stepped:
			high = low
		}
		if low > high {
			return 0, f.invalid("the range %s runs backwards: write it as two, %s-%d,%d-%s", clip(span), lowText, f.last(), f.min, highText)
		}
	}
	step := 1
	if stepped {
		var ok bool
		if step, ok = number(stepText); !ok || step == 0 {
			return 0, f.invalid("the step in %q must be a number from 1: write for example */5", clip(term))
		}
		if step > f.max {
			mend := "use a smaller step"
			if f.min == 0 && f.max > 7 {
				mend += fmt.Sprintf(`, or "every %d%c" for a period of elapsed time`, step, f.name[0])
			}
			return 0, f.invalid("the step of %d is larger than the field, which ends at %d: %s", step, f.last(), mend)
		}
	}
	var mask uint64
	for v := low; v <= high; v += step {
		mask |= 1 << v
	}
	return mask, nil
}

// last returns the largest value of the field, without 7 as the second value of Sunday.
func (f field) last() int {
	if f.max == 7 {
		return 6
	}
	return f.max
}

// value parses a number or a name.
func (f field) value(text string) (int, error) {
	if v, ok := number(text); ok {
		if v < f.min || v > f.max {
			return 0, f.invalid("%d is out of range: use %s", v, f.span())
		}
		return v, nil
	}
	upper := strings.ToUpper(text)
	if i := slices.Index(f.names, upper); i >= 0 {
		return f.min + i, nil
	}
	for _, name := range f.names {
		if len(upper) > 3 && strings.HasPrefix(upper, name) {
			return 0, f.invalid("%q is unknown: write %s", clip(text), name)
		}
	}
	if text == "*" {
		return 0, f.invalid("* cannot be part of a range: use %s", f.span())
	}
	if text == "" {
		return 0, f.invalid("a number is missing in a range or a step: use %s", f.span())
	}
	return 0, f.invalid("%q is not a value of this field: use %s", clip(text), f.span())
}

// foreign rejects syntax of other cron dialects, and names the alternative.
func (f field) foreign(term string) error {
	upper := strings.ToUpper(term)
	digits := func(s string) bool { return s == "" || isNumber(s) }
	switch {
	case strings.Contains(term, "#"):
		return f.invalid("# (the n-th weekday of a month) is not supported: schedule every such weekday, and let the command or the prompt check the date")
	case strings.Contains(term, "~"):
		return f.invalid("~ (a random value) is not supported: give the value, and use the schedule's jitter")
	case strings.Contains(term, "?"):
		return f.invalid("? must stand alone: write * in its place")
	case upper == "L" || strings.HasPrefix(upper, "L-") || strings.HasSuffix(upper, "L") && digits(upper[:len(upper)-1]) || upper == "LW":
		return f.invalid("L (the last day) is not supported: run on day 1 of the next month, or on days 28-31 and let the command or the prompt check the date")
	case strings.HasSuffix(upper, "W") && digits(upper[:len(upper)-1]):
		return f.invalid("W (the nearest working day) is not supported: give the day, or MON-FRI in day-of-week")
	case strings.HasPrefix(upper, "H") && (len(upper) == 1 || upper[1] == '(' || upper[1] == '/'):
		return f.invalid("H (a hashed value) is not supported: give the value, and use the schedule's jitter")
	}
	return nil
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// number parses an unsigned decimal number of at most nine digits.
func number(s string) (int, bool) {
	if !isNumber(s) || len(s) > 9 {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// clip shortens input that an error repeats, and removes control characters.
func clip(s string) string { return format.ClipCharacters(format.Printable(s, '\uFFFD'), 40) }

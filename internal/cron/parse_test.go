package cron_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	robfig "github.com/robfig/cron/v3"
	"pgregory.net/rapid"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
)

func TestDescribe_english(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"30 2 * * MON":       "at 02:30 on Monday",
		"30 2 * * *":         "at 02:30 every day",
		"0 9,17 * * 1-5":     "at 09:00 and 17:00 on Monday to Friday",
		"0 9 * * 6,7":        "at 09:00 on Saturday and Sunday",
		"0 9 * * FRI-SUN":    "at 09:00 on Friday to Sunday",
		"0 9 * * 0-2":        "at 09:00 on Monday, Tuesday and Sunday",
		"0 9 * * 7-2":        "at 09:00 on Monday, Tuesday and Sunday",
		"* * * * *":          "every minute",
		"*/15 * * * *":       "every 15 minutes",
		"*/15 9-17 * * 1-5":  "every 15 minutes from 09:00 to 17:59 on Monday to Friday",
		"*/45 * * * *":       "at minutes 0 and 45 of every hour",
		"@hourly":            "every hour, on the hour",
		"5 * * * *":          "every hour at minute 5",
		"0 */6 * * *":        "at 00:00, 06:00, 12:00 and 18:00 every day",
		"5 */2 * * *":        "every 2 hours at minute 5",
		"@daily":             "at 00:00 every day",
		"@weekly":            "at 00:00 on Sunday",
		"@monthly":           "at 00:00 on day 1 of the month",
		"@yearly":            "at 00:00 on 1 January",
		"0 0 29 2 *":         "at 00:00 on 29 February",
		"0 0 13 * FRI":       "at 00:00 on day 13 of the month or on Friday",
		"0 0 1-7 * */7":      "at 00:00 on days 1 to 7 of the month, but only on Sunday",
		"0 6 1,15 3,9 *":     "at 06:00 on days 1 and 15 of the month in March and September",
		"0 0 * 12 *":         "at 00:00 every day in December",
		"7,8,9,30 1-5 * * *": "at minutes 7 to 9 and 30 of hours 1 to 5",
		"every 15m":          "every 15 minutes",
		"@every 1h":          "every hour",
		"every 25h":          "every 1 day and 1 hour",
		"every 1d from 2030-01-31T09:00:00+01:00": "every day, counted from 2030-01-31 08:00:00 UTC",
		"once 2030-01-31T09:00:00Z":               "once, at 2030-01-31 09:00:00 UTC",
		"once 2030-01-31 09:00":                   "once, on 2030-01-31 at 09:00",
	} {
		if got := parse(t, spec).Describe(); got != want {
			t.Errorf("%q is described as %q, want %q", spec, got, want)
		}
	}
	if got := (cron.Schedule{}).Describe(); got != "never" {
		t.Errorf("the zero schedule is described as %q", got)
	}
}

func TestParse_canonical_text(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		" 30\t2  * * mon ": "30 2 * * mon",
		"@Daily":           "@daily",
		"Every 90M":        "every 1h30m",
		"@every 24h":       "every 1d",
		"every 168h":       "every 1w",
		"every 15m from 2030-01-31t09:00:00+01:00": "every 15m from 2030-01-31T08:00:00Z",
		"every 15m from 1970-01-01T00:00:00Z":      "every 15m",
		"ONCE at 2030-01-31 09:00":                 "once 2030-01-31 09:00",
		"at 2030-01-31T09:00:00":                   "once 2030-01-31 09:00",
		"once 2030-01-31T09:00:07+01:00":           "once 2030-01-31T08:00:07Z",
		"? ? ? * *":                                "",
		"0 0 ? * ?":                                "0 0 ? * ?",
	} {
		s, err := cron.Parse(spec)
		if want == "" {
			if err == nil {
				t.Errorf("%q is accepted as %q", spec, s)
			}
			continue
		}
		if err != nil || s.String() != want {
			t.Errorf("Parse(%q) = %q, %v, want %q", spec, s, err, want)
			continue
		}
		if again := parse(t, s.String()); again != s {
			t.Errorf("%q does not read back as itself", s)
		}
	}
}

func TestParse_errors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ spec, want string }{
		{"", "schedule is empty: write five cron fields"},
		{" \n ", "schedule is empty"},
		{strings.Repeat("0,", 600) + "0 * * * *", "schedule is too long: use at most 1000 bytes"},
		{"TZ=0", "schedule contains =, but variables such as TZ= and CRON_TZ= are not supported: remove them and set the schedule's zone field"},
		{"TZ=Europe/Berlin 0 9 * * *", "set the schedule's zone field"},
		{"CRON_TZ=UTC 0 9 * * *", "set the schedule's zone field"},
		{"0 9 * * * FOO=1", "schedule contains ="},
		{"0 0 9 * * *", "schedule has 6 fields, but cron has five (minute hour day-of-month month day-of-week): remove the field for seconds"},
		{"0 0 9 * * * 2030", "remove the field for seconds and the one for years"},
		{"0 2 * * MON–FRI", `write "0 2 * * MON-FRI"`},
		{"＊/5 * * * *", `write "*/5 * * * *"`},
		{"0 9 * * * root /usr/bin/x", "like a line of a crontab"},
		{"0 9 * * * /usr/bin/x", "keep \"0 9 * * *\""},
		{"*/5 * * * * www-data cd /srv && make", "like a line of a crontab"},
		{"0 0 1 1 ? 2027", "ends with a year"},
		{"0 0 9 * * MON", "remove the field for seconds"},
		{"0 9 * *", "4 of the five cron fields"},
		{"hello", "1 of the five cron fields"},
		{"@fortnightly", "schedule \"@fortnightly\" is unknown: use @hourly"},
		{"@daily 5", "alone, or five cron fields"},
		{"@reboot", "is not a time"},
		{"60 * * * *", "minute: 60 is out of range: use 0 to 59"},
		{"99999999999999999999 * * * *", "minute: \"99999999999999999999\" is not a value"},
		{"-1 * * * *", "minute: a number is missing in a range or a step"},
		{"+5 * * * *", "minute: \"+5\" is not a value of this field: use 0 to 59"},
		{"* 24 * * *", "hour: 24 is out of range: use 0 to 23"},
		{"* * 0 * *", "day-of-month: 0 is out of range: use 1 to 31"},
		{"* * * 13 *", "month: 13 is out of range: use 1 to 12 or JAN to DEC"},
		{"* * * * 8", "day-of-week: 8 is out of range: use 0 to 7 or SUN to SAT"},
		{"* * * * Monday", "day-of-week: \"Monday\" is unknown: write MON"},
		{"* * * January *", "month: \"January\" is unknown: write JAN"},
		{"* * * * FOO", "day-of-week: \"FOO\" is not a value"},
		{"MON * * * *", "minute: \"MON\" is not a value"},
		{"1,,2 * * * *", "minute: \"1,,2\" contains an empty list item: remove the comma"},
		{", * * * *", "contains an empty list item"},
		{"5-1 * * * *", "minute: the range 5-1 runs backwards: write it as two, 5-59,0-1"},
		{"* * * NOV-FEB *", "month: the range NOV-FEB runs backwards: write it as two, NOV-12,1-FEB"},
		{"* * * * FRI-MON", "day-of-week: the range FRI-MON runs backwards: write it as two, FRI-6,0-MON"},
		{"*-5 * * * *", "minute: * cannot be part of a range: use 0 to 59"},
		{"1-2-3 * * * *", "minute: \"2-3\" is not a value"},
		{"*/0 * * * *", "minute: the step in \"*/0\" must be a number from 1: write for example */5"},
		{"*/ * * * *", "minute: the step in \"*/\""},
		{"*/2/3 * * * *", "minute: the step in \"*/2/3\""},
		{"*/90 * * * *", "minute: the step of 90 is larger than the field, which ends at 59: use a smaller step, or \"every 90m\""},
		{"0 */36 * * *", "hour: the step of 36 is larger than the field, which ends at 23: use a smaller step, or \"every 36h\""},
		{"? * * * *", "minute: ? is allowed in the two day fields only: write * for every minute"},
		{"* * ?/2 * *", "day-of-month: ? must stand alone"},
		{"* * L * *", "day-of-month: L (the last day) is not supported: run on day 1"},
		{"* * L-3 * *", "day-of-month: L (the last day)"},
		{"* * LW * *", "day-of-month: L (the last day)"},
		{"* * 15W * *", "day-of-month: W (the nearest working day) is not supported"},
		{"* * * * 5L", "day-of-week: L (the last day)"},
		{"* * * * MON#2", "day-of-week: # (the n-th weekday of a month) is not supported"},
		{"H * * * *", "minute: H (a hashed value)"},
		{"0~59 * * * *", "minute: ~ (a random value)"},
		{"0 0 30 2 *", "day-of-month: day 30 does not exist in February, so the schedule would never run: use a day from 1 to 29"},
		{"0 0 31 2,4,6,9,11 *", "day-of-month: day 31 does not exist in February, April, June, September or November, so the schedule would never run: use a day from 1 to 30"},
		{"0 0 31 4 */2", "day-of-month: day 31 does not exist in April"},
		{"every", "every: the period is missing"},
		{"every 15", "every: \"15\" is not a period: use whole numbers with w, d, h, m or s"},
		{"every 0s", "every: the period is shorter than a second: use at least 1s"},
		{"every 500ms", "every: \"500ms\" is not a period"},
		{"every 1.5h", "every: \"1.5h\" is not a period"},
		{"every 5m5h", "every: \"5m5h\" is not a period"},
		{"every -5m", "every: \"-5m\" is not a period"},
		{"every 4000d", "up to 3660d"},
		{"every 99999999999999999999s", "is not a period"},
		{"every 15 minutes", "every: the period is missing or is followed by other text"},
		{"every 15m from noon", "every: \"noon\" after from is not a time with an offset"},
		{"every 15m from 2030-01-31T09:00:00", "is not a time with an offset"},
		{"once", "once: \"\" is not a time: write 2030-01-31T09:00:00Z"},
		{"once tomorrow", "once: \"tomorrow\" is not a time"},
		{"once 2030-02-30 09:00", "is not a time"},
		{"once 2030-01-31 09:00:30", "once: a time without an offset is given to the minute"},
		{"0 9 * * \x1b[31m", "day-of-week: \"\uFFFD[31m\" is not a value"},
	} {
		s, err := cron.Parse(c.spec)
		if err == nil {
			t.Errorf("%q is accepted as %q", c.spec, s)
			continue
		}
		if !errors.Is(err, agented.Invalid) || !strings.Contains(agented.Message(err), c.want) {
			t.Errorf("Parse(%q) says %q, want %q", c.spec, err, c.want)
		}
		if s != (cron.Schedule{}) {
			t.Errorf("Parse(%q) gives a schedule beside the error", c.spec)
		}
	}
}

func TestEvery_and_once_invalid(t *testing.T) {
	t.Parallel()
	for _, period := range []time.Duration{0, -time.Hour, time.Millisecond, 1500 * time.Millisecond, cron.MaxPeriod + time.Second} {
		if s, err := cron.Every(period, time.Time{}); err == nil {
			t.Errorf("Every(%v) is accepted as %q", period, s)
		}
	}
	if _, err := cron.Every(time.Hour, time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("an anchor in the year 10000 is accepted")
	}
	if _, err := cron.OnceAt(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)); err == nil {
		t.Error("a time in the year 0 is accepted")
	}
	anchor := time.Date(2026, 5, 1, 10, 7, 0, 500, time.UTC)
	s := parse(t, "every 15m").Anchored(anchor)
	if got, want := s.String(), "every 15m from 2026-05-01T10:07:00Z"; got != want {
		t.Errorf("anchored: %q, want %q", got, want)
	}
	if again := s.Anchored(anchor.Add(time.Minute)); again != s {
		t.Errorf("an anchor that was named is replaced: %q", again)
	}
	if c := parse(t, "@daily"); c.Anchored(anchor) != c || c.Once() || c.IsZero() {
		t.Error("an anchor changes a cron schedule")
	}
	once, err := cron.OnceAt(anchor)
	if err != nil || !once.Once() || once != parse(t, once.String()) {
		t.Errorf("OnceAt = %q, %v", once, err)
	}
}

// robfigTimes lists two days of a schedule in UTC by another parser.
func robfigTimes(spec string) ([]time.Time, error) {
	s, err := robfig.ParseStandard(spec)
	if err != nil {
		return nil, err
	}
	var out []time.Time
	at := time.Date(2028, 2, 27, 23, 59, 0, 0, time.UTC)
	for range 50 {
		if at = s.Next(at); at.IsZero() {
			break
		}
		out = append(out, at)
	}
	return out, nil
}

// Without clock changes, and without steps of star in the day fields, where the two differ on
// purpose, another widely used parser must agree.
func TestParse_agrees_with_other_parser(t *testing.T) {
	t.Parallel()
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		spec := expression(t)
		words := strings.Fields(spec)
		if strings.Contains(words[2], "*") && words[2] != "*" || strings.Contains(words[4], "*") && words[4] != "*" || strings.Contains(words[4], "7") {
			return
		}
		want, err := robfigTimes(spec)
		if err != nil {
			t.Fatalf("%q: %v", spec, err)
		}
		s, err := cron.Parse(spec)
		if err != nil {
			if len(want) > 0 {
				t.Fatalf("%q is refused: %v", spec, err)
			}
			return
		}
		var got []time.Time
		at := time.Date(2028, 2, 27, 23, 59, 0, 0, time.UTC)
		for range len(want) {
			at, _ = s.Next(at, time.UTC)
			got = append(got, at)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-other +ours):\n%s", spec, diff)
		}
		compared++
	})
	t.Logf("%d expressions compared", compared)
}

// The reasons not to use that parser for the fields: each of these would be a silent error or a
// needless rejection.
func TestOther_parser_differs(t *testing.T) {
	t.Parallel()
	for spec, accepts := range map[string]bool{
		"*-5 * * * *": true, "1,,2 * * * *": true, ", * * * *": true, "+5 * * * *": true, "*/90 * * * *": true, "0 0 30 2 *": true,
		"0 9 * * 7": false, "0 9 * * 1-7": false, "0 9 * * FRI-SUN": false,
	} {
		_, theirs := robfig.ParseStandard(spec)
		if _, ours := cron.Parse(spec); (theirs == nil) != accepts || (ours == nil) == accepts {
			t.Errorf("%q: theirs %v, ours %v", spec, theirs, ours)
		}
	}
}

func TestRewrite_old_schedules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old              cron.Old
		spec, note, fail string
	}{
		{old: cron.Old{Type: "daily", Time: "02:30"}, spec: "30 2 * * *", note: `daily at 02:30 is now the cron schedule "30 2 * * *"`},
		{old: cron.Old{Type: "weekly", Time: "2:05", Day: 0}, spec: "5 2 * * MON", note: `weekly on day 0 (Monday, counted from 0 = Monday) at 02:05 is now the cron schedule "5 2 * * MON"`},
		{old: cron.Old{Type: "Weekly", Time: "23:59", Day: 6}, spec: "59 23 * * SUN", note: "Sunday"},
		{old: cron.Old{Type: "monthly", Time: "00:00", Day: 28}, spec: "0 0 28 * *", note: "monthly on day 28 at 00:00"},
		{old: cron.Old{Type: "weekly", Time: "09:00", Day: 7}, fail: "schedule_day: 7 is not a day of the week: use 0 (Monday) to 6 (Sunday)"},
		{old: cron.Old{Type: "monthly", Time: "09:00", Day: 29}, fail: "schedule_day: 29 is not a day that every month has: use 1 to 28"},
		{old: cron.Old{Type: "daily", Time: "24:00"}, fail: "schedule_time: \"24:00\" is not a time of the day"},
		{old: cron.Old{Type: "daily", Time: "9"}, fail: "schedule_time"},
		{old: cron.Old{Type: "yearly", Time: "09:00"}, fail: "schedule_type: \"yearly\" is unknown"},
		{old: cron.Old{Cron: "0 9 * * 1"}, spec: "0 9 * * TUE", note: `day-of-week 1 counted from 0 = Monday and is now TUE, because cron counts from 0 = Sunday: "0 9 * * 1" is now "0 9 * * TUE"`},
		{old: cron.Old{Type: "daily", Time: "x", Cron: "0 9 * * 0-4"}, spec: "0 9 * * MON-FRI", note: "now MON-FRI"},
		{old: cron.Old{Cron: "0 9 * * 5,6"}, spec: "0 9 * * SAT,SUN", note: "now SAT,SUN"},
		{old: cron.Old{Cron: "0 9 * * */2"}, spec: "0 9 * * MON,WED,FRI,SUN", note: "now MON,WED,FRI,SUN"},
		{old: cron.Old{Cron: "0 9 * * mon-fri"}, spec: "0 9 * * mon-fri"},
		{old: cron.Old{Cron: "0 9 * * 0-6"}, spec: "0 9 * * *", note: "now *"},
		{old: cron.Old{Cron: "*/5  * 1 * *"}, spec: "*/5 * 1 * *"},
		{old: cron.Old{Cron: "0 9 */2 * 0"}, spec: "0 9 */2 * MON", note: "now MON"},
		{old: cron.Old{Cron: "0 9 1-31 * mon"}, spec: "0 9 * * mon", note: `"0 9 1-31 * mon" is now "0 9 * * mon", which means the same`},
		{old: cron.Old{Cron: "0 9 13 * 4"}, fail: "cron_expression: day-of-month 13 and day-of-week 4 are both set"},
		{old: cron.Old{Cron: "0 9 * * 7"}, fail: "day-of-week: 7 is out of range: use 0 to 6 or MON to SUN"},
		{old: cron.Old{Cron: "0 9 * * 8"}, fail: "day-of-week: 8"},
		{old: cron.Old{Cron: "0 9 30 2 *"}, fail: "day 30 does not exist in February"},
		{old: cron.Old{Cron: "0 9 x * 1"}, fail: "day-of-month"},
		{old: cron.Old{Cron: "0 9 * *"}, fail: "4 of the five"},
	} {
		spec, note, err := c.old.Rewrite()
		if c.fail != "" {
			if !errors.Is(err, agented.Invalid) || !strings.Contains(err.Error(), c.fail) || spec != "" {
				t.Errorf("%+v is rewritten to %q, %v, want the error %q", c.old, spec, err, c.fail)
			}
			continue
		}
		if err != nil || spec != c.spec || !strings.Contains(note, c.note) || (c.note == "") != (note == "") {
			t.Errorf("%+v is rewritten to %q with %q, %v, want %q with %q", c.old, spec, note, err, c.spec, c.note)
			continue
		}
		parse(t, spec)
	}
}

func FuzzParse(f *testing.F) {
	for _, e := range expressions {
		f.Add(e)
	}
	for _, e := range []string{
		"TZ=0", "CRON_TZ=", "every 15m", "every 1w2d3h4m5s from 2030-01-31T09:00:00+01:00", "@every 5m", "once 2030-01-31 09:00", "at 2030-01-31T09:00:00Z",
		"once 0000-01-01T00:00:00Z", "0 0 L * *", "0 0 15W * 5#2", "? ? ? ? ?", "*/7/7 -- ,, ~ H", "0 0 30 2 *", "7-7 * * * 7-7", "@daily", "\xff\xfe",
	} {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := cron.Parse(spec)
		old, _, oldErr := cron.Old{Cron: spec}.Rewrite()
		if oldErr == nil && old != "" {
			if _, err := cron.Parse(old); err != nil {
				t.Fatalf("%q is rewritten to %q, which is refused: %v", spec, old, err)
			}
		}
		if err != nil {
			if !errors.Is(err, agented.Invalid) || err.Error() == "" || len(err.Error()) > 500 {
				t.Fatalf("%q is refused with %v", spec, err)
			}
			return
		}
		again, err := cron.Parse(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is %q, which reads back as %q, %v", spec, s, again, err)
		}
		if s.Describe() == "" || s.IsZero() {
			t.Fatalf("%q has no description", spec)
		}
	})
}

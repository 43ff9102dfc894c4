package cron_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/testrun"
)

var full = flag.Bool("full", false, "compare Next with the brute force around every change of the clock since 2007 and in every minute of 2020 to 2030")

// expressions cover every kind of field, and the times at which clocks change.
var expressions = []string{
	"* * * * *", "*/5 * * * *", "*/15 * * * *", "*/7 * * * *", "0 * * * *", "30 * * * *", "15,45 * * * *", "59 * * * *",
	"0 0 * * *", "30 0 * * *", "59 23 * * *", "0 1 * * *", "30 1 * * *", "0 2 * * *", "15 2 * * *", "30 2 * * *", "45 2 * * *",
	"0 3 * * *", "1 3 * * *", "0,30 1,2,3 * * *", "30 23 * * *", "*/20 2 * * *", "* 0 * * *", "5 */2 * * *", "0 */6 * * *",
	"10-50/20 0-3 * * *", "30 2 * * SUN", "0 0 * * 5", "0 2 1-7 * *", "30 1 1-7 * 0", "0 9 13 * 5", "0 0 */2 * 1", "0 12 * 3,10 */2",
	"0 0 29 2 *", "@hourly", "@daily", "@weekly", "0 0-23 * * *",
}

var zoneNames = []string{
	"UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Sao_Paulo", "America/Santiago", "America/Asuncion",
	"America/Havana", "America/Nuuk", "America/St_Johns", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Asia/Gaza",
	"Asia/Tehran", "Asia/Kolkata", "Australia/Lord_Howe", "Australia/Adelaide", "Pacific/Chatham", "Pacific/Apia",
	"Pacific/Norfolk", "Antarctica/Troll", "Antarctica/Casey", "Asia/Pyongyang", "America/Caracas",
}

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func parse(t testing.TB, spec string) cron.Schedule {
	t.Helper()
	s, err := cron.Parse(spec)
	if err != nil {
		t.Fatalf("Parse(%q): %v", spec, err)
	}
	return s
}

func unix(year int) int64 { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Unix() }

func TestNext_around_clock_changes(t *testing.T) {
	t.Parallel()
	var compared atomic.Int64
	t.Cleanup(func() { t.Logf("%d times compared", compared.Load()) })
	for _, name := range zoneNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := zone(t, name)
			found := changes(z, unix(2007), unix(2032))
			if len(found) == 0 {
				found = []int64{unix(2024)}
			}
			for _, change := range found {
				const day = 86400
				if change < unix(2020) && len(found) > 15 && !*full {
					continue // the zone has changes enough after that
				}
				if !testrun.Long() && change > unix(2024) {
					break
				}
				compared.Add(compareWindow(t, z, change-2*day-day/2, change+day+day/2, []int64{
					change - day, change - 7200, change - 3600, change - 1800, change - 60, change - 1, change,
					change + 1, change + 59, change + 60, change + 1799, change + 1800, change + 3599, change + 3600, change + 7200, change + day,
				}))
			}
			if *full {
				compared.Add(compareWindow(t, z, unix(2020)-2*86400, unix(2031), nil))
			}
		})
	}
}

// compareWindow compares all times in the window, as a chain from two days in, and the first time
// after each of the starts.
func compareWindow(t *testing.T, z *time.Location, from, to int64, starts []int64) int64 {
	t.Helper()
	oracles := make([]oracle, len(expressions))
	want := make([][]int64, len(expressions))
	for i, e := range expressions {
		oracles[i] = newOracle(e)
	}
	walk(z, from, to, 60, func(tick tick) {
		for i := range oracles {
			if oracles[i].due(tick) {
				want[i] = append(want[i], tick.at)
			}
		}
	})
	n := int64(0)
	begin := from + 86400 // the walk has to warm up for what a change before it repeats
	for i, e := range expressions {
		s := parse(t, e)
		var chain []int64
		for at, ok := s.Next(time.Unix(begin-1, 0), z); ok && at.Unix() < to; at, ok = s.Next(at, z) {
			chain = append(chain, at.Unix())
		}
		var expected []int64
		for _, u := range want[i] {
			if u >= begin {
				expected = append(expected, u)
			}
		}
		n += int64(len(chain))
		if !slices.Equal(expected, chain) {
			t.Errorf("%s in %s from %s (-brute force +Next):\n%s", e, z, time.Unix(begin, 0).In(z), cmp.Diff(expected, chain))
		}
		for _, start := range starts {
			n++
			first := int64(math.MaxInt64)
			for _, u := range want[i] {
				if u > start {
					first = u
					break
				}
			}
			got, ok := s.Next(time.Unix(start, 0), z)
			if !ok {
				t.Fatalf("%s in %s after %d: nothing", e, z, start)
			}
			if g := got.Unix(); g != first && (first != math.MaxInt64 || g < to) {
				t.Errorf("%s in %s after %s is %s, the brute force says %s", e, z, time.Unix(start, 0).In(z), got, time.Unix(first, 0).In(z))
			}
		}
	}
	return n
}

// fieldText generates one cron field.
func fieldText(t *rapid.T, low, high int, label string) string {
	value := rapid.IntRange(low, high)
	term := func() string {
		switch rapid.IntRange(0, 5).Draw(t, label+" kind") {
		case 0:
			return "*"
		case 1:
			return fmt.Sprintf("*/%d", rapid.IntRange(1, max(2, high/2)).Draw(t, label+" step"))
		case 2:
			a := value.Draw(t, label)
			return fmt.Sprintf("%d-%d", a, rapid.IntRange(a, high).Draw(t, label+" end"))
		case 3:
			a := value.Draw(t, label)
			return fmt.Sprintf("%d-%d/%d", a, rapid.IntRange(a, high).Draw(t, label+" end"), rapid.IntRange(1, high).Draw(t, label+" step"))
		default:
			return fmt.Sprint(value.Draw(t, label))
		}
	}
	text := term()
	for range rapid.IntRange(0, 2).Draw(t, label+" more") {
		text += "," + term()
	}
	return text
}

func expression(t *rapid.T) string {
	minute := fieldText(t, 0, 59, "minute")
	hour := fieldText(t, 0, 23, "hour")
	if rapid.Bool().Draw(t, "at night") {
		hour = rapid.SampledFrom([]string{"0", "1", "2", "3", "23", "0-3", "1,2", "0-23"}).Draw(t, "hour of the night")
	}
	day, month, weekday := "*", "*", "*"
	if rapid.Bool().Draw(t, "days") {
		day = fieldText(t, 1, 31, "day")
	}
	if rapid.IntRange(0, 3).Draw(t, "months") == 0 {
		month = fieldText(t, 1, 12, "month")
	}
	if rapid.Bool().Draw(t, "weekdays") {
		weekday = fieldText(t, 0, 7, "weekday")
	}
	return minute + " " + hour + " " + day + " " + month + " " + weekday
}

func TestNext_any_expression(t *testing.T) {
	t.Parallel()
	zones := make([]*time.Location, len(zoneNames))
	around := make([][]int64, len(zoneNames))
	for i, name := range zoneNames {
		zones[i] = zone(t, name)
		around[i] = append(changes(zones[i], unix(1985), unix(2042)), unix(2024))
	}
	rapid.Check(t, func(t *rapid.T) {
		expr := expression(t)
		s, err := cron.Parse(expr)
		if err != nil {
			t.Skip(err)
		}
		i := rapid.IntRange(0, len(zones)-1).Draw(t, "zone")
		change := rapid.SampledFrom(around[i]).Draw(t, "change")
		start := change + rapid.Int64Range(-90000, 90000).Draw(t, "start")
		nanos := rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")
		begin := (start/60)*60 - 86400
		end := start + 2*86400
		o := newOracle(expr)
		first := int64(-1)
		walk(zones[i], begin, end, 60, func(tick tick) {
			if first < 0 && tick.at > start && o.due(tick) {
				first = tick.at
			}
		})
		got, ok := s.Next(time.Unix(start, nanos), zones[i])
		if !ok {
			t.Fatalf("nothing after %d", start)
		}
		if g := got.Unix(); g != first && (first >= 0 || g < end) {
			t.Fatalf("%s in %s after %s is %s, the brute force says %s", expr, zones[i], time.Unix(start, nanos).In(zones[i]), got, time.Unix(first, 0).In(zones[i]))
		}
		if got.Nanosecond() != 0 || got.Location() != zones[i] {
			t.Fatalf("%v is not whole seconds in the zone", got)
		}
	})
}

func TestNext_offsets_with_seconds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		zone   string
		around time.Time
	}{
		{"Africa/Monrovia", time.Date(1972, 1, 7, 0, 44, 30, 0, time.UTC)},   // -0:44:30 to 0
		{"America/New_York", time.Date(1883, 11, 18, 17, 0, 0, 0, time.UTC)}, // -4:56:02 to -5
		{"Asia/Kolkata", time.Date(1905, 12, 31, 18, 38, 50, 0, time.UTC)},   // +5:21:10 to +5:30
		{"Asia/Kathmandu", time.Date(1985, 12, 31, 18, 30, 0, 0, time.UTC)},  // +5:30 to +5:45
	} {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			z := zone(t, c.zone)
			if near := changes(z, c.around.Unix()-7200, c.around.Unix()+7200); len(near) != 1 {
				t.Fatalf("%d changes near %s, the case is not what it says", len(near), c.around)
			}
			for _, e := range []string{"* * * * *", "*/15 * * * *", "0 * * * *", "0 0 * * *", "58 11 * * *", "0 12 * * *", "0 0,12 * * *", "5 0 * * *", "44 0 * * *", "0-59 0-23 * * *"} {
				o, s := newOracle(e), parse(t, e)
				from, to := c.around.Unix()-90000, c.around.Unix()+90000
				var want, got []int64
				walk(z, from-86400, to, 1, func(tick tick) {
					if tick.at > from && o.due(tick) {
						want = append(want, tick.at)
					}
				})
				for at, ok := s.Next(time.Unix(from, 0), z); ok && at.Unix() < to; at, ok = s.Next(at, z) {
					got = append(got, at.Unix())
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-brute force +Next):\n%s", e, diff)
				}
			}
		})
	}
}

func TestNext_documented_rules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spec, zone, after string
		want                    []string // RFC 3339 in the zone; the last may be "never"
	}{
		{"fixed in a spring gap runs right after it", "30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"}},
		{"fixed at the end of the gap runs once", "0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"}},
		{"several fixed times in a gap are one run", "0,20,40 2 * * *", "America/New_York", "2026-03-07T12:00:00-05:00", []string{"2026-03-08T03:00:00-04:00", "2026-03-09T02:00:00-04:00"}},
		{"fixed in an overlap runs in the first pass", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", []string{"2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"}},
		{"also when asked between the passes", "30 2 * * *", "Europe/Berlin", "2026-10-25T02:10:00+01:00", []string{"2026-10-26T02:30:00+01:00"}},
		{"hourly runs in every real hour of spring", "0 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", []string{"2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"}},
		{"hourly runs in every real hour of autumn", "0 * * * *", "Europe/Berlin", "2026-10-25T01:00:00+02:00", []string{"2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"}},
		{"a wildcard minute of a lost hour does not run", "*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{"2026-03-30T02:00:00+02:00"}},
		{"half an hour forward", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"}},
		{"half an hour back", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", []string{"2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"}},
		{"03:00 after half an hour forward", "0 3 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", []string{"2026-10-04T03:00:00+11:00"}},
		{"hourly over half an hour forward", "0 * * * *", "Australia/Lord_Howe", "2026-10-04T01:00:00+10:30", []string{"2026-10-04T03:00:00+11:00"}},
		{"midnight does not exist in Brazil", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00-03:00", []string{"2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"}},
		{"midnight comes back to the day before in Brazil", "30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00-02:00", []string{"2018-02-17T23:30:00-02:00", "2018-02-18T23:30:00-03:00"}},
		{"midnight does not exist in Lebanon", "@daily", "Asia/Beirut", "2027-03-27T12:00:00+02:00", []string{"2027-03-28T01:00:00+03:00", "2027-03-29T00:00:00+03:00"}},
		{"midnight does not exist in Egypt", "0 0 * * 5", "Africa/Cairo", "2026-04-22T12:00:00+02:00", []string{"2026-04-24T01:00:00+03:00", "2026-05-01T00:00:00+03:00"}},
		{"a run late in the evening moves to the next day in Greenland", "30 23 28 3 *", "America/Nuuk", "2026-03-28T12:00:00-02:00", []string{"2026-03-29T00:00:00-01:00"}},
		{"the day that Samoa left out", "30 2 * * *", "Pacific/Apia", "2011-12-29T00:00:00-10:00", []string{"2011-12-29T02:30:00-10:00", "2011-12-31T02:30:00+14:00"}},
		{"only that day", "30 2 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00-10:00", []string{"2012-12-30T02:30:00+14:00"}},
		{"the day that Alaska had twice", "0 18 * * *", "America/Juneau", "1867-10-17T20:00:00+15:02", []string{"1867-10-18T18:00:00+15:02", "1867-10-18T18:00:00-08:57", "1867-10-19T18:00:00-08:57"}},
		{"two hours forward in Troll", "30 1 * * *", "Antarctica/Troll", "2026-03-28T12:00:00Z", []string{"2026-03-29T03:00:00+02:00"}},
		{"two hours back in Troll", "30 1 * * *", "Antarctica/Troll", "2026-10-24T12:00:00+02:00", []string{"2026-10-25T01:30:00+02:00", "2026-10-26T01:30:00Z"}},
		{"31 December of a leap year", "0 0 * * *", "Europe/Berlin", "2028-12-31T12:00:00+01:00", []string{"2029-01-01T00:00:00+01:00"}},
		{"a leap day", "0 0 29 2 *", "UTC", "2024-02-29T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"a leap day over 1900", "0 0 29 2 *", "UTC", "1896-02-29T00:00:00Z", []string{"1904-02-29T00:00:00Z"}},
		{"a leap day over 2100", "0 0 29 2 *", "Europe/Berlin", "2096-02-29T00:00:00+01:00", []string{"2104-02-29T00:00:00+01:00"}},
		{"a leap day on a Sunday over 2100", "0 0 29 2 */7", "UTC", "2088-03-01T00:00:00Z", []string{"2128-02-29T00:00:00Z"}},
		{"strictly after", "0 9 * * *", "UTC", "2026-01-01T09:00:00Z", []string{"2026-01-02T09:00:00Z"}},
		{"a second before", "0 9 * * *", "UTC", "2026-01-01T08:59:59.999999999Z", []string{"2026-01-01T09:00:00Z"}},
		{"day of month or day of week", "0 0 13 * FRI", "UTC", "2026-02-12T00:00:00Z", []string{"2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z", "2026-02-27T00:00:00Z", "2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z"}},
		{"a step of all days is a star, so both", "0 0 */2 * MON", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-15T00:00:00Z", "2026-06-29T00:00:00Z", "2026-07-13T00:00:00Z"}},
		{"the first Sunday by that rule", "0 0 1-7 * */7", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-07T00:00:00Z", "2026-07-05T00:00:00Z"}},
		{"0 and 7 are Sunday", "0 0 * * 7", "UTC", "2026-06-01T00:00:00Z", []string{"2026-06-07T00:00:00Z"}},
		{"1 is Monday", "0 9 * * 1", "UTC", "2026-06-02T00:00:00Z", []string{"2026-06-08T09:00:00Z"}},
		{"the last year", "0 0 1 1 *", "UTC", "9998-06-01T00:00:00Z", []string{"9999-01-01T00:00:00Z", "never"}},

		{"every without an anchor", "every 15m", "Asia/Kolkata", "2026-06-01T00:00:00Z", []string{"2026-06-01T05:45:00+05:30", "2026-06-01T06:00:00+05:30"}},
		{"every with an anchor in the future", "every 7h from 2030-01-01T01:00:00Z", "UTC", "2029-12-31T10:00:00Z", []string{"2029-12-31T11:00:00Z", "2029-12-31T18:00:00Z", "2030-01-01T01:00:00Z", "2030-01-01T08:00:00Z"}},
		{"every over a change of the clock", "every 1d from 2026-03-28T02:30:00+01:00", "Europe/Berlin", "2026-03-28T02:30:00+01:00", []string{"2026-03-29T03:30:00+02:00"}},
		{"every second", "every 1s", "UTC", "2026-06-01T00:00:00.5Z", []string{"2026-06-01T00:00:01Z"}},
		{"once", "once 2026-06-01T09:00:00+02:00", "Europe/Berlin", "2026-06-01T06:59:59Z", []string{"2026-06-01T09:00:00+02:00", "never"}},
		{"once on the clock", "once 2026-06-01 09:00", "Europe/Berlin", "2026-01-01T00:00:00Z", []string{"2026-06-01T09:00:00+02:00", "never"}},
		{"once in a gap", "once at 2026-03-29 02:30", "Europe/Berlin", "2026-01-01T00:00:00Z", []string{"2026-03-29T03:00:00+02:00", "never"}},
		{"once in an overlap", "once 2026-10-25T02:30", "Europe/Berlin", "2026-01-01T00:00:00Z", []string{"2026-10-25T02:30:00+02:00", "never"}},
		{"once on a day that was left out", "once 2011-12-30 12:00", "Pacific/Apia", "2011-01-01T00:00:00Z", []string{"2011-12-31T00:00:00+14:00", "never"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, z := parse(t, c.spec), zone(t, c.zone)
			at, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for range c.want {
				next, ok := s.Next(at, z)
				if !ok {
					got = append(got, "never")
					break
				}
				got = append(got, next.Format(time.RFC3339))
				at = next
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s in %s after %s (-want +got):\n%s", c.spec, c.zone, c.after, diff)
			}
		})
	}
}

// zoneFile builds the data of a zone with two offsets, an hour apart, that changes at the given
// instants, to summer time first, and follows the rule after the last.
func zoneFile(rule string, changes ...time.Time) []byte {
	header := func(changes, kinds, letters uint32) []byte {
		out := append([]byte("TZif2"), make([]byte, 15+3*4)...)
		for _, n := range []uint32{changes, kinds, letters} {
			out = binary.BigEndian.AppendUint32(out, n)
		}
		return out
	}
	data := append(header(0, 0, 0), header(uint32(len(changes)), 2, 8)...)
	for _, c := range changes {
		data = binary.BigEndian.AppendUint64(data, uint64(c.Unix()))
	}
	for i := range changes {
		data = append(data, byte(1-i%2))
	}
	data = append(data, 0, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0x10, 1, 4) // offset, summer, name; twice
	return append(data, "STD\x00DST\x00\n"+rule+"\n"...)
}

// After the last tabulated change the library computes the start of an offset by rule, even if
// the change was later than the rule.
func TestNext_last_change(t *testing.T) {
	t.Parallel()
	z, err := time.LoadLocationFromTZData("late", zoneFile("STD0DST,M3.5.0/0,M10.5.0/1",
		time.Date(2023, 3, 26, 0, 0, 0, 0, time.UTC), time.Date(2023, 11, 2, 0, 0, 0, 0, time.UTC)))
	if err != nil {
		t.Fatal(err)
	}
	between := time.Date(2023, 11, 2, 0, 10, 0, 0, time.UTC)
	if start, _ := between.In(z).ZoneBounds(); start.After(time.Date(2023, 11, 1, 0, 0, 0, 0, time.UTC)) {
		t.Logf("the library now says %v, which is right", start)
	}
	got, _ := parse(t, "30 0 * * *").Next(between, z)
	if want := time.Date(2023, 11, 3, 0, 30, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("00:30 comes again at %v, want only at %v", got, want)
	}
	compareWindow(t, z, between.Unix()/86400*86400-3*86400, between.Unix()+3*86400, []int64{between.Unix()})
}

func TestNext_extremes(t *testing.T) {
	t.Parallel()
	z := zone(t, "Europe/Berlin")
	for _, spec := range []string{"* * * * *", "0 0 29 2 */7", "every 1s", "every 3660d", "once 2026-01-01T00:00:00Z", "once 0001-01-01 00:00", "once 9999-12-31 23:59"} {
		s := parse(t, spec)
		for _, at := range []time.Time{{}, time.Unix(math.MaxInt64, 0), time.Unix(math.MinInt64, 0), time.Unix(1<<60, 999999999), time.Unix(-1<<60, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			for _, z := range []*time.Location{nil, z, time.FixedZone("far east", 26*3600), time.FixedZone("far west", -26*3600)} {
				got, ok := s.Next(at, z)
				if ok && (got.Unix() <= at.Unix() || got.UTC().Year() < 1 || got.UTC().Year() > 9999) {
					t.Errorf("%s after %v in %v is %v", spec, at, z, got)
				}
			}
		}
	}
	if at, ok := (cron.Schedule{}).Next(time.Now(), z); ok {
		t.Errorf("the zero schedule is due at %v", at)
	}
}

func FuzzNext(f *testing.F) {
	for i, e := range expressions {
		f.Add(e, int64(1774659600)+int64(i)*3600, uint8(i))
	}
	f.Add("0 0 * * *", int64(1861833600), uint8(1)) // 31 December 2028
	zones := make([]*time.Location, len(zoneNames))
	for i, name := range zoneNames {
		zones[i] = zone(f, name)
	}
	f.Fuzz(func(t *testing.T, spec string, start int64, zoneIndex uint8) {
		s, err := cron.Parse(spec)
		if err != nil {
			return
		}
		z := zones[int(zoneIndex)%len(zones)]
		start = start % (1 << 36) // years 0 to 4147
		after := time.Unix(start, 0)
		got, ok := s.Next(after, z)
		if !ok {
			if !s.Once() {
				t.Fatalf("%q is never due after %v", spec, after)
			}
			return
		}
		if !got.After(after) {
			t.Fatalf("%q after %v is %v", spec, after, got)
		}
		if s.Describe() == "" {
			t.Fatalf("%q has no description", spec)
		}
		if runs := s.Preview(after, 2, z); len(runs) == 0 || !runs[0].At.Equal(got) {
			t.Fatalf("the preview of %q is %v, Next says %v", spec, runs, got)
		}
		if again, ok := s.Next(got.Add(-1), z); !ok || !again.Equal(got) {
			t.Fatalf("%q: just before %v comes %v", spec, got, again)
		}
		first := s.String()[0]
		if first == 'e' || first == 'o' {
			return
		}
		o := newOracle(s.String())
		wall := func(u int64) int64 { return (u + offsetAt(u, z)) }
		u := got.Unix()
		if w := wall(u); w%60 == 0 && o.shows(w/60) {
			return
		}
		// Otherwise it was moved to the end of a gap that skipped a fixed time.
		swallowed := false
		for w := wall(u-1) + 1; w <= wall(u); w++ {
			swallowed = swallowed || w%60 == 0 && o.shows(w/60)
		}
		if o.wild || !swallowed || wall(u)-wall(u-1) <= 1 {
			t.Fatalf("%q after %v is %v, which it does not name", spec, after.In(z), got)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct{ name, spec, zone string }{
		{"minutely UTC", "* * * * *", "UTC"},
		{"daily UTC", "30 2 * * *", "UTC"},
		{"daily Berlin", "30 2 * * *", "Europe/Berlin"},
		{"hourly Berlin", "0 * * * *", "Europe/Berlin"},
		{"weekday Lord Howe", "0 9 * * 1-5", "Australia/Lord_Howe"},
		{"yearly New York", "@yearly", "America/New_York"},
		{"leap day Berlin", "0 0 29 2 *", "Europe/Berlin"},
		{"leap day on a Sunday Berlin", "0 0 29 2 */7", "Europe/Berlin"},
		{"every", "every 15m", "UTC"},
		{"once on the clock", "once 2029-01-01 09:00", "Europe/Berlin"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, z := parse(b, c.spec), zone(b, c.zone)
			random := rand.New(rand.NewPCG(1, 2))
			starts := make([]time.Time, 1024)
			for i := range starts {
				starts[i] = time.Unix(unix(2020)+random.Int64N(10*365*86400), 0)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Next(starts[i%len(starts)], z)
				i++
			}
		})
	}
}

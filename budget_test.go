package agented_test

import (
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestPeriodBounds_zones(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		period            agented.Period
		now, since, until string
	}{
		{agented.PeriodDay, "2026-11-23T20:00:00Z", "2026-11-23T00:00:00+01:00", "2026-11-24T00:00:00+01:00"},
		{agented.PeriodDay, "2026-11-23T23:30:00Z", "2026-11-24T00:00:00+01:00", "2026-11-25T00:00:00+01:00"},
		{agented.PeriodDay, "2026-03-29T10:00:00Z", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"}, // 23 hours
		{agented.PeriodDay, "2026-10-25T10:00:00Z", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"}, // 25 hours
		{agented.PeriodWeek, "2026-11-23T20:00:00Z", "2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00"},
		{agented.PeriodWeek, "2026-11-22T22:59:59Z", "2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"}, // a Sunday
		{agented.PeriodWeek, "2026-03-01T10:00:00Z", "2026-02-23T00:00:00+01:00", "2026-03-02T00:00:00+01:00"},
		{agented.PeriodMonth, "2026-12-31T23:30:00Z", "2027-01-01T00:00:00+01:00", "2027-02-01T00:00:00+01:00"},
		{agented.PeriodMonth, "2026-11-23T20:00:00Z", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"},
	} {
		now, _ := time.Parse(time.RFC3339, c.now)
		since, until := c.period.Bounds(now, berlin)
		if got, want := since.In(berlin).Format(time.RFC3339)+" "+until.In(berlin).Format(time.RFC3339), c.since+" "+c.until; got != want {
			t.Errorf("%s at %s: %s, want %s", c.period, c.now, got, want)
		}
	}
}

func TestPeriodBounds_adjacent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "Africa/Cairo", "America/Havana"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []agented.Period{agented.PeriodDay, agented.PeriodWeek, agented.PeriodMonth} {
			end := time.Time{}
			for now := time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC); now.Year() < 2020; now = now.Add(5 * time.Hour) {
				since, until := p.Bounds(now, zone)
				if now.Before(since) || !now.Before(until) {
					t.Fatalf("%s %s: %s is not in %s to %s", name, p, now, since, until)
				}
				if !end.IsZero() && now.Before(end) != until.Equal(end) {
					t.Fatalf("%s %s: at %s the period ends at %s and one before at %s", name, p, now, until, end)
				}
				end = until
			}
		}
	}
}

func TestUsageSince(t *testing.T) {
	t.Parallel()
	n := func(v int64) *int64 { return &v }
	f := func(v float64) *float64 { return &v }
	u := agented.Usage{InputTokens: n(27805), OutputTokens: n(5), CostUSD: f(0.25), CumulativeSession: true}
	got := u.Since(agented.Usage{InputTokens: n(13862), OutputTokens: n(9), CostUSD: f(0.2)})
	if *got.InputTokens != 13943 || *got.OutputTokens != 5 || got.CacheReadTokens != nil || *got.CostUSD < 0.0499 || *got.CostUSD > 0.0501 || got.CumulativeSession {
		t.Errorf("%+v", got)
	}
}

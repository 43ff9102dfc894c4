package cron_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented/internal/cron"
)

func TestPreview_clock_changes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spec, zone, after string
		want                    []string
	}{
		{"spring, fixed in the gap", "30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00+01:00", []string{
			"2026-03-28T02:30:00+01:00",
			"2026-03-29T03:00:00+02:00 clock goes forward at 02:00 to 03:00; 02:30 does not exist, runs at 03:00",
			"2026-03-30T02:30:00+02:00",
		}},
		{"spring, fixed outside", "0 9 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", []string{
			"2026-03-29T09:00:00+02:00 clock goes forward at 02:00 to 03:00",
			"2026-03-30T09:00:00+02:00",
		}},
		{"spring, wildcard", "30 * * * *", "Europe/Berlin", "2026-03-29T01:00:00+01:00", []string{
			"2026-03-29T01:30:00+01:00 clock goes forward at 02:00 to 03:00; runs in the skipped time are omitted, because 02:30 does not exist",
			"2026-03-29T03:30:00+02:00 clock goes forward at 02:00 to 03:00; runs in the skipped time are omitted, because 02:30 does not exist",
		}},
		{"autumn, fixed", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", []string{
			"2026-10-25T02:30:00+02:00 clock goes back at 03:00 to 02:00; runs once, the first time the clock shows it",
			"2026-10-26T02:30:00+01:00",
		}},
		{"autumn, hourly", "0 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", []string{
			"2026-10-25T02:00:00+02:00 clock goes back at 03:00 to 02:00; this is the first time the clock shows it",
			"2026-10-25T02:00:00+01:00 clock goes back at 03:00 to 02:00; this is the second time the clock shows it",
			"2026-10-25T03:00:00+01:00 clock goes back at 03:00 to 02:00",
		}},
		{"half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", []string{
			"2026-10-04T02:30:00+11:00 clock goes forward at 02:00 to 02:30; 02:15 does not exist, runs at 02:30",
		}},
		{"midnight forward", "@daily", "Africa/Cairo", "2026-04-23T00:00:00+02:00", []string{
			"2026-04-24T01:00:00+03:00 clock goes forward at 00:00 to 01:00; 00:00 does not exist, runs at 01:00",
			"2026-04-25T00:00:00+03:00",
		}},
		{"midnight back", "30 23 * * *", "Asia/Beirut", "2026-10-24T12:00:00+03:00", []string{
			"2026-10-24T23:30:00+03:00 clock goes back at 00:00 to 23:00; runs once, the first time the clock shows it",
			"2026-10-25T23:30:00+02:00",
		}},
		{"into the next day", "30 23 * * *", "America/Nuuk", "2026-03-28T12:00:00-02:00", []string{
			"2026-03-29T00:00:00-01:00 clock goes forward at 23:00 to 00:00; 23:30 does not exist, runs at 00:00",
			"2026-03-29T23:30:00-01:00 clock goes forward at 23:00 to 00:00",
		}},
		{"a day left out", "0 9 * * *", "Pacific/Apia", "2011-12-29T00:00:00-10:00", []string{
			"2011-12-29T09:00:00-10:00",
			"2011-12-31T09:00:00+14:00 the calendar moves from 2011-12-30 00:00 to 2011-12-31 00:00",
			"2012-01-01T09:00:00+14:00",
		}},
		{"once", "once 2026-03-29 02:30", "Europe/Berlin", "2026-01-01T00:00:00Z", []string{
			"2026-03-29T03:00:00+02:00 clock goes forward at 02:00 to 03:00; 02:30 does not exist, runs at 03:00",
		}},
		{"elapsed time", "every 12h", "Europe/Berlin", "2026-03-28T15:00:00Z", []string{
			"2026-03-29T01:00:00+01:00 clock goes forward at 02:00 to 03:00",
			"2026-03-29T14:00:00+02:00 clock goes forward at 02:00 to 03:00",
			"2026-03-30T02:00:00+02:00",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			after, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range parse(t, c.spec).Preview(after, len(c.want), zone(t, c.zone)) {
				text := r.At.Format(time.RFC3339)
				if r.Clock != nil {
					text += " " + r.Clock.Text
					_, before := r.Clock.At.Add(-1).Zone()
					_, after := r.Clock.At.Zone()
					if r.Clock.Before != time.Duration(before)*time.Second || r.Clock.After != time.Duration(after)*time.Second || before == after {
						t.Errorf("offsets %v and %v at %v", r.Clock.Before, r.Clock.After, r.Clock.At)
					}
				}
				got = append(got, text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.spec, diff)
			}
		})
	}
}

func TestPreviewIsBounded(t *testing.T) {
	t.Parallel()
	s := parse(t, "* * * * *")
	if n := len(s.Preview(time.Unix(0, 0), 1<<40, nil)); n != cron.MaxPreview {
		t.Errorf("%d runs, want %d", n, cron.MaxPreview)
	}
	if runs := s.Preview(time.Unix(0, 0), -1, nil); runs != nil {
		t.Errorf("%d runs of -1", len(runs))
	}
	if runs := parse(t, "once 2026-01-01T00:00:00Z").Preview(time.Unix(0, 0), 10, nil); len(runs) != 1 {
		t.Errorf("once has %d runs", len(runs))
	}
}

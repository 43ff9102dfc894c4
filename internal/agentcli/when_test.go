package agentcli_test

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata" // makes time zones independent of the machine

	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/testrun"
)

func zoneOf(t testing.TB, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestTimesThatCLIsPrint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, now, zone, want string }{
		// Durations.
		{"try again in 2 hours 14 minutes", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T17:14:00Z"},
		{"try again in 2 hours, 14 minutes and 5 seconds.", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T17:14:05Z"},
		{"Retry in 3600s", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T16:00:00Z"},
		{"Please retry in 5.2s.", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:00:05.2Z"},
		{"try again in 7m12s", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:07:12Z"},
		{"wait an hour", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T16:00:00Z"},
		{"in 3 days", "2026-11-23T15:00:00Z", "UTC", ""}, // of what?
		{"resets in 3 days", "2026-11-23T15:00:00Z", "UTC", "2026-11-26T15:00:00Z"},
		{"try again in less than a minute", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:01:00Z"},
		{"resets in 3 months", "2026-11-23T15:00:00Z", "UTC", ""},
		{"try again in 999999999999 hours", "2026-11-23T15:00:00Z", "UTC", ""},
		{"try again in 41 days", "2026-11-23T15:00:00Z", "UTC", ""},
		{"Please wait and try again later", "2026-11-23T15:00:00Z", "UTC", ""},
		{"retry after 5 attempts", "2026-11-23T15:00:00Z", "UTC", ""},
		// Fields.
		{`{"retryDelay": "16.5s"}`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:00:16.5Z"},
		{`retryDelayMs: 3600000,`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T16:00:00Z"},
		{`{"resets_in_seconds":12}`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:00:12Z"},
		{`{"resets_at":1795454917}`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T17:28:37Z"},
		{`{"resets_at":1795454917123}`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T17:28:37.123Z"},
		{`{"resets_at":"1795444917"}`, "2026-11-23T15:00:00Z", "UTC", ""}, // past
		{`retry-after: Mon, 23 Nov 2026 15:30:00 GMT`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:30:00Z"},
		{`"retry-after":"120"`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T15:02:00Z"},
		{`"quotaResetTimeStamp": "2026-11-23T18:00:00Z"`, "2026-11-23T15:00:00Z", "UTC", "2026-11-23T18:00:00Z"},
		{"will reset at 2026-11-23 18:00", "2026-11-23T15:00:00Z", "Europe/Berlin", "2026-11-23T17:00:00Z"},
		{"will reset at 2026-11-23T18:00:00-05:00", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T23:00:00Z"},
		{"2026-11-23T18:00:00Z ERROR: limit", "2026-11-23T15:00:00Z", "UTC", ""}, // when it was written
		// Clock times.
		{"resets 8am (UTC)", "2026-11-23T15:00:00Z", "Asia/Tokyo", "2026-11-24T08:00:00Z"},
		{"try again at 9:06 AM.", "2026-11-23T15:00:00Z", "UTC", "2026-11-24T09:06:00Z"},
		{"try again at 9:06 AM.", "2026-11-23T13:00:00Z", "America/New_York", "2026-11-23T14:06:00Z"},
		{"resets 3:30pm (America/New_York)", "2026-11-23T15:00:00Z", "UTC", "2026-11-23T20:30:00Z"},
		{"resets at 14:30", "2026-11-23T11:00:00Z", "Europe/Berlin", "2026-11-23T13:30:00Z"},
		{"resets 12am", "2026-11-23T15:00:00Z", "UTC", "2026-11-24T00:00:00Z"},
		{"resets 12pm", "2026-11-23T10:00:00Z", "UTC", "2026-11-23T12:00:00Z"},
		{"resets 13pm", "2026-11-23T10:00:00Z", "UTC", ""},
		{"resets 8am (Mars/Olympus)", "2026-11-23T15:00:00Z", "UTC", ""}, // an unknown zone is not guessed
		{"resets 8am (../../etc/passwd)", "2026-11-23T10:00:00Z", "UTC", "2026-11-24T08:00:00Z"},
		{"resets 2:40pm", "2026-11-23T15:00:00Z", "UTC", ""},                            // twenty minutes ago
		{"try again at 3:00 PM", "2026-11-23T15:00:20Z", "UTC", "2026-11-23T15:01:00Z"}, // which may have meant 15:00:40
		{"resets at midnight Pacific time", "2026-11-23T15:00:00Z", "UTC", "2026-11-24T08:00:00Z"},
		{"resets at midnight Pacific time", "2026-07-23T15:00:00Z", "UTC", "2026-07-24T07:00:00Z"},
		// Dates.
		{"resets Oct 9 at 5am", "2026-10-07T15:00:00Z", "UTC", "2026-10-09T05:00:00Z"},
		{"resets Oct 9, 5am (Europe/Paris)", "2026-10-07T15:00:00Z", "UTC", "2026-10-09T03:00:00Z"},
		{"try again at Mar 3rd, 2026 9:06 AM", "2026-03-01T15:00:00Z", "UTC", "2026-03-03T09:06:00Z"},
		{"resets Jan 2 at 5am", "2026-12-30T15:00:00Z", "UTC", "2027-01-02T05:00:00Z"},
		{"resets Apr 29", "2026-04-24T15:00:00Z", "UTC", "2026-04-29T00:00:00Z"},
		{"resets Oct 9 at 5am", "2026-10-09T06:00:00Z", "UTC", ""}, // past: not next year
		{"resets Feb 31 at 5am", "2026-02-27T06:00:00Z", "UTC", "2026-03-03T05:00:00Z"},
		{"resets Fri 4:00 PM", "2026-11-23T15:00:00Z", "UTC", "2026-11-27T16:00:00Z"},
		{"resets Monday at 3pm", "2026-11-23T15:00:00Z", "UTC", "2026-11-30T15:00:00Z"},
		// Changes of the clock: 2026-03-29 and 2026-10-25 in Berlin.
		{"resets 2:30am", "2026-03-28T22:00:00Z", "Europe/Berlin", "2026-03-29T01:30:00Z"}, // skipped: half past three
		{"resets 2:30am", "2026-10-24T22:00:00Z", "Europe/Berlin", "2026-10-25T00:30:00Z"}, // the first of two
		{"resets 4am", "2026-10-24T22:00:00Z", "Europe/Berlin", "2026-10-25T03:00:00Z"},
		{"resets 4am", "2026-03-28T22:00:00Z", "Europe/Berlin", "2026-03-29T02:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if at := agentcli.When(c.text, now, zoneOf(t, c.zone)); !at.IsZero() {
			got = at.Format(time.RFC3339Nano)
		}
		if got != c.want {
			t.Errorf("%q at %s in %s is %q, want %q", c.text, c.now, c.zone, got, c.want)
		}
	}
}

// zonesOfAllKinds contains clocks that change by an hour, by half an hour, at midnight, and not
// at all.
var zonesOfAllKinds = []string{
	"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo", "Africa/Casablanca",
	"Asia/Beirut", "America/Havana", "Pacific/Apia", "Pacific/Chatham", "America/St_Johns", "Antarctica/Troll", "Asia/Tokyo",
}

// moved reports whether the zone's clock changes around that time.
func moved(at time.Time, zone *time.Location) bool {
	_, before := at.Add(-3 * time.Hour).In(zone).Zone()
	_, after := at.Add(3 * time.Hour).In(zone).Zone()
	return before != after
}

func TestWhen_clock_times(t *testing.T) {
	t.Parallel()
	step := testrun.Size[time.Duration](557, 337, 113) * time.Minute
	for _, name := range zonesOfAllKinds {
		zone := zoneOf(t, name)
		// All through a year, with several times within a day of each clock change.
		for now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC); now.Year() < 2027; now = now.Add(step) {
			hour, minute := now.Minute()%24, (now.Hour()*13)%60
			text := fmt.Sprintf("resets at %02d:%02d", hour, minute)
			at := agentcli.When(text, now, zone)
			if at.IsZero() {
				// A clock time of the last hour has passed.
				ago := false
				for back := time.Duration(0); back <= 2*time.Hour; back += time.Minute {
					then := now.Add(-back).In(zone)
					ago = ago || then.Hour() == hour && then.Minute() == minute
				}
				if !ago && !moved(now, zone) {
					t.Fatalf("%s, %v: %q is nothing", name, now, text)
				}
				continue
			}
			if here := now.In(zone); here.Hour() == hour && here.Minute() == minute {
				if at.Sub(now) != time.Minute {
					t.Fatalf("%s: %q at %v is %v", name, text, now, at)
				}
				continue
			}
			here := at.In(zone)
			if shown := here.Hour() == hour && here.Minute() == minute; !shown {
				if !moved(at, zone) { // else the clock skipped it
					t.Fatalf("%s, %v: %q is %v", name, now, text, here)
				}
			}
			if !at.After(now) || at.Sub(now) > 26*time.Hour {
				t.Fatalf("%s: %q at %v is %v", name, text, now, at)
			}
			// No time in between shows the same, except in the second hour after a clock was set
			// back.
			if again := agentcli.When(text, now.Add(at.Sub(now)/2), zone); !again.IsZero() && !again.Equal(at) {
				t.Fatalf("%s: %q is %v at %v and %v half way", name, text, at, now, again)
			}
		}
	}
}

func FuzzWhen(f *testing.F) {
	for _, p := range corpus(f) {
		for _, line := range p.Lines {
			f.Add(line, p.Now.Unix(), uint8(len(line)))
		}
	}
	for _, text := range []string{"try again at Mar 3rd, 2026 9:06 AM", "resets 2:30am (Europe/Berlin)", "Retry-After: 99999999999999", "resets Feb 29", "retry in 1e300s", "resets at midnight"} {
		f.Add(text, int64(1774749600), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text string, unix int64, zone uint8) {
		now := time.Unix(unix%(1<<33), 0)
		in := zoneOf(t, zonesOfAllKinds[int(zone)%len(zonesOfAllKinds)])
		at := agentcli.When(text, now, in)
		if again := agentcli.When(text, now, in); !again.Equal(at) {
			t.Fatalf("%q is %v and %v", text, at, again)
		}
		if at.IsZero() {
			return
		}
		if !at.After(now) || at.Sub(now) > 40*24*time.Hour || at.Location() != time.UTC {
			t.Fatalf("%q at %v in %v is %v", text, now, in, at)
		}
	})
}

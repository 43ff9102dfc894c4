package cron

import (
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestTimetable_start_and_end(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)
	table, err := Of(agented.Schedule{
		Cron: "0 * * * *", Zone: "Asia/Kolkata", StartAt: start.Add(30 * time.Minute), EndAt: start.Add(150 * time.Minute),
		WindowSeconds: 1,
	}.WithDefaults(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Full hours in India are at half past in UTC: 12:30, 13:30 and 14:30; the first and the last
	// are exactly on the limits.
	var got []time.Time
	for at, ok := table.Next(start.AddDate(-1, 0, 0)); ok; at, ok = table.Next(at) {
		got = append(got, at)
	}
	if len(got) != 3 || !got[0].Equal(start.Add(30*time.Minute)) || !got[2].Equal(start.Add(150*time.Minute)) {
		t.Errorf("due %v", got)
	}
	if runs := table.Preview(start.AddDate(-1, 0, 0), 10); len(runs) != 3 || !runs[0].At.Equal(got[0]) {
		t.Errorf("preview %v", runs)
	}
	if _, ok := table.Next(got[2]); ok {
		t.Error("due after the end")
	}
}

func TestLoadZone_suggestion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"europe/berlin": "Europe/Berlin", "america/new york": "America/New_York", "utc": "UTC", "Europe/Berln": "Europe/Berlin",
		"Asia/Soul": "Asia/Seoul", "Tokyo": "Asia/Tokyo", "Nowhere/AtAll": "",
	} {
		if got := nearestZone(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{"", "Local", "local", "../../etc/passwd", "Nowhere/AtAll"} {
		if z, err := LoadZone(bad); agented.KindOf(err) != agented.Invalid || err == nil {
			t.Errorf("%q is %v, %v", bad, z, err)
		}
	}
}

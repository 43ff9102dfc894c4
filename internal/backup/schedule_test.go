package backup

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestKeeper_reports_failures(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	place := filepath.Join(t.TempDir(), "backups")
	plan := Plan{
		Source: f.source(), DB: f.db, Dir: place, Schedule: "0 3 * * *", Zone: time.UTC, Keep: 2,
		Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	}
	k, err := NewScheduler(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if s := k.Status(); s.Problem != "" || !s.Next.Equal(time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)) {
		t.Errorf("at the start: %+v", s)
	}
	now = now.Add(18 * time.Hour)
	if s := k.Status(); !strings.Contains(s.Problem, "due at 2026-11-24T03:00:00Z was not taken") {
		t.Errorf("three hours behind: %+v", s)
	}
	if err := os.WriteFile(place, nil, 0o600); err != nil { // where the folder should be
		t.Fatal(err)
	}
	if err := k.RunNow(t.Context()); err == nil {
		t.Fatal("a backup into a file went well")
	}
	if s := k.Status(); !strings.Contains(s.Problem, "the last backup failed") || s.Failures != 1 || s.LastError == "" {
		t.Errorf("after a failure: %+v", s)
	}
	if k, err = NewScheduler(t.Context(), plan); err != nil || !strings.Contains(k.Status().Problem, "failed") {
		t.Errorf("a restart forgot the failure: %+v %v", k.Status(), err)
	}
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(place, "agented-of-mine.backup")
	for i := range 3 {
		now = now.Add(time.Hour)
		if err := k.RunNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.WriteFile(foreign, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := Scheduled(place)
	if err != nil || len(list) != 2 || filepath.Base(list[1]) != NameAt(now) {
		t.Errorf("kept: %v %v", list, err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a file of somebody else went: %v", err)
	}
	if s := k.Status(); s.Problem != "" || !s.LastSuccess.Equal(now) || s.LastBytes == 0 {
		t.Errorf("after good ones: %+v", s)
	}
	if at, ok := TakenAt(list[1]); !ok || !at.Equal(now) {
		t.Errorf("%s was taken at %s, %v", list[1], at, ok)
	}
}

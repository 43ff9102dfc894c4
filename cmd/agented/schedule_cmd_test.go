package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSchedules_applied_from_file(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.waitFor("the schedules", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.log.String(), "Scheduler service initialized")
	})
	file := filepath.Join(s.dir, "triggers.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`
name: often
backend: command
command: [sh, -c, echo hi]
schedules:
  - every: 1s
    overlap: queue
---
name: weekly report
backend: command
command: ["true"]
schedule_type: weekly
schedule_day: 0
schedule_time: "08:30"
schedule_timezone: Asia/Seoul
---
name: nightly
backend: command
command: ["true"]
cron_expression: "0 2 * * 0"
`)
	out, errs, code := s.cli("trigger", "apply", "-f", file)
	if code != 0 || !strings.Contains(out, "often: created") ||
		!strings.Contains(out, `note: weekly on day 0 (Monday, counted from 0 = Monday) at 08:30 is now the cron schedule "30 8 * * MON"`) ||
		!strings.Contains(out, "counted from 0 = Monday and is now MON") {
		t.Fatalf("apply: code %d\n%s%s", code, out, errs)
	}
	// Applying it again changes nothing, also with the anchor that the server has set.
	if out, errs, code = s.cli("trigger", "apply", "-f", file, "--json"); code != 0 || strings.Count(out, `"unchanged"`) != 3 || !strings.Contains(out, `"notes"`) {
		t.Errorf("apply again: code %d\n%s%s", code, out, errs)
	}
	// The output of show can be applied.
	out, _, _ = s.cli("trigger", "show", "weekly report")
	if !strings.Contains(out, "30 8 * * MON") || !strings.Contains(out, "Asia/Seoul") {
		t.Errorf("show: %s", out)
	}
	write(out)
	if out, errs, code = s.cli("trigger", "apply", "-f", file); code != 0 || !strings.Contains(out, "unchanged") {
		t.Errorf("apply of what show printed: code %d\n%s%s", code, out, errs)
	}
	out, _, code = s.cli("schedule", "list")
	if code != 0 || !strings.Contains(out, "every 1s") || !strings.Contains(out, "Asia/Seoul") {
		t.Errorf("schedule list: %s", out)
	}

	var ticks struct {
		Items []struct {
			Schedule  string    `json:"schedule_id"`
			DueAt     time.Time `json:"due_at"`
			Outcome   string    `json:"outcome"`
			Execution string    `json:"execution_id"`
		}
	}
	list := func() {
		t.Helper()
		out, errs, code := s.cli("tick", "list", "--trigger", "often", "--json")
		if code != 0 || json.Unmarshal([]byte(out), &ticks) != nil {
			t.Fatalf("tick list: code %d\n%s%s", code, out, errs)
		}
	}
	s.waitFor("two ticks", func() bool { list(); return len(ticks.Items) >= 2 })
	first := ticks.Items[len(ticks.Items)-1]
	e := s.await(first.Execution)
	if e.Status != "success" || first.Outcome != "fired" {
		t.Errorf("tick %+v fired %+v", first, e)
	}
	var cause struct {
		Cause struct {
			Kind     string    `json:"kind"`
			Schedule string    `json:"schedule_id"`
			DueAt    time.Time `json:"due_at"`
		} `json:"cause"`
	}
	s.call("GET", "/api/v1/executions/"+first.Execution, nil, &cause)
	if cause.Cause.Kind != "schedule" || cause.Cause.Schedule != first.Schedule || !cause.Cause.DueAt.Equal(first.DueAt) {
		t.Errorf("cause %+v of the tick %+v", cause, first)
	}

	// After a kill and a restart the list has no gap and no duplicate.
	before := len(ticks.Items)
	s.kill()
	time.Sleep(2500 * time.Millisecond) // due times pass meanwhile
	s.start()
	s.waitFor("ticks of the next server", func() bool { list(); return len(ticks.Items) > before+4 })
	for i := 1; i < len(ticks.Items); i++ {
		if d := ticks.Items[i-1].DueAt.Sub(ticks.Items[i].DueAt); d != time.Second {
			t.Errorf("%v between the ticks %+v and %+v", d, ticks.Items[i-1], ticks.Items[i])
		}
	}
	if out, _, code := s.cli("tick", "list", "--trigger", "often", "--limit", "3"); code != 0 || strings.Count(out, "\n") != 4 {
		t.Errorf("tick list: code %d\n%s", code, out)
	}
}

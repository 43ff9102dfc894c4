package store

import (
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestDays(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	end := func(created time.Time, state agented.State, took time.Duration) {
		t.Helper()
		e := admit(t, db, agented.TriggerID(agented.NewID("trg", created)), created)
		c := claim(t, db, created)
		if c == nil || c.ID != e.ID {
			t.Fatalf("claimed %v", c)
		}
		if err := db.AttemptStarted(t.Context(), c.ID, c.Lease, 1, "", agented.Isolation{}, created); err != nil {
			t.Fatal(err)
		}
		if err := endAttempt(db, t.Context(), ended(c, state, created.Add(took)), c.Lease, created.Add(took)); err != nil {
			t.Fatal(err)
		}
	}
	end(day(10).Add(23*time.Hour), agented.StateFailed, time.Second)
	for i := range 20 {
		end(day(11).Add(time.Duration(i)*time.Minute), agented.StateSuccess, time.Duration(i+1)*time.Second)
	}
	end(day(12).Add(-time.Microsecond), agented.StateTimeout, time.Second)
	admit(t, db, "trg-1", day(12))
	got := must(db.Days(t.Context(), []time.Time{day(10), day(11), day(12), day(13)}))(t)
	if len(got) != 3 {
		t.Fatalf("%d days", len(got))
	}
	if got[0].Counts[agented.StateFailed] != 1 || len(got[0].Counts) != 1 || got[0].Median != 0 {
		t.Errorf("the first day: %+v", got[0])
	}
	if c := got[1].Counts; c[agented.StateSuccess] != 20 || c[agented.StateTimeout] != 1 || len(c) != 2 {
		t.Errorf("the second day: %+v", got[1])
	}
	if got[1].Median != 11*time.Second || got[1].P95 != 20*time.Second {
		t.Errorf("durations: %s, %s", got[1].Median, got[1].P95)
	}
	if got[2].Counts[agented.StatePending] != 1 {
		t.Errorf("the third day: %+v", got[2])
	}
	waiting := must(db.Waiting(t.Context(), 10))(t)
	if len(waiting) != 1 {
		t.Errorf("%d wait", len(waiting))
	}
	if n, err := db.Bytes(t.Context()); err != nil || n == 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if next, err := db.NextRuns(t.Context(), 5); err != nil || len(next) != 0 {
		t.Errorf("%v, %v", next, err)
	}
}

func TestDays_index(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for statement, want := range map[string]string{
		dayCount:     "USING COVERING INDEX execution_status (status=? AND created_at>? AND created_at<?)",
		dayDurations: "USING INDEX execution_status (status=? AND created_at>? AND created_at<?)",
		standingIDs:  "USING COVERING INDEX execution_status (status=?)",
		nextRuns:     "USING INDEX schedule_next",
	} {
		args := []any{1, 2, 3}[:strings.Count(statement, "$")]
		if text := queryPlan(t, db, statement, args...); !strings.Contains(text, want) || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s\n\t%s", statement, text)
		}
	}
}

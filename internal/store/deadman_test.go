package store

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// watch calls NotifyAbsent as a running server does, until a time.
func watch(t testing.TB, db *DB, from, to time.Time) {
	t.Helper()
	for at := from; ; at = at.Add(time.Minute) {
		if at.After(to) {
			at = to
		}
		if _, err := db.NotifyAbsent(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if at.Equal(to) {
			return
		}
	}
}

func expecting(t testing.TB, db *DB, every string) *agented.Trigger {
	t.Helper()
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, TimeoutSeconds: 60, ExpectEvery: every}
	trigger := &agented.Trigger{Name: "nightly", Spec: spec, Enabled: true, CreatedAt: start, UpdatedAt: start}
	if err := db.CreateTrigger(t.Context(), trigger, "ann"); err != nil {
		t.Fatal(err)
	}
	return trigger
}

func TestNotifyAbsent(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["dead_man","recovered"]`)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	trigger := expecting(t, db, "1h")
	want := func(what string, texts ...string) {
		t.Helper()
		got := noticed(t, db)
		for i := range got {
			got[i] = strings.Join(strings.Fields(got[i])[:2], " ")
		}
		if !slices.Equal(got, texts) {
			t.Errorf("%s: got %q, want %q", what, noticed(t, db), texts)
		}
	}
	watch(t, db, start, at(59*time.Minute))
	want("before the end of the period")
	if next, err := db.NotifyAbsent(t.Context(), at(59*time.Minute+30*time.Second)); err != nil || next != 30*time.Second {
		t.Errorf("the next look is after %s, %v", next, err)
	}
	watch(t, db, at(59*time.Minute), at(61*time.Minute))
	want("after the period", "all dead_man")
	if list, err := db.Overdue(t.Context()); err != nil || len(list) != 1 || list[0].Trigger != trigger.ID {
		t.Errorf("overdue: %+v, %v", list, err)
	}
	watch(t, db, at(61*time.Minute), at(119*time.Minute))
	want("once per period", "all dead_man")
	watch(t, db, at(119*time.Minute), at(121*time.Minute))
	want("in the second period", "all dead_man", "all dead_man")
	runAs(t, db, trigger.ID, agented.StateFailed, at(122*time.Minute))
	if list, _ := db.Overdue(t.Context()); len(list) != 1 {
		t.Errorf("a failure ended the absence: %+v", list)
	}
	runAs(t, db, trigger.ID, agented.StateSuccess, at(123*time.Minute))
	want("after a success", "all dead_man", "all dead_man", "all recovered")
	if list, _ := db.Overdue(t.Context()); len(list) != 0 {
		t.Errorf("after a success: %+v", list)
	}
	watch(t, db, at(123*time.Minute), at(182*time.Minute))
	want("within the period after a success", "all dead_man", "all dead_man", "all recovered")
	watch(t, db, at(182*time.Minute), at(184*time.Minute))
	want("after it", "all dead_man", "all dead_man", "all recovered", "all dead_man")
}

// Time in which no server ran, and jumps of the clock, do not count; disabled triggers are not expected
// to succeed.
func TestNotifyAbsent_unwatched(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	addChannel(t, db, "all", `["dead_man"]`)
	trigger := expecting(t, db, "1h")
	after := func(d time.Duration) time.Time { return start.Add(d) }
	watch(t, db, start, after(30*time.Minute))
	watch(t, db, after(24*time.Hour), after(24*time.Hour+27*time.Minute)) // the server did not run, or the clock jumped
	if got := noticed(t, db); len(got) > 0 {
		t.Errorf("after a downtime: %q", got)
	}
	watch(t, db, after(2*time.Hour), after(2*time.Hour)) // the clock is set back
	watch(t, db, after(2*time.Hour), after(2*time.Hour+4*time.Minute))
	if got := noticed(t, db); len(got) != 1 {
		t.Errorf("after an hour in which a server ran: %q", got)
	}
	stored, err := db.Trigger(t.Context(), trigger.ID)
	if err != nil {
		t.Fatal(err)
	}
	stored.Enabled = false
	if err := db.UpdateTrigger(t.Context(), stored, "ann"); err != nil {
		t.Fatal(err)
	}
	watch(t, db, after(3*time.Hour), after(9*time.Hour))
	if got := noticed(t, db); len(got) != 1 {
		t.Errorf("of a disabled trigger: %q", got)
	}
	if list, err := db.Overdue(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("a disabled trigger is overdue: %+v, %v", list, err)
	}
}

package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

func scheduled(name, schedules string) string {
	return fmt.Sprintf(`{"name":%q,"backend":"command","command":["true"],"schedules":%s}`, name, schedules)
}

func TestTriggers_schedules(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"TZ=Europe/Berlin"}})
	var v api.TriggerView
	g.admin("POST", "/api/v1/triggers", scheduled("s", `[
		{"cron":"30  2 * * MON-FRI","zone":"America/New_York","missed":"all","missed_limit":3,"jitter_seconds":60},
		{"every":"15m","message":"hi"},
		{"at":"2099-01-31 09:00"}]`)).want(201).json(&v)
	if len(v.Schedules) != 3 {
		t.Fatalf("schedules: %+v", v.Schedules)
	}
	a, b, c := v.Schedules[0], v.Schedules[1], v.Schedules[2]
	if a.Cron != "30 2 * * MON-FRI" || a.Missed != agented.MissedAll || a.Overlap != agented.OverlapQueue || a.WindowSeconds != 86400 || !a.Enabled || a.NextRunAt == nil ||
		a.NextRunAt.Before(*a.NextDueAt) || a.NextRunAt.Sub(*a.NextDueAt) >= time.Minute {
		t.Errorf("cron: %+v", a)
	}
	if b.Anchor == nil || b.Overlap != agented.OverlapSkip || b.Missed != agented.MissedLatest || b.NextDueAt == nil || b.NextDueAt.Sub(*b.Anchor) != 15*time.Minute {
		t.Errorf("every: %+v", b)
	}
	if c.At == nil || !c.At.Equal(time.Date(2099, 1, 31, 8, 0, 0, 0, time.UTC)) {
		t.Errorf("at: %+v", c)
	}
	if v.NextRunAt == nil || v.NextRunAt.After(*b.NextRunAt) {
		t.Errorf("next_run_at %v", v.NextRunAt)
	}
	at := "/api/v1/triggers/" + string(v.ID)
	var again api.TriggerView
	g.do(agented.RoleViewer, "GET", at, "").want(200).json(&again)
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("read back (-created +read):\n%s", diff)
	}
	var items rest.ListOf[api.ScheduleItem]
	g.do(agented.RoleViewer, "GET", "/api/v1/schedules?trigger_id="+string(v.ID), "").want(200).json(&items)
	if len(items.Items) != 3 || items.Items[0].TriggerName != "s" || !items.Items[0].TriggerEnabled {
		t.Errorf("list: %+v", items)
	}
}

func TestSchedules_equivalent_keeps_id(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var v api.TriggerView
	g.admin("POST", "/api/v1/triggers", scheduled("s", `[{"every":"1h"},{"cron":"@hourly"}]`)).want(201).json(&v)
	at := "/api/v1/triggers/" + string(v.ID)
	g.now.Add(int64(10 * time.Minute))
	patch := func(body string) api.TriggerView {
		t.Helper()
		var out api.TriggerView
		g.admin("PATCH", at, body).want(200).json(&out)
		return out
	}
	// The same list, in another order and without ids, plus one more.
	w := patch(`{"schedules":[{"cron":"@hourly","missed":"latest"},{"every":"2h"},{"every":"1h"}]}`)
	if diff := cmp.Diff([]api.ScheduleView{v.Schedules[1], v.Schedules[0]}, []api.ScheduleView{w.Schedules[0], w.Schedules[2]}); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	// A change under an id keeps the id and the anchor.
	x := patch(fmt.Sprintf(`{"schedules":[{"id":%q,"every":"1h","message":"new"}]}`, v.Schedules[0].ID))
	if len(x.Schedules) != 1 || x.Schedules[0].ID != v.Schedules[0].ID || !x.Schedules[0].Anchor.Equal(*v.Schedules[0].Anchor) || x.Schedules[0].Message != "new" {
		t.Errorf("changed: %+v", x.Schedules)
	}
	// An omitted list is unchanged; an empty list and null remove all.
	if y := patch(`{"name":"other"}`); len(y.Schedules) != 1 {
		t.Errorf("left out: %+v", y.Schedules)
	}
	if y := patch(`{"schedules":null}`); len(y.Schedules) != 0 || y.NextRunAt != nil {
		t.Errorf("null: %+v", y.Schedules)
	}
}

func TestSchedules_disable_and_enable(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var v api.TriggerView
	g.admin("POST", "/api/v1/triggers", scheduled("s", `[{"every":"1h"},{"every":"1h","enabled":false,"message":"off"}]`)).want(201).json(&v)
	if v.Schedules[1].NextDueAt != nil {
		t.Errorf("a disabled schedule has a next due time: %+v", v.Schedules[1])
	}
	at := "/api/v1/triggers/" + string(v.ID)
	var off, on api.TriggerView
	g.admin("PATCH", at, `{"enabled":false}`).want(200).json(&off)
	if off.Schedules[0].NextDueAt != nil || off.NextRunAt != nil {
		t.Errorf("of a disabled trigger: %+v", off.Schedules)
	}
	g.now.Add(int64(150 * time.Minute))
	g.admin("PATCH", at, `{"enabled":true}`).want(200).json(&on)
	if got := on.Schedules[0].NextDueAt; got == nil || !got.Equal(v.Schedules[0].Anchor.Add(3*time.Hour)) {
		t.Errorf("next due %v, made %v", got, v.Schedules[0].Anchor)
	}
}

func TestSchedules_invalid_fields(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	for _, c := range []struct{ name, schedules, location, message string }{
		{"no form", `[{}]`, "0.cron", "is missing"},
		{"two forms", `[{"cron":"@daily","every":"1h"}]`, "0.cron", "keep one"},
		{"bad field", `[{"every":"1h"},{"cron":"61 * * * *"}]`, "1.cron", "minute"},
		{"period as cron", `[{"cron":"every 15m"}]`, "0.cron", "field every"},
		{"bad period", `[{"every":"15x"}]`, "0.every", "not a period"},
		{"zone by case", `[{"cron":"@daily","zone":"europe/berlin"}]`, "0.zone", `did you mean "Europe/Berlin"?`},
		{"misspelt zone", `[{"cron":"@daily","zone":"Europe/Berln"}]`, "0.zone", `did you mean "Europe/Berlin"?`},
		{"missed", `[{"cron":"@daily","missed":"lastest"}]`, "0.missed", `did you mean "latest"?`},
		{"limit", `[{"cron":"@daily","missed_limit":0}]`, "0.missed_limit", "from 1"},
		{"overlap", `[{"cron":"@daily","overlap":"drop"}]`, "0.overlap", "queue, skip or replace"},
		{"passed", `[{"at":"2001-01-01T00:00:00Z"}]`, "0.at", "has passed"},
		{"no time", `[{"at":"soon"}]`, "0.at", "not a time"},
		{"ended", `[{"cron":"@daily","end_at":"2001-01-01T00:00:00Z"}]`, "0.end_at", "no due time"},
		{"end before start", `[{"cron":"@daily","start_at":"2099-01-02T00:00:00Z","end_at":"2099-01-01T00:00:00Z"}]`, "0.end_at", "before start_at"},
		{"foreign id", `[{"id":"sch-1","cron":"@daily"}]`, "0.id", "not the id"},
		{"unknown field", `[{"corn":"@daily"}]`, "0.corn", `did you mean "cron"?`},
		{"anchor of cron", `[{"cron":"@daily","anchor":"2099-01-02T00:00:00Z"}]`, "0.anchor", "is allowed together with every only"},
		{"too many", "[" + strings.TrimSuffix(strings.Repeat(`{"cron":"@daily"},`, 101), ",") + "]", "", "at most 100"},
	} {
		p := g.admin("POST", "/api/v1/triggers", scheduled("x", c.schedules)).problem(422)
		want := strings.TrimSuffix("body.schedules."+c.location, ".")
		if len(p.Errors) == 0 || p.Errors[0].Location != want || !strings.Contains(p.Errors[0].Message, c.message) {
			t.Errorf("%s: %+v, want %s … %s", c.name, p.Errors, want, c.message)
		}
	}
}

func TestSchedulePreview_clock_changes(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var v api.PreviewView
	g.do(agented.RoleViewer, "POST", "/api/v1/schedules/preview",
		`{"cron":"30 2 * * *","zone":"Europe/Berlin","after":"2030-03-29T12:00:00Z","count":3}`).want(200).json(&v)
	if len(v.Runs) != 3 || v.Runs[1].Local != "2030-03-31T03:00:00+02:00" || v.Runs[1].ClockChange == nil || v.Runs[1].Weekday != "Sunday" ||
		v.Runs[0].ClockChange != nil || v.Runs[1].ClockChange.Before != "+01:00" || v.Runs[1].ClockChange.After != "+02:00" {
		t.Errorf("%+v", v)
	}
	g.do(agented.RoleViewer, "POST", "/api/v1/schedules/preview", `{"cron":"@daily","count":51}`).problem(422)
	g.do(agented.RoleViewer, "POST", "/api/v1/schedules/preview", `{"cron":"@dayly"}`).problem(422)
	g.do(agented.RoleViewer, "POST", "/api/v1/schedules/preview", `{"every":"10m","end_at":"2001-01-01T00:00:00Z"}`).want(200).json(&v)
	if len(v.Runs) != 0 {
		t.Errorf("runs after the end: %+v", v.Runs)
	}
}

func TestTicks_order(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	var v api.TriggerView
	g.admin("POST", "/api/v1/triggers", scheduled("s", `[{"every":"1m","missed":"skip"}]`)).want(201).json(&v)
	due := *v.Schedules[0].NextDueAt
	n := 0
	if _, err := g.db.TickDue(t.Context(), due, 10, func(d store.Due) store.Decision {
		var to store.Decision
		for ; n < 5; n++ {
			o := agented.TickMissed
			if n%2 == 0 {
				o = agented.TickFired
			}
			to.Ticks = append(to.Ticks, store.Decided{Tick: agented.Tick{DueAt: due.Add(time.Duration(n) * time.Minute), Outcome: o}})
		}
		return to
	}); err != nil {
		t.Fatal(err)
	}
	get := func(query string) (out []int, next string) {
		t.Helper()
		var l rest.ListOf[api.TickView]
		g.do(agented.RoleViewer, "GET", query, "").want(200).json(&l)
		for _, k := range l.Items {
			out = append(out, int(k.DueAt.Sub(due)/time.Minute))
		}
		if l.NextCursor != nil {
			next = *l.NextCursor
		}
		return out, next
	}
	first, next := get("/api/v1/ticks?limit=2")
	rest, _ := get("/api/v1/ticks?cursor=" + next)
	if got := append(first, rest...); !slices.Equal(got, []int{4, 3, 2, 1, 0}) {
		t.Errorf("pages: %v", got)
	}
	if got, _ := get("/api/v1/triggers/" + string(v.ID) + "/ticks?outcome=missed"); !slices.Equal(got, []int{3, 1}) {
		t.Errorf("missed: %v", got)
	}
	if got, _ := get("/api/v1/ticks?outcome=fired&schedule_id=" + string(v.Schedules[0].ID) + "&due_after=" + due.Add(time.Minute).Format(time.RFC3339)); !slices.Equal(got, []int{4, 2}) {
		t.Errorf("fired later: %v", got)
	}
	g.do(agented.RoleViewer, "GET", "/api/v1/ticks?outcome=lost", "").problem(422)
	g.do(agented.RoleViewer, "GET", "/api/v1/ticks?cursor=x", "").problem(422)
}

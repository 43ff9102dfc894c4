package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// everyMinute decides to fire at each due minute, with one tick each.
func everyMinute(now time.Time) func(Due) Decision {
	return func(d Due) Decision {
		var to Decision
		due := d.Schedule.NextDue
		for ; !due.After(now); due = due.Add(time.Minute) {
			if !due.After(d.DecidedUntil) {
				continue
			}
			e := newExecution(d.Trigger.ID, now)
			e.Source, e.Cause = agented.SourceSchedule, &agented.Origin{Kind: agented.SourceSchedule, Schedule: d.Schedule.ID, DueAt: due}
			to.Ticks = append(to.Ticks, Decided{
				Tick: agented.Tick{DueAt: due, Outcome: agented.TickFired}, RunAt: due,
				Admission: &Admission{Execution: e, MaxConcurrent: 1, Overlap: d.Schedule.Overlap},
			})
		}
		to.NextDue, to.NextRun = due, due
		return to
	}
}

// scheduled makes n triggers, each with one schedule that is due at start.
func scheduled(t testing.TB, db *DB, n int, o agented.Overlap) []agented.Trigger {
	t.Helper()
	var out []agented.Trigger
	for i := range n {
		tr := agented.Trigger{
			Name: fmt.Sprintf("trigger %d", i), Enabled: true, Spec: newExecution("", start).Snapshot,
			Schedules: []agented.Schedule{{Cron: "* * * * *", Overlap: o, Enabled: true, NextDue: start, NextRun: start}},
		}
		if err := db.CreateTrigger(t.Context(), &tr, "ann"); err != nil {
			t.Fatal(err)
		}
		out = append(out, tr)
	}
	return out
}

// tickFaults reports errors in the ledger: missing due times, ticks without
// their execution, executions without their tick.
func tickFaults(t testing.TB, db *DB, from time.Time) {
	t.Helper()
	for _, q := range []string{
		// A gap: the schedule has advanced further than its ticks.
		`SELECT COUNT(*) FROM (SELECT s.id, (s.next_due - ` + strconv.FormatInt(from.UnixMicro(), 10) + `) / 60000000 AS want,
			(SELECT COUNT(*) FROM tick k WHERE k.schedule_id = s.id) AS have FROM schedule s) AS x WHERE want <> have`,
		`SELECT COUNT(*) FROM tick k WHERE NOT EXISTS (SELECT 1 FROM execution e WHERE e.id = k.execution_id
			AND e.cause LIKE '%"schedule_id":"' || k.schedule_id || '"%')`,
		`SELECT COUNT(*) FROM execution e WHERE cause <> '' AND (SELECT COUNT(*) FROM tick k WHERE k.execution_id = e.id) <> 1`,
		`SELECT (SELECT COUNT(*) FROM execution WHERE cause <> '') - (SELECT COUNT(DISTINCT cause) FROM execution WHERE cause <> '')`,
		`SELECT COUNT(*) FROM execution e WHERE NOT EXISTS (SELECT 1 FROM execution_text x WHERE x.execution_id = e.id)`,
		`SELECT (SELECT value FROM counter WHERE name = 'event') - (SELECT COALESCE(MAX(event_seq), 0) FROM execution)`,
	} {
		var n int
		if err := db.row(context.Background(), q).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows of %s, error %v", n, q, err)
		}
	}
}

func count(t testing.TB, db *DB, q string, args ...any) (n int) {
	t.Helper()
	if err := db.row(context.Background(), q, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTickDue(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	list := scheduled(t, db, 3, agented.OverlapQueue)
	now := start.Add(90 * time.Second)
	got := must(db.TickDue(t.Context(), now, 10, everyMinute(now)))(t)
	if got.Schedules != 3 || len(got.Ticks) != 6 {
		t.Fatalf("decided %+v", got)
	}
	if again := must(db.TickDue(t.Context(), now, 10, everyMinute(now)))(t); again.Schedules != 0 {
		t.Errorf("decided again: %+v", again)
	}
	tickFaults(t, db, start)
	// Schedules with the same due time are in the order of their ids, which are random.
	first := list[0].Schedules[0].ID
	at := slices.IndexFunc(got.Ticks, func(k TickRun) bool { return k.Schedule == first && k.DueAt.Equal(start.Add(time.Minute)) })
	if at < 0 {
		t.Fatalf("no tick of %s: %+v", first, got.Ticks)
	}
	e := must(db.Execution(t.Context(), got.Ticks[at].Execution))(t)
	if e.Cause == nil || e.Cause.Schedule != first || !e.Cause.DueAt.Equal(start.Add(time.Minute)) || e.Source != agented.SourceSchedule {
		t.Errorf("the execution's cause is %+v", e.Cause)
	}
	if at, ok, err := db.NextScheduleRun(t.Context()); err != nil || !ok || !at.Equal(start.Add(2*time.Minute)) {
		t.Errorf("next run %v %v %v", at, ok, err)
	}
	// A schedule that another server has advanced is unchanged.
	err := db.write(t.Context(), "test", func(tx *tx) error {
		var out Ticked
		d := Due{Schedule: list[0].Schedules[0], Trigger: &list[0]}
		d.Schedule.NextDue = start
		if err := tx.tick(&out, d, everyMinute(now)(d), now); err != nil {
			return err
		}
		return tx.insertTicks(out.Ticks)
	})
	if err != nil {
		t.Error(err)
	}
	tickFaults(t, db, start)
}

func TestTickDue_overlap_skip(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	scheduled(t, db, 1, agented.OverlapSkip)
	now := start.Add(time.Minute)
	got := must(db.TickDue(t.Context(), now, 10, everyMinute(now)))(t)
	if len(got.Ticks) != 2 || got.Ticks[0].Outcome != agented.TickFired || got.Ticks[1].Outcome != agented.TickSkipped {
		t.Fatalf("%+v", got.Ticks)
	}
	e := must(db.Execution(t.Context(), got.Ticks[1].Execution))(t)
	if e.State != agented.StateCancelled || !strings.Contains(got.Ticks[1].Reason, string(got.Ticks[0].Execution)) || e.Reason != got.Ticks[1].Reason {
		t.Errorf("%s %q, tick %q", e.State, e.Reason, got.Ticks[1].Reason)
	}
	tickFaults(t, db, start)
}

func TestSchedules_disabled_or_deleted(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	list := scheduled(t, db, 2, agented.OverlapQueue)
	off, gone := &list[0], &list[1]
	off.Enabled = false
	if err := db.UpdateTrigger(t.Context(), off, "ann"); err != nil {
		t.Fatal(err)
	}
	now := start.Add(5 * time.Minute)
	must(db.TickDue(t.Context(), start, 1, everyMinute(start)))(t)
	if err := db.DeleteTrigger(t.Context(), gone.ID, "ann"); err != nil {
		t.Fatal(err)
	}
	if got := must(db.TickDue(t.Context(), now, 10, everyMinute(now)))(t); got.Schedules != 0 {
		t.Errorf("%+v", got)
	}
	// The history remains; after enabling, the schedule starts at the given
	// time.
	if n := count(t, db, `SELECT COUNT(*) FROM tick WHERE trigger_id = $1`, gone.ID); n != 1 {
		t.Errorf("%d ticks of the deleted trigger", n)
	}
	off.Enabled = true
	off.Schedules[0].NextDue, off.Schedules[0].NextRun = now.Add(time.Minute), now.Add(time.Minute)
	if err := db.UpdateTrigger(t.Context(), off, "ann"); err != nil {
		t.Fatal(err)
	}
	back := must(db.Trigger(t.Context(), off.ID))(t)
	if len(back.Schedules) != 1 || !back.Schedules[0].NextDue.Equal(now.Add(time.Minute)) {
		t.Errorf("%+v", back.Schedules)
	}
}

func TestUpdateTrigger_keeps_ticker_state(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	list := scheduled(t, db, 1, agented.OverlapQueue)
	must(db.TickDue(t.Context(), start, 1, everyMinute(start)))(t)
	list[0].Name = "renamed" // read before the tick
	if err := db.UpdateTrigger(t.Context(), &list[0], "ann"); err != nil {
		t.Fatal(err)
	}
	if at := list[0].Schedules[0].NextDue; !at.Equal(start.Add(time.Minute)) {
		t.Errorf("the next due time went back to %v", at)
	}
}

// second opens the file a second time, bypassing the server lock: the file that
// the first server has locked is removed.
func second(t *testing.T, path string) *DB {
	t.Helper()
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	return openAt(t, path)
}

func TestTickDue_two_servers(t *testing.T) {
	pgtest.SkipSelected(t, "PostgreSQL refuses a second server")
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	one := openAt(t, path)
	scheduled(t, one, 5, agented.OverlapQueue)
	servers := []*DB{one, second(t, path)}
	const minutes = 20
	var wg sync.WaitGroup
	for _, db := range servers {
		for range 2 {
			wg.Go(func() {
				for m := range minutes {
					now := start.Add(time.Duration(m) * time.Minute)
					if _, err := db.TickDue(t.Context(), now, 3, everyMinute(now)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	end := start.Add((minutes - 1) * time.Minute)
	for must(one.TickDue(t.Context(), end, 3, everyMinute(end)))(t).Schedules > 0 {
	}
	tickFaults(t, one, start)
	if n := count(t, one, `SELECT COUNT(*) FROM tick`); n != 5*minutes {
		t.Errorf("%d ticks, want %d", n, 5*minutes)
	}
}

// tickCrashEnv makes the test binary a process that ticks on the given database
// until it is killed or kills itself before the statement numbered by
// tickKillEnv.
const (
	tickCrashEnv = "AGENTED_TEST_TICK_DB"
	tickKillEnv  = "AGENTED_TEST_TICK_KILL"
)

func tickUntilKilled(path string) {
	db, err := Open(context.Background(), path, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	tick := func(now time.Time) {
		if _, err := db.TickDue(context.Background(), now, 10, everyMinute(now)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	if at, err := strconv.Atoi(os.Getenv(tickKillEnv)); err == nil {
		n := 0
		db.engine.Trace(func(string) {
			if n++; n == at {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		})
		tick(start)
		fmt.Println("statements", n)
		os.Exit(0)
	}
	os.Stdout.WriteString("ticking\n")
	var due int64
	if err := db.row(context.Background(), `SELECT MIN(next_due) FROM schedule`).Scan(&due); err != nil {
		os.Exit(1)
	}
	for now := time.UnixMicro(due).UTC(); ; now = now.Add(time.Minute) {
		tick(now)
	}
}

func TestTickDue_kill_between_statements(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	step := testrun.Size(6, 3, 1)
	for at := 1 + testrun.Rand(t).IntN(step); ; at += step {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", at))
		db := openNewAt(t, path)
		scheduled(t, db, 2, agented.OverlapQueue)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), tickCrashEnv+"="+locate(t, path), tickKillEnv+"="+strconv.Itoa(at))
		out, err := cmd.CombinedOutput()
		if strings.HasPrefix(string(out), "error") {
			t.Fatal(string(out))
		}
		db = openAt(t, path)
		before := count(t, db, `SELECT COUNT(*) FROM tick`)
		if err != nil && before != 0 {
			t.Errorf("killed before statement %d: %d ticks are there and nothing else may be", at, before)
		}
		tickFaults(t, db, start)
		must(db.TickDue(t.Context(), start, 10, everyMinute(start)))(t) // the next server
		tickFaults(t, db, start)
		if n := count(t, db, `SELECT COUNT(*) FROM execution`); n != 2 || count(t, db, `SELECT COUNT(*) FROM tick`) != 2 {
			t.Errorf("killed before statement %d: %d executions in the end", at, n)
		}
		if err == nil { // it ended before that statement
			if at < 9 {
				t.Fatalf("only %d statements: %s", at, out)
			}
			t.Logf("killed before every statement of %d, %d apart", at-1, step)
			return
		}
	}
}

func TestTickDue_repeated_kills(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agented.db")
	db := openAt(t, path)
	scheduled(t, db, 10, agented.OverlapQueue)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rounds := testrun.Size(1, 4, 12)
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), tickCrashEnv+"="+locate(t, path))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 64)
		if n, _ := out.Read(line); !strings.HasPrefix(string(line[:n]), "ticking") {
			t.Fatal(string(line[:n]))
		}
		time.Sleep(time.Duration(20+13*round) * time.Millisecond) // the kill comes at any moment
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // killed as expected
		db := openAt(t, path)
		tickFaults(t, db, start)
		t.Logf("round %d: %d ticks", round, count(t, db, `SELECT COUNT(*) FROM tick`))
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSchedules_indexes(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for _, c := range []struct{ statement, index string }{
		{`SELECT MIN(next_run) FROM schedule WHERE next_run IS NOT NULL`, "schedule_next"},
		{dueQuery, "schedule_next"},
		{`SELECT due_at FROM tick WHERE trigger_id = $1 ORDER BY due_at DESC, schedule_id DESC LIMIT 5`, "tick_trigger"},
		{`SELECT due_at FROM tick WHERE outcome = $1 AND outcome <> 'fired' ORDER BY due_at DESC, schedule_id DESC LIMIT 5`, "tick_outcome"},
		{`SELECT due_at FROM tick WHERE schedule_id = $1 ORDER BY due_at DESC, schedule_id DESC LIMIT 5`, "PRIMARY KEY"},
		{`SELECT due_at FROM tick ORDER BY due_at DESC, schedule_id DESC LIMIT 5`, "tick_due"},
	} {
		args := []any{1, 1}[:max(1, strings.Count(c.statement, "$"))]
		if text := queryPlan(t, db, c.statement, args...); !strings.Contains(text, c.index) || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s\n\t%s", c.statement, text)
		}
	}
}

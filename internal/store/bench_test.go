package store

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
)

// history adds n ended executions of 1,000 triggers to the database, without
// Admit.
func history(b testing.TB, db *DB, n int) {
	b.Helper()
	err := db.write(b.Context(), "history", func(tx *tx) error {
		err := tx.exec(`WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < $1)
		INSERT INTO execution (id, trigger_id, trigger_name, name_key, backend, status, source, attempt_no, event_seq, admit_no,
			max_concurrent, created_at, scheduled_at, started_at, finished_at, reason)
		SELECT 'exec-' || printf('%026d', n), 'trg-' || (n % 1000), 'Name ' || (n % 1000), 'name ' || (n % 1000), 'command',
			CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'success' END, 'manual', 1, n, n,
			1, $2 + n, $2 + n, $2 + n, $2 + n, '' FROM c`, n, start.UnixMicro())
		if err == nil {
			err = tx.exec(`INSERT INTO attempt (execution_id, number, backend, status, started_at, finished_at)
			SELECT id, 1, backend, status, started_at, finished_at FROM execution`)
		}
		if err == nil {
			err = tx.exec(`UPDATE counter SET value = $1 WHERE name = 'event'`, n)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// size is the length of the history in benchmarks; requirements refer to
// AGENTED_BENCH_HISTORY=1000000.
func size(b *testing.B) int {
	n := 10000
	if s := os.Getenv("AGENTED_BENCH_HISTORY"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// later is after the history.
var later = start.Add(24 * time.Hour)

// BenchmarkQueue measures each step on a database with a history, 1,000
// triggers with one pending execution, and one trigger at its limit with
// 10,000.
func BenchmarkQueue(b *testing.B) {
	db := openAt(b, filepath.Join(b.TempDir(), "agented.db"))
	n := size(b)
	began := time.Now()
	history(b, db, n)
	b.Logf("%d executions written in %v", n, time.Since(began))
	ctx := b.Context()

	for range 10001 {
		admit(b, db, "trg-capped", later)
	}
	for claim(b, db, later) != nil { // one runs, the others wait
	}
	b.Run("Admit", func(b *testing.B) {
		for b.Loop() {
			admit(b, db, "trg-capped", later)
		}
	})
	b.Run("ClaimNothing", func(b *testing.B) {
		for b.Loop() {
			if claim(b, db, later) != nil {
				b.Fatal("past the limit")
			}
		}
	})
	b.Run("AdmitClaimFinish", func(b *testing.B) {
		i := 0
		var claimed, finished time.Duration
		for range 1000 {
			i++
			admit(b, db, agented.TriggerID(fmt.Sprint("trg-", i)), later)
		}
		b.ResetTimer()
		for b.Loop() {
			i++
			admit(b, db, agented.TriggerID(fmt.Sprint("trg-", i)), later)
			t0 := time.Now()
			e := claim(b, db, later)
			t1 := time.Now()
			finish(b, db, e, agented.StateSuccess, later)
			claimed += t1.Sub(t0)
			finished += time.Since(t1)
		}
		b.ReportMetric(float64(claimed.Microseconds())/float64(b.N), "µs/claim")
		b.ReportMetric(float64(finished.Microseconds())/float64(b.N), "µs/finish")
	})
	b.Run("CappedChain", func(b *testing.B) { // the trigger at its limit, one after the other
		e := must(db.TakeOver(ctx, "node-a", later, ttl))(b)[0]
		for b.Loop() {
			finish(b, db, e, agented.StateSuccess, later)
			if e = claim(b, db, later); e == nil {
				b.Fatal("stuck")
			}
		}
	})
}

// BenchmarkLists measures the lists of the user interface on a database with a
// history.
func BenchmarkLists(b *testing.B) {
	db := openAt(b, filepath.Join(b.TempDir(), "agented.db"))
	n := size(b)
	began := time.Now()
	history(b, db, n)
	b.Logf("%d executions written in %v", n, time.Since(began))
	ctx := b.Context()
	list := func(name string, f ExecutionFilter) {
		b.Run("List/"+name, func(b *testing.B) {
			rows := 0
			for b.Loop() {
				got, next, err := db.Executions(ctx, f, Page{})
				if err != nil {
					b.Fatal(err)
				}
				rows = len(got)
				if next == "" {
					continue
				}
				if _, _, err := db.Executions(ctx, f, Page{Cursor: next}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows), "rows")
		})
	}
	list("two pages", ExecutionFilter{})
	list("two pages of a trigger", ExecutionFilter{Trigger: "trg-77"})
	list("two pages of a trigger's failed", ExecutionFilter{Trigger: "trg-70", States: []agented.State{agented.StateFailed}})
	list("two pages of failed and success", ExecutionFilter{States: []agented.State{agented.StateFailed, agented.StateSuccess}})
	list("a name's start", ExecutionFilter{Query: "name 77"})
	list("an id's start", ExecutionFilter{Query: "exec-0000000000000000000000077"})
	list("none of a source", ExecutionFilter{Source: agented.SourceGitHub})
	list("the oldest", ExecutionFilter{CreatedBefore: start.Add(100 * time.Microsecond)})
	b.Run("Counts", func(b *testing.B) {
		for b.Loop() {
			if _, err := db.Counts(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Execution", func(b *testing.B) {
		e := admit(b, db, "", later)
		for b.Loop() {
			if _, err := db.Execution(ctx, e.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ChangedSince", func(b *testing.B) {
		last := must(db.LastEventSeq(ctx))(b)
		for b.Loop() {
			if _, err := db.ChangedSince(ctx, last-100, 100); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkIntake measures deliveries from 32 concurrent callers, a quarter of
// them repeated, for a trigger at its limit.
func BenchmarkIntake(b *testing.B) {
	db := openAt(b, filepath.Join(b.TempDir(), "agented.db"))
	db.OnChange(func(agented.ExecutionEvent) {})
	tr := &agented.Trigger{Name: "hooked", Enabled: true, Spec: agented.Spec{Backend: "command", Command: []string{"true"}, Overlap: agented.OverlapQueue, MaxConcurrent: 1}}
	if err := db.CreateTrigger(b.Context(), tr, "test"); err != nil {
		b.Fatal(err)
	}
	body := []byte(strings.Repeat("payload ", 60))
	rules := db.HookVersion()
	must(db.AdmitDelivery(b.Context(), call("first", body, tr), time.Now()))(b)
	if claim(b, db, time.Now()) == nil {
		b.Fatal("nothing runs")
	}
	var n atomic.Int64
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	const callers = 32
	b.SetParallelism(callers / runtime.GOMAXPROCS(0))
	used := cpu()
	b.ResetTimer()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var i int64
		for pb.Next() {
			if i = n.Add(1); i%4 == 3 {
				i--
			}
			a := call(fmt.Sprint(i), body, tr)
			a.Rules = rules
			if _, err := db.AdmitDelivery(b.Context(), a, time.Now()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpu()-used).Microseconds())/float64(b.N), "µs-cpu/op")
}

// BenchmarkTick measures a due time of one schedule, a hundred per transaction,
// with the events that a server loads.
func BenchmarkTick(b *testing.B) {
	db := openNew(b)
	db.OnChange(func(agented.ExecutionEvent) {})
	scheduled(b, db, 100, agented.OverlapQueue)
	now := start
	for n := 0; b.Loop(); n++ {
		if n%100 != 0 {
			continue
		}
		got := must(db.TickDue(b.Context(), now, 100, everyMinute(now)))(b)
		if got.Schedules != 100 {
			b.Fatal(got.Schedules)
		}
		now = now.Add(time.Minute)
	}
}

// BenchmarkRest measures the cost of 10,000 idle schedules at each poll.
func BenchmarkRest(b *testing.B) {
	db := openNew(b)
	tr := agented.Trigger{Name: "many", Enabled: true, Spec: newExecution("", start).Snapshot}
	for i := range 10_000 {
		due := start.Add(time.Hour + time.Duration(i)*time.Second)
		tr.Schedules = append(tr.Schedules, agented.Schedule{Cron: "* * * * *", Enabled: true, NextDue: due, NextRun: due})
	}
	if err := db.CreateTrigger(b.Context(), &tr, "ann"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got := must(db.TickDue(b.Context(), start, 100, nil))(b); got.Schedules > 0 {
			b.Fatal(got)
		}
		if _, ok, err := db.NextScheduleRun(b.Context()); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

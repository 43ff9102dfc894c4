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

// history fills the database with n ended executions of 1,000 triggers, without
// going through Admit.
func history(b testing.TB, db *DB, n int) {
	b.Helper()
	_, err := db.conn.ExecContext(b.Context(), `WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < $1)
		INSERT INTO execution (id, trigger_id, trigger_name, name_key, backend, status, source, attempt_no, event_seq, admit_no,
			max_concurrent, created_at, scheduled_at, started_at, finished_at, reason)
		SELECT 'exec-' || printf('%026d', n), 'trg-' || (n % 1000), 'Name ' || (n % 1000), 'name ' || (n % 1000), 'command',
			CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'success' END, 'manual', 1, n, n,
			1, $2 + n, $2 + n, $2 + n, $2 + n, '' FROM c`, n, start.UnixMicro())
	if err == nil {
		_, err = db.conn.ExecContext(b.Context(), `INSERT INTO attempt (execution_id, number, backend, status, started_at, finished_at)
			SELECT id, 1, backend, status, started_at, finished_at FROM execution`)
	}
	if err == nil {
		_, err = db.conn.ExecContext(b.Context(), `UPDATE counter SET value = $1 WHERE name = 'event'`, n)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// size is how long a history the benchmarks have: AGENTED_BENCH_HISTORY=1000000
// is the one that is promised.
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

// BenchmarkQueue measures each step on one database with a history, with
// 1,000 triggers that have one pending execution and one trigger at its limit
// that has 10,000.
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

// BenchmarkLists measures what people look at, on a database with a history.
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

// BenchmarkIntake measures deliveries from 32 callers at once, a quarter of them
// repeated, for a trigger that is at its limit: what each costs the process.
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

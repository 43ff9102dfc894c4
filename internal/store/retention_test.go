package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/testrun/pgtest"
)

// aged creates an execution that ended at a time and whose files have the given
// size.
func aged(t testing.TB, db *DB, at time.Time, bytes int64) agented.ExecutionID {
	t.Helper()
	e := admit(t, db, "", at)
	c := claim(t, db, at)
	finish(t, db, c, agented.StateSuccess, at)
	if err := db.CleanupDoneWithBytes(t.Context(), e.ID, bytes); err != nil {
		t.Fatal(err)
	}
	return e.ID
}

// expire runs all steps.
func expire(t testing.TB, db *DB, l RetentionLimits) (sum Expired) {
	t.Helper()
	for {
		got := must(db.Expire(t.Context(), l, start))(t)
		if got.Rows() == 0 {
			return sum
		}
		sum.Add(got)
	}
}

func TestExpire_limits(t *testing.T) {
	t.Parallel()
	for seed := range uint64(testrun.Size(1, 2, 8)) {
		r := rand.New(rand.NewPCG(seed, 1))
		db := openNew(t)
		type one struct {
			id     agented.ExecutionID
			at     time.Time
			bytes  int64
			safe   bool // running, pending, not cleaned up, or pinned
			pinned bool
		}
		var all []one
		for i := range 30 + r.IntN(90) {
			o := one{at: start.Add(-time.Duration(200-i) * time.Hour), bytes: int64(r.IntN(1000))}
			switch r.IntN(8) {
			case 0: // waits
				o.id, o.safe = admit(t, db, "", o.at, func(a *Admission) { a.Execution.ScheduledAt = start.Add(time.Hour) }).ID, true
			case 1: // runs
				o.id, o.safe = admit(t, db, "", o.at).ID, true
				claim(t, db, o.at)
			case 2: // ended, but its raw output still exists
				o.id, o.safe = admit(t, db, "", o.at).ID, true
				finish(t, db, claim(t, db, o.at), agented.StateFailed, o.at)
			default:
				o.id = aged(t, db, o.at, o.bytes)
				if r.IntN(6) == 0 {
					o.safe, o.pinned = true, true
					must(db.Pin(t.Context(), o.id, true, "ann", start))(t)
				}
			}
			all = append(all, o)
		}
		var l RetentionLimits
		if r.IntN(2) == 0 {
			l.ExecutionsBefore = start.Add(-time.Duration(r.IntN(220)) * time.Hour)
		}
		if r.IntN(3) == 0 {
			l.ExecutionsMax = 1 + int64(r.IntN(80))
		}
		if r.IntN(2) == 0 {
			l.LogsBefore = start.Add(-time.Duration(r.IntN(220)) * time.Hour)
		}
		if r.IntN(2) == 0 {
			l.BytesMax = 1 + int64(r.IntN(40_000))
		}
		before := must(db.Counts(t.Context()))(t)
		forecast := must(db.Expirable(t.Context(), l))(t)
		got := expire(t, db, l)
		// A step removes executions and logs, so it may remove logs of
		// executions that are removed later; the result is the same.
		if got.Executions != forecast.Executions || got.Logs < forecast.Logs {
			t.Fatalf("seed %d, %+v: forecast %+v, took %+v", seed, l, forecast, got)
		}
		removals := map[agented.ExecutionID]bool{}
		var gone []string
		for _, r := range must(db.Removals(t.Context(), "", 1000))(t) {
			removals[agented.ExecutionID(r.ID)] = true
			gone = append(gone, r.ID)
		}
		var left, bytes, ended int64
		older := true // no candidate so far has been kept
		for _, o := range all {
			e, err := db.Execution(t.Context(), o.id)
			gone := agented.KindOf(err) == agented.NotFound
			switch {
			case o.safe && (gone || !e.LogRemovedAt.IsZero() || removals[o.id]):
				t.Fatalf("seed %d, %+v: %+v was taken", seed, l, o)
			case gone != removals[o.id] && (e == nil || e.LogRemovedAt.IsZero() == removals[o.id]):
				t.Fatalf("seed %d: %s: removal %v, execution %+v", seed, o.id, removals[o.id], e)
			case !o.safe && !gone:
				older = false
				if !l.ExecutionsBefore.IsZero() && o.at.Before(l.ExecutionsBefore) {
					t.Fatalf("seed %d, %+v: %+v is too old and stayed", seed, l, o)
				}
				if !l.LogsBefore.IsZero() && o.at.Before(l.LogsBefore) && e.LogRemovedAt.IsZero() {
					t.Fatalf("seed %d, %+v: the files of %+v are too old and stayed", seed, l, o)
				}
			case gone && !older:
				t.Fatalf("seed %d, %+v: %+v went before an older one", seed, l, o)
			}
			if !gone {
				left++
				if e.State.Final() {
					ended++
				}
				if e.LogRemovedAt.IsZero() && e.State == agented.StateSuccess {
					bytes += o.bytes
				}
			}
		}
		if sum := must(db.ExecutionBytes(t.Context()))(t); sum != bytes+got.Bytes {
			t.Fatalf("seed %d: before the folders are removed, %d bytes are recorded, %d are there", seed, sum, bytes+got.Bytes)
		}
		if err := db.Removed(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		if sum := must(db.ExecutionBytes(t.Context()))(t); sum != bytes {
			t.Fatalf("seed %d: %d bytes are recorded, %d are there", seed, sum, bytes)
		}
		after := must(db.Counts(t.Context()))(t)
		if lost := before[agented.StateSuccess] - after[agented.StateSuccess]; lost != got.Executions {
			t.Fatalf("seed %d: %d went, and the count fell by %d", seed, got.Executions, lost)
		}
		db.Close()
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	id := aged(t, db, start, 10)
	e := must(db.Pin(t.Context(), id, true, "ann", start))(t)
	if e.PinnedBy != "ann" || !e.PinnedAt.Equal(start) {
		t.Errorf("pinned: %+v", e)
	}
	if again := must(db.Pin(t.Context(), id, true, "bob", start.Add(time.Hour)))(t); again.PinnedBy != "ann" || again.EventSeq != e.EventSeq {
		t.Errorf("pinned again: %+v", again)
	}
	all := RetentionLimits{ExecutionsBefore: start.Add(time.Hour), LogsBefore: start.Add(time.Hour)}
	if got := expire(t, db, all); got.Rows() != 0 {
		t.Errorf("a pinned execution went: %+v", got)
	}
	if e := must(db.Pin(t.Context(), id, false, "bob", start))(t); !e.PinnedAt.IsZero() || e.PinnedBy != "" {
		t.Errorf("unpinned: %+v", e)
	}
	if got := expire(t, db, all); got.Executions != 1 || got.Bytes != 10 {
		t.Errorf("took %+v", got)
	}
	_, err := db.Pin(t.Context(), id, true, "ann", start)
	wantKind(t, err, agented.NotFound)
}

func TestExpire_old_rows(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	ctx := t.Context()
	tr := hooked(t, db, "t")
	// Each delivery fires one execution; the trigger runs one at a time.
	var fired []DeliveryResult
	for i := range 3 {
		at := start.Add(time.Duration(i) * time.Minute)
		d := call(fmt.Sprintf("github:%d", i), []byte("{}"), tr)
		d.Delivery.ID = agented.DeliveryID(agented.NewID("dlv", at))
		fired = append(fired, must(db.AdmitDelivery(ctx, d, at))(t))
	}
	done := claim(t, db, start.Add(10_000*time.Hour))
	finish(t, db, done, agented.StateSuccess, start.Add(time.Hour))
	exec := func(q string, args ...any) {
		t.Helper()
		if err := db.write(ctx, "test", func(tx *tx) error { return tx.exec(q, args...) }); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		exec(`INSERT INTO audit (id, at, actor, action) VALUES ($1, $2, 'ann', 'x')`, fmt.Sprint("aud-", i), micros(start.Add(time.Duration(i)*time.Hour)))
	}
	for i, id := range []agented.ExecutionID{done.ID, "exec-gone", fired[1].Delivery.Executions()[0], ""} {
		exec(`INSERT INTO tick (schedule_id, due_at, trigger_id, outcome, execution_id, decided_at) VALUES ('sch', $1, 't', 'fired', $2, 0)`, micros(start.Add(time.Duration(i)*time.Minute)), id)
	}
	k := admit(t, db, "trg-k", start, key("k1"))
	finish(t, db, claim(t, db, start), agented.StateSuccess, start)
	admit(t, db, "trg-l", start, key("k2"))
	_ = k
	l := RetentionLimits{
		DeliveriesBefore: start.Add(time.Hour), TicksBefore: start.Add(time.Hour),
		AuditBefore: start.Add(2 * time.Hour), KeysBefore: start.Add(time.Hour),
	}
	forecast := must(db.Expirable(ctx, l))(t)
	got := expire(t, db, l)
	want := Expired{Deliveries: 1, Ticks: 2, Audit: 2, IdempotencyKeys: 1}
	if got != want || forecast != want {
		t.Errorf("took %+v, forecast %+v, want %+v", got, forecast, want)
	}
	if n := count(t, db, `SELECT COUNT(*) FROM tick WHERE due_at = $1`, micros(start.Add(3*time.Minute))); n != 1 {
		t.Error("the latest tick went: nobody knows up to when the schedule is decided")
	}
	if n := count(t, db, `SELECT COUNT(*) FROM execution`); n != 5 {
		t.Errorf("%d executions are left", n)
	}
}

func TestExpire_index(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	for from, index := range map[string]string{fromEnded(&reader{db: db}): "execution_ended", fromKept(&reader{db: db}): "execution_kept"} {
		text := queryPlan(t, db, `SELECT id, status, finished_at `+from+` ORDER BY finished_at, id LIMIT 5`)
		if !strings.Contains(text, index) || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s: %s", from, text)
		}
	}
}

func TestGiveBack(t *testing.T) {
	pgtest.SkipSelected(t, "PostgreSQL returns space by itself")
	t.Parallel()
	db := openNew(t)
	for i := range 300 {
		e := newExecution("", start.Add(time.Duration(i)*time.Millisecond))
		e.Prompt = strings.Repeat("x", 20_000)
		if _, err := db.Admit(t.Context(), Admission{Execution: e}, start); err != nil {
			t.Fatal(err)
		}
		finish(t, db, claim(t, db, start.Add(time.Hour)), agented.StateSuccess, start)
		if err := db.CleanupDoneWithBytes(t.Context(), e.ID, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	full := must(db.Bytes(t.Context()))(t)
	expire(t, db, RetentionLimits{ExecutionsBefore: start.Add(time.Hour)})
	given := must(db.Shrink(t.Context()))(t)
	if after := must(db.Bytes(t.Context()))(t); given < 4<<20 || after > full/3 {
		t.Errorf("%d bytes before, %d given back, %d after", full, given, after)
	}
}

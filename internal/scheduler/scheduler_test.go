package scheduler

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

func openStore(t testing.TB) *store.DB {
	t.Helper()
	return storetest.Open(t, filepath.Join(t.TempDir(), "agented.db"), store.Options{Log: slog.New(slog.DiscardHandler)})
}

// newScheduler returns a scheduler with a dispatcher that does not run.
func newScheduler(o Options) *Scheduler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Dispatcher = dispatch.New(dispatch.Options{DB: o.DB, Now: o.Now, Log: o.Log, Limits: dispatch.Limits{MaxConcurrent: 100}})
	return New(o)
}

// schedule stores a trigger with one schedule that counts from now.
func schedule(t testing.TB, db *store.DB, name string, now time.Time, s agented.Schedule) agented.Schedule {
	t.Helper()
	s.Enabled, s.WindowSeconds = true, agented.DefaultWindowSeconds
	s = s.WithDefaults()
	s.ID = agented.ScheduleID(agented.NewID("sch", now))
	table, err := cron.Of(s, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	due, _ := table.Next(now)
	s.NextDue, s.NextRun = due, table.Run(due)
	tr := agented.Trigger{Name: name, Enabled: true, Schedules: []agented.Schedule{s}, Spec: agented.Spec{
		Backend: agented.BackendCommand, Command: []string{"true"},
	}.WithDefaults()}
	if err := db.CreateTrigger(t.Context(), &tr, "test"); err != nil {
		t.Fatal(err)
	}
	return s
}

// tickFor runs the scheduler until the returned function is called.
func tickFor(t testing.TB, s *Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
	}
}

func TestScheduler_fires_when_due(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t)
		var log bytes.Buffer
		var worst time.Duration
		var looks atomic.Int64
		fired := 0
		s := newScheduler(Options{
			DB: db, Zone: time.UTC, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Now: func() time.Time { looks.Add(1); return time.Now() },
			Ticked: func(o agented.TickOutcome, lag time.Duration) {
				fired++
				worst = max(worst, lag)
				if o != agented.TickFired {
					t.Errorf("a tick is %s", o)
				}
			},
		})
		stop := tickFor(t, s)
		time.Sleep(24 * time.Hour) // without schedules nothing wakes it
		synctest.Wait()
		if n := looks.Load(); n > 10 {
			t.Errorf("%d looks at the clock without a schedule", n)
		}
		if !strings.Contains(log.String(), `msg="Scheduler service initialized" schedules=0 waiting=0 next_due=none`) {
			t.Errorf("log: %s", log.String())
		}
		now := time.Now().UTC()
		schedule(t, db, "a", now, agented.Schedule{Every: "17m", Anchor: now, Overlap: agented.OverlapQueue})
		schedule(t, db, "b", now, agented.Schedule{Cron: "30 * * * *", Overlap: agented.OverlapQueue})
		schedule(t, db, "c", now, agented.Schedule{At: now.Add(90 * time.Minute).Truncate(time.Second)})
		looks.Store(0)
		s.Wake()
		time.Sleep(5*time.Hour + time.Second)
		synctest.Wait()
		stop()
		if want := 17 + 5 + 1; fired != want || worst > time.Millisecond {
			t.Errorf("%d fired, want %d; the worst was %v late", fired, want, worst)
		}
		if limit := 5*3600/30*3 + 5*fired; looks.Load() > int64(limit) {
			t.Errorf("%d looks at the clock in five hours, want at most %d", looks.Load(), limit)
		}
	})
}

func TestScheduler_clock_changes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t)
		var mu sync.Mutex
		var skew time.Duration // a clock change that timers do not notice
		clock := func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(skew)
		}
		set := func(by time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			skew += by
		}
		var log bytes.Buffer
		s := newScheduler(Options{DB: db, Zone: time.UTC, Log: slog.New(slog.NewTextHandler(&log, nil)), Now: clock})
		one := schedule(t, db, "a", clock(), agented.Schedule{Every: "1h", Anchor: clock(), Overlap: agented.OverlapQueue})
		stop := tickFor(t, s)
		time.Sleep(time.Minute)
		set(3*time.Hour + 30*time.Minute) // asleep
		time.Sleep(time.Minute)
		synctest.Wait()
		got := allTicks(t, db, one.ID)
		if len(got) != 3 || got[0].Outcome != agented.TickLate || got[1].Outcome != agented.TickCoalesced || got[1].Execution != got[0].Execution {
			t.Errorf("after the sleep: %+v", got)
		}
		if late := got[0].DecidedAt.Sub(got[0].DueAt); late > 33*time.Minute {
			t.Errorf("noticed %v after it was due", late)
		}
		set(-3 * time.Hour)
		time.Sleep(3*time.Hour - 10*time.Minute) // the same hours once more
		synctest.Wait()
		if again := allTicks(t, db, one.ID); len(again) != 3 {
			t.Errorf("after the clock was set back: %+v", again)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		stop()
		if again := allTicks(t, db, one.ID); len(again) != 4 || again[0].Outcome != agented.TickFired {
			t.Errorf("an hour on: %+v", again)
		}
		if !strings.Contains(log.String(), "the clock was set back") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestScheduler_two_on_one_database(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openStore(t)
		now := time.Now().UTC()
		var ids []agented.ScheduleID
		for i := range 5 {
			ids = append(ids, schedule(t, db, fmt.Sprint("trigger ", i), now, agented.Schedule{Every: "1m", Anchor: now, Overlap: agented.OverlapQueue}).ID)
		}
		for range 3 {
			s := newScheduler(Options{DB: db, Zone: time.UTC, Log: slog.New(slog.DiscardHandler)})
			defer tickFor(t, s)()
		}
		time.Sleep(20*time.Minute + time.Second)
		synctest.Wait()
		list, _, err := db.Executions(t.Context(), store.ExecutionFilter{}, store.Page{Limit: store.MaxLimit})
		if err != nil || len(list) != 100 {
			t.Errorf("%d executions, error %v", len(list), err)
		}
		for _, id := range ids {
			if n := len(allTicks(t, db, id)); n != 20 {
				t.Errorf("%d ticks in 20 minutes", n)
			}
		}
	})
}

func TestScheduler_server_zone_change(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	now := time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)
	own := schedule(t, db, "own", now, agented.Schedule{Cron: "0 9 * * *", Zone: "Asia/Seoul"})
	schedule(t, db, "server's", now, agented.Schedule{Cron: "0 9 * * *"})
	zone, err := cron.LoadZone("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := newScheduler(Options{DB: db, Zone: zone, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.announce(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, _, err := db.Schedules(t.Context(), "", store.Page{})
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, s := range list {
		want := time.Date(2030, 5, 6, 13, 0, 0, 0, time.UTC)
		if s.ID == own.ID {
			want = own.NextDue
		}
		if !s.NextDue.Equal(want) {
			t.Errorf("%s is due %v, want %v", s.TriggerName, s.NextDue, want)
		}
	}
	if !strings.Contains(log.String(), `schedules=2 waiting=2 next_due=2030-05-06T13:00:00Z`) {
		t.Errorf("log: %s", log.String())
	}
}

// TestScheduler_thousand_schedules measures how long after their due times runs are stored in the
// queue.
func TestScheduler_thousand_schedules(t *testing.T) {
	if os.Getenv("AGENTED_FIGURES") == "" {
		t.Skip("measures, and is for an idle machine: set AGENTED_FIGURES=1, or make figures")
	}
	const n = 1000
	for _, c := range []struct {
		name   string
		jitter int
	}{{"spread over one second", 1}, {"at one instant", 0}} {
		db := openStore(t)
		db.OnChange(func(agented.ExecutionEvent) {}) // as a server has it: events are loaded
		var lags []time.Duration
		all := make(chan struct{})
		s := newScheduler(Options{
			DB: db, Zone: time.UTC, Log: slog.New(slog.DiscardHandler),
			Ticked: func(_ agented.TickOutcome, lag time.Duration) {
				if lags = append(lags, lag); len(lags) == n {
					close(all)
				}
			},
		})
		now := time.Now().UTC()
		due := now.Truncate(time.Second).Add(time.Minute)
		s.o.Now = func() time.Time { return time.Now().Add(due.Add(-time.Second).Sub(now)) } // past the making of them
		for i := range n {
			schedule(t, db, fmt.Sprint("trigger ", i), now, agented.Schedule{At: due, JitterSeconds: c.jitter})
		}
		now = time.Now()
		stop := tickFor(t, s)
		select {
		case <-all:
		case <-time.After(time.Minute):
			t.Fatal("not all were fired")
		}
		stop()
		slices.Sort(lags)
		t.Logf("%d schedules %s: p50 %v, p99 %v, worst %v", n, c.name, lags[n/2], lags[n*99/100], lags[n-1])
	}
}

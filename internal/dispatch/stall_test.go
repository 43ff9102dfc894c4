package dispatch

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// Lines that Codex prints.
const (
	codexTurn    = `{"type":"turn.started"}`
	codexLimit   = `{"type":"error","message":"Reconnecting... 1/5 (exceeded retry limit, last status: 429 Too Many Requests)"}`
	codexCommand = `{"type":"item.started","item":{"id":"item_0","type":"command_execution","command":"make"}}`
	codexThought = `{"type":"item.completed","item":{"id":"item_1","type":"reasoning","text":"hm"}}`
)

// silent is a running attempt whose log the test writes.
type silent struct {
	t    *testing.T
	d    *Dispatcher
	e    *agented.Execution
	stop chan agented.Cause
	held atomic.Bool // the attempt is paused
	quit context.CancelFunc
	done chan struct{}
}

func newSilent(t *testing.T, root string, id agented.ExecutionID) *silent {
	t.Helper()
	s := &silent{t: t, d: New(Options{Layout: agented.Layout{Root: root}, Log: slog.New(slog.DiscardHandler)})}
	s.e = &agented.Execution{ID: id, Backend: agented.BackendCodex, AttemptNo: 1}
	if err := os.MkdirAll(s.d.o.Layout.Execution(id), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// watch starts the stall detector, as a server does when it starts or adopts the attempt.
func (s *silent) watch(began time.Time) {
	s.e.Attempts = []agented.Attempt{{Number: 1, StartedAt: began}}
	ctx, cancel := context.WithCancel(s.t.Context())
	s.stop, s.quit, s.done = make(chan agented.Cause, 10), cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		s.d.detectStall(ctx, s.e, agented.BackendCodex, func(c agented.Cause) error { s.stop <- c; return nil }, func(context.Context) bool { return s.held.Load() })
	}()
}

// away stops the stall detector, as a server that ends does.
func (s *silent) away() {
	s.quit()
	<-s.done
}

func (s *silent) prints(lines ...string) {
	s.t.Helper()
	w, err := runlog.OpenWriter(s.d.o.Layout.Execution(s.e.ID), time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range lines {
		part := agented.PartWhole
		for len(line) > runlog.MaxLine {
			part = agented.PartFirst
			record := runlog.Record{LogLine: agented.LogLine{Seq: w.LastSeq() + 1, At: s.d.now(), Attempt: 1, Stream: agented.Stdout, Part: part, Content: []byte(line[:runlog.MaxLine])}}
			if err := w.Append([]runlog.Record{record}); err != nil {
				s.t.Fatal(err)
			}
			line, part = line[runlog.MaxLine:], agented.PartLast
		}
		last := w.LastSeq()
		record := runlog.Record{LogLine: agented.LogLine{Seq: last + 1, At: s.d.now(), Attempt: 1, Stream: agented.Stdout, Part: part, Content: []byte(line)}}
		if err := w.Append([]runlog.Record{record}); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// stopped reports whether a stop of the attempt was requested.
func (s *silent) stopped() bool {
	synctest.Wait()
	select {
	case c := <-s.stop:
		if c != agented.CauseStalled {
			s.t.Errorf("stopped with cause %q", c)
		}
		return true
	default:
		return false
	}
}

func TestStallDetector_stops_waiting_attempt(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		s.watch(time.Now())
		s.prints(codexTurn, codexLimit)
		if time.Sleep(4 * time.Minute); s.stopped() {
			t.Error("it was ended while it may still get on")
		}
		if time.Sleep(3 * time.Minute); !s.stopped() {
			t.Error("it still sleeps")
		}
		s.away()
	})
}

func TestStallDetector_working_attempt(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		s.watch(time.Now())
		s.prints(codexTurn, codexLimit, codexCommand) // the command runs for hours
		if time.Sleep(5 * time.Hour); s.stopped() {
			t.Error("it was ended though its command runs")
		}
		s.away()
	})
}

func TestStallDetector_after_restart(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		began := time.Now()
		s.watch(began)
		for range 100 {
			s.prints(codexThought)
		}
		s.prints(codexLimit)
		time.Sleep(4 * time.Minute)
		s.away()
		s.watch(began)
		if time.Sleep(2 * time.Minute); !s.stopped() {
			t.Error("the new server waits from the beginning")
		}
		s.away()
	})
}

func TestStallDetector_paused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		s.watch(time.Now())
		s.prints(codexLimit)
		s.held.Store(true)
		if time.Sleep(10 * time.Hour); s.stopped() {
			t.Error("it was ended while it was paused")
		}
		s.held.Store(false)
		if time.Sleep(4 * time.Minute); s.stopped() {
			t.Error("the pause counts")
		}
		if time.Sleep(2 * time.Minute); !s.stopped() {
			t.Error("it keeps waiting after the pause")
		}
		s.away()
	})
}

func TestStallDetector_after_suspend(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		var away atomic.Int64
		s.d.o.Now = func() time.Time { return time.Now().Add(time.Duration(away.Load())) }
		s.watch(time.Now())
		s.prints(codexLimit)
		time.Sleep(time.Minute + time.Second)
		away.Store(int64(8 * time.Hour)) // the machine was suspended
		time.Sleep(stallCheckInterval)
		s.prints(codexThought)
		if time.Sleep(10 * stallCheckInterval); len(s.stop) > 0 {
			t.Error("it was ended at once")
		}
		s.away()
	})
}

// Not parallel: it measures the memory of the process.
func TestStallDetector_fast_log(t *testing.T) {
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSilent(t, root, "exec_1")
		s.watch(time.Now())
		long := `{"type":"item.completed","item":{"id":"x","type":"agent_message","text":"` + strings.Repeat("y", 100_000) + `"}}`
		var before, after runtime.MemStats
		time.Sleep(stallCheckInterval + time.Second)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 20 {
			s.prints(long, long, long, long, long)
		}
		time.Sleep(2 * stallCheckInterval)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
			t.Errorf("%d KiB were kept", grown>>10)
		}
		if s.stopped() {
			t.Error("it was ended while it printed")
		}
		s.away()
	})
}

func TestStallDetector_zone(t *testing.T) {
	t.Parallel()
	own, odd := "Asia/Tokyo", "Mars/Olympus"
	server := "America/New_York"
	d := New(Options{Environment: Environment{Lookup: func(name string) (string, bool) { return server, name == "TZ" }}, Log: slog.New(slog.DiscardHandler)})
	for want, env := range map[string]map[string]*string{"Asia/Tokyo": {"TZ": &own}, "America/New_York": nil, "UTC": {"TZ": &odd}} {
		e := &agented.Execution{Snapshot: agented.Spec{Env: env}}
		if got := d.clockOf(e).String(); got != want {
			t.Errorf("%v: %s, want %s", env, got, want)
		}
	}
}

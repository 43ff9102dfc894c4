package dispatch_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/retention"
)

// cleanedUp waits until the files of executions are cleaned up and their size is recorded.
func (h *house) cleanedUp(ids ...agented.ExecutionID) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // interval of the poll
		open, err := h.db.PendingCleanups(h.t.Context(), 100)
		if err != nil || time.Now().After(deadline) {
			h.t.Fatalf("%v are not cleaned up: %v", open, err)
		}
		if len(open) == 0 {
			return
		}
	}
}

func TestRetention_keeps_running_and_pinned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var held atomic.Bool
	var limits atomic.Pointer[retention.Settings]
	limits.Store(&retention.Settings{})
	p := retention.New(retention.Options{
		DB: h.db, Layout: h.layout, Log: slog.New(slog.DiscardHandler),
		Settings: func() retention.Settings { return *limits.Load() },
		Hold: func() (io.Closer, error) {
			if held.Load() {
				return nil, agented.Errorf(agented.Conflict, "a backup is being taken")
			}
			return io.NopCloser(nil), nil
		},
	})
	d := h.dispatcher(nil)
	defer h.run(d)()
	old, pinned := h.fire(d, command("echo", "old")), h.fire(d, command("echo", "pinned"))
	h.await(old)
	h.await(pinned)
	h.cleanedUp(old, pinned)
	release := filepath.Join(t.TempDir(), "release")
	running := h.fire(d, command("sh", "-c", "until [ -e "+release+" ]; do sleep 0.01; done"))
	if _, err := h.db.Pin(t.Context(), pinned, true, "ann", time.Now()); err != nil {
		t.Fatal(err)
	}
	bytes, err := h.db.ExecutionBytes(t.Context())
	if err != nil || bytes == 0 {
		t.Errorf("%d bytes are in use, %v", bytes, err)
	}
	limits.Store(&retention.Settings{Logs: time.Nanosecond})
	held.Store(true)
	if _, err := p.Prune(t.Context()); agented.KindOf(err) != agented.Conflict {
		t.Errorf("while a backup is taken: %v", err)
	}
	if _, err := os.Stat(h.layout.Execution(old)); err != nil {
		t.Errorf("a file went while it may be copied: %v", err)
	}
	held.Store(false)
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.layout.Execution(old)); !os.IsNotExist(err) {
		t.Errorf("the folder is there: %v", err)
	}
	if e, err := h.db.Execution(t.Context(), old); err != nil || e.LogRemovedAt.IsZero() {
		t.Errorf("%+v %v", e, err)
	}
	for _, id := range []agented.ExecutionID{pinned, running} {
		if _, err := os.Stat(h.layout.Execution(id)); err != nil {
			t.Error(err)
		}
	}
	limits.Store(&retention.Settings{Executions: time.Nanosecond})
	if got, err := p.Prune(t.Context()); err != nil || got.Executions != 1 {
		t.Errorf("%+v %v", got, err)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(running); e.State != agented.StateSuccess {
		t.Errorf("what ran is %+v", e)
	}
}

func TestRetention_after_crash(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	stop := h.run(d)
	id := h.fire(d, command("echo", "x"))
	h.await(id)
	h.cleanedUp(id)
	stop()
	stranger := filepath.Join(h.layout.Executions(), "exec-00000000000000000000000000")
	if err := os.MkdirAll(stranger, 0o700); err != nil {
		t.Fatal(err)
	}
	// The decision is in the database; the crash happens before the files are removed.
	limits := retention.Settings{Executions: time.Nanosecond}
	crashed := retention.New(retention.Options{
		DB: h.db, Layout: h.layout, Log: slog.New(slog.DiscardHandler),
		Settings: func() retention.Settings { return limits },
		Hold:     func() (io.Closer, error) { return nil, agented.Errorf(agented.Conflict, "no") },
	})
	if got, _ := crashed.Prune(t.Context()); got.Executions != 1 {
		t.Fatalf("%+v", got)
	}
	if _, err := os.Stat(h.layout.Execution(id)); err != nil {
		t.Fatal(err)
	}
	if _, err := retention.New(retention.Options{DB: h.db, Layout: h.layout, Log: slog.New(slog.DiscardHandler)}).Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.layout.Execution(id)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Errorf("a folder that the database never gave up went: %v", err)
	}
	if ids, err := h.db.Removals(t.Context(), "", 10); err != nil || len(ids) != 0 {
		t.Errorf("%v %v", ids, err)
	}
}

func TestDisk_low_holds_new_executions(t *testing.T) {
	t.Parallel()
	for name, low := range map[string][2]int64{"bytes": {100 << 20, 1 << 20}, "files": {1 << 40, 12}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			var free, files atomic.Int64
			free.Store(1 << 40)
			files.Store(1 << 20)
			d := h.dispatcher(func(o *dispatch.Options) {
				o.Reserve = 256 << 20
				o.StatDisk = func(string) (int64, int64, error) { return free.Load(), files.Load(), nil }
			})
			defer h.run(d)()
			h.await(h.fire(d, command("true")))
			free.Store(low[0])
			files.Store(low[1])
			id := h.fire(d, command("true"))
			var e *agented.Execution
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) { // interval of the poll
				var err error
				if e, err = h.db.Execution(t.Context(), id); err != nil || time.Now().After(deadline) {
					t.Fatalf("%+v %v", e, err)
				}
				if e.Reason != "" {
					break
				}
			}
			want := "100 MiB are free on the data disk, and 256 MiB are required"
			if name == "files" {
				want = "only 12 more files"
			}
			if e.State != agented.StatePending || !strings.Contains(e.Reason, want) || !d.Disk().Low {
				t.Errorf("%s: %q, disk %+v", e.State, e.Reason, d.Disk())
			}
			free.Store(256<<20 + 1) // the edge is not enough
			files.Store(1 << 20)
			if !d.Disk().Low {
				t.Error("it starts and stops at the edge")
			}
			free.Store(1 << 40)
			if e := h.await(id); e.State != agented.StateSuccess { // by itself
				t.Errorf("%+v", e)
			}
		})
	}
}

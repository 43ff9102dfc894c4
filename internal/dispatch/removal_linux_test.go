package dispatch_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/retention"
)

func TestRetention_folder_in_use(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var limits atomic.Pointer[retention.Settings]
	limits.Store(&retention.Settings{})
	p := retention.New(retention.Options{
		DB: h.db, Layout: h.layout, Log: slog.New(slog.DiscardHandler),
		Settings: func() retention.Settings { return *limits.Load() },
	})
	d := h.dispatcher(nil)
	defer h.run(d)()
	ids := []agented.ExecutionID{h.fire(d, command("echo", "stuck")), h.fire(d, command("echo", "gone"))}
	for _, id := range ids {
		h.await(id)
	}
	h.cleanedUp(ids...)
	before, err := h.db.ExecutionBytes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stuck := unremovable(t, h.layout.Execution(ids[0]))
	limits.Store(&retention.Settings{Executions: time.Nanosecond})
	got, err := p.Prune(t.Context())
	if err != nil || got.Executions != 2 {
		t.Fatalf("prune: %+v, %v", got, err)
	}
	if _, err := os.Stat(h.layout.Execution(ids[1])); !os.IsNotExist(err) {
		t.Errorf("the folder after the one that failed was not removed: %v", err)
	}
	failed, err := p.FailedRemovals(t.Context(), 10)
	if err != nil || failed.Folders != 1 || p.FailedRemovalCount() != 1 || len(failed.Items) != 1 {
		t.Fatalf("failed removals: %+v, %v; %d counted", failed, err, p.FailedRemovalCount())
	}
	r := failed.Items[0]
	if r.ID != string(ids[0]) || r.Attempts != 1 || r.FailedAt.IsZero() || r.Error == "" || strings.Contains(r.Error, h.layout.Root) {
		t.Errorf("recorded: %+v", r)
	}
	if left, err := h.db.ExecutionBytes(t.Context()); err != nil || left != failed.Bytes || left == 0 || left >= before {
		t.Errorf("%d bytes are recorded before, %d after, %d of them could not be removed, %v", before, left, failed.Bytes, err)
	}
	stuck()
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.layout.Execution(ids[0])); !os.IsNotExist(err) {
		t.Errorf("the folder was not removed when it could be: %v", err)
	}
	if left, err := h.db.ExecutionBytes(t.Context()); err != nil || left != 0 || p.FailedRemovalCount() != 0 {
		t.Errorf("%d bytes are recorded, %d folders counted as not removed, %v", left, p.FailedRemovalCount(), err)
	}
}

// unremovable creates something below dir that this user cannot remove, and returns a function
// that makes it removable: a mount point for root; otherwise nothing is possible that remove.All
// could not open.
func unremovable(t *testing.T, dir string) (undo func()) {
	t.Helper()
	point := filepath.Join(dir, "work", "mount")
	if err := os.MkdirAll(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", point, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs root to mount a folder that cannot be removed: %v", err)
	}
	done := false
	undo = func() {
		if !done {
			done = true
			if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(undo)
	return undo
}

func TestCleanup_folder_in_use(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	release := filepath.Join(t.TempDir(), "release")
	id := h.fire(d, command("sh", "-c", "until [ -e "+release+" ]; do sleep 0.01; done"))
	undo := unremovable(t, h.layout.Temp(id))
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.await(id)
	h.cleanedUp(id) // fails if the execution stays exempt from retention
	undo()
}

package dispatch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestStart_full_disk(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: a small file system can be mounted by root only, so a full disk was not tried")
	}
	h := newHouse(t)
	dir := h.layout.Executions()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700,size=8m"); err != nil {
		t.Skipf("SKIPPED: no small file system can be mounted here (%v), so a full disk was not tried", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	// Remaining space at which the start fails: at the first folder, and after it.
	for _, left := range []int{0, 5} {
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		block := make([]byte, 4096)
		for err == nil {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(info.Size()-int64(left)*4096), f.Close()); err != nil {
			t.Fatal(err)
		}

		d := h.dispatcher(nil)
		stop := h.run(d)
		id := h.fire(d, command("true"))
		var e *agented.Execution
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) { // interval of the poll
			if e, err = h.db.Execution(t.Context(), id); err != nil || time.Now().After(deadline) {
				t.Fatalf("%+v %v", e, err)
			}
			if e.State == agented.StatePending && e.AttemptNo == 1 || e.State.Final() {
				break
			}
		}
		if e.State != agented.StatePending || !strings.Contains(e.Reason, "the data disk is full") || !strings.Contains(e.Reason, "tries again at") {
			t.Errorf("%d blocks left: %s: %q", left, e.State, e.Reason)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if e := h.await(id); e.State != agented.StateSuccess || len(e.Attempts) < 2 {
			t.Errorf("%d blocks left: with room again: %+v", left, e)
		}
		stop()
	}
}

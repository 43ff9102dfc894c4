package filelock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func held(t *testing.T, path string) bool {
	t.Helper()
	held, err := Held(path)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func TestLock_one_holder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, second := open(t, path), open(t, path)
	if err := Try(first); err != nil || !held(t, path) {
		t.Fatalf("locked: %v, held %v", err, held(t, path))
	}
	if err := Try(second); !errors.Is(err, ErrHeld) {
		t.Errorf("the second lock: %v", err)
	}
	if err := Wait(t.Context(), second, time.Millisecond, 5*time.Millisecond); !errors.Is(err, ErrHeld) {
		t.Errorf("waiting for a lock that stays: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ended, second, time.Minute, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a lock with an ended context: %v", err)
	}
	if err := Release(first); err != nil || held(t, path) {
		t.Errorf("released: %v, held %v", err, held(t, path))
	}
	if err := Wait(t.Context(), second, time.Millisecond, time.Minute); err != nil {
		t.Error(err)
	}
}

// A child between fork and exec has copies of all open files.
func TestRelease_copy_is_open(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	f := open(t, path)
	if err := Block(f); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := Release(f); err != nil {
		t.Fatal(err)
	}
	if held(t, path) {
		t.Error("the copy of the descriptor still holds the lock")
	}
}

func TestHeld_missing_file(t *testing.T) {
	t.Parallel()
	if _, err := Held(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

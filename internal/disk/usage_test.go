package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := func(parts ...string) string {
		path := filepath.Join(append([]string{root}, parts...)...)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := func(path string, size int) {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const mib = 1 << 20
	a, b, outside := dir("a"), dir("b"), dir("outside")
	file(filepath.Join(dir("a", "x", "y"), "big"), mib)
	must(os.Link(filepath.Join(a, "x", "y", "big"), filepath.Join(b, "same"))) // counts once
	file(filepath.Join(outside, "other"), 2*mib)
	must(os.Symlink(outside, filepath.Join(a, "link")))                       // not followed
	must(os.Link(filepath.Join(outside, "other"), filepath.Join(b, "other"))) // a half
	must(unix.Mkfifo(filepath.Join(a, "pipe"), 0o600))                        // does not block
	must(os.Truncate(filepath.Join(outside, "other"), 2*mib))                 // unchanged
	sparse := filepath.Join(a, "sparse")                                      // no space
	file(sparse, 0)
	must(os.Truncate(sparse, 1<<40))
	for i := range 2 * usageBatch { // more than one batch
		file(filepath.Join(dir("b", "many"), fmt.Sprint(i)), 0)
	}
	const slack = 512 << 10 // of the folders
	used, err := Usage(t.Context(), []string{a, b, filepath.Join(root, "missing"), filepath.Join(a, "link")}, 1<<40, 0.9)
	if err != nil || used < 2*mib || used > 2*mib+slack {
		t.Errorf("%d bytes, %v", used, err)
	}
	if used, err = Usage(t.Context(), []string{a, b}, mib/2, 0); err != nil || used <= mib/2 {
		t.Errorf("beyond a limit: %d bytes, %v", used, err)
	}

	// A measurement that is interrupted ends, however small its share is.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = Usage(ctx, []string{b}, 1<<40, 1e-9); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("interrupted: %v", err)
	}

	deep := filepath.Join(root, "deep")
	must(os.Mkdir(deep, 0o700))
	at, err := unix.Open(deep, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(err)
	for range MaxDepth + 1 {
		must(unix.Mkdirat(at, "some-long-name-of-a-folder", 0o700))
		next, err := unix.Openat(at, "some-long-name-of-a-folder", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(err)
		unix.Close(at)
		at = next
	}
	unix.Close(at)
	if _, err = Usage(t.Context(), []string{deep}, 1<<40, 0); !errors.Is(err, ErrDepth) {
		t.Errorf("nested: %v", err)
	}
}

// BenchmarkUsage measures a tree of 100,000 files.
func BenchmarkUsage(b *testing.B) {
	root := b.TempDir()
	for d := range 100 {
		dir := filepath.Join(root, fmt.Sprint(d))
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		for f := range 1000 {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	for b.Loop() {
		if _, err := Usage(b.Context(), []string{root}, 1<<40, 0); err != nil {
			b.Fatal(err)
		}
	}
}

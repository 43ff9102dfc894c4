package runlog

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// copied writes a copy of the log in dir to another folder.
func copied(t *testing.T, dir string) (to, name string) {
	t.Helper()
	c, err := OpenCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to = t.TempDir()
	f, err := os.Create(filepath.Join(to, c.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := io.Copy(f, c); err != nil || n != c.Size {
		t.Fatalf("%d bytes of %d, %v", n, c.Size, err)
	}
	return to, c.Name
}

func TestCopy_growing_log(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot-a")
	fill(t, w, 3000)
	to, name := copied(t, dir)
	had := w.LastSeq()
	fill(t, w, 20)
	if name != logName {
		t.Errorf("the copy is %s", name)
	}
	last, records, err := Verify(to)
	if err != nil || last != had || records != int64(had) {
		t.Fatalf("the copy ends at %d with %d records, %v; the log had %d", last, records, err, had)
	}
	// A writer that continues the copy, on any machine, skips the numbers that
	// readers of the original have seen.
	c, err := openWriter(to, time.Now(), "boot-a")
	if err != nil {
		t.Fatal(err)
	}
	if c.LastSeq() <= w.LastSeq() {
		t.Errorf("the copy goes on at %d, the original has %d", c.LastSeq(), w.LastSeq())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	lines := readAll(t, mustReader(t, to))
	if end := lines[len(lines)-1]; end.Stream != agented.System || !strings.Contains(string(end.Content), "copied while it was being written") {
		t.Errorf("the last line is %+v", end)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCopy_closed_or_sealed_log(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot-a")
	text := fill(t, w, 500)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := readAll(t, mustReader(t, dir))
	for _, wantName := range []string{logName, sealedName} {
		to, name := copied(t, dir)
		if name != wantName {
			t.Errorf("the copy is %s, want %s", name, wantName)
		}
		if last, _, err := Verify(to); err != nil || last != want[len(want)-1].Seq {
			t.Errorf("%s: ends at %d, %v", name, last, err)
		}
		sameLog(t, to, want, text)
		if err := Seal(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenCopy(t.TempDir()); agented.KindOf(err) != agented.NotFound {
		t.Errorf("a folder without a log: %v", err)
	}
}

func TestVerify_damage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot-a")
	fill(t, w, 300)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		to, name := copied(t, dir)
		path := filepath.Join(to, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := headerSize; at < len(good); at += 97 {
			if name == sealedName && at > len(good)-trailerSize-3*entrySize {
				break // the index, which readers do not need
			}
			bad := append([]byte(nil), good...)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Verify(to); err == nil {
				t.Errorf("%s: a flipped bit at %d of %d was not found", name, at, len(good))
			}
		}
		for _, n := range []int{len(good) / 2, len(good) - 1} {
			if err := os.WriteFile(path, good[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Verify(to); err == nil {
				t.Errorf("%s: cut to %d of %d bytes, and nobody noticed", name, n, len(good))
			}
		}
		if err := Seal(dir); err != nil {
			t.Fatal(err)
		}
	}
}

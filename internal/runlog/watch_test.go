package runlog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agented/agented"
)

// woken waits for a wake-up.
func woken(t *testing.T, w *Watcher, why string) {
	t.Helper()
	select {
	case <-w.C():
	case <-time.After(time.Minute):
		t.Fatalf("no wake-up: %s", why)
	}
}

// quiet consumes pending wake-ups: a marker in another file of the folder
// arrives after them.
func quiet(t *testing.T, w *Watcher, mark string) {
	t.Helper()
	m, err := WatchFile(mark)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	woken(t, m, "the first is there at once")
	if err := os.WriteFile(mark, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	woken(t, m, "the mark was written")
	select {
	case <-w.C():
	default:
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, err := Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	other, err := Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	woken(t, w, "the first is there at once")
	log := mustWriter(t, dir, "boot")
	woken(t, w, "the log was created")
	for range 3 {
		if err := log.Append([]Record{line(agented.Stdout, "x", 0)}); err != nil {
			t.Fatal(err)
		}
		woken(t, w, "a line was appended")
		quiet(t, w, filepath.Join(dir, "mark"))
	}
	for range 100 {
		if err := os.WriteFile(filepath.Join(dir, indexName), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	quiet2, err := WatchFile(filepath.Join(dir, "mark2"))
	if err != nil {
		t.Fatal(err)
	}
	defer quiet2.Close()
	woken(t, quiet2, "the first is there at once")
	if err := os.WriteFile(filepath.Join(dir, "mark2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	woken(t, quiet2, "the mark was written")
	select {
	case <-w.C():
		t.Error("woken for another file")
	default:
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := log.Append([]Record{line(agented.Stdout, "x", 0)}); err != nil {
		t.Fatal(err)
	}
	woken(t, w, "a line was appended after another watcher was closed")
	if _, err := Watch(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("watch without a folder: %v", err)
	}
}

func TestWatch_polling(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "stdout")
	w, err := watchFile(path, func(*Watcher) error { return errors.New("no space left on device") })
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	woken(t, w, "the first is there at once")
	for _, text := range []string{"", "a", "ab", "a"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		woken(t, w, "written")
	}
}

func TestWatch_removed_folder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	gone, stays := filepath.Join(root, "gone"), filepath.Join(root, "stays")
	var ws []*Watcher
	for _, dir := range []string{gone, stays} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w, err := Watch(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		woken(t, w, "the first is there at once")
		ws = append(ws, w)
	}
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	if err := ws[0].Close(); err != nil {
		t.Fatal(err)
	}
	mustWriter(t, stays, "boot")
	woken(t, ws[1], "the log was created")
}

func TestWatch_batching(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		folders int
		every   time.Duration
		many    bool
	}{
		{"one that is busy", 1, 100 * time.Microsecond, false},
		{"many that are quiet", 500, 10 * time.Millisecond, false},
		{"a few that print a line now and then", 3, 50 * time.Millisecond, false},
		{"many", 500, 2 * time.Millisecond, true},
		{"two that are busy", 2, time.Millisecond, true},
	} {
		var g batching
		now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
		end := now.Add(time.Second)
		pauses := 0
		for n := 0; now.Before(end); n++ {
			d := g.pause(string(rune('a'+n%c.folders)), now)
			if d > 0 {
				pauses++
			}
			if d > gather {
				t.Fatalf("%s: a pause of %v", c.name, d)
			}
			now = now.Add(c.every)
		}
		if many := pauses > 0; many != c.many || pauses > int(time.Second/gather) {
			t.Errorf("%s: %d pauses in a second", c.name, pauses)
		}
	}
}

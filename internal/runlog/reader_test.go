package runlog

import (
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/agented/agented"
)

// A reader that waits for an append after a true result must not have missed a
// line.
func TestRest(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		w, err := openWriter(dir, noon, "boot")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		r, err := OpenReader(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var last agented.Seq
		rested := 0
		for range rapid.IntRange(1, 6).Draw(t, "appends") {
			var recs []Record
			for range rapid.IntRange(1, 10).Draw(t, "lines") {
				size := rapid.SampledFrom([]int{0, 10, 3000, chunk - recordHeader, chunk, chunk + 5000}).Draw(t, "size")
				recs = append(recs, line(agented.Stdout, string(make([]byte, size)), 0))
			}
			if err := w.Append(recs); err != nil {
				t.Fatal(err)
			}
			for done := false; !done; {
				lines, err := r.Next(nil, rapid.IntRange(0, 8).Draw(t, "maxLines"), rapid.SampledFrom([]int{0, 100, 48 << 10}).Draw(t, "maxBytes"))
				if err != nil {
					t.Fatal(err)
				}
				if len(lines) > 0 {
					last = lines[len(lines)-1].Seq
				}
				done = len(lines) == 0
				if r.ReleaseBuffer() {
					done = true
					rested++
				}
			}
			if last != w.LastSeq() {
				t.Fatalf("rests at line %d of %d", last, w.LastSeq())
			}
		}
		if rested == 0 {
			t.Error("was never at the end")
		}
	})
}

func TestRest_partial_record_or_sealed_log(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	if err := w.Append([]Record{line(agented.Stdout, "one", 4), line(agented.Stdout, "two", 8)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, logName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(whole)-2)); err != nil {
		t.Fatal(err)
	}
	r := mustReader(t, dir)
	if got, err := r.Next(nil, 0, 0); err != nil || len(got) != 1 || r.ReleaseBuffer() {
		t.Errorf("%d lines, %v: it rests before half a record", len(got), err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Next(nil, 0, 0); err != nil || len(got) != 1 || string(got[0].Content) != "two" || !r.ReleaseBuffer() {
		t.Errorf("%+v, %v", got, err)
	}
	if err := Seal(dir); err != nil {
		t.Fatal(err)
	}
	sealed := mustReader(t, dir)
	if got, err := sealed.Next(nil, 0, 0); err != nil || len(got) != 2 || sealed.ReleaseBuffer() {
		t.Errorf("%d lines, %v: there is nothing to wait for in a sealed log", len(got), err)
	}
}

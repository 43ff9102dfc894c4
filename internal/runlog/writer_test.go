package runlog

import (
	"testing"
	"time"

	"github.com/agented/agented"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// line makes a record of attempt 1.
func line(s agented.Stream, text string, rawEnd int64) Record {
	return Record{LogLine: agented.LogLine{At: noon, Attempt: 1, Stream: s, Content: []byte(text)}, RawEnd: rawEnd}
}

func mustWriter(t testing.TB, dir, boot string) *Writer {
	t.Helper()
	w, err := openWriter(dir, noon, boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// readAll returns all lines with contents of their own.
func readAll(t testing.TB, r *Reader) []agented.LogLine {
	t.Helper()
	var all, got []agented.LogLine
	for {
		var err error
		if got, err = r.Next(got[:0], 0, 0); err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return all
		}
		for _, l := range got {
			l.Content = append([]byte{}, l.Content...)
			all = append(all, l)
		}
	}
}

func mustReader(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestAppend(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot-1")
	recs := []Record{
		line(agented.Stdout, "hello", 6),
		line(agented.Stderr, "", 1),
		line(agented.Stdout, "a\x00b\r\xff\xfe", 13),
		line(agented.System, "ended", 0),
	}
	recs[2].NoEOL = true
	recs[1].Part = agented.PartMiddle
	if err := w.Append(recs); err != nil {
		t.Fatal(err)
	}
	r := mustReader(t, dir)
	got := readAll(t, r)
	if len(got) != len(recs) {
		t.Fatalf("%d lines, want %d", len(got), len(recs))
	}
	for i, l := range got {
		want := recs[i].LogLine
		if l.Seq != agented.Seq(i+1) || l.Seq != want.Seq || !l.At.Equal(want.At) || l.Attempt != 1 || l.Stream != want.Stream || l.Part != want.Part || l.NoEOL != want.NoEOL || string(l.Content) != string(want.Content) {
			t.Errorf("line %d: %+v, want %+v", i, l, want)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = mustWriter(t, dir, "boot-2")
	if w.LastSeq() != 4 || w.RawEnd(1, agented.Stdout) != 13 || w.RawEnd(1, agented.Stderr) != 1 || w.RawEnd(2, agented.Stdout) != 0 {
		t.Errorf("reopened at %d, raw ends %d and %d", w.LastSeq(), w.RawEnd(1, agented.Stdout), w.RawEnd(1, agented.Stderr))
	}
	if err := w.AppendSystem(1, noon, "again %d", 5); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, r); len(got) != 1 || got[0].Seq != 5 || string(got[0].Content) != "again 5" {
		t.Errorf("the reader that followed sees %+v", got)
	}
}

package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// record is a record of a log with the text that it had before it was masked.
func maskedRecord(b *batch, printed, masked string) {
	from := len(b.arena)
	b.arena = append(b.arena, masked...)
	b.masked([]byte(printed), from)
	b.add(time.Time{}, agented.Stdout, agented.PartWhole, false, from, 0)
}

func TestUnmasked(t *testing.T) {
	t.Parallel()
	ask := func(u *Unmasked, seq agented.Seq, content string) string {
		u.Refresh()
		text, ok := u.Line(&agented.LogLine{Seq: seq, Content: []byte(content)})
		if !ok {
			return content
		}
		return string(text)
	}
	t.Run("lines_in_order", func(t *testing.T) {
		dir := t.TempDir()
		w := &unmaskedWriter{path: filepath.Join(dir, unmaskedFile)}
		defer w.close()
		r := NewUnmasked(dir)
		defer r.Close()
		if got := ask(r, 1, "***"); got != "***" {
			t.Errorf("without a file: %q", got)
		}
		for n := range agented.Seq(50) { // read while it is written
			b := batch{keep: true}
			maskedRecord(&b, "nothing here", "nothing here")
			maskedRecord(&b, "a secret word", "a *** word")
			maskedRecord(&b, strings.Repeat("x", 40<<10), "***")
			w.write(2+3*n, b.recs, b.unmasked)
			for at, want := range []string{"nothing here", "a secret word", strings.Repeat("x", 40<<10)} {
				if got := ask(r, 2+3*n+agented.Seq(at), string(b.recs[at].Content)); got != want {
					t.Fatalf("line %d is %.40q", 2+3*n+agented.Seq(at), got)
				}
			}
		}
	})
	t.Run("repeated_append", func(t *testing.T) {
		dir := t.TempDir()
		w := &unmaskedWriter{path: filepath.Join(dir, unmaskedFile)}
		defer w.close()
		b := batch{keep: true}
		for _, s := range []string{"one", "two", "three"} {
			maskedRecord(&b, s, "***"+s[:1])
		}
		w.write(1, b.recs, b.unmasked)
		b.done(1) // a full disk took the first only
		w.write(2, b.recs, b.unmasked)
		r := NewUnmasked(dir)
		defer r.Close()
		for i, want := range []string{"one", "two", "three", "***"} {
			if got := ask(r, agented.Seq(i+1), "***"+want[:1]); got != want && want != "***" {
				t.Errorf("line %d is %q", i+1, got)
			}
		}
	})
	t.Run("another_content", func(t *testing.T) {
		dir := t.TempDir()
		w := &unmaskedWriter{path: filepath.Join(dir, unmaskedFile)}
		defer w.close()
		b := batch{keep: true}
		maskedRecord(&b, "secret", "***")
		w.write(1, b.recs, b.unmasked)
		r := NewUnmasked(dir)
		defer r.Close()
		if got := ask(r, 1, "other"); got != "other" {
			t.Errorf("the text of another record was given: %q", got)
		}
	})
	t.Run("resume_after_kill", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, unmaskedFile)
		w := &unmaskedWriter{path: path}
		b := batch{keep: true}
		maskedRecord(&b, "first", "***1")
		maskedRecord(&b, "never logged", "***2")
		w.write(1, b.recs, b.unmasked)
		w.close()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("torn")
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		w = resumeUnmasked(dir, 1)
		defer w.close()
		b = batch{keep: true}
		maskedRecord(&b, "second", "***2")
		w.write(2, b.recs, b.unmasked)
		r := NewUnmasked(dir)
		defer r.Close()
		for i, want := range []string{"first", "second"} {
			if got := ask(r, agented.Seq(i+1), "***"+string(rune('1'+i))); got != want {
				t.Errorf("line %d is %q", i+1, got)
			}
		}
	})
	t.Run("bounded", func(t *testing.T) {
		dir := t.TempDir()
		w := &unmaskedWriter{path: filepath.Join(dir, unmaskedFile), size: maxUnmasked - 30}
		defer w.close()
		b := batch{keep: true}
		maskedRecord(&b, "0123456789", "***")
		maskedRecord(&b, "0123456789", "***")
		w.write(1, b.recs, b.unmasked)
		if w.size > maxUnmasked || w.failed {
			t.Errorf("size %d, failed %v", w.size, w.failed)
		}
	})
}

func TestUnmaskedParts(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-of-this-line"
	dir := t.TempDir()
	line := strings.Repeat("a long line with "+secret+" in it ", 3*runlog.MaxLine/30)
	out := batch{keep: true}
	s := newSplitter(&out, agented.Stdout, redact.New([]string{secret}), true)
	s.feed([]byte(line+"\n"), time.Now())
	w := &unmaskedWriter{path: filepath.Join(dir, unmaskedFile)}
	defer w.close()
	w.write(1, out.recs, out.unmasked)
	r := NewUnmasked(dir)
	defer r.Close()
	r.Refresh()
	var joined strings.Builder
	for i := range out.recs {
		l := out.recs[i].LogLine
		l.Seq = agented.Seq(i + 1)
		text, ok := r.Line(&l)
		if !ok {
			t.Fatalf("part %d has no text", i)
		}
		joined.Write(text)
	}
	if joined.String() != line || len(out.recs) < 3 {
		t.Errorf("%d parts do not join to the line", len(out.recs))
	}
}

package runlog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/agented/agented"
)

// model is the expected content of a log.
type model struct {
	recs    []Record
	damaged int // number of records before a damaged one; -1 if there is none
}

// offset is where record i starts.
func (m *model) offset(i int) int64 {
	off := int64(headerSize)
	for _, r := range m.recs[:i] {
		off += recordHeader + int64(len(r.Content))
	}
	return off
}

func (m *model) text(n int) []byte {
	var b []byte
	for _, r := range m.recs[:n] {
		if r.Stream == agented.System {
			continue
		}
		b = append(b, r.Content...)
		if !r.NoEOL && (r.Part == agented.PartWhole || r.Part == agented.PartLast) {
			b = append(b, '\n')
		}
	}
	return b
}

func genRecord(t *rapid.T) Record {
	r := Record{LogLine: agented.LogLine{
		At:      noon,
		Attempt: rapid.IntRange(0, 3).Draw(t, "attempt"),
		Stream:  rapid.SampledFrom([]agented.Stream{agented.Stdout, agented.Stderr, agented.System}).Draw(t, "stream"),
		Part:    rapid.SampledFrom(parts[:]).Draw(t, "part"),
		NoEOL:   rapid.Bool().Draw(t, "noEOL"),
		Content: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "content"),
	}, RawEnd: rapid.Int64Range(0, 1<<40).Draw(t, "rawEnd")}
	if rapid.IntRange(0, 5).Draw(t, "large") == 0 {
		r.Content = bytes.Repeat(append(r.Content, 'x'), rapid.IntRange(100, 3000).Draw(t, "times"))
	}
	return r
}

func flip(t *rapid.T, path string, from, to int64) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	at := rapid.Int64Range(from, to-1).Draw(t, "flip")
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// Whatever happens to the file between two writers, the readable part is a
// prefix of what was written, with contiguous numbers, and the next writer
// continues there.
func TestLog_properties(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(root, fmt.Sprint(runs))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path, index := filepath.Join(dir, logName), filepath.Join(dir, indexName)
		m := &model{damaged: -1}
		open := func() *Writer {
			w, err := openWriter(dir, noon, "boot")
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		w := open()
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1, 2: // append
				recs := rapid.SliceOfN(rapid.Custom(genRecord), 1, 30).Draw(t, "batch")
				if err := w.Append(recs); err != nil {
					t.Fatal(err)
				}
				m.recs = append(m.recs, recs...)
				if w.LastSeq() != agented.Seq(len(m.recs)) || w.Size() != m.offset(len(m.recs)) {
					t.Fatalf("at %d, %d bytes; want %d, %d", w.LastSeq(), w.Size(), len(m.recs), m.offset(len(m.recs)))
				}
			case 3: // close and reopen
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				w = open()
			case 4: // crash with a torn tail
				w.abandon()
				size := rapid.Int64Range(0, m.offset(len(m.recs))).Draw(t, "size")
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
				n := 0
				for n < len(m.recs) && m.offset(n+1) <= size {
					n++
				}
				m.recs = m.recs[:n]
				if m.damaged >= n {
					m.damaged = -1
				}
				w = open()
				if m.damaged >= 0 && int(w.LastSeq()) == m.damaged {
					m.recs, m.damaged = m.recs[:m.damaged], -1
				}
			case 5: // crash with a damaged byte
				w.abandon()
				if len(m.recs) > 0 && m.damaged < 0 {
					i := rapid.IntRange(0, len(m.recs)-1).Draw(t, "damage")
					flip(t, path, m.offset(i), m.offset(i+1))
					m.damaged = i
				}
				w = open()
				if m.damaged >= 0 && int(w.LastSeq()) == m.damaged {
					m.recs, m.damaged = m.recs[:m.damaged], -1
				}
			case 6: // damage of the index
				w.abandon()
				if st, err := os.Stat(index); err == nil {
					switch rapid.IntRange(0, 2).Draw(t, "index") {
					case 0:
						os.Remove(index)
					case 1:
						os.Truncate(index, rapid.Int64Range(0, st.Size()).Draw(t, "index size"))
					case 2:
						if st.Size() > 0 {
							flip(t, index, 0, st.Size())
						}
					}
				}
				w = open()
				if m.damaged >= 0 && int(w.LastSeq()) == m.damaged {
					m.recs, m.damaged = m.recs[:m.damaged], -1
				}
			}
			if int(w.LastSeq()) != len(m.recs) {
				t.Fatalf("last seq %d, want %d", w.LastSeq(), len(m.recs))
			}
			compareWith(t, dir, m)
		}
		if m.damaged >= 0 {
			w.abandon()
			return
		}
		for attempt := range 5 {
			for i, s := range []agented.Stream{agented.Stdout, agented.Stderr} {
				want := int64(0)
				for _, r := range m.recs {
					if r.Attempt == attempt && r.Stream == s {
						want = r.RawEnd
					}
				}
				if got := w.RawEnd(attempt, s); got != want {
					t.Fatalf("raw end of attempt %d, stream %d: %d, want %d", attempt, i, got, want)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Seal(dir); err != nil {
			t.Fatal(err)
		}
		compareWith(t, dir, m)
	})
}

// compareWith compares all ways of reading with the model.
func compareWith(t *rapid.T, dir string, m *model) {
	n := len(m.recs)
	if m.damaged >= 0 {
		n = m.damaged
	}
	r, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	after := 0
	if m.damaged < 0 && rapid.Bool().Draw(t, "seek") {
		after = rapid.IntRange(0, n+2).Draw(t, "after")
		if err := r.SeekAfter(agented.Seq(after)); err != nil {
			t.Fatal(err)
		}
		if last, err := r.LastSeq(); err != nil || int(last) != n {
			t.Fatalf("last seq %d (%v), want %d", last, err, n)
		}
	}
	maxLines, maxBytes := rapid.IntRange(0, 9).Draw(t, "maxLines"), rapid.IntRange(0, 1000).Draw(t, "maxBytes")
	i := after
	for {
		got, err := r.Next(nil, maxLines, maxBytes)
		if err != nil && m.damaged < 0 {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		sum := 0
		for _, l := range got {
			if i >= n {
				t.Fatalf("line %d is read, %d were written", l.Seq, n)
			}
			want := m.recs[i]
			if int(l.Seq) != i+1 || !bytes.Equal(l.Content, want.Content) || l.Stream != want.Stream || l.Part != want.Part || l.NoEOL != want.NoEOL || l.Attempt != want.Attempt || !l.At.Equal(want.At) {
				t.Fatalf("line %d is %+v, want %+v", i+1, l, want)
			}
			sum += len(l.Content)
			i++
		}
		if maxLines > 0 && len(got) > maxLines || maxBytes > 0 && len(got) > 1 && sum > maxBytes {
			t.Fatalf("%d lines of %d bytes, allowed were %d and %d", len(got), sum, maxLines, maxBytes)
		}
	}
	if i < n {
		t.Fatalf("read up to %d of %d", i, n)
	}
	if m.damaged >= 0 {
		return
	}
	compareText(t, dir, m.text(n))
}

func compareText(t *rapid.T, dir string, want []byte) {
	x, err := OpenText(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if x.Size() != int64(len(want)) {
		t.Fatalf("text of %d bytes, want %d", x.Size(), len(want))
	}
	for range 3 {
		off := rapid.IntRange(0, len(want)).Draw(t, "text offset")
		p := make([]byte, rapid.IntRange(0, 5000).Draw(t, "text length"))
		if _, err := x.Seek(int64(off), 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			k, err := x.Read(p)
			if off < len(want) && err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p[:k], want[off:off+k]) || k < min(len(p), len(want)-off) {
				t.Fatalf("text at %d: %d bytes %q", off, k, p[:k])
			}
			off += k
		}
	}
}

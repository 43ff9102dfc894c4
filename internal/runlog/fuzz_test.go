package runlog

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/agented/agented"
)

// A decoded record encodes to the same bytes, and a record never requires more
// than the largest record size.
func FuzzDecodeRecord(f *testing.F) {
	r := line(agented.Stderr, "some text", 77)
	f.Add(appendRecord(nil, &r, 9))
	r.Part, r.NoEOL = agented.PartLast, true
	f.Add(appendRecord(nil, &r, 1))
	f.Add(bytes.Repeat([]byte{0}, 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got raw
		size, v := got.decode(b)
		if size > maxRecord || v == short && size <= len(b) {
			t.Fatalf("%d bytes, of %d: %d", size, len(b), v)
		}
		if v != whole {
			return
		}
		rec := Record{RawEnd: got.rawEnd}
		got.line(&rec.LogLine)
		if again := appendRecord(nil, &rec, got.seq); !bytes.Equal(again, b[:size]) {
			t.Fatalf("%x encodes to %x", b[:size], again)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(entry{seq: 5, off: 700, text: 300, lines: 4, attempt: 2, a: 9, b: 8}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := decodeEntry(b)
		if ok && !bytes.Equal(e.append(nil), b[:entrySize]) {
			t.Fatalf("%x is not %+v", b, e)
		}
	})
}

// readHostile reads a folder in every way. Errors are expected; panics, and
// more memory than a record needs, are not.
func readHostile(t *testing.T, dir string) {
	if r, err := OpenReader(dir); err == nil {
		for _, after := range []agented.Seq{0, 3, 1 << 40} {
			_ = r.SeekAfter(after)
			for range 100 {
				got, err := r.Next(nil, 0, 0)
				if len(got) == 0 || err != nil {
					break
				}
			}
		}
		_, _ = r.LastSeq()
		r.Close()
	}
	if x, err := OpenText(dir); err == nil {
		p := make([]byte, 1000)
		for _, off := range []int64{0, 10, x.Size() - 1} {
			if _, err := x.Seek(off, 0); err == nil {
				_, _ = x.Read(p)
			}
		}
		x.Close()
	}
}

// Arbitrary bytes as log and index: reading does not panic, and a writer either
// rejects them or continues after the whole records.
func FuzzHostileLog(f *testing.F) {
	dir := f.TempDir()
	w := mustWriter(f, dir, "boot")
	for range 3 {
		if err := w.Append([]Record{line(agented.Stdout, "one", 4), line(agented.System, "two", 0), line(agented.Stderr, "three", 6)}); err != nil {
			f.Fatal(err)
		}
	}
	w.Close()
	log, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		f.Fatal(err)
	}
	index := appendIndexHeader(nil, noon.UnixMicro())
	f.Add(log, index, int64(4), int64(headerSize+3*recordHeader+11), int64(10))
	f.Add(log, index, int64(1<<60), int64(1<<60), int64(1<<62))
	f.Add(log[:200], index, int64(2), int64(headerSize+7), int64(0))
	f.Add([]byte{}, []byte{}, int64(0), int64(0), int64(0))
	f.Fuzz(func(t *testing.T, log, index []byte, seq, off, text int64) {
		// The fuzzer cannot guess a checksum.
		index = entry{seq: agented.Seq(seq), off: off, text: text, lines: 3, attempt: 1}.append(index)
		dir := t.TempDir()
		if os.WriteFile(filepath.Join(dir, logName), log, 0o600) != nil || os.WriteFile(filepath.Join(dir, indexName), index, 0o600) != nil {
			t.Fatal("the folder cannot be filled")
		}
		readHostile(t, dir)
		w, err := openWriter(dir, noon, "boot")
		if err != nil {
			return
		}
		last := w.LastSeq()
		recs := []Record{line(agented.Stdout, "behind it", 1)}
		if err := w.Append(recs); err != nil || recs[0].Seq != last+1 {
			t.Errorf("appended as %d behind %d (%v)", recs[0].Seq, last, err)
		}
		w.Close()
		readHostile(t, dir)
		_ = Seal(dir)
		readHostile(t, dir)
	})
}

// Arbitrary bytes as a sealed log.
func FuzzHostileSealedLog(f *testing.F) {
	dir := f.TempDir()
	w := mustWriter(f, dir, "boot")
	if err := w.Append([]Record{line(agented.Stdout, "one", 4), line(agented.Stderr, "three", 6)}); err != nil {
		f.Fatal(err)
	}
	w.Close()
	if err := Seal(dir); err != nil {
		f.Fatal(err)
	}
	sealed, err := os.ReadFile(filepath.Join(dir, sealedName))
	if err != nil {
		f.Fatal(err)
	}
	// The fuzzer cannot guess checksums: it generates frames and the table, and
	// the test adds the checksums.
	n := len(sealed) - trailerSize - entrySize - 8
	f.Add(sealed[:n], uint32(300), int64(128), int64(0), int64(100), int64(1))
	f.Fuzz(func(t *testing.T, frames []byte, length uint32, off, a, b, count int64) {
		table := entry{seq: 1, off: off, attempt: length, a: a, b: b}.append(nil)
		file := append(append([]byte{}, frames...), table...)
		file = appendTrailer(file, count, tally{off: off + int64(length), seq: 2, text: 10, lines: 2})
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, sealedName), file, 0o600); err != nil {
			t.Fatal(err)
		}
		readHostile(t, dir)
	})
}

package runlog

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/agented/agented"
)

// batch makes n lines of 100 bytes.
func batch(n int) []Record {
	recs := make([]Record, n)
	for i := range recs {
		b := fmt.Appendf(nil, "%6d ", i)
		for j := 0; len(b) < 100; j++ {
			b = append(b, "GET /index.html 200 the quick brown fox jumps over a lazy dog "[(i+j*7)%61])
		}
		recs[i] = line(agented.Stdout, string(b), int64(i)*101)
	}
	return recs
}

// bigLog makes a log with that many lines of 100 bytes.
func bigLog(tb testing.TB, lines int) string {
	dir := tb.TempDir()
	w := mustWriter(tb, dir, "boot")
	recs := batch(1000)
	for range lines / len(recs) {
		if err := w.Append(recs); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// benchLines is 1 million, or 10 million (1.4 GB) with RUNLOG_BENCH_LARGE set.
func benchLines() int {
	if os.Getenv("RUNLOG_BENCH_LARGE") != "" {
		return 10_000_000
	}
	return 1_000_000
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			dir := b.TempDir()
			w := mustWriter(b, dir, "boot")
			recs := batch(n)
			b.ReportAllocs()
			b.SetBytes(int64(n) * 100)
			b.ResetTimer()
			for b.Loop() {
				if err := w.Append(recs); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "lines/s")
			if err := w.Sync(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const lines = 200_000
	dir := bigLog(b, lines)
	run := func(name string) {
		b.Run(name, func(b *testing.B) {
			r := mustReader(b, dir)
			var dst []agented.LogLine
			var err error
			b.ReportAllocs()
			b.SetBytes(lines * 100)
			for b.Loop() {
				if err := r.SeekAfter(0); err != nil {
					b.Fatal(err)
				}
				n := 0
				for {
					if dst, err = r.Next(dst[:0], 0, 0); err != nil {
						b.Fatal(err)
					}
					if len(dst) == 0 {
						break
					}
					n += len(dst)
				}
				if n != lines {
					b.Fatal(n)
				}
			}
		})
		b.Run(name+"/text", func(b *testing.B) {
			b.SetBytes(lines * 101)
			for b.Loop() {
				x, err := OpenText(dir)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, struct{ io.Reader }{x}); n != lines*101 || err != nil {
					b.Fatal(n, err)
				}
				x.Close()
			}
		})
	}
	run("log")
	at := time.Now()
	if err := Seal(dir); err != nil {
		b.Fatal(err)
	}
	b.Logf("sealed %d lines in %v", lines, time.Since(at))
	run("sealed")
}

func BenchmarkSeek(b *testing.B) {
	lines := benchLines()
	dir := bigLog(b, lines)
	run := func(name string) {
		b.Run("line/"+name, func(b *testing.B) {
			var dst []agented.LogLine
			for b.Loop() {
				r, err := OpenReader(dir)
				if err != nil {
					b.Fatal(err)
				}
				after := agented.Seq(rand.IntN(lines))
				if err := r.SeekAfter(after); err != nil {
					b.Fatal(err)
				}
				if dst, err = r.Next(dst[:0], 1, 0); err != nil || len(dst) != 1 || dst[0].Seq != after+1 {
					b.Fatal(err, dst)
				}
				r.Close()
			}
		})
		b.Run("last/"+name, func(b *testing.B) {
			for b.Loop() {
				r, err := OpenReader(dir)
				if err != nil {
					b.Fatal(err)
				}
				if last, err := r.LastSeq(); err != nil || int(last) != lines {
					b.Fatal(err, last)
				}
				r.Close()
			}
		})
		b.Run("text/"+name, func(b *testing.B) {
			x, err := OpenText(dir)
			if err != nil {
				b.Fatal(err)
			}
			defer x.Close()
			p := make([]byte, 100)
			for b.Loop() {
				off := rand.Int64N(int64(lines) * 101)
				if _, err := x.Seek(off, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				if _, err := x.Read(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("open writer", func(b *testing.B) {
		for b.Loop() {
			w, err := openWriter(dir, noon, "boot")
			if err != nil || int(w.LastSeq()) != lines {
				b.Fatal(err)
			}
			w.abandon()
		}
	})
	run("log")
	if err := Seal(dir); err != nil {
		b.Fatal(err)
	}
	run("sealed")
}

// Counts do not depend on the machine. Not parallel: it counts the allocations
// of the whole process.
func TestWriterReader_allocations(t *testing.T) {
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	recs := batch(1000)
	r := mustReader(t, dir)
	dst := make([]agented.LogLine, 0, 2000)
	per := testing.AllocsPerRun(50, func() {
		if err := w.Append(recs); err != nil {
			t.Fatal(err)
		}
		for n := 1; n > 0; n = len(dst) {
			var err error
			if dst, err = r.Next(dst[:0], 0, 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	if per > 20 {
		t.Errorf("%.0f allocations for 1000 lines", per)
	}
}

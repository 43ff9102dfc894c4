package shim

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
)

// BenchmarkLines prints 100-byte lines as fast as it can and counts the lines in the log.
func BenchmarkLines(b *testing.B) {
	for _, c := range append(captures, agented.CapturePTY) {
		b.Run(string(c), func(b *testing.B) {
			const n = 500_000
			for range b.N {
				r := newRun(b, c, "").program("chatty", fmt.Sprint(n), "100")
				began := time.Now()
				exit := r.do()
				took := time.Since(began)
				if exit.LastSeq != n {
					b.Fatalf("%d lines in the log: %+v", exit.LastSeq, exit)
				}
				b.ReportMetric(n/took.Seconds(), "lines/s")
			}
		})
	}
}

// BenchmarkUnbuffered uses a program that writes each line separately.
func BenchmarkUnbuffered(b *testing.B) {
	for _, c := range captures {
		b.Run(string(c), func(b *testing.B) {
			const n = 300_000
			for range b.N {
				r := newRun(b, c, "").program("ticking", fmt.Sprint(n), "0")
				began := time.Now()
				exit := r.do()
				if exit.LastSeq != n {
					b.Fatalf("%d lines in the log: %+v", exit.LastSeq, exit)
				}
				b.ReportMetric(n/time.Since(began).Seconds(), "lines/s")
			}
		})
	}
}

// BenchmarkStart measures from the call of Start to the first instruction of the program, and to
// Start's return.
func BenchmarkStart(b *testing.B) {
	var first, back []time.Duration
	for range b.N {
		r := newRun(b, agented.CapturePipe, "").program("now")
		began := time.Now()
		r.start()
		back = append(back, time.Since(began))
		r.wait()
		ns, err := strconv.ParseInt(strings.TrimSpace(string(r.printed(agented.Stdout))), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		first = append(first, time.Unix(0, ns).Sub(began))
	}
	report(b, "first-byte", first)
	report(b, "started", back)
}

func report(b *testing.B, name string, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, name+"-p99-ms")
}

// BenchmarkLatency measures from the print of a line to its write to the log, at 200 lines per
// second.
func BenchmarkLatency(b *testing.B) {
	for _, c := range captures {
		b.Run(string(c), func(b *testing.B) {
			const n = 400
			var all []time.Duration
			for range b.N {
				r := newRun(b, c, "").program("ticking", fmt.Sprint(n), "5000")
				r.start()
				w, err := runlog.Watch(r.dir)
				if err != nil {
					b.Fatal(err)
				}
				rd, err := runlog.OpenReader(r.dir)
				for ; err != nil; rd, err = runlog.OpenReader(r.dir) {
					<-w.C()
				}
				var lines []agented.LogLine
				for seen := 0; seen < n; {
					lines, err = rd.Next(lines[:0], 0, 0)
					now := time.Now()
					if err != nil {
						b.Fatal(err)
					}
					if len(lines) == 0 {
						<-w.C()
						continue
					}
					for _, l := range lines {
						_, at, _ := bytes.Cut(l.Content, []byte(" "))
						ns, _ := strconv.ParseInt(string(at), 10, 64)
						all = append(all, now.Sub(time.Unix(0, ns)))
						seen++
					}
				}
				rd.Close()
				w.Close()
				r.wait()
			}
			report(b, "seen", all)
		})
	}
}

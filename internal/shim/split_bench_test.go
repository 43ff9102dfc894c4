package shim

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// BenchmarkSplit measures one chunk of 100-byte lines without any I/O, and with the log.
func BenchmarkSplit(b *testing.B) {
	var secrets []string
	for i := range 20 {
		secrets = append(secrets, fmt.Sprintf("%02d-secret-value-%d", i, i*7919))
	}
	chunk := bytes.Repeat([]byte("2026-11-23 12:00:00 INFO  worker 17 has done what it was asked to do and waits for more of the same\n"), 640)
	for _, with := range []string{"alone", "log"} {
		b.Run(with, func(b *testing.B) {
			out := batch{attempt: 1}
			s := newSplitter(&out, agented.Stdout, redact.New(secrets), true)
			log, err := runlog.OpenWriter(b.TempDir(), time.Now())
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				s.feed(chunk, time.Now())
				if with == "log" {
					if err := log.Append(out.recs); err != nil {
						b.Fatal(err)
					}
				}
				out.done(len(out.recs))
			}
			b.ReportMetric(640*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

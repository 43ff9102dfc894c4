package logsearch

import (
	"fmt"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
)

// linesToSearch returns lines of about 62 bytes.
func linesToSearch(tb testing.TB, n int) []agented.LogLine {
	tb.Helper()
	lines := make([]agented.LogLine, n)
	for i := range lines {
		text := fmt.Appendf(nil, "2026-07-31 12:%02d:%02d worker %d handled request %d in %d ms", i/1000%60, i%60, i%17, i*31, i%997)
		lines[i] = agented.LogLine{Stream: agented.Stdout, Attempt: 1, At: time.Now(), Content: text}
	}
	return lines
}

// BenchmarkSearch searches a log for a missing text, from the file to the
// response. MB/s refers to the printed output.
func BenchmarkSearch(b *testing.B) {
	dir := b.TempDir()
	w, err := runlog.OpenWriter(dir, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	size := 0
	records := make([]runlog.Record, 200_000)
	for i, line := range linesToSearch(b, len(records)) {
		records[i].LogLine = line
		size += len(line.Content)
	}
	for i := 0; i < len(records); i += 1000 {
		if err := w.Append(records[i : i+1000]); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, query  string
		regex, exact bool
		masker       *redact.Masker
	}{
		{"literal", "no such text", false, true, nil},
		{"regex with a literal", "[0-9]+ lost [0-9]+", true, true, nil},
		{"regex without a literal", "[0-9]+z[0-9]+y", true, true, nil},
		{"regex without a literal, with secrets", "[0-9]+z[0-9]+y", true, true, redact.New([]string{"hunter2hunter2"})},
		{"regex that a mask may match, with secrets", "[0-9]+z.*[0-9]+y", true, true, redact.New([]string{"hunter2hunter2"})},
		{"literal in any case", "No such text", false, false, nil},
		{"regex in any case", "handled .*lost [0-9]+", true, false, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				log, err := runlog.OpenReader(dir)
				if err != nil {
					b.Fatal(err)
				}
				look, err := newSearch(c.query, c.regex, c.exact)
				if err != nil {
					b.Fatal(err)
				}
				var hits Result
				look.limit, look.hits = 200, &hits
				look.mask, look.masks = c.masker.MaskLine, !c.masker.Empty()
				if err := look.run(b.Context(), log, time.Now().Add(time.Minute)); err != nil {
					b.Fatal(err)
				}
				if !hits.Done || hits.Hits != nil {
					b.Fatal(hits)
				}
				log.Close()
			}
		})
	}
}

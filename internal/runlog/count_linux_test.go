package runlog

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// writeCalls returns the number of write system calls of the process.
func writeCalls(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("the kernel does not count calls: ", err)
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "syscw: "); ok {
			calls, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			return calls
		}
	}
	t.Skip("the kernel does not count calls")
	return 0
}

// Not parallel: it counts the system calls of the process.
func TestAppend_one_write_per_batch(t *testing.T) {
	const batches, lines = 100, 50
	w, err := OpenWriter(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	recs := make([]Record, lines)
	before := writeCalls(t)
	for range batches {
		for i := range recs {
			recs[i] = Record{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte("a line that a program has printed")}}
		}
		if err := w.Append(recs); err != nil {
			t.Fatal(err)
		}
	}
	perLine := float64(writeCalls(t)-before) / batches / lines
	t.Logf("%.4f writes per line in batches of %d", perLine, lines)
	// One for the batch, and occasionally one for the index or for reserving
	// numbers.
	if perLine > 1.2/lines {
		t.Errorf("%.4f writes per line, want one for each batch of %d", perLine, lines)
	}
}

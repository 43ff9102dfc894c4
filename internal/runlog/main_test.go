package runlog

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

// The test binary is also the writer process that tests kill.
func TestMain(m *testing.M) {
	switch os.Getenv("RUNLOG_TEST_CHILD") {
	case "write":
		os.Exit(childWrite())
	case "limit":
		os.Exit(childLimit())
	}
	testrun.Contain()
	goleak.VerifyTestMain(m)
}

// childText returns the text of line seq; lines differ in length.
func childText(b []byte, seq agented.Seq) []byte {
	b = fmt.Appendf(b, "line %d ", seq)
	for range int(seq) % 90 {
		b = append(b, 'a'+byte(seq%26))
	}
	return b
}

// childWrite appends up to a number of lines, continuing at the end of the log.
func childWrite() int {
	dir := os.Getenv("RUNLOG_TEST_DIR")
	until, _ := strconv.Atoi(os.Getenv("RUNLOG_TEST_LINES"))
	w, err := OpenWriter(dir, time.Now())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var recs []Record
	for n := 1; int(w.LastSeq()) < until; n = n*7%61 + 1 {
		recs = recs[:0]
		for seq := w.LastSeq() + 1; len(recs) < n && int(seq) <= until; seq++ {
			recs = append(recs, Record{LogLine: agented.LogLine{At: noon, Attempt: 1, Stream: agented.Stdout, Content: childText(nil, seq)}, RawEnd: int64(seq)})
		}
		if err := w.Append(recs); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	if err := w.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// childLimit appends until the file size limit, as on a disk that becomes full
// during a write.
func childLimit() int {
	dir := os.Getenv("RUNLOG_TEST_DIR")
	signal.Ignore(syscall.SIGXFSZ)
	w, err := OpenWriter(dir, time.Now())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10_000, Max: old.Max}); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := fullDisk(w, syscall.EFBIG, func() error { return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) }); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

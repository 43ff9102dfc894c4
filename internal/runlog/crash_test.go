package runlog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

func child(t *testing.T, mode, dir string, lines int) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "-test.run=^$")
	c.Env = append(os.Environ(), "RUNLOG_TEST_CHILD="+mode, "RUNLOG_TEST_DIR="+dir, fmt.Sprintf("RUNLOG_TEST_LINES=%d", lines))
	return c
}

func TestReader_killed_writers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const lines, kills = 300_000, 8
	watch, err := Watch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()

	ended := make(chan error, 1)
	random := testrun.Rand(t)
	go func() {
		for i := 0; ; i++ {
			c := child(t, "write", dir, lines)
			var out bytes.Buffer
			c.Stdout = &out
			if err := c.Start(); err != nil {
				ended <- err
				return
			}
			if i < kills {
				// The delay only selects when the process is killed.
				after := time.AfterFunc(time.Duration(5+random.IntN(25))*time.Millisecond, func() { c.Process.Kill() })
				c.Wait()
				after.Stop()
				continue
			}
			if err := c.Wait(); err != nil {
				err = fmt.Errorf("writer: %w: %s", err, out.String())
				ended <- err
				return
			}
			ended <- nil
			return
		}
	}()

	var r *Reader
	var next agented.Seq = 1
	var buf []agented.LogLine
	var text []byte
	deadline := time.After(50 * time.Second)
	sealed := false
	for next <= lines {
		select {
		case <-watch.C():
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			// The reader may be far behind; a seal must not affect it.
			if err := Seal(dir); err != nil {
				t.Fatal(err)
			}
			sealed = true
		case <-deadline:
			t.Fatalf("stands at line %d", next)
		}
		if r == nil {
			if r, err = OpenReader(dir); err != nil {
				if errors.Is(err, agented.NotFound) {
					continue
				}
				t.Fatal(err)
			}
			defer r.Close()
		}
		for {
			if buf, err = r.Next(buf[:0], 0, 0); err != nil {
				t.Fatal(err)
			}
			if len(buf) == 0 {
				break
			}
			for _, l := range buf {
				text = childText(text[:0], next)
				if l.Seq != next || !bytes.Equal(l.Content, text) {
					t.Fatalf("line %d says %q, want line %d", l.Seq, l.Content, next)
				}
				next++
			}
		}
	}
	if !sealed {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenWriter_exclusive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	if _, err := OpenWriter(dir, noon); !errors.Is(err, agented.Conflict) {
		t.Errorf("second writer: %v, want a conflict", err)
	}
	if err := Seal(dir); !errors.Is(err, agented.Conflict) {
		t.Errorf("seal under a writer: %v, want a conflict", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Append([]Record{line(agented.Stdout, "late", 0)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append behind the close: %v", err)
	}
	mustWriter(t, dir, "boot")
}

func TestOpenWriter_power_failure(t *testing.T) {
	t.Parallel()
	five := func() []Record {
		var recs []Record
		for i := range 5 {
			recs = append(recs, line(agented.Stdout, fmt.Sprint(i), int64(i)))
		}
		return recs
	}
	t.Run("kill -9 of the writer leaves no gap", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := mustWriter(t, dir, "monday")
		if err := w.Append(five()); err != nil {
			t.Fatal(err)
		}
		w.abandon()
		if w = mustWriter(t, dir, "monday"); w.LastSeq() != 5 {
			t.Errorf("goes on behind %d", w.LastSeq())
		}
	})
	t.Run("nor does an orderly close", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := mustWriter(t, dir, "monday")
		if err := w.Append(five()); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = mustWriter(t, dir, "tuesday")
		if err := w.Append(five()); err != nil {
			t.Fatal(err)
		}
		if w.LastSeq() != 10 {
			t.Errorf("stands at %d", w.LastSeq())
		}
		w.abandon() // and the reserve now belongs to tuesday
		if w = mustWriter(t, dir, "tuesday"); w.LastSeq() != 10 {
			t.Errorf("goes on behind %d", w.LastSeq())
		}
	})
	t.Run("a log that was never written is no gap either", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		mustWriter(t, dir, "monday").abandon()
		if w := mustWriter(t, dir, "tuesday"); w.LastSeq() != 0 {
			t.Errorf("goes on behind %d", w.LastSeq())
		}
	})
	t.Run("nor numbers reserved ahead that were not used", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := mustWriter(t, dir, "monday")
		done, err := w.ReserveAhead()
		if err != nil {
			t.Fatal(err)
		}
		done()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w = mustWriter(t, dir, "tuesday")
		if err := w.Append(five()); err != nil {
			t.Fatal(err)
		}
		if w.LastSeq() != 5 {
			t.Errorf("stands at %d", w.LastSeq())
		}
	})
	t.Run("a power cut after numbers were reserved ahead does", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		w := mustWriter(t, dir, "monday")
		done, err := w.ReserveAhead()
		if err != nil {
			t.Fatal(err)
		}
		done()
		if err := w.Append(five()); err != nil {
			t.Fatal(err)
		}
		w.abandon()
		if err := os.Truncate(filepath.Join(dir, logName), headerSize); err != nil { // all lines are lost
			t.Fatal(err)
		}
		if w = mustWriter(t, dir, "tuesday"); w.LastSeq() <= 5 {
			t.Errorf("a number that a reader has seen is given again, behind %d", w.LastSeq())
		}
	})
	for _, lost := range []int{0, 2, 5} {
		t.Run(fmt.Sprintf("a power cut that lost %d lines does", lost), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := mustWriter(t, dir, "monday")
			if err := w.Append(five()); err != nil {
				t.Fatal(err)
			}
			w.abandon()
			// After a power failure: the synced header, and less of the rest.
			if err := os.Truncate(filepath.Join(dir, logName), w.Size()-int64(lost)*(recordHeader+1)); err != nil {
				t.Fatal(err)
			}
			w = mustWriter(t, dir, "tuesday")
			const reserved = 5 + reserveAhead
			if w.LastSeq() != reserved+1 {
				t.Errorf("goes on behind %d, want %d", w.LastSeq(), reserved+1)
			}
			got := readAll(t, mustReader(t, dir))
			says := got[len(got)-1]
			want := fmt.Sprintf("numbers %d to %d may have been assigned to lines that were lost", 6-lost, reserved)
			if len(got) != 6-lost || says.Seq != reserved+1 || says.Stream != agented.System || !strings.Contains(string(says.Content), want) {
				t.Errorf("%d lines, the last %d %q; want %q", len(got), says.Seq, says.Content, want)
			}
			if err := w.Append(five()); err != nil {
				t.Fatal(err)
			}
			w.abandon()
			if w = mustWriter(t, dir, "tuesday"); w.LastSeq() != reserved+6 {
				t.Errorf("then goes on behind %d", w.LastSeq())
			}
			r := mustReader(t, dir)
			if err := r.SeekAfter(1000); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, r); len(got) != 6 || got[0].Seq != reserved+1 {
				t.Errorf("a seek into the gap gives %d lines", len(got))
			}
		})
	}
	for name, damage := range map[string][]byte{"damaged": []byte("?"), "never written": make([]byte, headerSize)} {
		t.Run("the header is "+name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w := mustWriter(t, dir, "monday")
			if err := w.Append(five()); err != nil {
				t.Fatal(err)
			}
			w.abandon()
			f, err := os.OpenFile(filepath.Join(dir, logName), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			at := int64(40)
			if len(damage) > 1 {
				at = 0
			}
			if _, err := f.WriteAt(damage, at); err != nil {
				t.Fatal(err)
			}
			want := agented.Seq(5 + unknownReserve + 1)
			if len(damage) > 1 {
				want = 0
			}
			if w = mustWriter(t, dir, "monday"); w.LastSeq() != want {
				t.Errorf("goes on behind %d, want %d", w.LastSeq(), want)
			}
		})
	}
}

// fullDisk appends until it fails, frees space, and appends the rest.
func fullDisk(w *Writer, want error, makeRoom func() error) error {
	seen := []string{}
	var failed error
	var recs []Record
	for i := 0; failed == nil; i++ {
		if i > 100_000 {
			return errors.New("the disk never fills")
		}
		recs = recs[:0]
		for j := range 10 {
			recs = append(recs, line(agented.Stdout, fmt.Sprintf("%d.%d %s", i, j, strings.Repeat("x", 500)), 0))
		}
		failed = w.Append(recs)
		for _, r := range recs {
			if r.Seq != 0 {
				seen = append(seen, string(r.Content))
				if int(r.Seq) != len(seen) {
					return fmt.Errorf("%d numbers, but line %d", len(seen), r.Seq)
				}
			}
		}
	}
	if !errors.Is(failed, want) {
		return fmt.Errorf("error %w, want %w", failed, want)
	}
	for len(recs) > 0 && recs[0].Seq != 0 {
		recs = recs[1:]
	}
	if len(recs) == 0 {
		return errors.New("all were logged, in spite of the error")
	}
	if int(w.LastSeq()) != len(seen) {
		return fmt.Errorf("last seq %d, want %d", w.LastSeq(), len(seen))
	}
	st, err := w.f.Stat()
	if err != nil || st.Size() != w.Size() {
		return fmt.Errorf("the file has %d bytes, the log %d (%w)", st.Size(), w.Size(), err)
	}
	if err := makeRoom(); err != nil {
		return err
	}
	if err := w.Append(recs); err != nil {
		return err
	}
	for _, r := range recs {
		seen = append(seen, string(r.Content))
	}
	if err := w.Close(); err != nil {
		return err
	}
	r, err := OpenReader(w.dir)
	if err != nil {
		return err
	}
	defer r.Close()
	n := 0
	for {
		got, err := r.Next(nil, 0, 0)
		if err != nil {
			return err
		}
		if len(got) == 0 {
			break
		}
		for _, l := range got {
			if n >= len(seen) || int(l.Seq) != n+1 || string(l.Content) != seen[n] {
				return fmt.Errorf("line %d is not what was appended", l.Seq)
			}
			n++
		}
	}
	if n != len(seen) {
		return fmt.Errorf("%d lines, want %d", n, len(seen))
	}
	return nil
}

func TestAppend_full_disk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := mountSmall(dir); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { unmount(dir) })
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := mustWriter(t, dir, "boot")
	if err := fullDisk(w, syscall.ENOSPC, func() error { return os.Remove(filler) }); err != nil {
		t.Error(err)
	}
}

func TestAppend_partial_write(t *testing.T) {
	t.Parallel()
	out, err := child(t, "limit", t.TempDir(), 0).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWriter_without_index(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, indexName), 0o700); err != nil {
		t.Fatal(err)
	}
	w := mustWriter(t, dir, "boot")
	for range 10 {
		recs := make([]Record, 1000)
		for i := range recs {
			recs[i] = line(agented.Stdout, "some text in a line", 0)
		}
		if err := w.Append(recs); err != nil {
			t.Fatal(err)
		}
	}
	r := mustReader(t, dir)
	if err := r.SeekAfter(9_990); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, r); len(got) != 10 || got[0].Seq != 9_991 {
		t.Errorf("%d lines behind the seek", len(got))
	}
	w.abandon()
	if w = mustWriter(t, dir, "boot"); w.LastSeq() != 10_000 {
		t.Errorf("reopened at %d", w.LastSeq())
	}
}

// The first line needs no fsync if its number was reserved ahead: reserving it
// would write a new header.
func TestAhead(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]bool{"ahead": true, "not yet": false} {
		dir := t.TempDir()
		w := mustWriter(t, dir, "monday")
		done, err := w.ReserveAhead()
		if err != nil {
			t.Fatal(err)
		}
		if ahead {
			done()
		}
		head := func() string {
			t.Helper()
			b, err := os.ReadFile(filepath.Join(dir, logName))
			if err != nil || len(b) < headerSize {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			return string(b[:headerSize])
		}
		w.head.created++ // so that a rewritten header differs
		before := head()
		if err := w.Append([]Record{{LogLine: agented.LogLine{At: time.Now(), Attempt: 1, Stream: agented.Stdout, Content: []byte("x")}}}); err != nil {
			t.Fatal(err)
		}
		if same := head() == before; same != ahead {
			t.Errorf("%s: the header stands as it was: %v", name, same)
		}
		w.abandon()
	}
}

package runlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

// fill appends n different lines and returns the text of the log.
func fill(t testing.TB, w *Writer, n int) []byte {
	t.Helper()
	var text []byte
	rng := rand.New(rand.NewPCG(1, 2))
	recs := make([]Record, 0, 100)
	for i := range n {
		r := line(agented.Stdout, fmt.Sprintf("line %d %s", i, strings.Repeat("abc ", i%50)), int64(i))
		switch {
		case i%7 == 0:
			r.Stream = agented.Stderr
		case i%11 == 0:
			r.Stream = agented.System
		case i%13 == 0:
			r.NoEOL = true
		case i%17 == 0:
			r.Part = agented.PartFirst
		case i%1999 == 0: // incompressible
			r.Content = make([]byte, MaxLine-i%3)
			for j := range r.Content {
				r.Content[j] = byte(rng.Uint32())
			}
		}
		if r.Stream != agented.System {
			text = append(text, r.Content...)
			if !r.NoEOL && r.Part == agented.PartWhole {
				text = append(text, '\n')
			}
		}
		recs = append(recs, r)
		if len(recs) == cap(recs) || i == n-1 {
			if err := w.Append(recs); err != nil {
				t.Fatal(err)
			}
			recs = recs[:0]
		}
	}
	return text
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// sameLog checks that dir contains the lines and the text.
func sameLog(t *testing.T, dir string, want []agented.LogLine, text []byte) {
	t.Helper()
	r := mustReader(t, dir)
	got := readAll(t, r)
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Seq != want[i].Seq || got[i].Stream != want[i].Stream || !bytes.Equal(got[i].Content, want[i].Content) {
			t.Fatalf("line %d differs", got[i].Seq)
		}
	}
	if last, err := r.LastSeq(); err != nil || int(last) != len(want) {
		t.Fatalf("last seq %d (%v), want %d", last, err, len(want))
	}
	for _, after := range []int{0, 1, 500, len(want) / 2, len(want) - 1, len(want), len(want) + 9} {
		if err := r.SeekAfter(agented.Seq(after)); err != nil {
			t.Fatal(err)
		}
		got, err := r.Next(nil, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		if after < len(want) && (len(got) != 1 || int(got[0].Seq) != after+1) || after >= len(want) && len(got) != 0 {
			t.Fatalf("behind %d comes %+v", after, got)
		}
	}
	x, err := OpenText(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	all, err := io.ReadAll(x)
	if err != nil || !bytes.Equal(all, text) || x.Size() != int64(len(text)) {
		t.Fatalf("text of %d bytes (%v), want %d", len(all), err, len(text))
	}
}

func TestSeal_crash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	text := fill(t, w, 5000)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	before := mustReader(t, dir)
	want := readAll(t, before)
	if err := before.SeekAfter(0); err != nil {
		t.Fatal(err)
	}
	original, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	err = seal(dir, "boot", func(step string) {
		steps = append(steps, step)
		at := copyDir(t, dir)
		sameLog(t, at, want, text)
		// and the next one finishes it
		if err := Seal(at); err != nil {
			t.Fatalf("seal behind a crash before %q: %v", step, err)
		}
		sameLog(t, at, want, text)
		if left, _ := filepath.Glob(filepath.Join(at, "*")); len(left) != 1 {
			t.Errorf("a crash before %q leaves %q", step, left)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(steps, ","); got != "repair,write,rename,sync,remove log,remove log.idx,remove log.zst.tmp" {
		t.Errorf("steps %s", got)
	}
	sameLog(t, dir, want, text)
	if got := readAll(t, before); len(got) != len(want) {
		t.Errorf("the reader that was open sees %d lines, want %d", len(got), len(want))
	}
	if err := Seal(dir); err != nil {
		t.Errorf("the second seal: %v", err)
	}
	if _, err := OpenWriter(dir, noon); !errors.Is(err, agented.Conflict) {
		t.Errorf("a writer on a sealed log: %v, want a conflict", err)
	}
	if zstd, err := exec.LookPath("zstd"); err == nil {
		out, err := exec.Command(zstd, "-dc", filepath.Join(dir, sealedName)).Output()
		if err != nil || !bytes.Equal(out, original) {
			t.Errorf("zstd -dc gives %d bytes (%v), the log had %d", len(out), err, len(original))
		}
	} else {
		t.Log("zstd is not installed: what it makes of a sealed log is not compared")
	}
}

func TestSeal_damaged_log(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	fill(t, w, 5000)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, logName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before[5000] ^= 1
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Seal(dir); err == nil || !strings.Contains(err.Error(), "damaged at byte") {
		t.Errorf("seal: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, before) {
		t.Errorf("the log was changed (%v)", err)
	}
	r := mustReader(t, dir)
	for {
		got, err := r.Next(nil, 0, 0)
		if err != nil {
			if !strings.Contains(err.Error(), "damaged at byte") {
				t.Error(err)
			}
			break
		}
		if len(got) == 0 {
			t.Fatal("the reader waits for a damaged line to get better")
		}
	}
}

func TestSeal_empty_log(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenReader(dir); !errors.Is(err, agented.NotFound) {
		t.Errorf("reader without a log: %v", err)
	}
	if _, err := OpenText(dir); !errors.Is(err, agented.NotFound) {
		t.Errorf("text without a log: %v", err)
	}
	if err := Seal(dir); !errors.Is(err, agented.NotFound) {
		t.Errorf("seal without a log: %v", err)
	}
	if err := mustWriter(t, dir, "boot").Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := mustReader(t, dir)
		if err := r.SeekAfter(7); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, r); len(got) != 0 {
			t.Errorf("lines %+v", got)
		}
		x, err := OpenText(dir)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(x); len(b) != 0 || err != nil {
			t.Errorf("text %q (%v)", b, err)
		}
		x.Close()
		if err := Seal(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeal_late_writer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	fill(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Seal(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, logName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, mustReader(t, dir)); len(got) != 10 {
		t.Errorf("%d lines, want 10", len(got))
	}
	if err := Seal(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, logName)); err == nil {
		t.Error("the empty file is still there")
	}
}

func TestText_ranges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	text := fill(t, w, 3000)
	x, err := OpenText(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	fill(t, w, 10)
	for _, c := range []struct {
		ask  string
		want []byte
	}{
		{"", text},
		{"bytes=0-0", text[:1]},
		{"bytes=12345-23456", text[12345:23457]},
		{"bytes=-17", text[len(text)-17:]},
		{fmt.Sprintf("bytes=%d-", len(text)-5), text[len(text)-5:]},
	} {
		req := httptest.NewRequest("GET", "/log.txt", nil)
		if c.ask != "" {
			req.Header.Set("Range", c.ask)
		}
		rec := httptest.NewRecorder()
		http.ServeContent(rec, req, "log.txt", time.Time{}, x)
		if !bytes.Equal(rec.Body.Bytes(), c.want) {
			t.Errorf("range %q: %d bytes with status %d, want %d", c.ask, rec.Body.Len(), rec.Code, len(c.want))
		}
	}
}

func TestAppend_record_size(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := mustWriter(t, dir, "boot")
	big := bytes.Repeat([]byte{0, 0xff, '\r', 0xc3}, MaxLine/4)
	recs := []Record{line(agented.Stdout, "a", 1), line(agented.Stdout, string(big), 2), line(agented.Stdout, "b", 3), line(agented.Stdout, string(big), 4)}
	if err := w.Append(recs); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Record{
		line(agented.Stdout, string(big)+"x", 0),
		line("stdin", "x", 0),
		line(agented.Stdout, "x", -1),
		{LogLine: agented.LogLine{Stream: agented.Stdout, Part: "some"}},
		{LogLine: agented.LogLine{Stream: agented.Stdout, Attempt: -1}},
	} {
		if err := w.Append([]Record{line(agented.Stdout, "good", 0), bad}); !errors.Is(err, agented.Invalid) {
			t.Errorf("append: %v, want it refused", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got := readAll(t, mustReader(t, dir))
		if len(got) != 4 || !bytes.Equal(got[1].Content, big) || !bytes.Equal(got[3].Content, big) || string(got[2].Content) != "b" {
			t.Errorf("%d lines come back, or others", len(got))
		}
		if err := Seal(dir); err != nil {
			t.Fatal(err)
		}
	}
}

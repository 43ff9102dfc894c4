package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/agented/agented"
)

func TestAttempt_exit_recorded(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "echo out; echo err >&2; exit 3")
		exit := r.do()
		wantCode(t, r, exit, 3)
		wantLines(t, r, agented.Stdout, "out")
		wantLines(t, r, agented.Stderr, "err")
		wantLines(t, r, agented.System)
		if exit.LastSeq != 2 || exit.StartedAt.IsZero() || exit.FinishedAt.Before(exit.StartedAt) {
			t.Errorf("exit = %+v", exit)
		}
		if v := r.state(); v != Ended {
			t.Errorf("state %s", v)
		}
		if again, err := ReadExit(r.bundle); err != nil || cmp.Diff(exit, again) != "" {
			t.Errorf("exit.json: %v %s", err, cmp.Diff(exit, again))
		}
		// A second wait and a stop after the end are harmless.
		if again := r.wait(); again.Cause != exit.Cause {
			t.Errorf("second Wait: %+v", again)
		}
		if err := r.h.Stop(agented.CauseCancelled); err != nil {
			t.Errorf("Stop after the end: %v", err)
		}
		if _, err := Start(r.bundle, r.spec, r.priv, nil); agented.KindOf(err) != agented.Conflict {
			t.Errorf("a bundle can be started twice: %v", err)
		}
	})
}

func TestExit_foreign_signal(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "kill -SEGV $$")
	exit := r.do()
	if exit.Cause != agented.CauseExit || exit.Signal != "SIGSEGV" || exit.Code != nil {
		t.Errorf("exit = %+v", exit)
	}
	wantLines(t, r, agented.System, "The command was terminated by SIGSEGV.")
}

func TestStart_failure_reasons(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name   string
		change func(*Spec)
		want   string
	}{
		{"missing", func(s *Spec) { s.Path = "/nowhere/claude" }, "the program /nowhere/claude was not found"},
		{"directory", func(s *Spec) { s.Path = dir }, "is a folder"},
		{"not executable", func(s *Spec) { s.Path = file("a", "#!/bin/sh\n", 0o600) }, "a is not executable (run chmod +x)"},
		{"interpreter", func(s *Spec) { s.Path = file("b", "#!/nowhere/node\n", 0o700) }, "has an interpreter in its first line that was not found"},
		{"format", func(s *Spec) { s.Path = file("c", "hello\n", 0o700) }, "is not a program for this machine"},
		{"working directory", func(s *Spec) { s.Dir = "/nowhere/work" }, "the working directory /nowhere/work does not exist"},
		{"too long", func(s *Spec) { s.Args = append(s.Args, strings.Repeat("x", 200<<10)) }, "arguments and environment exceed the system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, agented.CapturePipe, "")
			c.change(&r.spec)
			exit := r.do()
			if exit.Cause != agented.CauseNoStart || exit.Code != nil || !strings.Contains(exit.Detail, c.want) {
				t.Errorf("exit = %+v, want %q in it", exit, c.want)
			}
			wantLines(t, r, agented.System, "The command could not be started: "+exit.Detail+".")
			if exit.LastSeq != 1 {
				t.Errorf("last seq %d", exit.LastSeq)
			}
		})
	}
}

func TestSpec_invalid(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*Spec){
		func(s *Spec) { s.Execution = "exec-../../x" },
		func(s *Spec) { s.Attempt = 0 },
		func(s *Spec) { s.Path = "sh" },
		func(s *Spec) { s.Dir = "" },
		func(s *Spec) { s.Args = nil },
		func(s *Spec) { s.Args = []string{"a\x00b"} },
		func(s *Spec) { s.Capture = "magic" },
		func(s *Spec) { s.Timeout = -1 },
	} {
		r := newRun(t, agented.CapturePipe, "")
		change(&r.spec)
		if _, err := Start(r.bundle, r.spec, r.priv, nil); agented.KindOf(err) != agented.Invalid {
			t.Errorf("%+v: %v", r.spec, err)
		}
		if _, err := os.Stat(r.bundle); err == nil {
			t.Errorf("%+v left a bundle", r.spec)
		}
	}
}

func TestEnvironment_and_arguments_exact(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "").program("environment", "a b", "", "ü")
		big := strings.Repeat("v", 100<<10) // more than a pipe holds, twice
		want := append([]string{"BIG=" + big, "BIGGER=" + big, "EMPTY=", "LINES=a\nb"}, r.priv.Env...)
		r.priv.Env = want
		wantCode(t, r, r.do(), 0)
		var got struct{ Args, Env []string }
		if err := json.Unmarshal(r.printed(agented.Stdout), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"environment", "a b", "", "ü"}, got.Args); diff != "" {
			t.Error(diff)
		}
		for _, e := range want {
			if !contains(got.Env, e) {
				t.Errorf("%.40q is missing", e)
			}
		}
		if len(got.Env) != len(want) {
			t.Errorf("%d variables, %d were given", len(got.Env), len(want))
		}
	})
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

func TestArguments_invalid_utf8(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CapturePipe, `printf '%s %s' "$1" "$BYTES" | od -An -tx1`)
	r.spec.Args = append(r.spec.Args, "sh", "\xff\xfe")
	r.priv.Env = append(r.priv.Env, "BYTES=\x80")
	wantCode(t, r, r.do(), 0)
	wantLines(t, r, agented.Stdout, " ff fe 20 80")
}

func TestBundle_contains_no_secret(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo $TOKEN")
	const secret = "hunter2-hunter2-hunter2"
	r.priv.Env = append(r.priv.Env, "TOKEN="+secret)
	r.priv.Mask = []string{secret}
	r.do()
	if err := RemoveRaw(r.bundle); err != nil {
		t.Fatal(err)
	}
	wantLines(t, r, agented.Stdout, "***")
	var seen []string
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen = append(seen, d.Name())
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		info, _ := d.Info()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{stdinFile, stdoutFile, stderrFile, socketFile, reserveFile} {
		if contains(seen, raw) {
			t.Errorf("%s is still there: %q", raw, seen)
		}
	}
}

func TestStdin_file_or_null(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, "cat; echo end")
		r.stdin = []byte("the prompt\x00\n")
		r.do()
		wantLines(t, r, agented.Stdout, "the prompt\x00", "end")

		r = newRun(t, c, "cat; readlink /proc/self/fd/0")
		r.do()
		wantLines(t, r, agented.Stdout, "/dev/null")
	})
}

func TestCapture_every_byte(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		r := newRun(t, c, `printf 'a\0b\n\377\376 bad\n10%%\r20%%\r\n\n  \nno end'`)
		wantCode(t, r, r.do(), 0)
		wantLines(t, r, agented.Stdout, "a\x00b", "\xff\xfe bad", "10%\r20%\r", "", "  ", "no end\\")
	})
}

func TestSplit_five_megabyte_line(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		const size = 5_300_000
		r := newRun(t, c, "").program("long", fmt.Sprint(size))
		wantCode(t, r, r.do(), 0)
		got := r.printed(agented.Stdout)
		if len(got) != size+1 {
			t.Errorf("%d bytes, want %d", len(got), size+1)
		}
		for i, b := range got[:size] {
			if b != 'a'+byte(i%26) {
				t.Fatalf("byte %d is %q", i, b)
			}
		}
		lines := r.lines()
		if n := len(lines); n != 6 || lines[0].Part != agented.PartFirst || lines[1].Part != agented.PartMiddle || lines[5].Part != agented.PartLast {
			t.Errorf("%q", r.contents(agented.Stdout))
		}
	})
}

func TestSplit_line_at_limit(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 << 20, 1<<20 + 1} {
		r := newRun(t, agented.CapturePipe, "").program("long", fmt.Sprint(size))
		r.do()
		if got := r.lines(); len(got) != 1+size-1<<20 || len(r.printed(agented.Stdout)) != size+1 {
			t.Errorf("%d bytes: %q", size, r.contents(""))
		}
	}
}

func TestSplit_quiet_line(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		fifo, second := newFifo(t), newFifo(t)
		r := newRun(t, c, `printf 'continue? [y/N] '; read x <"$1"; echo; printf 'last '; read x <"$2"`)
		r.spec.Args = append(r.spec.Args, "sh", fifo, second)
		began := time.Now()
		r.start()
		r.eventually("the prompt", func() bool { return len(r.contents(agented.Stdout)) == 1 })
		if took := time.Since(began); took < quiet*8/10 || took > bound/2 {
			t.Errorf("seen after %v", took)
		}
		unblock(t, fifo)
		r.eventually("the second prompt", func() bool { return len(r.contents(agented.Stdout)) == 3 })
		unblock(t, second)
		wantCode(t, r, r.wait(), 0)
		wantLines(t, r, agented.Stdout, "first: continue? [y/N] ", "last: ", "first: last ", "last: \\")
	})
}

// newFifo creates a pipe at which a script waits for letGo. It can be used once.
func newFifo(t *testing.T) string {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "go")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	return fifo
}

func unblock(t *testing.T, fifo string) {
	t.Helper()
	if err := os.WriteFile(fifo, []byte("y\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestMask_across_cuts(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		const secret = "s3cr3t-value-of-the-server"
		r := newRun(t, c, "").program("split", "a s3cr3t-v", "alue-of-", "the-server b\ns3cr3t", "-value-of-the-server", "\n", "s3cr3t-valu\n")
		r.priv.Mask = []string{secret}
		r.do()
		wantLines(t, r, agented.Stdout, "a *** b", "***", "s3cr3t-valu")

		// Across the position at which a long line is cut.
		r = newRun(t, c, `head -c 1048570 /dev/zero | tr '\0' x; echo s3cr3t-value-of-the-server`)
		r.priv.Mask = []string{secret}
		r.do()
		got := string(r.printed(agented.Stdout))
		if !strings.HasSuffix(got, "x***\n") || strings.Contains(got, "s3cr3t") {
			t.Errorf("ends in %q", got[len(got)-40:])
		}
	})
}

func TestMask_quiet_line(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CapturePipe, "printf 'key s3cr3t-val'; sleep 1.3; echo ue-of-the-server")
	r.priv.Mask = []string{"s3cr3t-value-of-the-server"}
	r.do()
	wantLines(t, r, agented.Stdout, "first: key ", "last: ***")
}

func TestCapture_truncated_file(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `echo before; sleep 0.2; : > /dev/stdout; echo after; sleep 0.2; echo end`)
	wantCode(t, r, r.do(), 0)
	wantLines(t, r, agented.Stdout, "before", "after", "end")
	wantLines(t, r, agented.System, "The output file of stdout was truncated; earlier output is already in this log.")
}

func TestCapture_reopened_output(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CapturePipe, `echo one; echo two > /dev/stdout; echo three > /dev/stderr; echo four | tee /dev/stderr`)
	wantCode(t, r, r.do(), 0)
	wantLines(t, r, agented.Stdout, "one", "two", "four")
	wantLines(t, r, agented.Stderr, "three", "four")
}

func TestCapture_terminal(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CapturePTY, `test -t 1 && test -t 2 && echo yes; stty size </dev/tty; echo err >&2; printf end`)
	wantCode(t, r, r.do(), 0)
	wantLines(t, r, agented.Stdout, "yes", "40 120", "err", "end\\")
}

func TestCapture_stream_order(t *testing.T) {
	for _, c := range append(captures, agented.CapturePTY) {
		t.Run(string(c), func(t *testing.T) {
			t.Parallel()
			const n = 50_000
			r := newRun(t, c, "").program("chatty", fmt.Sprint(n), "40")
			wantCode(t, r, r.do(), 0)
			lines := r.lines()
			if len(lines) != n {
				t.Fatalf("%d lines, want %d", len(lines), n)
			}
			for i, l := range lines {
				if !bytes.HasPrefix(l.Content, fmt.Appendf(nil, "%08d", i+1)) {
					t.Fatalf("line %d is %q", i+1, l.Content)
				}
			}
		})
	}
}

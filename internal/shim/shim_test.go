package shim

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/sandbox"
	"github.com/agented/agented/internal/testrun"
)

// The test binary contains all programs of a test: the shim, which Start runs as this program
// under its own name, and the stand-ins for a CLI and a server.
func TestMain(m *testing.M) {
	switch os.Args[0] {
	case shimName, fmt.Sprintf("/proc/self/fd/%d", initProgramFD):
		haltEvery = 100 * time.Millisecond
		os.Exit(Main())
	case "stand-in":
		os.Exit(standIn(os.Args[1:]))
	case "adopter":
		os.Exit(adopter())
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(m.Run())
}

// levelVariable names the sandbox level of all attempts of a test run.
const levelVariable = "AGENTED_TEST_SANDBOX"

// guard returns a sandbox of the level of the test run, at least guard, in which everything in folders of tests can be written.
func guard(t testing.TB, r sandbox.Request) *Box {
	t.Helper()
	return boxAt(t, cmp.Or(agented.Sandbox(os.Getenv(levelVariable)), agented.SandboxGuard), r)
}

// boxAt is like guard for any level.
func boxAt(t testing.TB, level agented.Sandbox, r sandbox.Request) *Box {
	t.Helper()
	r.Level, r.Root, r.UID = level, os.Geteuid() == 0, os.Getuid()
	r.Own = append(r.Own, sandbox.Folder{Path: os.TempDir()})
	f, err := sandbox.Resolve(r)
	if err == nil {
		err = sandbox.Probe(t.Context(), f)
	}
	if err != nil {
		t.Skip("NOT TESTED AT SANDBOX LEVEL "+strings.ToUpper(string(level))+": ", err)
	}
	return &Box{Level: level, Command: f.Command()}
}

// bound is the timeout for events that take milliseconds.
const bound = time.Minute

// run is one attempt of a test.
type run struct {
	t      testing.TB
	dir    string // the execution's folder
	bundle string
	spec   Spec
	priv   Private
	stdin  []byte
	h      *Handle
}

// newRun describes an attempt that runs a shell script.
func newRun(t testing.TB, capture agented.Capture, script string) *run {
	t.Helper()
	r := &run{t: t, dir: filepath.Join(t.TempDir(), "execution")}
	work := filepath.Join(t.TempDir(), "work")
	for _, dir := range []string{r.dir, work} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.bundle = filepath.Join(r.dir, "attempt-1")
	r.spec = Spec{
		Execution: agented.ExecutionID(agented.NewID("exec", time.Now())), Attempt: 1, FirstSeq: 1,
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Dir: work, Capture: capture,
		Grace: 5 * time.Second, CreatedAt: time.Now().UTC(),
	}
	if level := agented.Sandbox(os.Getenv(levelVariable)); level != "" {
		r.spec.Sandbox = boxAt(t, level, sandbox.Request{})
	}
	r.priv.Env = []string{"PATH=/usr/bin:/bin", agented.EnvExecution + "=" + string(r.spec.Execution)}
	t.Cleanup(r.cleanUp)
	return r
}

// program makes the attempt run a stand-in instead.
func (r *run) program(args ...string) *run {
	exe, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	r.spec.Path, r.spec.Args = exe, append([]string{"stand-in"}, args...)
	return r
}

// cleanUp kills the processes that a failed test left.
func (r *run) cleanUp() {
	var b begun
	if readJSON(filepath.Join(r.bundle, begunFile), &b) == nil {
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
			p, ok := lookUp(b.ShimPID)
			if !ok || p.start != b.ShimStart {
				break
			}
			if time.Now().After(deadline) {
				r.t.Errorf("the shim %d still runs", b.ShimPID)
				_ = p.signal(unix.SIGKILL)
				break
			}
		}
	}
	if log, _ := os.ReadFile(filepath.Join(r.bundle, logFile)); bytes.Contains(log, []byte("DATA RACE")) || bytes.Contains(log, []byte("goroutine ")) {
		r.t.Errorf("shim.log:\n%s", log)
	}
	if left := r.orphans(); len(left) > 0 {
		r.t.Errorf("left over: %q", names(left, nil))
		for _, p := range left {
			_ = p.signal(unix.SIGKILL)
		}
	}
}

func (r *run) orphans() []process {
	return orphans(childRecord{}, nil, agented.EnvExecution+"="+string(r.spec.Execution))
}

func (r *run) start() *run {
	r.t.Helper()
	h, err := Start(r.bundle, r.spec, r.priv, r.stdin)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(r.bundle, logFile))
		r.t.Fatalf("Start: %v\n%s", err, log)
	}
	r.h = h
	return r
}

// wait waits for the end.
func (r *run) wait() agented.Exit {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	exit, err := r.h.Wait(ctx)
	if err != nil {
		r.t.Fatalf("Wait: %v\n%s", err, r.describe())
	}
	r.gone()
	return exit
}

// gone waits until the shim's process has ended, which is shortly after its exit record.
func (r *run) gone() {
	r.t.Helper()
	r.eventually("the shim to let go of the lock", func() bool {
		locked, err := isLocked(r.bundle)
		return err == nil && !locked
	})
}

func (r *run) do() agented.Exit {
	r.t.Helper()
	return r.start().wait()
}

func (r *run) describe() string {
	log, _ := os.ReadFile(filepath.Join(r.bundle, logFile))
	lines := r.contents("")
	return fmt.Sprintf("shim.log:\n%s\n%d lines: %q", log, len(lines), lines[max(0, len(lines)-20):])
}

func (r *run) eventually(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(bound); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain for %s\n%s", what, r.describe())
		}
	}
}

// lines reads the log. Numbers must run from 1 without a gap.
func (r *run) lines() []agented.LogLine {
	r.t.Helper()
	rd, err := runlog.OpenReader(r.dir)
	if err != nil {
		return nil
	}
	defer rd.Close()
	var all, batch []agented.LogLine
	for {
		batch, err = rd.Next(batch[:0], 0, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(batch) == 0 {
			break
		}
		for _, l := range batch {
			l.Content = bytes.Clone(l.Content)
			all = append(all, l)
			if l.Seq != agented.Seq(len(all)) {
				r.t.Fatalf("record %d has number %d", len(all), l.Seq)
			}
		}
	}
	return all
}

// contents returns the lines of a stream ("" for all) as "stream part: text".
func (r *run) contents(s agented.Stream) []string {
	r.t.Helper()
	var out []string
	for _, l := range r.lines() {
		if s != "" && l.Stream != s {
			continue
		}
		text := string(l.Content)
		if len(text) > 200 {
			text = fmt.Sprintf("%s… (%d bytes)", text[:20], len(text))
		}
		if l.Part != agented.PartWhole {
			text = string(l.Part) + ": " + text
		}
		if l.NoEOL {
			text += "\\"
		}
		if s == "" {
			text = string(l.Stream) + " " + text
		}
		out = append(out, text)
	}
	return out
}

// printed joins the lines of a stream to the original output.
func (r *run) printed(s agented.Stream) []byte {
	r.t.Helper()
	var out []byte
	open := false
	for _, l := range r.lines() {
		if l.Stream != s {
			continue
		}
		first := l.Part == agented.PartWhole || l.Part == agented.PartFirst
		if first == open {
			r.t.Fatalf("line %d: part %q out of place", l.Seq, l.Part)
		}
		open = l.Part == agented.PartFirst || l.Part == agented.PartMiddle
		out = append(out, l.Content...)
		if !open && !l.NoEOL {
			out = append(out, '\n')
		}
	}
	return out
}

// shimPID returns the pid of the shim.
func (r *run) shimPID() int {
	r.t.Helper()
	var b begun
	if err := readJSON(filepath.Join(r.bundle, begunFile), &b); err != nil {
		r.t.Fatal(err)
	}
	return b.ShimPID
}

// killShim kills the shim.
func (r *run) killShim() {
	r.t.Helper()
	if err := unix.Kill(r.shimPID(), unix.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	r.gone()
}

func (r *run) settle() agented.Exit {
	r.t.Helper()
	exit, err := Settle(r.bundle, Private{Mask: r.priv.Mask})
	if err != nil {
		r.t.Fatalf("Settle: %v", err)
	}
	return exit
}

// state returns the state that a server would find.
func (r *run) state() BundleState {
	r.t.Helper()
	f, err := Inspect(r.bundle)
	if err != nil {
		r.t.Fatal(err)
	}
	return Decide(f)
}

func wantCode(t *testing.T, r *run, exit agented.Exit, code int) {
	t.Helper()
	if exit.Cause != agented.CauseExit || exit.Code == nil || *exit.Code != code {
		t.Errorf("ended by %q with %v %s %q, want exit %d\n%s", exit.Cause, show(exit.Code), exit.Signal, exit.Detail, code, r.describe())
	}
}

func show(code *int) string {
	if code == nil {
		return "no code"
	}
	return fmt.Sprint(*code)
}

func wantLines(t *testing.T, r *run, s agented.Stream, want ...string) {
	t.Helper()
	if got := r.contents(s); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s is %q, want %q", s, got, want)
	}
}

// captures are the capture modes that do not change the output.
var captures = []agented.Capture{agented.CaptureFile, agented.CapturePipe}

func eachCapture(t *testing.T, f func(t *testing.T, c agented.Capture)) {
	t.Parallel()
	for _, c := range captures {
		t.Run(string(c), func(t *testing.T) {
			t.Parallel()
			f(t, c)
		})
	}
}

package shim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

func itoa(n int) string { return strconv.Itoa(n) }

// serverProcess is a process that starts the attempt and can then be killed.
func serverProcess(t *testing.T, r *run) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	what, err := json.Marshal(map[string]any{"Bundle": r.bundle, "Spec": r.spec, "Env": r.priv.Env})
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: exe, Args: []string{"stand-in", "server", string(what)}, Env: []string{}}
}

// startBy starts the server process and adopts its attempt.
func (r *run) startBy(server *exec.Cmd) {
	r.t.Helper()
	out, err := server.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = server.Process.Kill() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		r.t.Fatalf("server: %q %v", line, err)
	}
	if r.h, err = Adopt(r.bundle); err != nil {
		r.t.Fatal(err)
	}
}

func TestDecide_all_facts(t *testing.T) {
	t.Parallel()
	for i := range 32 {
		f := Facts{Locked: i&1 != 0, Spec: i&2 != 0, Begun: i&4 != 0, Exit: i&8 != 0, SameBoot: i&16 != 0}
		want := NeverStarted
		if f.Begun {
			want = Lost
		}
		if f.Locked {
			want = Running
		}
		if f.Exit {
			want = Ended
		}
		if got := Decide(f); got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
	}
	for v, want := range map[BundleState]string{NeverStarted: "never started", Running: "running", Ended: "ended", Lost: "lost", 9: "BundleState(9)"} {
		if v.String() != want {
			t.Errorf("%q, want %q", v, want)
		}
	}
}

func TestInspect_attempt_states(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ready; sleep 600")
	if v := r.state(); v != NeverStarted {
		t.Errorf("without a bundle: %s", v)
	}
	if err := layOut(r.bundle, &r.spec, nil); err != nil {
		t.Fatal(err)
	}
	if v := r.state(); v != NeverStarted {
		t.Errorf("with a spec: %s", v)
	}
	lock, err := takeLock(r.bundle)
	if err != nil {
		t.Fatal(err)
	}
	if v := r.state(); v != Running {
		t.Errorf("with the lock taken: %s", v)
	}
	if _, err := Start(r.bundle, r.spec, r.priv, nil); agented.KindOf(err) != agented.Conflict {
		t.Errorf("Start under another's lock: %v", err)
	}
	if _, err := Settle(r.bundle, Private{}); agented.KindOf(err) != agented.Conflict {
		t.Errorf("Settle under another's lock: %v", err)
	}
	lock.Close()
	r.start()
	f, err := Inspect(r.bundle)
	if err != nil || f != (Facts{Locked: true, Spec: true, Begun: true, SameBoot: true}) {
		t.Errorf("running: %+v %v", f, err)
	}
	r.killShim()
	if v := r.state(); v != Lost {
		t.Errorf("killed: %s", v)
	}
	if _, err := r.h.Wait(context.Background()); !errors.Is(err, ErrLost) {
		t.Errorf("Wait: %v", err)
	}
	if err := r.h.Stop(agented.CauseCancelled); err != nil {
		t.Errorf("Stop of what is gone: %v", err)
	}
	r.settle()
	if v := r.state(); v != Ended {
		t.Errorf("settled: %s", v)
	}
}

func TestWait_shim_death_and_context(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "sleep 600").start()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.h.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait: %v", err)
	}
	lost := make(chan error, 1)
	go func() {
		_, err := r.h.Wait(context.Background())
		lost <- err
	}()
	r.killShim()
	select {
	case err := <-lost:
		if !errors.Is(err, ErrLost) {
			t.Errorf("Wait: %v", err)
		}
	case <-time.After(bound):
		t.Fatal("Wait does not notice")
	}
	exit := r.settle()
	wantSettled(t, r, exit)
	if again := r.settle(); again.FinishedAt != exit.FinishedAt {
		t.Errorf("settled twice: %+v, %+v", exit, again)
	}
}

func wantSettled(t *testing.T, r *run, exit agented.Exit) {
	t.Helper()
	if exit.Cause != agented.CauseLost || exit.Detail != "its shim was killed while it was running" || exit.StartedAt.IsZero() {
		t.Errorf("exit = %+v", exit)
	}
	if left := r.orphans(); len(left) != 0 {
		t.Errorf("still alive: %q", names(left, nil))
	}
	said := r.contents(agented.System)
	if len(said) == 0 || said[0] != "Interrupted: its shim was killed while it was running." {
		t.Errorf("the log says %q", said)
	}
	if n := len(r.lines()); agented.Seq(n) != exit.LastSeq {
		t.Errorf("%d lines, last seq %d", n, exit.LastSeq)
	}
}

func TestSettle_drains_raw_files(t *testing.T) {
	t.Parallel()
	for i := range 5 {
		t.Run(itoa(i), func(t *testing.T) {
			t.Parallel()
			// The leader dies with the shim; one of its children continues to print until it is
			// found.
			r := newRun(t, agented.CaptureFile, "")
			exe, _ := os.Executable()
			r.spec.Args = []string{"sh", "-c", fmt.Sprintf(`bash -c 'exec -a stand-in %s ticking 100000000 %d' & printf unfinished >&2; wait`, exe, i*50)}
			r.start()
			r.eventually("some lines", func() bool { return len(r.lines()) > 100+i*100 })
			r.killShim()
			time.Sleep(time.Duration(i) * 5 * time.Millisecond) // further output that nothing reads
			exit := r.settle()
			wantSettled(t, r, exit)
			// On a busy machine the leader may still exist, with its signal pending.
			child := slices.DeleteFunc(slices.Clone(exit.Survivors), func(s string) bool { return strings.HasSuffix(s, " sh") })
			if len(child) != 1 || !strings.Contains(child[0], "stand-in ticking") || len(exit.Survivors) > 2 {
				t.Errorf("survivors %q", exit.Survivors)
			}
			raw, err := os.ReadFile(filepath.Join(r.bundle, stdoutFile))
			if err != nil {
				t.Fatal(err)
			}
			got := r.printed(agented.Stdout)
			if len(got) != len(raw) {
				t.Errorf("%d bytes logged, %d printed", len(got), len(raw))
			}
			n := 0
			for line := range bytes.Lines(got) {
				n++
				if !bytes.HasPrefix(line, fmt.Appendf(nil, "%d ", n)) && bytes.HasSuffix(line, []byte("\n")) {
					t.Fatalf("line %d is %q", n, line)
				}
			}
			if got := string(r.printed(agented.Stderr)); got != "unfinished" {
				t.Errorf("stderr %q", got)
			}
		})
	}
}

func TestSettle_repeated(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `echo one; printf 'two is cut'; sleep 600`).start()
	r.eventually("the cut line", func() bool { return len(r.contents(agented.Stdout)) == 2 })
	r.killShim()
	f, err := os.OpenFile(filepath.Join(r.bundle, stdoutFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, " here\nthree")
	f.Close()
	want := []string{"one", "first: two is cut", "last:  here", "three\\"}
	for range 3 { // as if it had crashed before its last step
		os.Remove(filepath.Join(r.bundle, exitFile))
		r.settle()
		wantLines(t, r, agented.Stdout, want...)
	}
}

func TestSettle_after_reboot(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, `setsid sleep 600 & echo ready; wait`).start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 && len(r.orphans()) == 2 })
	r.killShim()
	var b begun
	path := filepath.Join(r.bundle, begunFile)
	if err := readJSON(path, &b); err != nil {
		t.Fatal(err)
	}
	b.BootID = "another"
	if err := writeJSON(path, b); err != nil {
		t.Fatal(err)
	}
	if f, err := Inspect(r.bundle); err != nil || f.SameBoot {
		t.Errorf("%+v %v", f, err)
	}
	exit := r.settle()
	if exit.Cause != agented.CauseLost || exit.Detail != "the machine was restarted while it was running" || len(exit.Survivors) != 0 {
		t.Errorf("exit = %+v", exit)
	}
	left := r.orphans()
	if len(left) != 1 {
		t.Errorf("%q are alive, one should be", names(left, nil))
	}
	for _, p := range left {
		_ = p.signal(unix.SIGKILL)
	}
	r.eventually("it to be gone", func() bool { return len(r.orphans()) == 0 })
}

func TestShim_survives_server(t *testing.T) {
	eachCapture(t, func(t *testing.T, c agented.Capture) {
		fifo := newFifo(t)
		r := newRun(t, c, `echo begun; read x <"$1"; echo went on; exit 5`)
		r.spec.Args = append(r.spec.Args, "sh", fifo)
		server := serverProcess(t, r)
		server.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
		r.startBy(server)
		pid := r.h.PID()
		if err := unix.Kill(-server.Process.Pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = server.Wait()
		if v := r.state(); v != Running {
			t.Fatalf("state %s", v)
		}
		h, err := Adopt(r.bundle)
		if err != nil {
			t.Fatal(err)
		}
		if r.h = h; h.PID() != pid || pid == 0 {
			t.Errorf("the CLI is %d, was %d", h.PID(), pid)
		}
		unblock(t, fifo)
		wantCode(t, r, r.wait(), 5)
		wantLines(t, r, agented.Stdout, "begun", "went on")
	})
}

func TestExit_without_server(t *testing.T) {
	t.Parallel()
	fifo := newFifo(t)
	r := newRun(t, agented.CaptureFile, `echo begun; read x <"$1"; exit 6`)
	r.spec.Args = append(r.spec.Args, "sh", fifo)
	server := serverProcess(t, r)
	r.startBy(server)
	_ = server.Process.Kill()
	_ = server.Wait()
	unblock(t, fifo)
	r.eventually("the end", func() bool { return r.state() == Ended })
	exit, err := ReadExit(r.bundle)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, r, exit, 6)
	r.gone()
}

func TestHandover_server_killed(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ran")
	if err := layOut(r.bundle, &r.spec, nil); err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(r.bundle)
	if err != nil {
		t.Fatal(err)
	}
	h := handover{Args: r.spec.Args, Env: []string{"A=b"}}
	half := h.encode()
	shim, err := newWarmShim()
	if err != nil {
		t.Fatal(err)
	}
	// Everything except the last three bytes is sent.
	a, err := shim.orderPart(t, r.bundle, lock, half[:len(half)-3])
	lock.Close()
	if err != nil || !strings.Contains(a.Error, "read environment from the server") {
		t.Errorf("%+v %v", a, err)
	}
	r.gone()
	if v := r.state(); v != NeverStarted {
		t.Errorf("state %s", v)
	}
	if r.lines() != nil {
		t.Errorf("log %q", r.contents(""))
	}
	// The same bundle can then be used.
	wantCode(t, r, r.do(), 0)
}

// A shim that still waits for its server's handover cannot be adopted: when it ends, nothing has
// begun.
func TestHandover_missing(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ran")
	if err := layOut(r.bundle, &r.spec, nil); err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(r.bundle)
	if err != nil {
		t.Fatal(err)
	}
	shim, err := newWarmShim()
	if err != nil {
		t.Fatal(err)
	}
	shim.send(t, r.bundle, lock)
	lock.Close()
	r.eventually("the shim to listen", func() bool {
		_, err := (&Handle{bundle: r.bundle}).requestOnce(t.Context(), request{Verb: "hello"})
		return err == nil
	})
	adopted := make(chan error, 1)
	go func() {
		_, err := Adopt(r.bundle)
		adopted <- err
	}()
	select {
	case err := <-adopted:
		t.Errorf("adopted before anything has begun, or given up: %v", err)
		adopted <- err
	case <-time.After(200 * time.Millisecond): // nothing comes while it waits
	}
	shim.conn.Close() // its server ends
	if err := testrun.Receive(t, adopted, "the adoption to end"); err == nil {
		t.Error("adopted")
	}
	r.gone()
	if v := r.state(); v != NeverStarted {
		t.Errorf("state %s", v)
	}
	wantCode(t, r, r.do(), 0)
}

// send gives an order without the handover.
func (s *warmShim) send(t *testing.T, bundle string, lock *os.File) {
	t.Helper()
	log, err := os.Create(filepath.Join(bundle, logFile))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	dir, err := os.Open(bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, _, err := s.conn.WriteMsgUnix([]byte{orderMark}, unix.UnixRights(int(dir.Fd()), int(log.Fd()), int(lock.Fd())), nil); err != nil {
		t.Fatal(err)
	}
}

// orderPart sends what a server sends that dies halfway.
func (s *warmShim) orderPart(t *testing.T, bundle string, lock *os.File, hand []byte) (a answer, err error) {
	t.Helper()
	s.send(t, bundle, lock)
	if _, err := s.conn.Write(hand); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return a, json.Unmarshal(<-s.answers, &a)
}

func TestHandover_bytes_and_damage(t *testing.T) {
	t.Parallel()
	in := handover{Args: []string{"", "\xff\x00\n"}, Env: []string{"A=" + strings.Repeat("x", 1<<20)}}
	b := in.encode()
	out, err := readHandover(bytes.NewReader(b))
	if err != nil || fmt.Sprint(*out) != fmt.Sprint(in) {
		t.Errorf("%v", err)
	}
	for _, n := range []int{0, 7, 8, 9, len(b) - 1} {
		if _, err := readHandover(bytes.NewReader(b[:n])); err == nil {
			t.Errorf("%d of %d bytes are taken", n, len(b))
		}
	}
	for i := 8; i < 14; i++ {
		bad := bytes.Clone(b)
		bad[i] = 0xfe
		_, _ = readHandover(bytes.NewReader(bad)) // no panic, no huge allocation
	}
}

// say sends a line to the shim and returns its answer.
func say(t *testing.T, r *run, line string) map[string]any {
	t.Helper()
	conn, err := dialUnix(r.bundle, socketFile)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(bound))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.NewDecoder(conn).Decode(&out); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out
}

func TestVersion_other_server(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "echo ready; sleep 600").start()
	r.eventually("the start", func() bool { return len(r.contents(agented.Stdout)) == 1 })
	hello := say(t, r, `{"v":7,"verb":"hello","colour":"blue","deep":{"a":[1]}}`)
	if hello["execution"] != string(r.spec.Execution) || hello["state"] != "running" || hello["last_seq"] != 1.0 ||
		hello["child_pid"] != float64(r.h.PID()) || hello["shim_pid"] != float64(r.shimPID()) || hello["v"] != 1.0 {
		t.Errorf("hello: %v", hello)
	}
	for verb, want := range map[string]string{"resume": "not paused", "dance": "unknown verb dance"} {
		if got := say(t, r, `{"v":1,"verb":"`+verb+`"}`); !strings.Contains(fmt.Sprint(got["error"]), want) {
			t.Errorf("%s: %v", verb, got)
		}
	}
	if got := say(t, r, `nonsense`); got["error"] == nil {
		t.Errorf("nonsense: %v", got)
	}
	st, err := os.Stat(filepath.Join(r.bundle, socketFile))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
	if got := say(t, r, `{"v":2,"verb":"stop","cause":"cancelled","why":"new"}`); got["error"] != nil {
		t.Errorf("stop: %v", got)
	}
	if exit := r.wait(); exit.Cause != agented.CauseCancelled {
		t.Errorf("exit = %+v", exit)
	}
}

func TestVersion_other_shim(t *testing.T) {
	t.Parallel()
	r := newRun(t, agented.CaptureFile, "")
	if err := layOut(r.bundle, &r.spec, nil); err != nil {
		t.Fatal(err)
	}
	lock, err := takeLock(r.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	// A long folder name needs the workaround, also for listening.
	link := filepath.Join("/tmp", "agshim-"+itoa(os.Getpid()))
	if err := os.Symlink(r.bundle, link); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	l, err := net.Listen("unix", filepath.Join(link, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			switch {
			case strings.Contains(line, "hello"):
				fmt.Fprintf(conn, `{"v":9,"execution":%q,"attempt":1,"child_pid":4711,"state":"frozen","news":{"x":[]}}`+"\n", r.spec.Execution)
			case strings.Contains(line, "wait"):
				fmt.Fprint(conn, `{"v":9,"ended":{"cause":"exit","code":3,"last_seq":12,"mood":"good"},"more":1}`+"\n")
			}
			conn.Close()
		}
	}()
	h, err := Adopt(r.bundle)
	if err != nil || h.PID() != 4711 {
		t.Fatalf("Adopt: %+v %v", h, err)
	}
	exit, err := h.Wait(context.Background())
	if err != nil || exit.Code == nil || *exit.Code != 3 || exit.LastSeq != 12 {
		t.Errorf("Wait: %+v %v", exit, err)
	}
	l.Close()
	<-served
}

func TestShim_for_server_only(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: exe, Args: []string{shimName, "shim"}, Dir: t.TempDir(), Env: []string{}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "for internal use by the server") {
		t.Errorf("%q %v", out, err)
	}
}

func TestAttempts_concurrent(t *testing.T) {
	t.Parallel()
	const n = 10
	runs := make([]*run, n)
	for i := range runs {
		runs[i] = newRun(t, captures[i%2], fmt.Sprintf("for i in 1 2 3 4 5; do echo %d; sleep 0.02; done; exit %d", i, i)).start()
	}
	for i, r := range runs {
		wantCode(t, r, r.wait(), i)
		wantLines(t, r, agented.Stdout, itoa(i), itoa(i), itoa(i), itoa(i), itoa(i))
	}
}

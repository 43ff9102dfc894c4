package dispatch_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/testrun"
)

func TestFire_runs_to_end(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	id := h.fire(d, command("sh", "-c", "echo hi; exit 3"))
	e := h.await(id)
	if e.State != agented.StateFailed || e.ExitCode == nil || *e.ExitCode != 3 || e.Error == "" || e.AttemptNo != 1 {
		t.Errorf("execution = %+v", e)
	}
	if got := h.text(id); got != "hi\n" {
		t.Errorf("log = %q", got)
	}
}

// parent is the process that started pid: the shim of a command.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skipf("the shim's process cannot be found here: %v", err)
	}
	var state string
	var ppid int
	if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &ppid); err != nil {
		t.Fatal(err)
	}
	return ppid
}

func TestRecover_bundle_states(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	// This dispatcher only admits; executions are claimed manually, as by a server that dies
	// right after the claim.
	admits := h.dispatcher(nil)
	claim := func(spec *agented.Spec) *agented.Execution {
		h.fire(admits, spec)
		e, err := h.db.Claim(t.Context(), node, 10, time.Now().UTC(), time.Minute)
		if err != nil || e == nil {
			t.Fatalf("claim: %v %v", e, err)
		}
		return e
	}
	start := func(e *agented.Execution, script string) *shim.Handle {
		t.Helper()
		if err := os.MkdirAll(h.layout.Execution(e.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		handle, err := shim.Start(h.layout.Attempt(e.ID, 1), shim.Spec{
			Execution: e.ID, Attempt: 1, FirstSeq: 1, Path: "/bin/sh", Args: []string{"sh", "-c", script},
			Dir: h.layout.Root, Capture: agented.CaptureFile, Grace: time.Second, OutputCap: 1 << 30, MinFree: 1, CreatedAt: time.Now(),
		}, shim.Private{Env: []string{"PATH=/usr/bin:/bin", "AGENTED_EXECUTION_ID=" + string(e.ID)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return handle
	}

	never := claim(command("sh", "-c", "echo never; exit 5"))
	running := claim(command("sh", "-c", "ignored: it runs already"))
	gate := filepath.Join(h.layout.Root, "gate")
	start(running, "echo running; while [ ! -e "+gate+" ]; do sleep 0.02; done; exit 6")
	ended := claim(command("ignored"))
	if _, err := start(ended, "echo ended; exit 7").Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost := claim(command("ignored"))
	handle := start(lost, "echo lost; exec sleep 1000")
	for h.text(lost.ID) == "" {
		select {
		case <-t.Context().Done():
			t.Fatal("no output")
		case <-time.After(5 * time.Millisecond):
		}
	}
	syscall.Kill(parent(t, handle.PID()), syscall.SIGKILL)
	stopped := claim(command("ignored"))
	start(stopped, "echo stopped; exec sleep 1000")
	eventually(t, "its output", func() bool { return h.text(stopped.ID) != "" })
	if _, err := h.db.RequestCancel(t.Context(), stopped.ID, "somebody", time.Now().UTC()); err != nil {
		t.Fatal(err)
	}

	d := h.dispatcher(nil)
	defer h.run(d)()
	for _, c := range []struct {
		e     *agented.Execution
		state agented.State
		code  int // -1: none
		text  string
	}{
		{never, agented.StateFailed, 5, "never\n"},
		{ended, agented.StateFailed, 7, "ended\n"},
		{lost, agented.StateInterrupted, -1, "lost\n"},
		{stopped, agented.StateCancelled, -1, "stopped\n"},
		{running, agented.StateFailed, 6, "running\n"},
	} {
		if c.e == running {
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		e := h.await(c.e.ID)
		code := -1
		if e.ExitCode != nil {
			code = *e.ExitCode
		}
		if e.State != c.state || code != c.code || e.AttemptNo != 1 || e.Error == "" {
			t.Errorf("%s: state %s, code %d, attempt %d, error %q; want %s and %d", strings.TrimSpace(c.text), e.State, code, e.AttemptNo, e.Error, c.state, c.code)
		}
		if got := h.text(c.e.ID); got != c.text {
			t.Errorf("log = %q, want %q", got, c.text)
		}
	}
}

func TestCancel_at_any_time(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	by := agented.Principal{Name: "somebody", Role: agented.RoleAdmin}
	for range 20 {
		id := h.fire(d, command("sleep", "1000"))
		// The execution is pending, starting, or running now.
		if _, err := d.Cancel(t.Context(), id, by); err != nil {
			t.Fatal(err)
		}
		if e := h.await(id); e.State != agented.StateCancelled || !strings.Contains(e.Reason, "somebody") {
			t.Errorf("state %s, reason %q", e.State, e.Reason)
		}
		if _, err := d.Cancel(t.Context(), id, by); !errors.Is(err, agented.Conflict) {
			t.Errorf("cancel of an ended one: %v", err)
		}
		again, err := d.Retry(t.Context(), id, by)
		if err != nil || again.RetryOf != id {
			t.Fatalf("retry: %+v %v", again, err)
		}
		if _, err := d.Retry(t.Context(), again.ID, by); !errors.Is(err, agented.Conflict) {
			t.Errorf("retry of one that has not ended: %v", err)
		}
		if _, err := d.Cancel(t.Context(), again.ID, by); err != nil {
			t.Fatal(err)
		}
		h.await(again.ID)
	}
}

func TestFire_rejected(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	off := &agented.Trigger{ID: "trg-x", Name: "off", Spec: *command("true")}
	long := command("true")
	long.Prompt = "{message}"
	for _, c := range []struct {
		name string
		f    dispatch.Firing
		kind agented.Kind
		says string
	}{
		{"disabled", dispatch.Firing{Trigger: off, Source: agented.SourceManual}, agented.Conflict, "disabled"},
		{"bad spec", dispatch.Firing{Spec: &agented.Spec{Backend: "command"}, Source: agented.SourceManual}, agented.Invalid, "command"},
		{"long message", dispatch.Firing{Spec: long, Message: strings.Repeat("x", agented.MaxPrompt+1)}, agented.Invalid, "shorter"},
		{"NUL", dispatch.Firing{Spec: long, Message: "a\x00b"}, agented.Invalid, "NUL"},
	} {
		_, _, err := d.Fire(t.Context(), c.f)
		if !errors.Is(err, c.kind) || !strings.Contains(agented.Message(err), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCommand_start_failure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	for _, c := range []struct {
		spec *agented.Spec
		says string
	}{
		{command("no-such-program"), "no-such-program"},
		{&agented.Spec{Backend: "claude", Prompt: "hi"}, "npm"},
		{&agented.Spec{Backend: "command", Command: []string{"true"}, WorkingDir: "/no/such/dir"}, "/no/such/dir"},
		{&agented.Spec{Backend: "command", Command: []string{"/etc/passwd"}}, "/etc/passwd"},
	} {
		id := h.fire(d, c.spec)
		e := h.await(id)
		if e.State != agented.StateFailed || !strings.Contains(e.Error, c.says) || e.LastSeq == 0 {
			t.Errorf("%v: state %s, error %q, %d lines", c.spec.Command, e.State, e.Error, e.LastSeq)
		}
	}
}

func TestDispatcher_idle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		var asked atomic.Int64
		d := h.dispatcher(func(o *dispatch.Options) {
			o.Now = func() time.Time { asked.Add(1); return time.Now() }
		})
		stop := h.run(d)
		due := time.Now().UTC().Add(5*time.Hour + 123*time.Millisecond)
		spec := command("no-such-program")
		_, err := h.db.Admit(t.Context(), store.Admission{Execution: &agented.Execution{
			ID: agented.ExecutionID(agented.NewID("exec", time.Now())), State: agented.StatePending, Source: agented.SourceSchedule,
			Backend: spec.Backend, Snapshot: spec.WithDefaults(), CreatedAt: time.Now().UTC(), ScheduledAt: due,
		}, Overlap: agented.OverlapQueue}, time.Now().UTC())
		if err != nil {
			t.Fatal(err)
		}
		d.Wake()
		time.Sleep(5*time.Hour + time.Minute) // fake time
		synctest.Wait()
		stop()
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.waits) != 1 || h.waits[0] > 20*time.Millisecond {
			t.Errorf("claimed %v after it was due, want once within 20ms", h.waits)
		}
		// A few reads of the clock per 20 seconds and per renewal.
		if limit := 5 * 3600 / 20 * 8; asked.Load() > int64(limit) {
			t.Errorf("%d looks at the clock in five idle hours, want at most %d", asked.Load(), limit)
		}
	})
}

func TestShutdown_leaves_attempts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first := h.dispatcher(nil)
	stop := h.run(first)
	gate := filepath.Join(h.layout.Root, "gate")
	id := h.fire(first, command("sh", "-c", "echo up; while [ ! -e "+gate+" ]; do sleep 0.02; done; echo down"))
	for first.Running() == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("it does not run")
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	if e, err := h.db.Execution(t.Context(), id); err != nil || e.State != agented.StateRunning {
		t.Fatalf("after the drain: %+v %v", e, err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer h.run(h.dispatcher(nil))()
	if e := h.await(id); e.State != agented.StateSuccess || e.AttemptNo != 1 {
		t.Errorf("execution = %+v", e)
	}
	if got := h.text(id); got != "up\ndown\n" {
		t.Errorf("log = %q", got)
	}
}

func TestRecover_stale_lease(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(func(o *dispatch.Options) {
		o.LeaseTTL, o.StaleAfter = 150*time.Millisecond, 300*time.Millisecond
	})
	// Another node claims it and disappears.
	_, err := h.db.Admit(t.Context(), store.Admission{Execution: &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", time.Now())), State: agented.StatePending, Source: agented.SourceManual,
		Backend: agented.BackendCommand, Snapshot: command("echo", "late").WithDefaults(), CreatedAt: time.Now().UTC(), ScheduledAt: time.Now().UTC(),
	}, Overlap: agented.OverlapQueue}, time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	e, err := h.db.Claim(t.Context(), "node-11111111111111111111111111", 10, time.Now().UTC(), time.Millisecond)
	if err != nil || e == nil {
		t.Fatalf("claim: %v %v", e, err)
	}
	defer h.run(d)()
	if got := h.await(e.ID); got.State != agented.StateSuccess || got.AttemptNo != 1 {
		t.Errorf("execution = %+v", got)
	}
	if got := h.text(e.ID); got != "late\n" {
		t.Errorf("log = %q", got)
	}
}

func TestFire_repeated_key(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	trigger := &agented.Trigger{Name: "keyed", Enabled: true, Spec: *command("true")}
	if err := h.db.CreateTrigger(t.Context(), trigger, "test"); err != nil {
		t.Fatal(err)
	}
	fire := func(key string) (*agented.Execution, bool, error) {
		return d.Fire(t.Context(), dispatch.Firing{Trigger: trigger, Source: agented.SourceManual, IdempotencyKey: key})
	}
	first, repeated, err := fire("k")
	if err != nil || repeated {
		t.Fatalf("%v %v", repeated, err)
	}
	trigger.Enabled = false
	again, repeated, err := fire("k")
	if err != nil || !repeated || again.ID != first.ID {
		t.Errorf("the same key: %+v %v %v", again, repeated, err)
	}
	if _, _, err := fire("other"); !errors.Is(err, agented.Conflict) {
		t.Errorf("another key: %v", err)
	}
}

func TestEnvironment_sealed_variables(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(func(o *dispatch.Options) {
		o.OpenEnv = func(name, sealed string) (string, error) {
			if sealed == "broken" {
				return "", agented.Errorf(agented.Invalid, "the value of %s was sealed with another SECRET_KEY", name)
			}
			return strings.TrimPrefix(sealed, "sealed:"), nil
		}
	})
	defer h.run(d)()
	sealed, broken := "sealed:the value itself", "broken"
	spec := command("sh", "-c", `echo "$PLAIN"; echo "$MY_TOKEN"`)
	spec.Env = map[string]*string{"PLAIN": &sealed, "MY_TOKEN": &sealed}
	id := h.fire(d, spec)
	h.await(id)
	if got := h.text(id); got != "***\n***\n" {
		t.Errorf("log = %q", got)
	}
	spec.Env = map[string]*string{"PLAIN": &broken}
	id = h.fire(d, spec)
	if e := h.await(id); e.State != agented.StateFailed || !strings.Contains(e.Error, "PLAIN") {
		t.Errorf("state %s, error %q", e.State, e.Error)
	}
}

func TestCommand_stdin_has_prompt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	spec := command("cat")
	spec.Prompt = "about {message}, for {vars.who}"
	e, _, err := d.Fire(t.Context(), dispatch.Firing{
		Spec: spec, Source: agented.SourceManual, Message: "{trigger_id} and more", Vars: map[string]string{"who": "you"},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.await(e.ID)
	if got := h.text(e.ID); got != "about {trigger_id} and more, for you\n" {
		t.Errorf("log = %q", got)
	}
}

func TestCleanup_ended_execution(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	// An agent CLI writes to files; this one prints a word that the log masks.
	const secret = "a-secret-that-the-log-masks"
	bin := filepath.Join(h.layout.Root, "bin")
	script := "#!/bin/sh\necho '{\"type\":\"system\",\"subtype\":\"init\"}' " + secret + "\necho x > \"$TMPDIR/left-behind\"\n"
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := h.dispatcher(func(o *dispatch.Options) {
		o.Lookup = func(name string) (string, bool) { return bin + ":/usr/bin:/bin", name == "PATH" }
		o.Secrets = func() []string { return []string{secret} }
	})
	stop := h.run(d)
	id := h.fire(d, &agented.Spec{Backend: "claude", Prompt: "hi"})
	h.await(id)
	stop() // returns when the cleanup is done
	var left []string
	err := filepath.WalkDir(h.layout.Execution(id), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		left = append(left, e.Name())
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), secret) {
			t.Errorf("%s holds the secret", e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range []string{"stdout", "stderr", "stdin", "log", "left-behind"} {
		if slices.Contains(left, raw) {
			t.Errorf("%s is left among %v", raw, left)
		}
	}
	if !slices.Contains(left, "log.zst") {
		t.Errorf("there is no sealed log among %v", left)
	}
	if got := h.text(id); !strings.Contains(got, "***") || strings.Contains(got, secret) {
		t.Errorf("log = %q", got)
	}
}

// Between the claim and the start there is nothing to stop yet, so the request is stored and the
// start finds it.
func TestCancel_between_claim_and_start(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(func(o *dispatch.Options) {
		o.Observe.Claimed = func(time.Duration) {
			list, err := h.db.StaleRunning(t.Context(), time.Now().Add(time.Hour))
			if err != nil || len(list) != 1 {
				t.Errorf("%d are claimed, %v", len(list), err)
				return
			}
			if _, err := h.db.RequestCancel(t.Context(), list[0].ID, "ann", time.Now().UTC()); err != nil {
				t.Error(err)
			}
		}
	})
	defer h.run(d)()
	if e := h.await(h.fire(d, command("sleep", "20"))); e.State != agented.StateCancelled {
		t.Errorf("it ended %s: %s", e.State, e.Reason)
	}
}

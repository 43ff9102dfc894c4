package dispatch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/sandbox"
)

// guardWorks skips a test where no sandbox can be created.
func guardWorks(t *testing.T) {
	t.Helper()
	f, err := sandbox.Resolve(sandbox.Request{Root: os.Geteuid() == 0, UID: os.Getuid(), Secret: []string{t.TempDir()}})
	if err == nil {
		err = sandbox.Probe(t.Context(), f)
	}
	if err != nil {
		t.Skip("NOT TESTED AT SANDBOX LEVEL GUARD: ", err)
	}
}

// guarded is a shell command at level guard.
func guarded(script string) *agented.Spec {
	s := command("sh", "-c", script)
	s.Sandbox = agented.SandboxGuard
	return s
}

func TestSandbox_levels(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	h := newHouse(t)
	level := agented.SandboxOff
	d := h.dispatcher(func(o *dispatch.Options) {
		o.Sandbox = func() agented.Isolation { return agented.Isolation{Level: level, Reason: "the default"} }
	})
	defer h.run(d)()
	const look = `ls -A $(dirname $(dirname $PWD)); ls -A ..; touch file $TMPDIR/file && echo usable`
	for _, c := range []struct {
		server, trigger, want agented.Sandbox
	}{
		{agented.SandboxOff, "", agented.SandboxOff},
		{agented.SandboxOff, agented.SandboxGuard, agented.SandboxGuard},
		{agented.SandboxGuard, "", agented.SandboxGuard},
		{agented.SandboxGuard, agented.SandboxOff, agented.SandboxOff},
	} {
		level = c.server
		spec := command("sh", "-c", look)
		spec.Sandbox = c.trigger
		e := h.await(h.fire(d, spec))
		want := agented.Isolation{Level: c.want, Reason: "the default"}
		if c.trigger != "" {
			want.Reason = "set for this execution"
		}
		if e.State != agented.StateSuccess || e.Attempts[0].Sandbox != want {
			t.Errorf("%+v: %s at %+v: %s", c, e.State, e.Attempts[0].Sandbox, e.Reason)
		}
		text := h.text(e.ID)
		sees := strings.Contains(text, "attempt-1")
		if sees != (c.want == agented.SandboxOff) || !strings.Contains(text, "usable") {
			t.Errorf("%+v: it sees %q", c, text)
		}
	}
}

func TestSandbox_refused(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	other := h.layout.Execution("exec-01jdc4q7zv8m3k2n5p6r7s8t9w")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	inside := guarded("true")
	inside.WorkingDir = other
	home := guarded("true")
	home.Env = map[string]*string{"HOME": &h.layout.Root}
	for name, c := range map[string]struct {
		spec *agented.Spec
		want string
	}{
		"a folder of another execution": {inside, "which sandbox guard hides"},
		"home is the data folder":       {home, "set AGENTED_DATA_DIR to a folder of its own"},
	} {
		e := h.await(h.fire(d, c.spec))
		if e.State != agented.StateFailed || !strings.Contains(e.Reason, c.want) || e.Attempts[0].Sandbox.Level != "" {
			t.Errorf("%s: %s at %q because %q", name, e.State, e.Attempts[0].Sandbox, e.Reason)
		}
	}
}

func TestSandbox_adopted_attempt(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	h := newHouse(t)
	d := h.dispatcher(nil)
	stop := h.run(d)
	id := h.fire(d, guarded(`echo ready; while [ ! -e go ]; do sleep 0.02; done; ls -A ..; echo end`))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(h.layout.Attempt(id, 1), "child.json")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it did not start")
		}
	}
	stop()
	defer h.run(h.dispatcher(nil))()
	if err := os.WriteFile(filepath.Join(h.layout.Work(id), "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := h.await(id)
	if e.State != agented.StateSuccess || e.Attempts[0].Sandbox != (agented.Isolation{Level: agented.SandboxGuard, Reason: "set for this execution"}) {
		t.Errorf("%s at %+v: %s", e.State, e.Attempts[0].Sandbox, e.Reason)
	}
	if text := h.text(id); text != "ready\nout\ntmp\nwork\nend\n" {
		t.Errorf("it printed %q", text)
	}
}

func TestSandbox_workspace(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := guarded(`export HOME=$PWD; git log --oneline | wc -l; git fsck 2>&1; echo two >file
		git -c user.name=x -c user.email=x@example.org commit -qam two && git push -q origin HEAD:refs/heads/pushed && echo pushed
		ls $(dirname $(dirname $(dirname $PWD)))/workspaces/*/mirror.git | grep -c objects; touch $(dirname $(dirname $(dirname $PWD)))/workspaces/*/mirror.git/x && echo written`)
	spec.Workspace = &agented.Workspace{Repository: address}
	spec.Paths = []string{strings.TrimPrefix(address, "file://")}
	e := h.await(h.fire(d, spec))
	if text := h.text(e.ID); !strings.HasPrefix(text, "1\n") || !strings.Contains(text, "pushed\n1\n") || strings.Contains(text, "written") || strings.Contains(text, "error") {
		t.Errorf("%s: %q", e.Reason, text)
	}
}

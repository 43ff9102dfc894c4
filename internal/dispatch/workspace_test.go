package dispatch_test

import (
	"context"
	"database/sql"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/workspace"
)

// origin creates a repository with one file and returns its address and a function that commits.
func origin(t *testing.T) (address string, commit func(content string) string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed, and this test is about the real one")
	}
	dir := filepath.Join(t.TempDir(), "origin")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main")
	commit = func(content string) string {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-q", "-m", content)
		return git("rev-parse", "HEAD")
	}
	return "file://" + dir, commit
}

func (h *house) withWorkspaces(o *dispatch.Options) {
	o.Workspaces = workspace.New(workspace.Options{
		Layout: h.layout, Protocols: []string{"file", "http"},
		Lookup: func(name string) (string, bool) { return os.Getenv("PATH"), name == "PATH" },
	})
}

func TestCheckout_event_commit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	first := commit("one")
	commit("two")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := command("sh", "-c", "cat file; pwd; echo $PWD")
	spec.Workspace = &agented.Workspace{Repository: address}
	run := func(values map[string]string) *agented.Execution {
		t.Helper()
		e, _, err := d.Fire(t.Context(), dispatch.Firing{Spec: spec, Name: "test", Source: agented.SourceManual, Values: values})
		if err != nil {
			t.Fatal(err)
		}
		if e := h.await(e.ID); e.State != agented.StateSuccess {
			t.Fatalf("it ended as %s: %s", e.State, e.Reason)
		}
		e, err = h.db.Execution(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	e := run(map[string]string{"sha": first})
	work := h.layout.Work(e.ID)
	if got := h.text(e.ID); got != "one\n"+work+"\n"+work+"\n" {
		t.Errorf("it printed %q", got)
	}
	if e.Checkout == nil || e.Checkout.Commit != first || e.Checkout.Ref != first || e.Snapshot.Workspace.Ref != first {
		t.Errorf("its checkout is %+v", e.Checkout)
	}
	if e := run(nil); !strings.HasPrefix(h.text(e.ID), "two\n") || e.Checkout.Ref != "" {
		t.Errorf("without a commit: %q", h.text(e.ID))
	}
	if _, _, err := d.Fire(t.Context(), dispatch.Firing{Spec: spec, Name: "test", Source: agented.SourceManual, Values: map[string]string{"sha": "--upload-pack=x"}}); agented.KindOf(err) != agented.Invalid {
		t.Errorf("a hostile commit: %v", err)
	}
}

func TestCheckout_fetch_failure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := command("sh", "-c", "echo it ran")
	spec.Workspace = &agented.Workspace{Repository: "file:///nothing/there.git"}
	id := h.fire(d, spec)
	e := h.await(id)
	if e.State != agented.StateFailed || !strings.Contains(e.Error, "the repository does not exist") || strings.Contains(h.text(id), "it ran") {
		t.Errorf("%s: %q; log %q", e.State, e.Error, h.text(id))
	}
}

// silentServer accepts connections and never answers.
func silentServer(t *testing.T) (address string, arrived chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived = make(chan net.Conn, 8)
	accepted := make(chan []net.Conn, 1)
	go func() {
		var open []net.Conn // keeps the connections from being garbage-collected
		for {
			c, err := l.Accept()
			if err != nil {
				accepted <- open
				return
			}
			open = append(open, c)
			arrived <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for _, c := range <-accepted {
			c.Close()
		}
	})
	return "http://" + l.Addr().String() + "/x.git", arrived
}

func TestCheckout_cancelled_fetch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, arrived := silentServer(t)
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := command("true")
	spec.Workspace = &agented.Workspace{Repository: address}
	id := h.fire(d, spec)
	testrun.Receive(t, arrived, "the connection of git")
	if e := h.await(h.fire(d, command("true"))); e.State != agented.StateSuccess {
		t.Errorf("another one: %s", e.Reason)
	}
	if _, err := d.Cancel(t.Context(), id, agented.Principal{Name: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if e := h.await(id); e.State != agented.StateCancelled || e.Reason != "cancelled by somebody" {
		t.Errorf("it ended as %s: %s", e.State, e.Reason)
	}
}

func TestCheckout_over_restart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, arrived := silentServer(t)
	real, commit := origin(t)
	commit("one")
	spec := command("cat", "file")
	spec.Workspace = &agented.Workspace{Repository: address}
	d := h.dispatcher(h.withWorkspaces)
	stop := h.run(d)
	id := h.fire(d, spec)
	testrun.Receive(t, arrived, "the connection of git")
	stop()
	e, err := h.db.Execution(t.Context(), id)
	if err != nil || e.State != agented.StateRunning {
		t.Fatalf("after the server's end it is %s, %v", e.State, err)
	}
	// The next server finds the repository at another address, as if it answered again.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h.redirect(ctx, id, real)
	defer h.run(h.dispatcher(h.withWorkspaces))()
	if e := h.await(id); e.State != agented.StateSuccess || e.AttemptNo != 1 || h.text(id) != "one\n" {
		t.Errorf("it ended as %s (%s) after %d attempts with %q", e.State, e.Reason, e.AttemptNo, h.text(id))
	}
}

// redirect changes the repository of a stored execution.
func (h *house) redirect(ctx context.Context, id agented.ExecutionID, address string) {
	h.t.Helper()
	raw := rawDB(h.t, h.db.Path())
	defer raw.Close()
	if _, err := raw.ExecContext(ctx, `UPDATE execution_text SET snapshot = json_set(snapshot, '$.workspace.repository', $2) WHERE execution_id = $1`, string(id), address); err != nil {
		h.t.Fatal(err)
	}
}

func TestSweep_keeps_resumable_workspace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	gate := filepath.Join(h.layout.Root, "gate")
	ended := command("true")
	ended.Workspace = &agented.Workspace{Repository: address}
	running := command("sh", "-c", "while [ ! -e "+gate+" ]; do sleep 0.02; done; cat file")
	running.Workspace = &agented.Workspace{Repository: address}
	d := h.dispatcher(h.withWorkspaces)
	stop := h.run(d)
	first, second := h.fire(d, ended), h.fire(d, running)
	h.await(first)
	for { // until it has begun
		if _, err := os.Stat(filepath.Join(h.layout.Work(second), "file")); err == nil {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("no checkout")
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	next := h.dispatcher(func(o *dispatch.Options) {
		h.withWorkspaces(o)
		o.KeepWorkspaces = workspace.Keep{Age: time.Nanosecond}
	})
	defer h.run(next)()
	for { // until the sweep has come
		if _, err := os.Stat(h.layout.Work(first)); os.IsNotExist(err) {
			break
		}
		select {
		case <-t.Context().Done():
			t.Fatal("no sweep")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(second); e.State != agented.StateSuccess || h.text(second) != "one\n" {
		t.Errorf("it ended as %s (%s) with %q", e.State, e.Reason, h.text(second))
	}
}

// rawDB opens the database file that the server also uses.
func rawDB(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

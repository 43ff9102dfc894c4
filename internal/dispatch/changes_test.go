package dispatch_test

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/retention"
)

const gitPerson = "git -c user.name=agent -c user.email=agent@example.org "

// changesOf returns the counts that are stored with an execution, and the record of its attempt.
func (h *house) changesOf(id agented.ExecutionID) (*agented.Changes, *changes.Record) {
	h.t.Helper()
	e, err := h.db.Execution(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	c := e.Changes()
	if c == nil {
		return nil, nil
	}
	r, err := changes.Load(changes.Folders{Execution: h.layout.Execution(id)}, c.Attempt)
	if err != nil {
		h.t.Fatalf("counts %+v, but no record: %v", c, err)
	}
	return c, r
}

func TestChanges_workspace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	base := commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := command("sh", "-c", "echo two > file; "+gitPerson+"commit -qam second; echo new > untracked; echo report > $AGENTED_OUT/artifacts/report.txt")
	spec.Workspace = &agented.Workspace{Repository: address}
	id := h.fire(d, spec)
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Fatalf("%s: %s; log %s", e.State, e.Reason, h.text(id))
	}
	c, r := h.changesOf(id)
	if c == nil || c.Base != base || c.Commits != 1 || c.Files != 2 || c.Added != 2 || c.Removed != 1 || c.Artifacts != 1 || c.ArtifactBytes != 7 || c.Reason != "" {
		t.Fatalf("counts %+v", c)
	}
	if len(r.Files) != 2 || r.Files[0].Path != "file" || r.Files[1].Path != "untracked" || r.Commits[0].Subject != "second" {
		t.Errorf("record %+v", r)
	}
	// The private git directory goes when the execution has been cleaned up; the record stays.
	h.until(id, "cleaned up", func(*agented.Execution) bool {
		_, err := os.Stat(filepath.Join(h.layout.Execution(id), "changes", "start"))
		return errors.Is(err, fs.ErrNotExist)
	})
	h.changesOf(id)
}

func TestChanges_working_dir(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	dir := strings.TrimPrefix(address, "file://")
	// Work in progress of a person.
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.dispatcher(nil)
	defer h.run(d)()
	spec := command("sh", "-c", "mkdir -p sub; echo s > sub/new")
	spec.WorkingDir = dir
	id := h.fire(d, spec)
	h.await(id)
	if c, r := h.changesOf(id); c == nil || c.Files != 1 || r.Files[0].Path != "sub/new" {
		t.Errorf("counts %+v, record %+v", c, r)
	}
	if out, err := exec.Command("git", "-C", dir, "status", "--porcelain").CombinedOutput(); err != nil || string(out) != "?? mine\n?? sub/\n" {
		t.Errorf("git status: %s, %v", out, err)
	}
	// A folder without a repository.
	spec = command("true")
	spec.WorkingDir = h.layout.Root
	id = h.fire(d, spec)
	h.await(id)
	if c, _ := h.changesOf(id); c != nil {
		t.Errorf("without a repository: %+v", c)
	}
}

// A server that is killed after the end of the process has not recorded the changes; the next one
// does, once.
func TestChanges_recorded_by_next_server(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	first := h.dispatcher(h.withWorkspaces)
	stop := h.run(first)
	gate := filepath.Join(t.TempDir(), "gate")
	spec := command("sh", "-c", "while [ ! -e "+gate+" ]; do sleep 0.02; done; echo two > file")
	spec.Workspace = &agented.Workspace{Repository: address}
	id := h.fire(first, spec)
	h.until(id, "a process", func(e *agented.Execution) bool { return len(e.Attempts) > 0 && !e.Attempts[0].StartedAt.IsZero() })
	stop()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	exit := filepath.Join(h.layout.Attempt(id, 1), "exit.json")
	h.until(id, "the exit record", func(*agented.Execution) bool { _, err := os.Stat(exit); return err == nil })
	// What a killed server leaves of an incomplete record.
	half := filepath.Join(h.layout.Execution(id), "changes", "1.new")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	defer h.run(h.dispatcher(h.withWorkspaces))()
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Fatalf("%s: %s", e.State, e.Reason)
	}
	if c, _ := h.changesOf(id); c == nil || c.Files != 1 || c.Added != 1 || c.Removed != 1 || c.Reason != "" {
		t.Errorf("counts %+v", c)
	}
	if list, err := changes.Attempts(changes.Folders{Execution: h.layout.Execution(id)}); err != nil || !slices.Equal(list, []int{1}) {
		t.Errorf("records %v, %v", list, err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the incomplete record: %v", err)
	}
}

// The second attempt in a checkout includes what the first one changed. In a working_dir it does
// not.
func TestChanges_second_attempt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	for _, inCheckout := range []bool{true, false} {
		spec := command("sh", "-c", "echo x > attempt-$AGENTED_ATTEMPT; test $AGENTED_ATTEMPT = 2")
		spec.Retry = agented.RetryPolicy{MaxAttempts: 2, OnFailure: true, BaseSeconds: 1}
		if inCheckout {
			spec.Workspace = &agented.Workspace{Repository: address}
		} else {
			spec.WorkingDir = strings.TrimPrefix(address, "file://")
		}
		id := h.fire(d, spec)
		if e := h.await(id); e.State != agented.StateSuccess || e.AttemptNo != 2 {
			t.Fatalf("%s after attempt %d: %s", e.State, e.AttemptNo, e.Reason)
		}
		c, _ := h.changesOf(id)
		if want := map[bool]int{true: 2, false: 1}[inCheckout]; c == nil || c.Attempt != 2 || c.Files != want {
			t.Errorf("in a checkout %v: %+v, want %d files", inCheckout, c, want)
		}
	}
}

func TestChanges_secrets_are_masked(t *testing.T) {
	t.Parallel()
	const secret = "a-secret-value-1234567"
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	spec := command("sh", "-c", "echo $MY_TOKEN > file")
	value := secret
	spec.Env = map[string]*string{"MY_TOKEN": &value}
	spec.Workspace = &agented.Workspace{Repository: address}
	id := h.fire(d, spec)
	h.await(id)
	_, r := h.changesOf(id)
	p, err := changes.OpenPatch(changes.Folders{Execution: h.layout.Execution(id)}, 1, r)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	text, err := io.ReadAll(p)
	if err != nil {
		t.Fatal(err)
	}
	b := string(text)
	if strings.Contains(b, secret) || !strings.Contains(b, "\n-one\n+") {
		t.Errorf("patch %s", b)
	}
}

// Retention of logs and of executions removes what executions changed, and their artifacts. Those of
// a pinned execution stay.
func TestChanges_retention(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	fire := func() agented.ExecutionID {
		spec := command("sh", "-c", "echo two > file; echo report > $AGENTED_OUT/artifacts/report.txt")
		spec.Workspace = &agented.Workspace{Repository: address}
		id := h.fire(d, spec)
		h.await(id)
		return id
	}
	old, pinned := fire(), fire()
	h.cleanedUp(old, pinned)
	if _, err := h.db.Pin(t.Context(), pinned, true, "ann", time.Now()); err != nil {
		t.Fatal(err)
	}
	// The files of a record count as space of its execution.
	bytes, err := h.db.ExecutionBytes(t.Context())
	if folder := retention.FolderBytes(h.layout.Execution(old)) + retention.FolderBytes(h.layout.Execution(pinned)); err != nil || bytes != folder {
		t.Errorf("%d bytes are in use, and %d on disk; %v", bytes, folder, err)
	}
	var limits retention.Settings
	p := retention.New(retention.Options{
		DB: h.db, Layout: h.layout, Log: slog.New(slog.DiscardHandler),
		Settings: func() retention.Settings { return limits },
		Hold:     func() (io.Closer, error) { return io.NopCloser(nil), nil },
	})
	has := func(id agented.ExecutionID, want bool) {
		t.Helper()
		f := changes.Folders{Execution: h.layout.Execution(id)}
		_, err := changes.Load(f, 1)
		_, statErr := os.Stat(filepath.Join(f.Attempt(1), "artifacts", "0"))
		if want != (err == nil) || want != (statErr == nil) {
			t.Errorf("%s: record %v, artifact %v; want them: %v", id, err, statErr, want)
		}
	}
	has(old, true)
	limits.Logs = time.Nanosecond
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(old, false)
	has(pinned, true)
	// The counts stay as long as the execution does.
	if e, err := h.db.Execution(t.Context(), old); err != nil || e.Changes() == nil || e.Changes().Files != 1 {
		t.Errorf("%+v, %v", e.Changes(), err)
	}
	if _, err := h.db.Pin(t.Context(), pinned, false, "ann", time.Now()); err != nil {
		t.Fatal(err)
	}
	limits = retention.Settings{Executions: time.Nanosecond}
	if _, err := p.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	has(pinned, false)
	for _, id := range []agented.ExecutionID{old, pinned} {
		if _, err := h.db.Execution(t.Context(), id); agented.KindOf(err) != agented.NotFound {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := os.Stat(h.layout.Execution(id)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

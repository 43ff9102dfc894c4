package vault_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/vault"
)

type rig struct {
	t   *testing.T
	db  *store.DB
	v   *vault.Vault
	dir string
	e   *agented.Execution
	env map[string]string
	key secret.Key
}

func (r *rig) lookup(name string) (string, bool) {
	value, ok := r.env[name]
	return value, ok
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db := storetest.Open(t, filepath.Join(t.TempDir(), "agented.db"), store.Options{})
	key, err := secret.Load(secret.Options{Value: strings.Repeat("k", 40)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: db, dir: t.TempDir(), env: map[string]string{"PATH": "/usr/bin:/bin", "HOME": "/", "OTHER": "not-for-commands"}}
	r.env["CREDENTIALS_DIRECTORY"] = r.dir
	r.v, r.key = vault.New(vault.Options{DB: db, Key: key, Lookup: r.lookup}), key
	now := time.Now().UTC().Truncate(time.Microsecond)
	r.e = &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: "t", Backend: agented.BackendCommand, Source: agented.SourceManual,
		CreatedAt: now, ScheduledAt: now, Snapshot: agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}},
	}
	if _, err := db.Admit(t.Context(), store.Admission{Execution: r.e}, now); err != nil {
		t.Fatal(err)
	}
	r.e.AttemptNo = 1
	return r
}

// value returns what an attempt receives from a secret with a source.
func (r *rig) value(s agented.Secret) (string, error) {
	r.t.Helper()
	if err := r.v.Create(r.t.Context(), &s, "", "ada"); err != nil {
		r.t.Fatal(err)
	}
	if err := r.v.Resolve(r.t.Context(), r.e, []string{s.Name}); err != nil {
		return "", err
	}
	got, err := r.v.Received(r.t.Context(), r.e.ID, 1)
	return got[s.Name], err
}

func (r *rig) file(name, text string, mode os.FileMode) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func TestVault_file(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pipe := filepath.Join(r.dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want, fault string }{
		{name: "absolute", path: r.file("a", "value-of-a-file\n", 0o600), want: "value-of-a-file"},
		{name: "credential", path: filepath.Base(r.file("b", "value-of-systemd", 0o400)), want: "value-of-systemd"},
		{name: "missing", path: filepath.Join(r.dir, "none"), fault: "does not exist"},
		{name: "pipe", path: pipe, fault: "not a regular file"},
		{name: "folder", path: r.dir, fault: "not a regular file"},
		{name: "open", path: r.file("c", "value-for-all", 0o602), fault: "chmod o-w"},
		{name: "short", path: r.file("d", "short\n", 0o600), fault: "fewer than 8 bytes"},
		{name: "long", path: r.file("e", strings.Repeat("x", agented.MaxSecret+1), 0o600), fault: "more than 65536 bytes"},
	} {
		got, err := r.value(agented.Secret{Name: c.name, Source: agented.SecretFile, Path: c.path})
		if got != c.want || c.fault == "" != (err == nil) || err != nil && !strings.Contains(agented.Message(err), c.fault) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), r.dir) {
			t.Errorf("%s: the error contains the path: %v", c.name, err)
		}
	}
	// The next attempt reads the file again.
	r.file("a", "another-value-now\n", 0o600)
	r.e.AttemptNo = 2
	if err := r.v.Resolve(t.Context(), r.e, []string{"absolute"}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.v.Received(t.Context(), r.e.ID, 2); err != nil || got["absolute"] != "another-value-now" {
		t.Errorf("received %v, %v", got, err)
	}
	delete(r.env, "CREDENTIALS_DIRECTORY")
	if err := r.v.Resolve(t.Context(), r.e, []string{"credential"}); err == nil || !strings.Contains(agented.Message(err), "LoadCredential=") {
		t.Errorf("without the folder: %v", err)
	}
}

func TestVault_command(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	script := func(name, text string) string {
		path := filepath.Join(r.dir, name)
		if err := testrun.WriteProgram(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name        string
		command     []string
		want, fault string
	}{
		{name: "prints", command: []string{"sh", "-c", "echo the-printed-value"}, want: "the-printed-value"},
		{name: "argv", command: []string{"printf", "%s", "$HOME is not expanded"}, want: "$HOME is not expanded"},
		{name: "environment", command: []string{"sh", "-c", `echo "value-$HOME-$OTHER"; cat /proc/self/environ | tr '\0' '\n' | grep -c OTHER >&2; true`}, want: "value-/-"},
		{name: "absolute", command: []string{script("vault", `echo "vault-value-$1"`), "x"}, want: "vault-value-x"},
		{name: "fails", command: []string{"sh", "-c", "echo a-value-that-leaks; echo a-value-that-leaks >&2; exit 3"}, fault: "exit code 3"},
		{name: "signal", command: []string{"sh", "-c", "echo a-value-that-leaks; kill -9 $$"}, fault: "signal"},
		{name: "missing", command: []string{"no-such-program-here"}, fault: "no program"},
		{name: "long", command: []string{"sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x"}, fault: "more than 65536 bytes"},
		{name: "short", command: []string{"echo", "x"}, fault: "fewer than 8 bytes"},
	} {
		got, err := r.value(agented.Secret{Name: c.name, Source: agented.SecretCommand, Command: c.command})
		if got != c.want || c.fault == "" != (err == nil) || err != nil && !strings.Contains(agented.Message(err), c.fault) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "a-value-that-leaks") {
			t.Errorf("%s: the error shows the value: %v", c.name, err)
		}
	}
}

// A command that does not end is stopped with its children, and a child that keeps its output open
// holds nothing up.
func TestVault_command_is_bounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.v = vault.New(vault.Options{DB: r.db, Key: r.key, Lookup: r.lookup, CommandTimeout: 2 * time.Second})
	alive := filepath.Join(r.dir, "alive")
	if err := unix.Mkfifo(alive, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(alive, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := r.value(agented.Secret{Name: "hangs", Source: agented.SecretCommand, Command: []string{"sh", "-c", "exec 3>" + alive + "; echo started >&3; sleep 1000 & echo value-of-a-hung-command; wait"}})
	if err == nil || !strings.Contains(agented.Message(err), "took longer than") || got != "" {
		t.Errorf("%q, %v", got, err)
	}
	// The pipe reports its end when no process has it open.
	if text, err := io.ReadAll(f); err != nil || len(text) > len("started\n") {
		t.Errorf("the command wrote %q, %v", text, err)
	}
}

// Two people change a secret that both have read.
func TestUpdate_concurrent_change(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.v.Create(t.Context(), &agented.Secret{Name: "token", Source: agented.SecretStored}, "first-value", "ada"); err != nil {
		t.Fatal(err)
	}
	stale, err := r.db.Secret(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	narrowed, err := r.db.Secret(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	narrowed.Triggers = []string{"nightly"}
	if err := r.v.Update(t.Context(), narrowed, nil, "ada"); err != nil {
		t.Fatal(err)
	}
	value := "second-value"
	if err := r.v.Update(t.Context(), stale, &value, "bob"); !errors.Is(err, agented.Conflict) {
		t.Errorf("the change of an old copy: %v", err)
	}
	if now, err := r.db.Secret(t.Context(), "token"); err != nil || len(now.Triggers) != 1 || now.Version != 1 {
		t.Errorf("%+v, %v", now, err)
	}
}

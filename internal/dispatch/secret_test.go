package dispatch_test

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/testrun"
	"github.com/agented/agented/internal/vault"
)

// withVault adds named secrets to a dispatcher.
func (h *house) withVault() (*vault.Vault, func(*dispatch.Options)) {
	h.t.Helper()
	key, err := secret.Load(secret.Options{Value: strings.Repeat("k", 40)})
	if err != nil {
		h.t.Fatal(err)
	}
	v := vault.New(vault.Options{DB: h.db, Key: key, Lookup: func(name string) (string, bool) { return "/usr/bin:/bin", name == "PATH" }})
	return v, func(o *dispatch.Options) { o.Vault = v }
}

func (h *house) secret(v *vault.Vault, s agented.Secret, value string) {
	h.t.Helper()
	if s.Source == "" {
		s.Source = agented.SecretStored
	}
	if err := v.Create(h.t.Context(), &s, value, "ada"); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) rotate(v *vault.Vault, name, value string) {
	h.t.Helper()
	s, err := h.db.Secret(h.t.Context(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := v.Update(h.t.Context(), s, &value, "ada"); err != nil {
		h.t.Fatal(err)
	}
}

// saves returns a spec whose command prints TOKEN, and stores it in a file of dir that is named
// for the execution.
func saves(dir, ref string) agented.Spec {
	value := agented.SecretRef(ref)
	return agented.Spec{
		Backend: agented.BackendCommand, TimeoutSeconds: 60, MaxConcurrent: 0,
		Command: []string{"sh", "-c", `echo "token: $TOKEN"; printf %s "$TOKEN" >"` + dir + `/$AGENTED_EXECUTION_ID"`},
		Env:     map[string]*string{"TOKEN": &value},
	}
}

func (h *house) triggerOf(name string, spec agented.Spec) *agented.Trigger {
	h.t.Helper()
	tr := &agented.Trigger{Name: name, Enabled: true, Spec: spec.WithDefaults()}
	if err := h.db.CreateTrigger(h.t.Context(), tr, "ada"); err != nil {
		h.t.Fatal(err)
	}
	return tr
}

func (h *house) fireTrigger(d *dispatch.Dispatcher, tr *agented.Trigger) agented.ExecutionID {
	h.t.Helper()
	e, _, err := d.Fire(h.t.Context(), dispatch.Firing{Trigger: tr, Source: agented.SourceManual})
	if err != nil {
		h.t.Fatal(err)
	}
	return e.ID
}

// search returns the files below dir that contain text.
func (h *house) search(dir, text string) (found []string) {
	h.t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // removed meanwhile, or a socket
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

func TestSecret_scope(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(with)
	defer h.run(d)()
	const value = "value-of-the-scoped-secret"
	h.secret(v, agented.Secret{Name: "scoped", Triggers: []string{"allowed-*"}}, value)
	out := t.TempDir()
	allowed, refused := h.triggerOf("Allowed-1", saves(out, "scoped")), h.triggerOf("refused", saves(out, "scoped"))

	first := h.await(h.fireTrigger(d, allowed))
	if got, err := os.ReadFile(filepath.Join(out, string(first.ID))); err != nil || string(got) != value {
		t.Errorf("the allowed trigger received %q (%v)", got, err)
	}
	if got := h.text(first.ID); got != "token: ***\n" {
		t.Errorf("the allowed trigger printed %q", got)
	}
	second := h.await(h.fireTrigger(d, refused))
	for _, want := range []string{"scoped", `trigger "refused"`, "agented secret set scoped --keep-value --trigger"} {
		if !strings.Contains(second.Reason, want) {
			t.Errorf("the reason %q does not contain %q", second.Reason, want)
		}
	}
	if second.State != agented.StateFailed {
		t.Errorf("state %s", second.State)
	}
	if _, err := os.Stat(filepath.Join(out, string(second.ID))); err == nil {
		t.Error("the refused trigger was started")
	}
	third := h.await(h.fire(d, &allowed.Spec))
	if third.State != agented.StateFailed || !strings.Contains(third.Reason, "no trigger fired") {
		t.Errorf("an execution without a trigger: %s, %s", third.State, third.Reason)
	}
	// The value is nowhere in the data folder: not in bundles, logs, or the database.
	if found := h.search(h.layout.Root, value); len(found) > 0 {
		t.Errorf("the value is in %v", found)
	}
	s, err := h.db.Secret(t.Context(), "SCOPED")
	if err != nil {
		t.Fatal(err)
	}
	if at, by := s.UsedAt(); at.IsZero() || by != first.ID || s.Versions[0].UsedBy != first.ID {
		t.Errorf("last use %v by %q, want by %s", at, by, first.ID)
	}
}

// TestSecret_rotation rotates in the middle of 50 starts: each attempt receives one of the values,
// and those that start after the rotation the new one.
func TestSecret_rotation(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(with)
	defer h.run(d)()
	const before, after = "the-value-before-it", "the-value-after-it"
	h.secret(v, agented.Secret{Name: "token"}, before)
	out := t.TempDir()
	tr := h.triggerOf("t", saves(out, "token"))
	var ids []agented.ExecutionID
	var late sync.Map
	for range 25 {
		ids = append(ids, h.fireTrigger(d, tr))
	}
	h.await(ids[0])
	h.rotate(v, "token", after)
	for range 25 {
		ids = append(ids, h.fireTrigger(d, tr))
		late.Store(ids[len(ids)-1], true)
	}
	for i, id := range ids {
		if i > 0 {
			if e := h.await(id); e.State != agented.StateSuccess {
				t.Fatalf("%s: %s", e.State, e.Reason)
			}
		}
		b, err := os.ReadFile(filepath.Join(out, string(id)))
		if err != nil {
			t.Fatal(err)
		}
		_, isLate := late.Load(id)
		if got := string(b); got != after && (isLate || got != before) {
			t.Errorf("start %d received %q", i+1, got)
		}
		if got := h.text(id); got != "token: ***\n" {
			t.Errorf("start %d printed %q", i+1, got)
		}
	}
	s, err := h.db.Secret(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != 2 || len(s.Versions) != 2 || s.Versions[0].UsedBy == "" || s.Versions[1].UsedBy == "" {
		t.Errorf("versions %+v", s.Versions)
	}
	h.rotate(v, "token", "a-third-value-now")
	if s, err = h.db.Secret(t.Context(), "token"); err != nil || len(s.Versions) != 2 || s.Versions[1].Number != 2 {
		t.Errorf("versions %+v (%v)", s.Versions, err)
	}
}

// An attempt that runs while its value is rotated out of the kept versions is masked with the value
// that it received, also by texts that it sends.
func TestSecret_mask_of_a_dropped_version(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(with)
	defer h.run(d)()
	const first = "the-first-value-of-it"
	h.secret(v, agented.Secret{Name: "token"}, first)
	pipe := filepath.Join(t.TempDir(), "go")
	spec := saves(t.TempDir(), "token")
	spec.Command = []string{"sh", "-c", `mkfifo ` + pipe + ` && echo ready && cat ` + pipe + ` && echo "token: $TOKEN"`}
	id := h.fireTrigger(d, h.triggerOf("t", spec))
	h.until(id, "it received its secret", func(e *agented.Execution) bool {
		uses, err := h.db.SecretUses(t.Context(), id)
		return err == nil && len(uses) == 1 && !e.StartedAt.IsZero()
	})
	h.rotate(v, "token", "the-second-value-of-it")
	h.rotate(v, "token", "the-third-value-of-it")
	e, err := h.db.Execution(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	text := "I found " + first
	if err := d.MaskOutput(t.Context(), e, &text); err != nil || text != "I found ***" {
		t.Errorf("masked as %q (%v)", text, err)
	}
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	for err != nil && t.Context().Err() == nil { // until mkfifo has run
		f, err = os.OpenFile(pipe, os.O_RDWR, 0)
	}
	h.until(id, "it waits", func(*agented.Execution) bool { return strings.Contains(h.text(id), "ready") })
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	f.Close()
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Fatalf("%s: %s", e.State, e.Reason)
	}
	if got := h.text(id); !strings.HasSuffix(got, "token: ***\n") {
		t.Errorf("printed %q", got)
	}
	h.until(id, "its values are removed after its end", func(*agented.Execution) bool {
		uses, err := h.db.SecretUses(t.Context(), id)
		return err == nil && len(uses) == 0
	})
}

func TestSecret_delete(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(with) // not running: the execution below stays pending
	h.secret(v, agented.Secret{Name: "used"}, "the-value-that-is-used")
	ref := agented.SecretRef("used")
	tr := h.triggerOf("nightly", saves(t.TempDir(), "used"))
	agent := &agented.Agent{Name: "reviewer", Enabled: true, Spec: agented.Spec{Backend: agented.BackendClaude, Workspace: &agented.Workspace{
		Repository: "https://github.com/acme/web", Credential: agented.Credential(ref),
	}}}
	if err := h.db.CreateAgent(t.Context(), agent, "ada"); err != nil {
		t.Fatal(err)
	}
	account := h.account("ci", "ci")
	account.Credentials = map[string]string{"ANTHROPIC_API_KEY": ref}
	if err := h.db.UpdateAccount(t.Context(), account, "ada"); err != nil {
		t.Fatal(err)
	}
	id := h.fire(d, &tr.Spec)
	users := []string{"trigger nightly", "agent reviewer", "account claude/ci", "execution " + string(id)}
	for i := range users {
		err := h.db.DeleteSecret(t.Context(), "used", "ada")
		if agented.KindOf(err) != agented.Conflict || !strings.Contains(agented.Message(err), strings.Join(users[i:], ", ")) {
			t.Fatalf("delete with %v: %v", users[i:], err)
		}
		switch i {
		case 0:
			err = h.db.DeleteTrigger(t.Context(), tr.ID, "ada")
		case 1:
			err = h.db.DeleteAgent(t.Context(), agent.ID, "ada")
		case 2:
			err = h.db.DeleteAccount(t.Context(), account.ID, "ada")
		case 3:
			_, err = d.Cancel(t.Context(), id, agented.Principal{Name: "ada", Role: agented.RoleAdmin})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := h.db.DeleteSecret(t.Context(), "used", "ada"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"trigger": h.db.CreateTrigger(t.Context(), &agented.Trigger{Name: "x", Spec: tr.Spec}, "ada"),
		"agent":   h.db.CreateAgent(t.Context(), &agented.Agent{Name: "x", Spec: agent.Spec}, "ada"),
		"account": h.db.CreateAccount(t.Context(), &agented.Account{Backend: agented.BackendClaude, Name: "x", Credentials: account.Credentials}, "ada"),
	} {
		if agented.KindOf(err) != agented.Invalid || !strings.Contains(agented.Message(err), `there is no secret "used"`) {
			t.Errorf("a %s that refers to it: %v", what, err)
		}
	}
}

// The credentials of an account and the token of a workspace can be named secrets.
func TestSecret_account(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(func(o *dispatch.Options) { with(o); h.clis(o) })
	defer h.run(d)()
	h.secret(v, agented.Secret{Name: "key"}, "the-key-from-the-vault")
	h.noDefault()
	a := h.account("ci", "ci")
	a.Credentials = map[string]string{"ANTHROPIC_API_KEY": agented.SecretRef("key")}
	if err := h.db.UpdateAccount(t.Context(), a, "ada"); err != nil {
		t.Fatal(err)
	}
	id := h.fire(d, &agented.Spec{Backend: agented.BackendClaude, Prompt: "x", Permission: agented.PermissionEdit, TimeoutSeconds: 60})
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Fatalf("%s: %s", e.State, e.Reason)
	}
	if got := h.text(id); !strings.HasPrefix(got, "key=***\n") {
		t.Errorf("printed %q", got)
	}
	s, err := h.db.Secret(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, by := s.UsedAt(); by != id {
		t.Errorf("used by %q", by)
	}
}

// The token of a workspace is sent to its host, and neither the agent nor its environment has it.
func TestSecret_workspace(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	v, with := h.withVault()
	d := h.dispatcher(func(o *dispatch.Options) { with(o); h.withWorkspaces(o) })
	defer h.run(d)()
	const token = "the-token-for-git"
	sent := make(chan string, 100)
	forge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); ok {
			sent <- password
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer forge.Close()
	h.secret(v, agented.Secret{Name: "git", Repositories: []string{"127.0.0.1*/acme/*"}}, token)
	spec := agented.Spec{Backend: agented.BackendCommand, Command: []string{"true"}, TimeoutSeconds: 60, Workspace: &agented.Workspace{
		Repository: forge.URL + "/acme/web.git", Credential: agented.Credential(agented.SecretRef("git")),
	}}
	e := h.await(h.fireTrigger(d, h.triggerOf("web", spec)))
	if got := testrun.Receive(t, sent, "a request of git with a password"); got != token {
		t.Errorf("git sent %q", got)
	}
	if e.State != agented.StateFailed || strings.Contains(e.Reason, "secret") {
		t.Errorf("%s: %s", e.State, e.Reason)
	}
	spec.Workspace.Repository = forge.URL + "/other/web.git"
	e = h.await(h.fireTrigger(d, h.triggerOf("other", spec)))
	if e.State != agented.StateFailed || !strings.Contains(e.Reason, "limited to other repositories") || strings.Contains(e.Reason, "acme/*") {
		t.Errorf("%s: %s", e.State, e.Reason)
	}
	if found := h.search(h.layout.Root, token); len(found) > 0 {
		t.Errorf("the token is in %v", found)
	}
}

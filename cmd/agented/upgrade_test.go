//go:build linux

package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

// nextVersion builds a simulated later release: another version, an additional migration, and
// shims with a newer protocol.
func nextVersion(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	spec := filepath.Join(root, "internal/shim/spec.go")
	source, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	later := strings.Replace(string(source), "\nconst Version = 1\n", "\nconst Version = 2\n", 1)
	if later == string(source) {
		t.Fatal("the version of bundles is not where this test expects it")
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		spec: write("spec.go", later),
		filepath.Join(root, "internal/store/schema/sqlite/9001_next.sql"): write("next.sql", "-- +goose Up\nCREATE TABLE next_version (id TEXT PRIMARY KEY) STRICT;\nINSERT INTO next_version VALUES ('once');\n"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "agented")
	build := exec.Command("go", "build", "-overlay", write("overlay.json", string(overlay)), "-ldflags", "-X main.version=v999.0.0-next", "-o", out, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	return out
}

func TestUpgrade_adopts_agents(t *testing.T) {
	testrun.OnlyLong(t) // it builds the program a second time
	next := nextVersion(t)
	s := supervised(t)
	until := filepath.Join(s.dir, "enough")
	id, pid := s.agent(until)
	over := s.fire(s.trigger(map[string]any{"name": "over", "backend": "command", "command": []string{"echo", "before"}}))
	s.await(over)
	before := s.parentState()

	install(t, next, s.program)
	out, errs, code := s.cli("restart")
	if code != 0 || !strings.Contains(out, "version v999.0.0-next") {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	var info struct {
		Version string `json:"version"`
	}
	s.call("GET", "/api/v1/info", nil, &info)
	after := s.parentState()
	if info.Version != "v999.0.0-next" || after.PID != before.PID || after.Server == before.Server {
		t.Errorf("%+v: %+v, was %+v", info, after, before)
	}
	if syscall.Kill(pid, 0) != nil {
		t.Error("the agent is gone")
	}
	// The copy from before the migration, and the migration, exist once.
	copies := func() []string {
		list, _ := filepath.Glob(filepath.Join(s.data(), "*.bak"))
		return list
	}
	if list := copies(); len(list) != 1 || filepath.Base(list[0]) != "agented.db.before-v9001.bak" {
		t.Errorf("copies: %v", list)
	}
	taken, err := os.Stat(copies()[0])
	if err != nil {
		t.Fatal(err)
	}
	if out, errs, code := s.cli("restart"); code != 0 {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if again, err := os.Stat(copies()[0]); err != nil || !os.SameFile(taken, again) || len(copies()) != 1 {
		t.Errorf("a second start took another copy: %v, %v", copies(), err)
	}
	// New work runs while the agent of the old version is still running, which then ends normally with a complete
	// log.
	if e := s.await(s.fire(s.trigger(map[string]any{"name": "new", "backend": "command", "command": []string{"echo", "after"}}))); e.Status != "success" {
		t.Errorf("%+v", e)
	}
	second, secondPID := s.agent(filepath.Join(s.dir, "enough-too"))
	if err := os.WriteFile(until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.await(id); e.Status != "success" || len(e.Attempts) != 1 || !strings.HasSuffix(string(s.logText(id)), "over\n") {
		t.Errorf("%+v %s", e, s.logText(id))
	}
	if got := string(s.logText(over)); got != "before\n" {
		t.Errorf("a log of the old version: %q", got)
	}

	// Back to the old version: it reports the problem before anything is stopped.
	before = s.parentState()
	install(t, binary, s.program)
	if _, errs, code := s.cli("restart"); code == 0 || !strings.Contains(errs, "was not replaced") || !strings.Contains(errs, "was written by a newer version of Agented (schema 9001") {
		t.Errorf("%d %s", code, errs)
	}
	if s.parentState().Server != before.Server || s.call("GET", "/api/v1/info", nil, nil) != http.StatusOK {
		t.Errorf("%+v, was %+v", s.parentState(), before)
	}
	// It also refuses a direct start.
	s.end(syscall.SIGTERM)
	_, errs, code = s.cli("serve")
	if code == 0 || !strings.Contains(errs, "was written by a newer version of Agented") || !strings.Contains(errs, "nothing was changed in it") {
		t.Errorf("%d %s", code, errs)
	}
	if syscall.Kill(secondPID, 0) != nil {
		t.Error("the agent is gone")
	}
	install(t, next, s.program)
	s.start()
	if err := os.WriteFile(filepath.Join(s.dir, "enough-too"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.await(second); e.Status != "success" || len(e.Attempts) != 1 {
		t.Errorf("%+v", e)
	}
}

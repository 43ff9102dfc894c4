package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeys_lifecycle(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	out, errs, code := s.cli("key", "create", "ci", "--role", "viewer")
	key := strings.TrimSuffix(out, "\n")
	if code != 0 || len(key) < 32 || strings.ContainsAny(key, " \n") || strings.Contains(errs, key) || !strings.Contains(errs, "ci") {
		t.Fatalf("create: code %d, %d characters on stdout, stderr %q", code, len(out), errs)
	}
	if _, errs, code = s.cli("key", "create", "CI"); code != 1 || !strings.Contains(errs, "ci") && !strings.Contains(errs, "CI") {
		t.Errorf("the same name again: code %d, stderr %q", code, errs)
	}
	if out, _, code = s.cli("key", "list"); code != 0 || !strings.Contains(out, "viewer") || strings.Contains(out, key) {
		t.Errorf("list: code %d, %s", code, out)
	}
	as := func(args ...string) (string, string, int) {
		with := &server{t: t, dir: s.dir, addr: s.addr, program: s.program, env: append([]string{}, s.env...)}
		for i, kv := range with.env {
			if strings.HasPrefix(kv, "AGENTED_API_KEY=") {
				with.env[i] = "AGENTED_API_KEY=" + key
			}
		}
		return with.cli(args...)
	}
	if _, errs, code = as("trigger", "list"); code != 0 {
		t.Errorf("a viewer lists triggers: code %d, stderr %q", code, errs)
	}
	if _, errs, code = as("key", "create", "more"); code != 4 || !strings.Contains(errs, "admin") {
		t.Errorf("a viewer makes a key: code %d, stderr %q", code, errs)
	}
	if _, errs, code = s.cli("key", "revoke", "cii"); code != 3 || !strings.Contains(errs, `did you mean "ci"?`) {
		t.Errorf("revoke a key that is not there: code %d, stderr %q", code, errs)
	}
	if _, errs, code = s.cli("key", "revoke", key); code != 3 || strings.Contains(errs, key) {
		t.Errorf("revoke by the key itself: code %d, and it was repeated: %v", code, strings.Contains(errs, key))
	}
	if out, errs, code = s.cli("key", "revoke", "Ci", "--json"); code != 0 || !strings.Contains(out, `"revoked": "key-`) {
		t.Errorf("revoke: code %d, stdout %q, stderr %q", code, out, errs)
	}
	if _, errs, code = as("trigger", "list"); code != 4 {
		t.Errorf("with a revoked key: code %d, stderr %q", code, errs)
	}
	if out, _, _ = s.cli("key", "list"); strings.Contains(out, "viewer") {
		t.Errorf("a revoked key is listed: %s", out)
	}
	if out, _, _ = s.cli("key", "list", "--revoked"); !strings.Contains(out, "revoked") {
		t.Errorf("list --revoked: %s", out)
	}
}

func TestKeys_limited_to_trigger(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.trigger(sh("allowed", "echo allowed", nil))
	s.trigger(sh("forbidden", "echo forbidden", nil))
	out, errs, code := s.cli("key", "create", "ci", "--trigger", "allowed", "--address", "127.0.0.0/8", "--expires", "90d")
	if code != 0 {
		t.Fatalf("create: code %d, %s", code, errs)
	}
	key := strings.TrimSpace(out)
	if out, _, _ = s.cli("key", "list"); !strings.Contains(out, "1 trigger, 127.0.0.0/8") {
		t.Errorf("list: %s", out)
	}
	with := &server{t: t, dir: s.dir, addr: s.addr, program: s.program, env: append(append([]string{}, s.env...), "AGENTED_API_KEY="+key)}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"trigger", "run", "allowed", "--follow"}, 0, "allowed"},
		{[]string{"execution", "logs", "@last"}, 0, "allowed"},
		{[]string{"execution", "list"}, 0, "allowed"},
		{[]string{"trigger", "list"}, 0, "allowed"},
		{[]string{"trigger", "show", "allowed"}, 0, "allowed"},
		{[]string{"trigger", "run", "forbidden"}, 3, ""},
		{[]string{"key", "list"}, 4, ""},
		{[]string{"account", "list"}, 4, ""},
		{[]string{"run", "--", "true"}, 4, ""},
	} {
		out, errs, code := with.cli(c.args...)
		if code != c.code || !strings.Contains(out, c.says) || strings.Contains(out, "forbidden") {
			t.Errorf("%q: code %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
	}
}

func TestCompletion_names(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.trigger(sh("Nightly review", "true", nil))
	e := s.await(s.fire(id))
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"trigger", "show", ""}, "Nightly review\tcommand\n"},
		{[]string{"trigger", "run", "nigh"}, "Nightly review\tcommand\n"},
		{[]string{"trigger", "delete", "trg-"}, id + "\tNightly review\n"},
		{[]string{"execution", "logs", "exec-"}, e.ID + "\t"},
		{[]string{"execution", "list", "--trigger", ""}, "Nightly review\tcommand\n"},
	} {
		if out, _, code := s.cli(append([]string{"__complete"}, tt.args...)...); code != 0 || !strings.Contains(out, tt.want) {
			t.Errorf("%v: code %d, %q does not hold %q", tt.args, code, out, tt.want)
		}
	}
	for _, args := range [][]string{{"trigger", "show", "zzz"}, {"trigger", "show", "x", ""}, {"execution", "cancel", ""}} {
		if out, _, _ := s.cli(append([]string{"__complete"}, args...)...); !strings.HasPrefix(out, ":") {
			t.Errorf("%v offers %q", args, out)
		}
	}
}

func TestDoctor_with_running_server(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.waitFor("the last file of the start", func() bool {
		_, err := os.Stat(filepath.Join(s.data(), "setup-link"))
		return err == nil
	})
	before := folder(t, s.data())
	out, errs, code := s.cli("doctor", "--json")
	var got struct {
		OK       bool `json:"ok"`
		Findings []struct{ Name, Status, Text string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.OK {
		t.Fatalf("code %d, %v, stdout %s, stderr %s", code, err, out, errs)
	}
	text := map[string]string{}
	for _, f := range got.Findings {
		text[f.Name] = f.Status + ": " + f.Text
	}
	if !strings.HasPrefix(text["database"], "ok: not checked, because the running server uses it (process ") {
		t.Errorf("database: %s", text["database"])
	}
	if want := "ok: ready at http://" + s.addr; text["server"] != want {
		t.Errorf("server: %s, want %s", text["server"], want)
	}
	if after := folder(t, s.data()); after != before {
		t.Errorf("the data folder held %s and holds %s", before, after)
	}
	s.kill()
	out, _, code = s.cli("doctor")
	if code != 0 || !strings.Contains(out, "is intact") || !strings.Contains(out, "not running") {
		t.Errorf("after the server was killed: code %d, %s", code, out)
	}
	if err := os.WriteFile(filepath.Join(s.data(), ".secret_key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, code = s.cli("doctor"); code != 1 || !strings.Contains(out, "✗ SECRET_KEY") || !strings.Contains(out, "is empty") {
		t.Errorf("with an empty key file: code %d, %s", code, out)
	}
}

// folder lists the names in a folder.
func folder(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

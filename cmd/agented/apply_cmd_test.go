package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// names lists the triggers of a server.
func (s *server) names() string {
	var got struct{ Items []struct{ Name string } }
	s.call("GET", "/api/v1/triggers?limit=200", nil, &got)
	var all []string
	for _, i := range got.Items {
		all = append(all, i.Name)
	}
	return strings.Join(all, " ")
}

func TestApply(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	const good = "name: a\nbackend: command\ncommand: [echo, hi]\n"
	dir := filepath.Join(s.dir, "files")
	file := func(name, text string) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("dry_run_checks_on_the_server", func(t *testing.T) {
		for _, bad := range []string{
			"name: zz\nbackend: cluade\n",
			"name: zz\nbackend: command\ncommand: [ls]\npromt: x\n",
			"name: zz\nbackend: claude\nprompt: x {nope}\n",
			"name: zz\nbackend: command\ncommand: [ls]\nschedules: [{cron: \"99 99 * * *\"}]\n",
		} {
			out, errs, code := s.cliWith(bad, "trigger", "apply", "-f", "-", "--dry-run")
			if code != 2 || strings.Contains(out, "would be") || !strings.Contains(errs, "line ") {
				t.Errorf("%q: exit code %d, %q %q", bad, code, out, errs)
			}
		}
		if _, errs, code := s.cliWith("name: zz\nbackend: cluade\n", "agent", "apply", "-f", "-", "--dry-run"); code != 2 {
			t.Errorf("an agent: exit code %d, %q", code, errs)
		}
		out, errs, code := s.cliWith(good, "trigger", "apply", "-f", "-", "--dry-run")
		if code != 0 || !strings.Contains(out, "a: would be created") || s.names() != "" {
			t.Errorf("exit code %d, %q %q, triggers %q", code, out, errs, s.names())
		}
	})
	t.Run("prints_whole_values_and_hints", func(t *testing.T) {
		long := strings.Repeat("word ", 60) + "end"
		out, errs, code := s.cliWith("name: long\nbackend: command\ncommand: [echo, '"+long+"']\nwebhooks: [{source: github}]\n", "trigger", "apply", "-f", "-", "--dry-run")
		if code != 0 || !strings.Contains(out, long) || !strings.Contains(out, "agented reload") || strings.Contains(out, "…") {
			t.Errorf("exit code %d, %q %q", code, out, errs)
		}
	})
	t.Run("all_or_nothing", func(t *testing.T) {
		file("1.yaml", good)
		file("2.yaml", "name: b\nbackend: command\ncommand: [ls]\ntimeout_seconds: -1\n")
		_, errs, code := s.cli("trigger", "apply", "-f", dir)
		if code != 2 || s.names() != "" || !strings.Contains(errs, "2.yaml") || !strings.Contains(errs, "line 4") || strings.Contains(errs, "items.") {
			t.Errorf("exit code %d, %q, triggers %q", code, errs, s.names())
		}
		file("2.yaml", "name: b\nbackend: command\ncommand: [ls]\n")
		if out, errs, code := s.cli("trigger", "apply", "-f", dir); code != 0 || s.names() != "a b" {
			t.Errorf("exit code %d, %q %q, triggers %q", code, out, errs, s.names())
		}
		if out, _, _ := s.cli("trigger", "apply", "-f", dir); out != "a: unchanged\nb: unchanged\n" {
			t.Errorf("again: %q", out)
		}
		// A change that fails later undoes the one before it.
		file("1.yaml", good+"enabled: false\n")
		file("2.yaml", "name: b\nbackend: nope\n")
		if _, _, code := s.cli("trigger", "apply", "-f", dir); code != 2 {
			t.Errorf("exit code %d", code)
		}
		var got struct{ Items []struct{ Enabled bool } }
		if s.call("GET", "/api/v1/triggers?name=a", nil, &got); !got.Items[0].Enabled {
			t.Error("the first file was applied")
		}
	})
	t.Run("prune", func(t *testing.T) {
		file("1.yaml", good)
		if err := os.Remove(filepath.Join(dir, "2.yaml")); err != nil {
			t.Fatal(err)
		}
		s.trigger(sh("by-hand", "true", nil))
		out, errs, code := s.cli("trigger", "apply", "-f", dir, "--prune", "--dry-run")
		if code != 0 || !strings.Contains(out, "b: would be deleted") || s.names() != "a b by-hand" {
			t.Errorf("dry run: exit code %d, %q %q, triggers %q", code, out, errs, s.names())
		}
		if out, _, _ := s.cli("trigger", "apply", "-f", dir, "--prune", "--set", "other"); strings.Contains(out, "deleted") || s.names() != "a b by-hand" {
			t.Errorf("another set: %q, triggers %q", out, s.names())
		}
		if out, errs, code := s.cli("trigger", "apply", "-f", dir, "--prune"); code != 0 || s.names() != "a by-hand" {
			t.Errorf("exit code %d, %q %q, triggers %q", code, out, errs, s.names())
		}
	})
	t.Run("dry_run_of_one_request", func(t *testing.T) {
		var v struct{ Name, ID string }
		if status := s.call("POST", "/api/v1/triggers?dry_run=true", sh("c", "true", nil), &v); status != 201 || v.Name != "c" || s.names() != "a by-hand" {
			t.Errorf("create: %d %+v, triggers %q", status, v, s.names())
		}
		if status := s.call("POST", "/api/v1/triggers?dry_run=true", sh("A", "true", nil), nil); status != 409 {
			t.Errorf("a name that is in use: %d", status)
		}
		var list struct{ Items []struct{ ID, Name string } }
		s.call("GET", "/api/v1/triggers?name=a", nil, &list)
		path := "/api/v1/triggers/" + list.Items[0].ID + "?dry_run=true"
		if status := s.call("PATCH", path, map[string]any{"name": "d"}, &v); status != 200 || v.Name != "d" || s.names() != "a by-hand" {
			t.Errorf("update: %d %+v, triggers %q", status, v, s.names())
		}
		if status := s.call("PATCH", path, map[string]any{"timeout_seconds": -1}, nil); status != 422 {
			t.Errorf("a bad update: %d", status)
		}
		if status := s.call("POST", "/api/v1/agents?dry_run=true", map[string]any{"name": "g", "backend": "claude"}, nil); status != 201 {
			t.Errorf("an agent: %d", status)
		}
		if status := s.call("GET", "/api/v1/agents/g", nil, nil); status != 404 {
			t.Errorf("the agent was stored: %d", status)
		}
	})
	t.Run("env_round_trip", func(t *testing.T) {
		const env = "name: env\nbackend: command\ncommand: [ls]\nenv:\n  HOOK: https://example.org/hook\n  DIR: {value: /srv/one, secret: false}\n  HOME: null\n"
		if _, errs, code := s.cliWith(env, "trigger", "apply", "-f", "-"); code != 0 {
			t.Fatal(errs)
		}
		shown, errs, code := s.cli("trigger", "show", "env")
		if code != 0 || strings.Contains(shown, "example.org") || !strings.Contains(shown, "/srv/one") {
			t.Fatalf("exit code %d, %q %q", code, shown, errs)
		}
		if out, errs, _ := s.cliWith(shown, "trigger", "apply", "-f", "-"); out != "env: unchanged\n" {
			t.Errorf("what show printed: %q %q", out, errs)
		}
		other := strings.Replace(env, "/srv/one", "/srv/two", 1)
		out, errs, _ := s.cliWith(strings.Replace(other, "  HOME: null\n", "", 1), "trigger", "apply", "-f", "-")
		for _, want := range []string{"~ env.DIR: \"/srv/one\" → \"/srv/two\"", "- env.HOME", "~ env: HOOK (values are hidden)"} {
			if !strings.Contains(out, want) || strings.Contains(out, "example.org") {
				t.Errorf("diff %q %q, want %q", out, errs, want)
			}
		}
		_, errs, code = s.cliWith(strings.Replace(env, "/srv/one", "8080", 1), "trigger", "apply", "-f", "-")
		if code != 2 || !strings.Contains(errs, "line 6") || !strings.Contains(errs, "value: \"8080\"") {
			t.Errorf("a number: exit code %d, %q", code, errs)
		}
	})
}

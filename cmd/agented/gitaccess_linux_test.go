package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGit_access pushes from a checkout whose token the command does not have.
func TestGit_access(t *testing.T) {
	t.Parallel()
	address, origin := credentialServer(t)
	seed := t.TempDir()
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", seed},
		{"-C", seed, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "--allow-empty", "-m", "first"},
		{"-C", seed, "push", "-q", origin, "HEAD:refs/heads/main"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	s := prepare(t, "AGENTED_WORKSPACE_PROTOCOLS=http,https")
	s.start()
	s.call("POST", "/api/v1/secrets", map[string]any{"name": "forge", "value": gitPassword}, nil)
	for access, want := range map[string]string{"push": "pushed", "fetch": "refused", "": "no credential"} {
		workspace := map[string]any{"repository": address + "/origin.git", "ref": "main", "credential": map[string]any{"secret": "forge"}}
		if access != "" {
			workspace["access"] = access
		}
		branch := "by-" + access
		script := `{ env; cat .git/config; tr '\0' '\n' </proc/self/cmdline; } >seen
			export GIT_TERMINAL_PROMPT=0
			git fetch -q origin || { echo no credential; exit; }
			git -c user.name=x -c user.email=x@example.org commit -q --allow-empty -m second
			git push -q origin HEAD:refs/heads/` + branch + ` && echo pushed || echo refused`
		id := s.fire(s.trigger(map[string]any{
			"name": "git with access " + access + ".", "backend": "command", "command": []string{"sh", "-c", script}, "workspace": workspace, "timeout_seconds": 300,
		}))
		e := s.await(id)
		if out := text(s.lines(id), "stdout"); e.Status != "success" || strings.TrimSpace(out) != want {
			t.Errorf("access %q: %s %q\n%s", access, e.Status, out, s.logText(id))
		}
		_, err := exec.Command("git", "--git-dir", origin, "rev-parse", "--verify", branch).CombinedOutput()
		if pushed := err == nil; pushed != (access == "push") {
			t.Errorf("access %q: the branch is there: %v", access, pushed)
		}
		seen := 0
		err = filepath.WalkDir(filepath.Join(s.data(), "executions", id), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				file, _ := os.ReadFile(path)
				if seen++; strings.Contains(string(file), gitPassword) {
					t.Errorf("access %q: %s contains the token", access, path)
				}
			}
			return nil // files come and go
		})
		if err != nil || seen == 0 {
			t.Errorf("%d files, %v", seen, err)
		}
	}
}

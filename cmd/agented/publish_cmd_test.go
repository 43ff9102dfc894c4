package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/github/githubtest"
)

type publications struct {
	Items []struct {
		Kind, Status, Rule, Reason, URL string
	}
}

// TestPublish opens a pull request with the changes of an execution, after an approval, with the
// server killed while it waits.
func TestPublish(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	hub := githubtest.New(t)
	repo := hub.AddRepo("octo/widgets")
	bare, work := filepath.Join(t.TempDir(), "widgets.git"), filepath.Join(t.TempDir(), "work")
	git := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=A", "-c", "user.email=a@example.com"}, args...)...)
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("", "init", "-q", "--bare", "-b", "main", bare)
	git("", "clone", "-q", bare, work)
	git(work, "commit", "-q", "--allow-empty", "-m", "first")
	git(work, "push", "-q", "origin", "HEAD:main")
	hub.Do(func() { repo.GitDir = bare })
	s := newServer(t, "AGENTED_GITHUB_TOKEN="+hub.AddToken("agented-bot"), "AGENTED_GITHUB_API_URL="+hub.URL)
	id := s.fire(s.trigger(map[string]any{
		"name": "fixer", "backend": "command",
		"command":   []string{"sh", "-c", `echo fixed > fix.txt && printf '{"kind":"pull_request","title":"Fix it"}' > "$AGENTED_OUT/pr.json"`},
		"workspace": map[string]any{"repository": "file://" + bare},
		"publish":   map[string]any{"repository": "octo/widgets", "hold": true, "pull_request": map[string]any{"draft": true}},
		"expect":    map[string]any{"published": "pull_request"},
	}))
	if e := s.await(id); e.Status != "success" {
		t.Fatalf("%+v", e)
	}
	var got publications
	status := func(want string) func() bool {
		return func() bool {
			s.call("GET", "/api/v1/executions/"+id+"/publications", nil, &got)
			return len(got.Items) == 1 && got.Items[0].Status == want
		}
	}
	s.waitFor("the hold", status("held"))
	if w := hub.Writes(); len(w) != 0 {
		t.Fatalf("written before the approval: %+v", w)
	}
	if out, _, _ := s.cli("execution", "show", id); !strings.Contains(out, "met so far: published: the proposed pull request passed the checks") {
		t.Errorf("the execution is\n%s", out)
	}
	s.kill()
	s.start()
	if out, errs, code := s.cli("execution", "approve", id, "1"); code != 0 {
		t.Fatalf("approve: %d %s%s", code, out, errs)
	}
	s.waitFor("the pull request", status("published"))
	hub.Do(func() {
		if len(repo.Pulls) != 1 || repo.Pulls[0].Title != "Fix it" || !repo.Pulls[0].Draft {
			t.Errorf("pull requests %+v", repo.Pulls)
		}
	})
	if got := git(bare, "show", "agented/"+id+":fix.txt"); got != "fixed" {
		t.Errorf("content %q", got)
	}
	out, _, _ := s.cli("execution", "publications", id)
	if !strings.Contains(out, "published") || !strings.Contains(out, got.Items[0].URL) {
		t.Errorf("the list is\n%s", out)
	}
	if out, _, _ := s.cli("execution", "show", id); !strings.Contains(out, "pull_request published") || !strings.Contains(out, " met: published: the pull request was published") {
		t.Errorf("the execution is\n%s", out)
	}
}

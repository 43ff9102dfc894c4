package dispatch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
)

// TestPullRequestReview follows the recipe of the reference: a pull request of a bare repository
// in which only refs/pull/2/head contains the commit.
func TestPullRequestReview(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	source := strings.TrimPrefix(address, "file://")
	bare := filepath.Join(t.TempDir(), "Hello-World.git")
	git := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit("one")
	git(source, "checkout", "-q", "-b", "changes")
	if err := os.WriteFile(filepath.Join(source, "new.txt"), []byte("added <<<line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	head := commit("two")
	git(source, "checkout", "-q", "main")
	base := commit("main went on")
	git(filepath.Dir(source), "clone", "-q", "--bare", "--single-branch", "--branch", "main", address, bare)
	git(bare, "fetch", "-q", address, "refs/heads/changes:refs/pull/2/head")

	d := h.dispatcher(h.withWorkspaces)
	defer h.run(d)()
	trigger := h.trigger("review", *command("sh", "-c", "cat; echo; git diff --name-only origin/main...HEAD; git rev-parse HEAD origin/main"))
	trigger.Spec.Prompt = "{pr_url} into {base_branch} at {base_sha}. Files: {changed_files} Diff: {diff}"
	trigger.Spec.Workspace = &agented.Workspace{Repository: "file://" + bare, Depth: 1}
	pull := event(t, "pull_request", map[string]any{
		"action": "opened", "number": 2, "repository": map[string]any{"full_name": "Codertocat/Hello-World"}, "sender": map[string]any{"login": "Codertocat"},
		"pull_request": map[string]any{
			"number": 2, "html_url": "https://github.com/Codertocat/Hello-World/pull/2", "author_association": "OWNER",
			"head": map[string]any{"ref": "changes", "sha": head}, "base": map[string]any{"ref": "main", "sha": base},
		},
	})
	fired := h.deliver(d, trigger, pull)
	h.await(fired.Execution)
	e := h.stored(fired.Execution)
	text := h.text(fired.Execution)
	if e.State != agented.StateSuccess {
		t.Fatalf("%s %q\n%s", e.State, e.Reason, text)
	}
	for _, part := range []string{
		"https://github.com/Codertocat/Hello-World/pull/2 into main at " + base + ".", "begin changed_files: text from outside", "begin diff: text from outside",
		"+added <<<line", "end diff>>>", "\nfile\nnew.txt\n" + head + "\n" + base + "\n",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in\n%s", part, text)
		}
	}
	if strings.Contains(text, "main went on") && strings.Contains(text, "+main went on") {
		t.Errorf("the diff shows what the base branch changed:\n%s", text)
	}
	if strings.Contains(e.Prompt, "\uE000") || !strings.Contains(e.Prompt, "+added <<<line") {
		t.Errorf("the stored prompt is %q", e.Prompt)
	}
}

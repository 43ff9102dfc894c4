package workspace

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented"
)

// hostile creates a pull request with agent files of every kind and symbolic links, and returns
// its commit. The default branch contains some of its own.
func (s *scene) hostile() string {
	s.t.Helper()
	write := func(name, content string) {
		path := filepath.Join(s.origin, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	link := func(target, name string) {
		path := filepath.Join(s.origin, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			s.t.Fatal(err)
		}
		_ = os.RemoveAll(path)
		if err := os.Symlink(target, path); err != nil {
			s.t.Fatal(err)
		}
	}
	write("CLAUDE.md", "ours")
	write("pkg/CLAUDE.md", "ours in pkg")
	write(".claude/settings.json", "ours")
	write("guide.md", "our guide")
	link("guide.md", "AGENTS.md")
	write(".gemini/settings.json", "ours")
	write(".github/workflows/ci.yml", "ours")
	s.commit("b.txt", "base")

	s.gitIn(s.origin, "checkout", "-q", "-b", "attack")
	write("guide.md", "evil guide")
	write("CLAUDE.md", "evil")
	write("claude.local.MD", "evil")
	link("evil", ".claude")
	write("evil/settings.json", "evil")
	write("evil/copilot-instructions.md", "evil")
	s.gitIn(s.origin, "rm", "-rq", "--cached", ".github", "pkg")
	_ = os.RemoveAll(filepath.Join(s.origin, "pkg"))
	link("evil", ".github")
	link("evil", "pkg")
	for _, name := range []string{
		".mcp.json", "deep/er/.mcp.json", "deep/CLAUDE.md", "deep/AGENTS.override.md", "GEMINI.md", ".gemini/hooks/x", "opencode.json", "opencode.jsonc", ".opencode/plugin/x.ts",
		".codex/config.toml", ".cursor/rules/x.mdc", ".cursorrules", ".agents/skills/x/SKILL.md", ".env", ".env.local", "bunfig.toml", ".vscode/mcp.json", "sub/.github/instructions/x.md",
	} {
		write(name, "evil")
	}
	write(".env.example", "kept")
	link("/etc/hostname", "absolute")
	link("../../../../etc/hostname", "deep/outside")
	link("..", "deep/up")
	link("up/../secret", "deep/tricky")
	link("a.txt", "inside")
	commit := s.commit("c.txt", "attack")
	s.gitIn(s.origin, "update-ref", "refs/pull/1/head", commit)
	s.gitIn(s.origin, "checkout", "-q", "-f", "main")
	s.gitIn(s.origin, "branch", "-q", "-D", "attack")
	return commit
}

// evil lists the files below dir, following links, with content of the pull request under a name
// that an agent CLI reads.
func evil(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(file string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, file)
		if rel == ".git" {
			return filepath.SkipDir
		}
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), "evil") && protectedPath(filepath.ToSlash(rel), true) != "" {
			found = append(found, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestForeignCheckout(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	commit := s.hostile()
	r := s.request(agented.Workspace{Ref: commit})
	c := s.prepare(r)
	check := func(when string) {
		t.Helper()
		for name, want := range map[string]string{
			"CLAUDE.md": "ours", ".claude/settings.json": "ours", "AGENTS.md": "our guide", "guide.md": "evil guide", ".env.example": "kept", "inside": "one",
		} {
			if got := s.file(c, name); got != want {
				t.Errorf("%s: %s is %q, want %q", when, name, got, want)
			}
		}
		if found := evil(t, c.Dir); len(found) > 0 {
			t.Errorf("%s: of the pull request there are %q", when, found)
		}
		for _, name := range []string{"absolute", "deep/outside", "deep/tricky", ".github", ".gemini", ".env"} {
			if _, err := os.Lstat(filepath.Join(c.Dir, name)); err == nil {
				t.Errorf("%s: %s is there", when, name)
			}
		}
		if info, err := os.Lstat(filepath.Join(c.Dir, "AGENTS.md")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: AGENTS.md is no file: %v", when, err)
		}
	}
	check("at first")
	if out := s.gitIn(c.Dir, "status", "--porcelain", "--", "CLAUDE.md", ".claude", "AGENTS.md", ".mcp.json", ".env", "opencode.json"); out != "" {
		t.Errorf("git sees changes: %s", out)
	}

	// Changes that an agent makes in its first attempt.
	outside := t.TempDir()
	for _, name := range []string{".mcp.json", "CLAUDE.md", ".claude/hooks/x.sh", "new/AGENTS.md", ".gemini/settings.json", ".git/hooks/pre-commit", ".git/info/attributes", "sub/CONTEXT.md"} {
		path := filepath.Join(c.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("evil"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "CLAUDE.md"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(c.Dir, "new", ".opencode")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(c.Dir, ".claude", "hooks"), 0); err != nil {
		t.Fatal(err)
	}
	s.gitIn(c.Dir, "config", "core.fsmonitor", "touch /tmp/x")
	// Now git would read its settings from another folder.
	if err := os.WriteFile(filepath.Join(c.Dir, ".git", "commondir"), []byte("../new"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := s.m.Restore(r.Execution, true)
	if err != nil {
		t.Fatal(err)
	}
	check("after an attempt")
	for _, name := range []string{".mcp.json", "CLAUDE.md", "new/AGENTS.md", "new/.opencode"} {
		if !slices.Contains(changed, name) {
			t.Errorf("%s is not among the changed %q", name, changed)
		}
	}
	if b, err := os.ReadFile(filepath.Join(outside, "CLAUDE.md")); err != nil || string(b) != "kept" {
		t.Errorf("a file outside of the checkout was changed: %q %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(c.Dir, ".git", "config")); err != nil || strings.Contains(string(b), "fsmonitor") {
		t.Errorf("git's settings are %s, %v", b, err)
	}
	for _, name := range []string{".git/hooks", ".git/info/attributes", ".git/commondir", "sub/CONTEXT.md"} {
		if _, err := os.Lstat(filepath.Join(c.Dir, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if again, err := s.m.Restore(r.Execution, true); err != nil || len(again) > 0 {
		t.Errorf("once more: %q, %v", again, err)
	}
}

func TestTrustedCheckout(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := s.request(agented.Workspace{Ref: s.hostile()})
	r.Trusted = true
	c := s.prepare(r)
	if got := s.file(c, "CLAUDE.md") + s.file(c, ".mcp.json") + s.file(c, ".gemini/hooks/x"); got != "evilevilevil" {
		t.Errorf("the files of the checkout are %q", got)
	}
}

func TestForeignCheckoutOfDefault(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.hostile()
	c := s.prepare(s.request(agented.Workspace{}))
	if got := s.file(c, "CLAUDE.md") + ", " + s.file(c, "pkg/CLAUDE.md") + ", " + s.file(c, ".github/workflows/ci.yml"); got != "ours, ours in pkg, ours" {
		t.Errorf("the files of the default branch are %q", got)
	}
}

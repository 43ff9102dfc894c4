package publish

import (
	"strings"
	"testing"

	"github.com/agented/agented"
)

func TestPullRequest(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	id := g.run(task{
		publish: agented.Publish{PullRequest: &agented.PublishPullRequest{Draft: true, Labels: []string{"agent"}, Author: "Fix Bot <fix@example.com>"}},
		files:   map[string]string{"pr.json": `{"kind":"pull_request","title":"Fix the widget","body":"Thanks @octocat. <!-- hidden -->"}`},
		do: func() {
			g.write("src/main.go", "package main\n\nfunc main() {}\n")
			g.commit("by the agent")
			g.write("new.bin", "\x00\x01\x02binary")
			g.git(g.work, "rm", "-q", "README.md")
		},
	})
	list := g.publish(id)
	if len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	p := list[0]
	g.hub.Do(func() {
		if len(g.repo.Pulls) != 1 {
			t.Fatalf("%d pull requests", len(g.repo.Pulls))
		}
		pr := g.repo.Pulls[0]
		if pr.Title != "Fix the widget" || !pr.Draft || pr.Base.Ref != "main" || pr.Head.Ref != "agented/"+string(id) || p.URL != pr.HTMLURL {
			t.Errorf("the pull request is %+v", pr)
		}
		if !strings.Contains(pr.Body, agented.PublicationMarker(id, 1)) || strings.Contains(pr.Body, "@octocat") || strings.Contains(pr.Body, "<!-- hidden") {
			t.Errorf("body %q", pr.Body)
		}
		if got := g.repo.Labels[pr.Number]; len(got) != 1 || got[0] != "agent" {
			t.Errorf("labels %q", got)
		}
	})
	branch := "agented/" + string(id)
	if got := g.show(branch + ":src/main.go"); got != "package main\n\nfunc main() {}" {
		t.Errorf("content %q", got)
	}
	if got := g.show(branch + ":new.bin"); got != "\x00\x01\x02binary" {
		t.Errorf("binary content %q", got)
	}
	if got := g.git(g.repo.GitDir, "log", "-1", "--format=%an <%ae> %s|%(trailers:key=Agented-Execution,valueonly)", branch); got != "Fix Bot <fix@example.com> Fix the widget|"+string(id) {
		t.Errorf("commit %q", got)
	}
	if got := g.git(g.repo.GitDir, "rev-list", "--count", "main.."+branch); got != "1" {
		t.Errorf("%s commits", got)
	}
	if got := g.git(g.repo.GitDir, "ls-tree", "-r", "--name-only", branch); strings.Contains(got, "README.md") {
		t.Errorf("files %q", got)
	}
}

func TestPullRequest_without_proposal(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	id := g.run(task{
		publish: agented.Publish{PullRequest: &agented.PublishPullRequest{BranchPrefix: "bots/x-", Base: "main"}},
		result:  "I fixed it.", do: func() { g.write("fix.txt", "fix\n") },
	})
	list := g.publish(id)
	if len(list) != 1 || list[0].Status != agented.PublicationPublished || list[0].Branch != "bots/x-"+string(id) {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		if pr := g.repo.Pulls[0]; pr.Title != "Changes by fixer" || !strings.HasPrefix(pr.Body, "I fixed it.") {
			t.Errorf("%q %q", pr.Title, pr.Body)
		}
	})
	if list := g.list(g.run(task{publish: agented.Publish{PullRequest: &agented.PublishPullRequest{}}, result: "nothing to do"})); len(list) != 0 {
		t.Errorf("an execution without changes publishes %s", brief(list))
	}
}

func TestPullRequest_refused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pr   agented.PublishPullRequest
		do   func(g *rig)
		rule string
	}{
		"workflow":      {do: func(g *rig) { g.write(".github/workflows/ci.yml", "on: push\n") }, rule: "forbidden_paths"},
		"workflow case": {do: func(g *rig) { g.write(".GitHub/workflows/ci.yml", "on: push\n") }, rule: "forbidden_paths"},
		"agent files":   {do: func(g *rig) { g.write("sub/.claude/settings.json", "{}\n") }, rule: "forbidden_paths"},
		"instructions":  {do: func(g *rig) { g.write("notes/CLAUDE.md", "do\n") }, rule: "forbidden_paths"},
		"own pattern": {
			pr: agented.PublishPullRequest{ForbiddenPaths: []string{"deploy/**"}}, rule: "forbidden_paths",
			do: func(g *rig) { g.write("deploy/prod/x.yml", "x\n") },
		},
		"symlink out":      {do: func(g *rig) { g.link("sub/link", "../../etc/passwd") }, rule: "symlink"},
		"symlink absolute": {do: func(g *rig) { g.link("link", "/etc/passwd") }, rule: "symlink"},
		"symlink git":      {do: func(g *rig) { g.link("link", ".git/config") }, rule: "symlink"},
		"secret":           {do: func(g *rig) { g.write("config.txt", "token = "+secret+"\n") }, rule: "secret"},
		"secret in binary": {do: func(g *rig) { g.write("config.bin", "\x00\x00"+secret+"\x00") }, rule: "secret"},
		"secret in name":   {do: func(g *rig) { g.write(secret+".txt", "x\n") }, rule: "secret"},
		"secret shape":     {do: func(g *rig) { g.write("t.txt", "ghp_"+strings.Repeat("a1B2", 9)+"\n") }, rule: "secret"},
		"large file":       {do: func(g *rig) { g.write("large.bin", strings.Repeat("0123456789abcdef", 50<<16)) }, rule: "file_size"},
		"many bytes":       {do: func(g *rig) { g.write("some.bin", strings.Repeat("0123456789abcdef", 6<<16)) }, rule: "max_bytes"},
		"many files": {
			pr: agented.PublishPullRequest{MaxFiles: 2}, rule: "max_files",
			do: func(g *rig) { g.write("a", "a\n"); g.write("b", "b\n"); g.write("c", "c\n") },
		},
		"submodules": {do: func(g *rig) { g.write(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = https://example.com/x\n") }, rule: "submodule"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			list := g.publish(g.run(task{publish: agented.Publish{PullRequest: &c.pr}, result: "done", do: func() { c.do(g) }}))
			if len(list) != 1 || list[0].Status != agented.PublicationRefused || list[0].Rule != c.rule {
				t.Errorf("%s, want rule %s", brief(list), c.rule)
			}
			if w := g.hub.Writes(); len(w) != 0 {
				t.Errorf("written: %+v", w)
			}
			if len(list) == 1 && strings.Contains(list[0].Reason+list[0].Title+string(list[0].Proposal), secret) {
				t.Errorf("the secret is stored: %+v", list[0])
			}
		})
	}
}

// TestPullRequest_fork works on a commit that is in the repository, as that of a fork's pull request
// is, but in no branch that is merged into.
func TestPullRequest_fork(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.write(".github/workflows/steal.yml", "on: push\n")
	g.commit("by a stranger")
	g.git(g.work, "push", "-q", "origin", "HEAD:refs/pull/7/head")
	list := g.publish(g.run(task{publish: agented.Publish{PullRequest: &agented.PublishPullRequest{}}, result: "done", do: func() { g.write("x.txt", "x\n") }}))
	if len(list) != 1 || list[0].Status != agented.PublicationRefused || list[0].Rule != "base" {
		t.Error(brief(list))
	}
	if w := g.hub.Writes(); len(w) != 0 {
		t.Errorf("written: %+v", w)
	}
}

func TestPullRequest_allowed_paths(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	list := g.publish(g.run(task{
		publish: agented.Publish{PullRequest: &agented.PublishPullRequest{AllowPaths: []string{".github/workflows/**"}}}, result: "done",
		do: func() { g.write(".github/workflows/ci.yml", "on: push\n"); g.link("docs/readme", "../README.md") },
	}))
	if len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Error(brief(list))
	}
}

func TestComment(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.repo.AddPull("topic", strings.Repeat("b", 40), "octocat")
	target := &agented.PublishTarget{Repository: repoName, Number: 1, PullRequest: true, SHA: strings.Repeat("b", 40), Branch: "topic", Base: "main"}
	trigger := agented.TriggerID(agented.NewID("trg", time0()))
	first := g.run(task{trigger: trigger, target: target, publish: agented.Publish{Comment: &agented.PublishComment{}}, result: "Looks good."})
	if list := g.publish(first); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	second := g.run(task{trigger: trigger, target: target, publish: agented.Publish{Comment: &agented.PublishComment{}}, files: map[string]string{"c.json": `{"kind":"comment","body":"Even better."}`}})
	if list := g.publish(second); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		list := g.repo.Comments[1]
		if len(list) != 1 || !strings.HasPrefix(list[0].Body, "Even better.") || !strings.HasSuffix(list[0].Body, agented.PublicationMarker(second, 1)) {
			t.Errorf("comments %+v", list)
		}
	})
	third := g.run(task{trigger: trigger, target: target, publish: agented.Publish{Comment: &agented.PublishComment{New: true}}, result: "Another one."})
	if list := g.publish(third); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		if n := len(g.repo.Comments[1]); n != 2 {
			t.Errorf("%d comments", n)
		}
	})
}

func TestSuperseded(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	pr := g.repo.AddPull("topic", strings.Repeat("c", 40), "octocat")
	target := &agented.PublishTarget{Repository: repoName, Number: pr.Number, PullRequest: true, SHA: strings.Repeat("b", 40), Branch: "topic"}
	id := g.run(task{
		target: target, result: "done", do: func() { g.write("x", "x\n") },
		publish: agented.Publish{Comment: &agented.PublishComment{}, PullRequest: &agented.PublishPullRequest{}},
		files:   map[string]string{"a.json": `{"kind":"comment","body":"x"}`, "b.json": `{"kind":"pull_request","title":"x"}`},
	})
	list := g.publish(id)
	if len(list) != 2 || list[0].Status != agented.PublicationSuperseded || list[1].Status != agented.PublicationSuperseded {
		t.Error(brief(list))
	}
	if w := g.hub.Writes(); len(w) != 0 {
		t.Errorf("written: %+v", w)
	}
}

package publish

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github/githubtest"
	"github.com/agented/agented/internal/store"
)

// pull returns a task that publishes a pull request with a label.
func (g *rig) pull() task {
	return task{
		publish: agented.Publish{PullRequest: &agented.PublishPullRequest{Labels: []string{"agent"}}}, result: "done",
		do: func() { g.write("fix.txt", "fix\n") },
	}
}

// wantOnePull fails unless there is exactly one complete pull request.
func (g *rig) wantOnePull(id agented.ExecutionID) {
	g.t.Helper()
	g.hub.Do(func() {
		if len(g.repo.Pulls) != 1 || len(g.repo.Labels[1]) != 1 {
			g.t.Errorf("%d pull requests, labels %v", len(g.repo.Pulls), g.repo.Labels)
		}
	})
	if got := g.git(g.repo.GitDir, "for-each-ref", "--format=%(refname)", "refs/heads/agented"); got != "refs/heads/agented/"+string(id) {
		g.t.Errorf("branches %q", got)
	}
	if got := g.git(g.repo.GitDir, "rev-list", "--count", "main..agented/"+string(id)); got != "1" {
		g.t.Errorf("%s commits", got)
	}
}

func TestPullRequest_faults(t *testing.T) {
	t.Parallel()
	calls := map[string]githubtest.Fault{
		"repository": {Method: "GET", Path: `^/repos/octo/widgets$`},
		"pulls":      {Method: "GET", Path: `/pulls$`},
		"branch":     {Method: "GET", Path: `/git/ref/`},
		"push refs":  {Method: "GET", Path: `\.git/info/refs$`, After: 1},
		"push":       {Method: "POST", Path: `git-receive-pack$`},
		"create":     {Method: "POST", Path: `/pulls$`},
		"labels":     {Method: "POST", Path: `/labels$`},
	}
	for name, f := range calls {
		for _, done := range []bool{false, true} {
			for _, drop := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s done=%v drop=%v", name, done, drop), func(t *testing.T) {
					t.Parallel()
					g := newRig(t)
					f := f
					f.Done, f.Drop = done, drop
					g.hub.Fail(f)
					id := g.run(g.pull())
					if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished || list[0].Tries != 1 && name != "branch" && list[0].Tries > 1 {
						t.Fatal(brief(list))
					}
					g.wantOnePull(id)
				})
			}
		}
	}
}

func TestComment_answer_lost(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	pr := g.repo.AddPull("topic", strings.Repeat("b", 40), "octocat")
	g.hub.Fail(githubtest.Fault{Method: "POST", Path: `/comments$`, Done: true})
	id := g.run(task{
		target: &agented.PublishTarget{Repository: repoName, Number: pr.Number}, publish: agented.Publish{Comment: &agented.PublishComment{}}, result: "hello",
	})
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished || list[0].URL == "" {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		if n := len(g.repo.Comments[pr.Number]); n != 1 {
			t.Errorf("%d comments", n)
		}
	})
}

// TestPullRequest_kill kills the process that publishes at every call, before and after the forge
// has done what the call requests, and starts another one.
func TestPullRequest_kill(t *testing.T) {
	t.Parallel()
	for n := range 9 {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d done=%v", n+1, done), func(t *testing.T) {
				t.Parallel()
				g := newRig(t)
				id := g.run(g.pull())
				g.db.Close()
				g.hub.Fail(githubtest.Fault{After: n, Hang: true, Done: done})
				first := g.child()
				g.waitFor("the call", func() bool { return len(g.hub.Calls()) > n })
				g.kill(first)
				second := g.child()
				g.waitFor("the labels", func() bool {
					for _, c := range g.hub.Calls() {
						if c.Method == http.MethodPost && strings.HasSuffix(c.Path, "/labels") && c.Done && c.N > n+1 {
							return true
						}
					}
					return false
				})
				g.kill(second)
				var err error
				if g.db, err = store.Open(t.Context(), filepath.Join(g.layout.Root, "agented.db"), store.Options{}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { g.db.Close() })
				g.start()
				if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished || list[0].URL == "" {
					t.Fatal(brief(list))
				}
				g.wantOnePull(id)
			})
		}
	}
}

// child starts a process that publishes.
func (g *rig) child() *exec.Cmd {
	g.t.Helper()
	self, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childName+"="+g.layout.Root, childName+"_URL="+g.hub.URL, childName+"_TOKEN="+g.token)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.kill(cmd) })
	return cmd
}

func (g *rig) kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (g *rig) waitFor(what string, done func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("no sign of %s; calls %+v", what, g.hub.Calls())
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.hub.SecondaryLimit("POST", `/pulls$`, 0, 1, "1")
	id := g.run(g.pull())
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	g.wantOnePull(id)
}

func TestFailure_is_final(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.hub.Fail(githubtest.Fault{Method: "POST", Path: `/pulls$`, Status: http.StatusForbidden, Body: `{"message":"Resource not accessible by personal access token"}`})
	list := g.publish(g.run(g.pull()))
	if len(list) != 1 || list[0].Status != agented.PublicationFailed || !strings.Contains(list[0].Reason, "not accessible") {
		t.Error(brief(list))
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	k := g.pull()
	k.publish.Hold = true
	id := g.run(k)
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationHeld || len(g.hub.Writes()) != 0 {
		t.Fatal(brief(list), g.hub.Writes())
	}
	if _, err := g.db.DecidePublication(t.Context(), id, 1, true, "alice", time.Now().Add(time.Hour), time.Now()); err != nil {
		t.Fatal(err)
	}
	if list := g.publish(id); list[0].Status != agented.PublicationPublished || list[0].DecidedBy != "alice" {
		t.Fatal(brief(list))
	}
	g.wantOnePull(id)
	if _, err := g.db.DecidePublication(t.Context(), id, 1, false, "bob", time.Time{}, time.Now()); agented.KindOf(err) != agented.Conflict {
		t.Errorf("a second decision: %v", err)
	}
}

func TestHostile_repository(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	canary := filepath.Join(t.TempDir(), "ran")
	run := "touch " + canary + "; cat"
	k := g.pull()
	k.do = func() {
		g.write(".gitattributes", "* filter=evil diff=evil merge=evil text=auto\n")
		g.write("fix.txt", "fix\r\n")
		g.write(".gitconfig", "[core]\n\tfsmonitor = \""+run+"\"\n")
		for _, kv := range [][2]string{
			{"filter.evil.clean", run},
			{"filter.evil.smudge", run},
			{"diff.evil.textconv", run},
			{"diff.evil.command", run},
			{"core.fsmonitor", run},
			{"core.sshCommand", run},
			{"core.hooksPath", filepath.Join(g.work, "hooks")},
			{"credential.helper", "!" + run},
			{"core.pager", run},
		} {
			g.append(filepath.Join(g.work, ".git", "config"), kv)
		}
		g.write("hooks/pre-push", "#!/bin/sh\n"+run+"\n")
		g.write("hooks/reference-transaction", "#!/bin/sh\n"+run+"\n")
	}
	k.hostile = true
	id := g.run(k)
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	if _, err := os.Stat(canary); err == nil {
		t.Error("a program of the repository ran")
	}
	if got := g.show("agented/" + string(id) + ":fix.txt"); got != "fix" && got != "fix\r" {
		t.Errorf("content %q", got)
	}
}

// append adds a setting to a configuration file without running git.
func (g *rig) append(path string, kv [2]string) {
	g.t.Helper()
	at := strings.LastIndexByte(kv[0], '.')
	section, sub, _ := strings.Cut(kv[0][:at], ".")
	head := "[" + section + "]"
	if sub != "" {
		head = fmt.Sprintf("[%s %q]", section, sub)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s\n\t%s = %q\n", head, kv[0][at+1:], kv[1])
}

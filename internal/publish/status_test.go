package publish

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/github/githubtest"
	"github.com/agented/agented/internal/store"
)

// status returns a task that sets a status on the head of a pull request.
func (g *rig) status() task {
	sha := strings.Repeat("b", 40)
	pr := g.repo.AddPull("topic", sha, "octocat")
	g.hub.Do(func() { g.repo.GitDir = "" })
	return task{
		target:  &agented.PublishTarget{Repository: repoName, Number: pr.Number, PullRequest: true, SHA: sha, Branch: "topic"},
		publish: agented.Publish{CommitStatus: &agented.PublishCommitStatus{Context: "agented/review"}},
		files:   map[string]string{"s.json": `{"kind":"commit_status","state":"failure","description":"Asked @octocat:\t2 bugs"}`},
	}
}

func (g *rig) wantOneStatus(id agented.ExecutionID) {
	g.t.Helper()
	g.hub.Do(func() {
		var all []github.Status
		for _, list := range g.repo.Statuses {
			all = append(all, list...)
		}
		if len(all) != 1 || len(g.repo.Statuses[strings.Repeat("b", 40)]) != 1 {
			g.t.Errorf("statuses %+v", g.repo.Statuses)
			return
		}
		s := all[0]
		if s.State != "failure" || s.Context != "agented/review" || s.Description != "Asked @\u200boctocat: 2 bugs" {
			g.t.Errorf("status %+v", s)
		}
		if by, ok := agented.PublishedBy(s.TargetURL); !ok || by != id {
			g.t.Errorf("the address %q does not name the execution", s.TargetURL)
		}
	})
}

func TestCommitStatus_faults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]githubtest.Fault{
		"look up":    {Method: "GET", Path: `/commits/.*/statuses$`},
		"head":       {Method: "GET", Path: `/pulls/1$`},
		"repository": {Method: "GET", Path: `^/repos/octo/widgets$`},
		"create":     {Method: "POST", Path: `/statuses/`},
	} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s done=%v", name, done), func(t *testing.T) {
				t.Parallel()
				g := newRig(t)
				f := f
				f.Done = done
				g.hub.Fail(f)
				id := g.run(g.status())
				list := g.publish(id)
				if len(list) != 1 || list[0].Status != agented.PublicationPublished || list[0].Tries != 1 || !strings.HasSuffix(list[0].URL, "/commit/"+strings.Repeat("b", 40)) {
					t.Fatal(brief(list), list)
				}
				g.wantOneStatus(id)
			})
		}
	}
}

// TestCommitStatus_kill kills the process that publishes at every call, before and after the forge
// has done what the call requests.
func TestCommitStatus_kill(t *testing.T) {
	t.Parallel()
	for n := range 5 {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d done=%v", n+1, done), func(t *testing.T) {
				t.Parallel()
				g := newRig(t)
				id := g.run(g.status())
				g.db.Close()
				g.hub.Fail(githubtest.Fault{After: n, Hang: true, Done: done})
				first := g.child()
				g.waitFor("the call", func() bool { return len(g.hub.Calls()) > n })
				g.kill(first)
				var err error
				if g.db, err = store.Open(t.Context(), filepath.Join(g.layout.Root, "agented.db"), store.Options{}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { g.db.Close() })
				g.start()
				if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished {
					t.Fatal(brief(list))
				}
				g.wantOneStatus(id)
			})
		}
	}
}

func TestCommitStatus_hold(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	k := g.status()
	k.publish.Hold = true
	id := g.run(k)
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationHeld || len(g.hub.Writes()) != 0 {
		t.Fatal(brief(list), g.hub.Writes())
	}
	if _, err := g.db.DecidePublication(t.Context(), id, 1, true, "alice", time.Now().Add(time.Hour), time.Now()); err != nil {
		t.Fatal(err)
	}
	g.publish(id)
	g.wantOneStatus(id)
}

func TestCommitStatus_stopped(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*task)
		status agented.PublicationStatus
		rule   string
	}{
		"head moved":  {func(k *task) { k.target.SHA = strings.Repeat("c", 40) }, agented.PublicationSuperseded, ""},
		"no commit":   {func(k *task) { k.target.SHA = "" }, agented.PublicationRefused, "subject"},
		"deletion":    {func(k *task) { k.target.SHA = strings.Repeat("0", 40) }, agented.PublicationRefused, "subject"},
		"elsewhere":   {func(k *task) { k.publish.Repository = "octo/other" }, agented.PublicationRefused, "subject"},
		"not allowed": {func(k *task) { k.publish = agented.Publish{Comment: &agented.PublishComment{}} }, agented.PublicationRefused, "kind"},
		"secret": {func(k *task) {
			k.files = map[string]string{"s.json": `{"kind":"commit_status","state":"success","description":"` + secret + `"}`}
		}, agented.PublicationRefused, "secret"},
		"context": {func(k *task) {
			k.files = map[string]string{"s.json": `{"kind":"commit_status","state":"success","context":"ci/build"}`}
		}, agented.PublicationRefused, "schema"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			k := g.status()
			c.change(&k)
			list := g.publish(g.run(k))
			if len(list) != 1 || list[0].Status != c.status || list[0].Rule != c.rule {
				t.Error(brief(list))
			}
			if w := g.hub.Writes(); len(w) != 0 {
				t.Errorf("written: %+v", w)
			}
		})
	}
}

// TestCommitStatus_push has the commit of a push, and a status of another account that imitates the
// address of the publication.
func TestCommitStatus_push(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	sha := strings.Repeat("d", 40)
	id := g.run(task{
		target:  &agented.PublishTarget{Repository: repoName, SHA: sha, Branch: "main"},
		publish: agented.Publish{CommitStatus: &agented.PublishCommitStatus{}},
		files:   map[string]string{"s.json": `{"kind":"commit_status","state":"success"}`},
	})
	forged := github.Status{State: "failure", Context: "agented/fixer", TargetURL: "https://x/" + agented.PublicationAnchor(id, 1), Creator: github.User{Login: "mallory"}}
	g.hub.Do(func() { g.repo.Statuses[sha] = []github.Status{forged} })
	if list := g.publish(id); len(list) != 1 || list[0].Status != agented.PublicationPublished {
		t.Fatal(brief(list))
	}
	g.hub.Do(func() {
		if list := g.repo.Statuses[sha]; len(list) != 2 || list[1].Context != "agented/fixer" || list[1].State != "success" {
			t.Errorf("statuses %+v", list)
		}
	})
}

func TestCommitStatus_denied(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.hub.Fail(githubtest.Fault{Method: "POST", Path: `/statuses/`, Status: http.StatusForbidden, Body: `{"message":"Resource not accessible by integration"}`})
	if list := g.publish(g.run(g.status())); len(list) != 1 || list[0].Status != agented.PublicationFailed || !strings.Contains(list[0].Reason, "not accessible") {
		t.Error(brief(list))
	}
}

package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/github"
	"github.com/agented/agented/internal/github/githubtest"
	"github.com/agented/agented/internal/proposal"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

const (
	repoName = "octo/widgets"
	secret   = "s3cr3t-value-of-the-agent"
)

// rig is a store, a stand-in for GitHub with a repository, and a publisher.
type rig struct {
	t      *testing.T
	db     *store.DB
	layout agented.Layout
	hub    *githubtest.Server
	repo   *githubtest.Repo
	work   string // a clone of the repository, in which agents work
	p      *Publisher
	token  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	g := &rig{t: t, layout: agented.Layout{Root: t.TempDir()}, hub: githubtest.New(t)}
	g.db = storetest.Open(t, filepath.Join(g.layout.Root, "agented.db"), store.Options{})
	bare := filepath.Join(t.TempDir(), "widgets.git")
	g.git("", "init", "-q", "--bare", "-b", "main", bare)
	g.work = filepath.Join(t.TempDir(), "work")
	g.git("", "clone", "-q", bare, g.work)
	g.write("README.md", "widgets\n")
	g.write("src/main.go", "package main\n")
	g.commit("first")
	g.git(g.work, "push", "-q", "origin", "HEAD:main")
	g.repo = g.hub.AddRepo(repoName)
	g.hub.Do(func() { g.repo.GitDir = bare })
	g.token = g.hub.AddToken("agented-bot")
	g.start()
	return g
}

// start creates a publisher, as a new server does.
func (g *rig) start() {
	var err error
	if g.p, err = newPublisher(g.db, g.layout, g.hub.URL, g.token); err != nil {
		g.t.Fatal(err)
	}
}

func newPublisher(db *store.DB, layout agented.Layout, address, token string) (*Publisher, error) {
	client, err := github.New(github.Options{URL: address, Token: token})
	if err != nil {
		return nil, err
	}
	p := New(Options{
		DB: db, Layout: layout, Git: func() changes.Git { return changes.Git{Path: os.Getenv("PATH")} },
		Forge: func() (Forge, error) { return GitHub{client}, nil }, Log: slog.New(slog.DiscardHandler),
	})
	p.pause = 5 * time.Millisecond
	return p, nil
}

func (g *rig) git(dir string, args ...string) string {
	g.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=A Person", "-c", "user.email=a@example.com"}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + g.t.TempDir(), "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (g *rig) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.work, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) commit(text string) {
	g.git(g.work, "add", "-A")
	g.git(g.work, "commit", "-q", "-m", text)
}

// task is an execution that ends with success.
type task struct {
	publish agented.Publish
	target  *agented.PublishTarget
	result  string
	files   map[string]string // proposals by name
	do      func()            // what the agent does in the checkout
	trigger agented.TriggerID
	hostile bool // git must not run in the checkout any more
}

// run stores an execution that did the task.
func (g *rig) run(k task) agented.ExecutionID {
	g.t.Helper()
	ctx := g.t.Context()
	now := time.Now().UTC().Truncate(time.Microsecond)
	e := &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), Trigger: k.trigger, TriggerName: "fixer", Backend: agented.BackendCommand, Source: agented.SourceManual, CreatedAt: now,
		Snapshot: agented.Spec{
			Backend: agented.BackendCommand, Command: []string{"true"}, Publish: &k.publish, PublishTo: k.target,
			Workspace: &agented.Workspace{Repository: "https://github.com/" + repoName + ".git"},
		},
	}
	got, err := g.db.Admit(ctx, store.Admission{Execution: e, Claim: &store.ClaimRequest{Node: "node-test", Limit: 100, TTL: time.Hour}}, now)
	if err != nil || got.Claimed == nil {
		g.t.Fatal(err)
	}
	e = got.Claimed
	folders := changes.Folders{Execution: g.layout.Execution(e.ID)}
	git := changes.Git{Path: os.Getenv("PATH")}
	if _, err := changes.Take(ctx, folders, g.work, git, changes.Limits{}, false); err != nil {
		g.t.Fatal(err)
	}
	out, err := changes.MakeOut(folders, 1)
	if err != nil {
		g.t.Fatal(err)
	}
	for name, text := range k.files {
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
	if k.do != nil {
		k.do()
	}
	mask := redact.New([]string{secret})
	record, err := changes.Make(ctx, changes.Request{Folders: folders, Attempt: 1, Git: git, Mask: mask, Full: k.publish.PullRequest != nil})
	if err != nil {
		g.t.Fatal(err)
	}
	if !k.hostile {
		g.git(g.work, "reset", "-q", "--hard", "origin/main")
		g.git(g.work, "clean", "-qfdx")
	}
	end := store.AttemptEnd{
		Attempt: agented.Attempt{Execution: e.ID, Number: 1, Backend: agented.BackendCommand, State: agented.StateSuccess, StartedAt: now, FinishedAt: now},
		Next:    agented.StateSuccess,
		Publications: proposal.Plan(proposal.Input{
			Execution: e, Attempt: 1, Dir: out, Record: record, Result: k.result, Mask: mask,
		}),
	}
	if _, err := g.db.EndAttempt(ctx, end, e.Lease, now); err != nil {
		g.t.Fatal(err)
	}
	return e.ID
}

// publish works until no publication of an execution is pending, and returns them.
func (g *rig) publish(id agented.ExecutionID) []agented.Publication {
	g.t.Helper()
	return g.until(id, func(list []agented.Publication) bool {
		for _, p := range list {
			if p.Status == agented.PublicationPending {
				return false
			}
		}
		return true
	})
}

// until runs the publisher until a condition holds.
func (g *rig) until(id agented.ExecutionID, done func([]agented.Publication) bool) []agented.Publication {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); g.p.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		list := g.list(id)
		if done(list) {
			return list
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the publications stay %s", brief(list))
		}
	}
}

func (g *rig) list(id agented.ExecutionID) []agented.Publication {
	g.t.Helper()
	list, err := g.db.Publications(g.t.Context(), id)
	if err != nil && !errors.Is(err, context.Canceled) {
		g.t.Fatal(err)
	}
	return list
}

func brief(list []agented.Publication) string {
	var out []string
	for _, p := range list {
		text := fmt.Sprintf("%s %s", p.Kind, p.Status)
		if p.Rule != "" {
			text += " " + p.Rule
		}
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

// tree lists the files of a branch with their contents.
func (g *rig) show(ref string) string { return g.git(g.repo.GitDir, "show", ref) }

func (g *rig) link(name, target string) {
	g.t.Helper()
	path := filepath.Join(g.work, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		g.t.Fatal(err)
	}
}

func time0() time.Time { return time.Now() }

package publish

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
)

// waits runs the publisher until a try has failed, and returns the publication.
func (g *rig) waits(id agented.ExecutionID) agented.Publication {
	g.t.Helper()
	list := g.until(id, func(list []agented.Publication) bool {
		return list[0].Tries > 0 || list[0].Status != agented.PublicationPending
	})
	if list[0].Status != agented.PublicationPending {
		g.t.Fatalf("%s, want it pending", brief(list))
	}
	return list[0]
}

func TestMissing_credential(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	id := g.run(g.pull())
	forge := g.p.o.Forge
	g.p.o.Forge = func() (Forge, error) {
		return nil, agented.Errorf(agented.Unavailable, "the server has no credential for GitHub: set GITHUB_APP_ID")
	}
	p := g.waits(id)
	if p.Reason != "The server has no credential for GitHub: set GITHUB_APP_ID." || p.DueAt.IsZero() {
		t.Errorf("%+v", p)
	}
	g.p.o.Forge = forge
	if list := g.publish(id); list[0].Status != agented.PublicationPublished || list[0].Reason != "" {
		t.Error(brief(list))
	}
	g.wantOnePull(id)
}

// TestMissing_credential_pause limits the pause, so that a credential is used soon after it is set.
func TestMissing_credential_pause(t *testing.T) {
	t.Parallel()
	p := New(Options{Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
	v := &agented.Publication{Tries: 50, CreatedAt: p.now()}
	p.settle(v, &passing{text: "no credential", within: credentialPause})
	if pause := v.DueAt.Sub(p.now()); v.Status == agented.PublicationFailed || pause > 2*credentialPause {
		t.Errorf("%+v, due in %s", v, pause)
	}
}

func TestPullRequest_local_faults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reason string
		fault  func(g *rig, id agented.ExecutionID) (repair func())
	}{
		"git missing": {"git is not installed", func(g *rig, _ agented.ExecutionID) func() {
			g.p.o.Git = func() changes.Git { return changes.Git{Program: "git-that-is-missing"} }
			return g.start
		}},
		"disk full": {"File too large", func(g *rig, _ agented.ExecutionID) func() {
			// The limit of file sizes gives the same kind of error as a full disk.
			wrapper := filepath.Join(g.layout.Root, "git-limited")
			script := "#!/bin/sh\ncase \"$*\" in *apply*) trap '' XFSZ; ulimit -f 0;; esac\nexec git \"$@\"\n"
			if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
				g.t.Fatal(err)
			}
			g.p.o.Git = func() changes.Git { return changes.Git{Program: wrapper, Path: os.Getenv("PATH")} }
			return g.start
		}},
		"record unreadable": {"could not be read", func(g *rig, id agented.ExecutionID) func() {
			dir := changes.Folders{Execution: g.layout.Execution(id)}.Attempt(1)
			list, err := os.ReadDir(dir)
			if err != nil {
				g.t.Fatal(err)
			}
			for _, f := range list {
				path := filepath.Join(dir, f.Name())
				if err := os.Rename(path, path+".saved"); err != nil {
					g.t.Fatal(err)
				}
				if err := os.Mkdir(path, 0o700); err != nil {
					g.t.Fatal(err)
				}
			}
			return func() {
				for _, f := range list {
					path := filepath.Join(dir, f.Name())
					if err := os.Remove(path); err != nil {
						g.t.Fatal(err)
					}
					if err := os.Rename(path+".saved", path); err != nil {
						g.t.Fatal(err)
					}
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			id := g.run(g.pull())
			repair := c.fault(g, id)
			if p := g.waits(id); !strings.Contains(p.Reason, c.reason) {
				t.Errorf("reason %q", p.Reason)
			}
			if w := g.hub.Writes(); len(w) != 0 {
				t.Errorf("written: %+v", w)
			}
			repair()
			if list := g.publish(id); list[0].Status != agented.PublicationPublished {
				t.Fatal(brief(list))
			}
			g.wantOnePull(id)
		})
	}
}

func TestCheckEntry_patterns(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxPattern+1)
	for _, c := range []struct {
		forbidden, path string
		refused         bool
	}{
		{"*.lock", "go.lock", true},
		{"*.lock", "web/deep/yarn.LOCK", true},
		{"*.lock", "web/yarn.lock.md", false},
		{"deploy/", "deploy/prod.yml", true},
		{"deploy/", "a/deploy/b/c", true},
		{"deploy/", "deploy", false},
		{"deploy/", "redeploy/x", false},
		{"infra", "a/infra/x", true},
		{"a/b/", "a/b/c/d", true},
		{"a/b/", "x/a/b/c", false},
		{"a/b", "a/b", true},
		{"a/b", "a/b/c", true},
		{"deploy/**", "deploy/x/y", true},
		{"deploy/**", "x/deploy/y", false},
		{long, "anything", true},
	} {
		err := checkEntry(&agented.PublishPullRequest{ForbiddenPaths: []string{c.forbidden}}, changes.Entry{Path: c.path, Mode: "100644"})
		if (err != nil) != c.refused {
			t.Errorf("%.20q on %s: %v", c.forbidden, c.path, err)
		}
	}
	for _, c := range []struct {
		allowed, path string
		refused       bool
	}{
		{"*.md", "CLAUDE.md", false},
		{"*.md", "sub/CLAUDE.md", true},
		{".github/", ".github/workflows/ci.yml", false},
		{".claude/", "sub/.claude/settings.json", true},
	} {
		err := checkEntry(&agented.PublishPullRequest{AllowPaths: []string{c.allowed}}, changes.Entry{Path: c.path, Mode: "100644"})
		if (err != nil) != c.refused {
			t.Errorf("allow %s on %s: %v", c.allowed, c.path, err)
		}
	}
	if got := forbidding([]string{"x"}); !slices.Equal(got, []string{"**/x/**", "**/x"}) {
		t.Errorf("%q", got)
	}
}

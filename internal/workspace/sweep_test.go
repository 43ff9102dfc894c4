package workspace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
)

func TestSweep_limits(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	now := time.Date(2030, 1, 10, 0, 0, 0, 0, time.UTC)
	s.o.Now = func() time.Time { return now }
	s.m = New(s.o)
	standing := map[agented.ExecutionID]Standing{}
	var made []Checkout
	var ids []agented.ExecutionID
	for i := range 6 {
		r := s.request(agented.Workspace{})
		made = append(made, s.prepare(r))
		ids = append(ids, r.Execution)
		standing[r.Execution] = Standing{Ended: now.Add(-time.Duration(i) * 24 * time.Hour)}
	}
	standing[ids[4]] = Standing{Needed: true}
	closed := filepath.Join(made[5].Dir, "closed") // as some build caches do
	if err := os.MkdirAll(filepath.Join(closed, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	ask := func(_ context.Context, id agented.ExecutionID) (Standing, error) {
		st, ok := standing[id]
		if !ok {
			return st, agented.Errorf(agented.NotFound, "no %s", id)
		}
		return st, nil
	}
	there := func() (out []int) {
		for i, c := range made {
			if _, err := os.Stat(c.Dir); err == nil {
				out = append(out, i)
			}
		}
		return out
	}
	sweep := func(k Keep, want ...int) {
		t.Helper()
		if _, err := s.m.Sweep(t.Context(), k, ask); err != nil {
			t.Fatal(err)
		}
		if got := there(); !slices.Equal(got, want) {
			t.Errorf("%+v leaves %v, want %v", k, got, want)
		}
	}
	sweep(Keep{}, 0, 1, 2, 3, 4, 5)
	sweep(Keep{Age: 4 * 24 * time.Hour}, 0, 1, 2, 3, 4)
	sweep(Keep{Count: 3}, 0, 1, 2, 4)
	if got := s.gitIn(made[4].Dir, "log", "--format=%s"); got != "a.txt" {
		t.Errorf("what is left borrows in vain: %q", got)
	}
	delete(standing, ids[0])
	sweep(Keep{Age: 4 * 24 * time.Hour}, 1, 2, 4)
	sweep(Keep{MinFree: 1 << 62}, 4)
	mirror := filepath.Join(s.m.root(), made[4].Mirror, "mirror.git")
	if _, err := os.Stat(mirror); err != nil {
		t.Errorf("the mirror that is borrowed from: %v", err)
	}
	standing[ids[4]] = Standing{Ended: now}
	now = now.Add(10 * 24 * time.Hour)
	sweep(Keep{Age: 4 * 24 * time.Hour})
	if _, err := os.Stat(mirror); err == nil {
		t.Error("a mirror that nobody borrows from stays")
	}
	if c := s.prepare(s.request(agented.Workspace{})); s.file(c, "a.txt") != "one" {
		t.Errorf("after the sweep: %q", s.file(c, "a.txt"))
	}
}

func TestRepack_loses_nothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.prepare(s.request(agented.Workspace{}))
	// The branch is rewritten: no ref names the first commit any more.
	s.gitIn(s.origin, "checkout", "-q", "--orphan", "fresh")
	s.commit("a.txt", "anew")
	s.gitIn(s.origin, "branch", "-M", "main")
	packs := filepath.Join(s.m.root(), first.Mirror, "mirror.git", "objects", "pack")
	r := s.request(agented.Workspace{})
	j := &job{m: s.m, r: r, name: first.Mirror, home: filepath.Join(s.m.root(), first.Mirror), repo: agented.Repository{Address: "file://" + s.origin, Protocol: "file"}}
	lock, err := j.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j.git = s.m.newGit(j, lock)
	mirror := j.mirror()
	for i := range manyPacks + 1 {
		blob := filepath.Join(t.TempDir(), "blob")
		if err := os.WriteFile(blob, []byte(fmt.Sprint(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		id := s.gitIn(mirror, "hash-object", "-w", blob)
		cmd := exec.Command("git", "-C", mirror, "pack-objects", "-q", filepath.Join(packs, "pack"))
		cmd.Stdin = strings.NewReader(id + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	lock.Close()
	s.prepare(r)
	left, _ := filepath.Glob(filepath.Join(packs, "*.pack"))
	if len(left) > 2 {
		t.Errorf("%d packs are left", len(left))
	}
	if got := s.gitIn(first.Dir, "fsck", "--no-dangling"); strings.Contains(got, "missing") {
		t.Errorf("fsck: %s", got)
	}
	if got := s.gitIn(first.Dir, "show", "HEAD:a.txt"); got != "one" {
		t.Errorf("the first commit's file is %q", got)
	}
}

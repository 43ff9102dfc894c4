package workspace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

// scene is a data folder and an origin.
type scene struct {
	t      *testing.T
	m      *Manager
	o      Options
	origin string

	mu   sync.Mutex // guards said
	said []string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed, and this test is about the real one")
	}
	s := &scene{t: t, origin: filepath.Join(t.TempDir(), "origin")}
	home := t.TempDir()
	s.o = Options{
		Layout: agented.Layout{Root: t.TempDir()}, Protocols: []string{"https", "http", "ssh", "file"}, Timeout: time.Minute,
		Lookup: func(name string) (string, bool) {
			switch name {
			case "PATH":
				return os.Getenv("PATH"), true
			case "HOME":
				return home, true
			}
			return "", false
		},
	}
	s.m = New(s.o)
	s.gitIn("", "init", "-q", "-b", "main", s.origin)
	s.commit("a.txt", "one")
	return s
}

// gitIn runs git as a user would.
func (s *scene) gitIn(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *scene) commit(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.origin, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.gitIn(s.origin, "add", "-A")
	s.gitIn(s.origin, "commit", "-q", "-m", name)
	return s.gitIn(s.origin, "rev-parse", "HEAD")
}

func (s *scene) request(w agented.Workspace) Request {
	if w.Repository == "" {
		w.Repository = "file://" + s.origin
	}
	return Request{
		Execution: agented.ExecutionID(agented.NewID("exec", time.Now())), Workspace: w,
		Say: func(text string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.said = append(s.said, text)
		},
	}
}

func (s *scene) prepare(r Request) Checkout {
	s.t.Helper()
	c, err := s.m.Prepare(s.t.Context(), r)
	if err != nil {
		s.t.Fatalf("Prepare: %v (%v)", err, errors.Unwrap(err))
	}
	return c
}

func (s *scene) fails(r Request) *Error {
	s.t.Helper()
	c, err := s.m.Prepare(s.t.Context(), r)
	var e *Error
	if !errors.As(err, &e) {
		s.t.Fatalf("Prepare: %+v, %v, want an Error", c, err)
	}
	if _, ok := s.m.Existing(r.Execution); ok {
		s.t.Error("it failed and there is a checkout")
	}
	return e
}

func (s *scene) file(c Checkout, name string) string {
	b, err := os.ReadFile(filepath.Join(c.Dir, name))
	if err != nil {
		return "(" + plain(err) + ")"
	}
	return string(b)
}

func TestCheckout_refs(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.gitIn(s.origin, "rev-parse", "HEAD")
	s.gitIn(s.origin, "tag", "-a", "v1", "-m", "v1")
	s.gitIn(s.origin, "checkout", "-q", "-b", "feature/größe")
	branch := s.commit("a.txt", "branch")
	s.gitIn(s.origin, "checkout", "-q", "main")
	head := s.commit("a.txt", "two")
	for ref, want := range map[string][2]string{
		"": {head, "two"}, "main": {head, "two"}, "v1": {first, "one"}, "feature/größe": {branch, "branch"}, first: {first, "one"},
		"refs/tags/v1": {first, "one"}, first[:10]: {first, "one"}, strings.ToUpper(first): {first, "one"},
	} {
		c := s.prepare(s.request(agented.Workspace{Ref: ref}))
		if c.Commit != want[0] || s.file(c, "a.txt") != want[1] {
			t.Errorf("%q: %s with %q, want %v", ref, c.Commit, s.file(c, "a.txt"), want)
		}
		if got := s.gitIn(c.Dir, "rev-parse", "HEAD"); got != want[0] {
			t.Errorf("%q: HEAD is %s", ref, got)
		}
		if got := s.gitIn(c.Dir, "status", "--porcelain", "--branch"); got != "## HEAD (no branch)" {
			t.Errorf("%q: status is %q", ref, got)
		}
	}
	s.gitIn(s.origin, "checkout", "-q", "feature/größe")
	moved := s.commit("a.txt", "moved")
	if c := s.prepare(s.request(agented.Workspace{Ref: "feature/größe"})); c.Commit != moved {
		t.Errorf("a branch that moved is at %s, want %s", c.Commit, moved)
	}
}

func TestCheckout_kept_over_attempts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r, other := s.request(agented.Workspace{}), s.request(agented.Workspace{})
	c, d := s.prepare(r), s.prepare(other)
	if err := os.WriteFile(filepath.Join(c.Dir, "a.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.gitIn(c.Dir, "checkout", "-q", "-b", "mine")
	s.gitIn(c.Dir, "commit", "-q", "-am", "mine")
	s.commit("a.txt", "two")
	again := s.prepare(r)
	if again.Fresh || again.Commit != c.Commit || s.file(again, "a.txt") != "mine" {
		t.Errorf("the second attempt got %+v with %q", again, s.file(again, "a.txt"))
	}
	if s.file(d, "a.txt") != "one" || strings.Contains(s.gitIn(d.Dir, "branch", "-a"), "mine") {
		t.Errorf("the other execution has %q and %q", s.file(d, "a.txt"), s.gitIn(d.Dir, "branch", "-a"))
	}
	s.gitIn(d.Dir, "checkout", "-q", "-b", "mine") // the same name is free there
	s.gitIn(c.Dir, "push", "-q", "origin", "mine")
	if got := s.gitIn(s.origin, "log", "-1", "--format=%s", "mine"); got != "mine" {
		t.Errorf("what was pushed is %q", got)
	}
}

func TestMirror_shared(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.gitIn(s.origin, "branch", "other")
	var wg sync.WaitGroup
	errs := make(chan error, 12)
	for i := range 12 {
		r := s.request(agented.Workspace{Ref: []string{"main", "other", ""}[i%3]})
		wg.Go(func() {
			c, err := s.m.Prepare(t.Context(), r)
			if err == nil && s.file(c, "a.txt") != "one" {
				err = fmt.Errorf("a.txt is %q", s.file(c, "a.txt"))
			}
			errs <- err
		})
	}
	wg.Wait()
	for range 12 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if mirrors, _ := filepath.Glob(filepath.Join(s.m.root(), "*", "mirror.git")); len(mirrors) != 1 {
		t.Errorf("there are %d mirrors", len(mirrors))
	}
}

func TestCheckout_shallow_and_sparse(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 5 {
		s.commit("a.txt", fmt.Sprint(i))
	}
	s.commit("web/src/x", "x")
	s.commit("web/other/y", "y")
	head := s.commit("docs/z", "z")
	c := s.prepare(s.request(agented.Workspace{Depth: 2, Paths: []string{"web/src"}}))
	if n := s.gitIn(c.Dir, "rev-list", "--count", "HEAD"); n != "2" || c.Commit != head {
		t.Errorf("%s commits, at %s", n, c.Commit)
	}
	for name, want := range map[string]bool{"web/src/x": true, "a.txt": true, "web/other/y": false, "docs/z": false} {
		if _, err := os.Stat(filepath.Join(c.Dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.gitIn(c.Dir, "status", "--porcelain"); got != "" {
		t.Errorf("status is %q", got)
	}
	s.commit("a.txt", "later")
	if c := s.prepare(s.request(agented.Workspace{Depth: 1})); s.file(c, "a.txt") != "later" || s.gitIn(c.Dir, "rev-list", "--count", "HEAD") != "1" {
		t.Errorf("later: %q", s.file(c, "a.txt"))
	}
}

func TestCheckout_after_crash(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	// A git that is killed by SIGKILL at its nth run, with all its leftovers.
	dir := t.TempDir()
	script := `#!/bin/sh
n=$(cat ` + dir + `/n 2>/dev/null || echo 0)
n=$((n+1)); echo $n >` + dir + `/n
if [ "$n" = "$(cat ` + dir + `/die)" ]; then
	for a in "$@"; do case "$a" in fetch) mkdir -p objects/pack; echo x >objects/pack/tmp_pack_x; echo x >shallow.lock;; checkout) echo x >a.txt;; esac; done
	kill -9 $$
fi
exec git "$@"
`
	if err := testrun.WriteProgram(filepath.Join(dir, "fake"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.o.program = filepath.Join(dir, "fake")
	s.m = New(s.o)
	died := 0
	step := testrun.Size(4, 2, 1)
	for die := 1 + testrun.Rand(t).IntN(step); die < 20; die += step {
		if err := os.WriteFile(filepath.Join(dir, "die"), []byte(fmt.Sprint(die)), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(dir, "n"))
		r := s.request(agented.Workspace{Depth: die}) // a mirror of its own
		_, err := s.m.Prepare(t.Context(), r)
		if err != nil {
			died++
			if left, _ := filepath.Glob(filepath.Join(s.o.Layout.Execution(r.Execution), "work*")); len(left) > 0 {
				t.Errorf("step %d left %v", die, left)
			}
		}
		c := s.prepare(r)
		if s.file(c, "a.txt") != "one" || s.gitIn(c.Dir, "status", "--porcelain") != "" {
			t.Errorf("step %d: a.txt is %q, status %q", die, s.file(c, "a.txt"), s.gitIn(c.Dir, "status", "--porcelain"))
		}
		if left, _ := filepath.Glob(filepath.Join(s.m.root(), "*", "mirror.git", "objects", "pack", "tmp_*")); len(left) > 0 {
			t.Errorf("step %d left %v", die, left)
		}
	}
	if died < 6/step {
		t.Errorf("it died %d times: the steps were not reached", died)
	}
	if err := os.WriteFile(filepath.Join(dir, "die"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A folder without its marker was never used.
	r := s.request(agented.Workspace{})
	if err := os.MkdirAll(filepath.Join(s.o.Layout.Work(r.Execution), ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	if c := s.prepare(r); s.file(c, "a.txt") != "one" {
		t.Errorf("a.txt is %q", s.file(c, "a.txt"))
	}
}

func TestCheckout_settings_run_nothing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	trap := filepath.Join(t.TempDir(), "sprung")
	r := s.request(agented.Workspace{})
	c := s.prepare(r)
	evil := "[core]\n\tfsmonitor = touch " + trap + "\n\tsshCommand = touch " + trap + "\n\thooksPath = " + filepath.Join(c.Dir, "hooks") + "\n[alias]\n\tfetch = !touch " + trap + "\n"
	mirror := filepath.Join(s.m.root(), c.Mirror, "mirror.git")
	for _, path := range []string{filepath.Join(c.Dir, ".git", "config"), filepath.Join(mirror, "config")} {
		if err := os.WriteFile(path, []byte(evil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hooks := filepath.Join(mirror, "hooks")
	if err := os.MkdirAll(hooks, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"post-checkout", "reference-transaction", "post-update", "pre-auto-gc"} {
		if err := testrun.WriteProgram(filepath.Join(hooks, name), []byte("#!/bin/sh\ntouch "+trap+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.commit("a.txt", "two")
	s.prepare(r)
	s.prepare(s.request(agented.Workspace{}))
	if _, err := os.Stat(trap); err == nil {
		t.Error("something ran")
	}
}

func FuzzNamesNeverBecomeAnythingElse(f *testing.F) {
	for _, s := range []string{"--upload-pack=touch sprung", "ext::sh -c touch% sprung", "..", "a b", "größe", "-x", "$(touch sprung)", "main;touch sprung", "refs/heads/main", "HEAD"} {
		f.Add(s, s)
	}
	if _, err := exec.LookPath("git"); err != nil {
		f.Skip("git is not installed, and this test is about the real one")
	}
	f.Fuzz(func(t *testing.T, address, ref string) {
		s := newScene(t)
		s.o.Protocols = []string{"file"}
		s.o.Timeout = 10 * time.Second
		s.m = New(s.o)
		for _, w := range []agented.Workspace{{Ref: ref}, {Repository: address}} {
			r := s.request(w)
			_, err := s.m.Prepare(t.Context(), r)
			var e *Error
			if err != nil && !errors.As(err, &e) {
				t.Errorf("%+v: %v", w, err)
			}
			if e != nil && (e.Text == "" || strings.ContainsAny(e.Text, "\n\x00")) {
				t.Errorf("%+v: %q", w, e.Text)
			}
		}
		err := filepath.WalkDir(filepath.Dir(s.o.Layout.Root), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "sprung" {
				t.Errorf("%q, %q made %s", address, ref, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

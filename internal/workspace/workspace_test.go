package workspace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented"
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

// gitIn runs git as a person would.
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

func TestACheckoutIsAtTheDefaultBranchABranchATagOrACommit(t *testing.T) {
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

func TestACheckoutIsKeptOverAttemptsAndBelongsToOneExecution(t *testing.T) {
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

func TestTwoExecutionsAtOnceShareAMirror(t *testing.T) {
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

func TestACheckoutMayBeShallowAndHaveSomeFoldersOnly(t *testing.T) {
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

func TestWhatIsNotThereIsSaidClearly(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	empty := filepath.Join(t.TempDir(), "empty")
	s.gitIn("", "init", "-q", "--bare", empty)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cases := map[string]struct {
		w     agented.Workspace
		class agented.Class
		words string
	}{
		"no such branch":      {agented.Workspace{Ref: "nothing"}, agented.ClassAgentFailure, `no branch or tag "nothing"`},
		"no such commit":      {agented.Workspace{Ref: strings.Repeat("a", 40)}, agented.ClassAgentFailure, "no branch, tag or commit"},
		"no such repository":  {agented.Workspace{Repository: "file:///nothing/there.git"}, agented.ClassAgentFailure, "there is no such repository"},
		"an empty repository": {agented.Workspace{Repository: "file://" + empty}, agented.ClassAgentFailure, "is empty"},
		"nobody listens":      {agented.Workspace{Repository: "http://" + closed.Addr().String() + "/x.git"}, agented.ClassNetwork, "could not be reached"},
		"a command":           {agented.Workspace{Repository: "ext::sh -c 'touch /tmp/x'"}, agented.ClassAgentFailure, "address"},
		"an option":           {agented.Workspace{Repository: "--upload-pack=touch /tmp/x"}, agented.ClassAgentFailure, "address"},
		"an option as ref":    {agented.Workspace{Ref: "--upload-pack=touch /tmp/x"}, agented.ClassAgentFailure, "not the name"},
		"a way out as ref":    {agented.Workspace{Ref: "../../x"}, agented.ClassAgentFailure, "not the name"},
	}
	for name, c := range cases {
		if e := s.fails(s.request(c.w)); e.Class != c.class || !strings.Contains(e.Text, c.words) {
			t.Errorf("%s: %s: %q, want %s and %q", name, e.Class, e.Text, c.class, c.words)
		}
	}
	o := s.o
	o.Protocols = []string{"https"}
	s.m = New(o)
	if e := s.fails(s.request(agented.Workspace{})); !strings.Contains(e.Text, "does not allow") {
		t.Errorf("a protocol that is not allowed: %q", e.Text)
	}
	o.program = "git-that-is-not-there"
	o.Protocols = nil
	s.m = New(o)
	if e := s.fails(s.request(agented.Workspace{})); !strings.Contains(e.Text, "git is not installed") {
		t.Errorf("without git: %q", e.Text)
	}
}

// gitServer serves the origin over HTTP to whoever has the token.
func gitServer(t *testing.T, s *scene, token string) string {
	t.Helper()
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git has no http-backend here, which serves the private repository")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(s.origin), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + t.TempDir()}}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, ok := r.BasicAuth()
		if strings.HasPrefix(r.URL.Path, "/moved/") {
			// To another host: 127.0.0.1 and localhost are two for git.
			_, port, _ := net.SplitHostPort(r.Host)
			http.Redirect(w, r, "http://localhost:"+port+strings.TrimPrefix(r.URL.RequestURI(), "/moved"), http.StatusFound)
			return
		}
		if strings.HasPrefix(r.Host, "localhost") && ok {
			t.Error("the token went to another host")
		}
		if !ok || password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

func TestAPrivateRepositoryIsFetchedWithATokenThatIsNowhereToBeSeen(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const token = "tok-5up3r-s3cr3t-\"'$(x)`y`%s\\n"
	base := gitServer(t, s, token)
	r := s.request(agented.Workspace{Repository: base + "/origin/.git", Credential: "MY_TOKEN"})
	if e := s.fails(r); !strings.Contains(e.Text, "needs credentials") {
		t.Errorf("without a token: %q", e.Text)
	}
	r.Token = "wrong-token-0123456789"
	if e := s.fails(r); !strings.Contains(e.Text, "refused the credentials") || strings.Contains(e.Text, r.Token) || strings.Contains(fmt.Sprint(e.Cause), r.Token) {
		t.Errorf("with a wrong token: %q", e.Text)
	}
	r.Token = token
	c := s.prepare(r)
	if s.file(c, "a.txt") != "one" {
		t.Errorf("a.txt is %q", s.file(c, "a.txt"))
	}
	// The agent's own git finds the token in its environment.
	cmd := exec.Command("git", "-C", c.Dir, "ls-remote", "origin")
	cmd.Env = append(os.Environ(), "MY_TOKEN="+token, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the agent's git: %v\n%s", err, out)
	}
	moved := s.request(agented.Workspace{Repository: base + "/moved/origin/.git", Credential: "MY_TOKEN"})
	moved.Token = token
	s.fails(moved)
	err := filepath.WalkDir(s.o.Layout.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), token) || strings.Contains(string(b), "wrong-token") {
			t.Errorf("the token is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(s.said, "\n"); strings.Contains(all, token) {
		t.Errorf("the log says %q", all)
	}
}

func TestTheTokenIsNoArgumentOfAnyProcess(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	dir := t.TempDir()
	record := filepath.Join(dir, "args")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + record + "\nexec git \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "fake"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.o.program = filepath.Join(dir, "fake")
	s.m = New(s.o)
	r := s.request(agented.Workspace{Credential: "MY_TOKEN"})
	r.Token = "tok-0123456789"
	s.prepare(r)
	b, err := os.ReadFile(record)
	if err != nil || len(b) == 0 || strings.Contains(string(b), r.Token) {
		t.Errorf("%v, arguments: %s", err, b)
	}
}

func TestACrashAtAnyStepLeavesWhatTheNextAttemptMends(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	// A git that dies by SIGKILL at its nth run, with all its leftovers.
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
	if err := os.WriteFile(filepath.Join(dir, "fake"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.o.program = filepath.Join(dir, "fake")
	s.m = New(s.o)
	died := 0
	for die := 1; die < 20; die++ {
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
	if died < 6 {
		t.Errorf("it died %d times: the steps were not reached", died)
	}
	// A folder without its mark was never used.
	r := s.request(agented.Workspace{})
	if err := os.MkdirAll(filepath.Join(s.o.Layout.Work(r.Execution), ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	if c := s.prepare(r); s.file(c, "a.txt") != "one" {
		t.Errorf("a.txt is %q", s.file(c, "a.txt"))
	}
}

func TestAFetchEndsWithItsContextAndItsTimeLimitAndLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	arrived := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			arrived <- c
		}
	}()
	r := s.request(agented.Workspace{Repository: "http://" + l.Addr().String() + "/x.git"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := s.m.Prepare(ctx, r)
		ended <- err
	}()
	conn := <-arrived
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	gone := func(c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		for b := make([]byte, 1024); ; {
			if _, err := c.Read(b); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("git still runs")
				}
				return
			}
		}
	}
	gone(conn)
	s.o.Timeout = 300 * time.Millisecond
	s.m = New(s.o)
	if e := s.fails(r); e.Class != agented.ClassNetwork || !strings.Contains(e.Text, "took longer than 300ms") {
		t.Errorf("%s: %q", e.Class, e.Text)
	}
	gone(<-arrived)
}

func TestAnAgentsSettingsInItsCheckoutAndInTheMirrorRunNothingOfTheServers(t *testing.T) {
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
		if err := os.WriteFile(filepath.Join(hooks, name), []byte("#!/bin/sh\ntouch "+trap+"\n"), 0o700); err != nil {
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

func TestTheSweepTakesWhatIsOldOrTooManyAndNothingThatMayGoOn(t *testing.T) {
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

func TestManyPacksBecomeOneAndNothingIsLost(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.prepare(s.request(agented.Workspace{}))
	// The branch is written anew: nothing names the first commit any more.
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

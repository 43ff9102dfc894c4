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
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/testrun"
)

func TestFetch_missing_ref(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	empty := filepath.Join(t.TempDir(), "empty")
	s.gitIn("", "init", "-q", "--bare", empty)
	cases := map[string]struct {
		w     agented.Workspace
		class agented.Class
		words string
	}{
		"no such branch":      {agented.Workspace{Ref: "nothing"}, agented.ClassAgentFailure, `no branch or tag "nothing"`},
		"no such commit":      {agented.Workspace{Ref: strings.Repeat("a", 40)}, agented.ClassAgentFailure, "no branch, tag or commit"},
		"no such repository":  {agented.Workspace{Repository: "file:///nothing/there.git"}, agented.ClassAgentFailure, "the repository does not exist"},
		"an empty repository": {agented.Workspace{Repository: "file://" + empty}, agented.ClassAgentFailure, "is empty"},
		"nobody listens":      {agented.Workspace{Repository: "http://" + testrun.FreeAddress(t) + "/x.git"}, agented.ClassNetwork, "could not be reached"},
		"a command":           {agented.Workspace{Repository: "ext::sh -c 'touch /tmp/x'"}, agented.ClassAgentFailure, "address"},
		"an option":           {agented.Workspace{Repository: "--upload-pack=touch /tmp/x"}, agented.ClassAgentFailure, "address"},
		"an option as ref":    {agented.Workspace{Ref: "--upload-pack=touch /tmp/x"}, agented.ClassAgentFailure, "not a valid name"},
		"a way out as ref":    {agented.Workspace{Ref: "../../x"}, agented.ClassAgentFailure, "not a valid name"},
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

// gitServer serves the origin over HTTP to clients with the token.
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

func TestFetch_private_with_token(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const token = "tok-5up3r-s3cr3t-\"'$(x)`y`%s\\n"
	base := gitServer(t, s, token)
	r := s.request(agented.Workspace{Repository: base + "/origin/.git", Credential: "MY_TOKEN"})
	if e := s.fails(r); !strings.Contains(e.Text, "needs credentials") {
		t.Errorf("without a token: %q", e.Text)
	}
	r.Token = "wrong-token-0123456789"
	if e := s.fails(r); !strings.Contains(e.Text, "rejected the credentials") || strings.Contains(e.Text, r.Token) || strings.Contains(fmt.Sprint(e.Cause), r.Token) {
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

func TestToken_not_in_arguments(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	dir := t.TempDir()
	record := filepath.Join(dir, "args")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >>" + record + "\nexec git \"$@\"\n"
	if err := testrun.WriteProgram(filepath.Join(dir, "fake"), []byte(script), 0o700); err != nil {
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

func TestFetch_context_and_timeout(t *testing.T) {
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
	conn := testrun.Receive(t, arrived, "the connection of git")
	cancel()
	if err := testrun.Receive(t, ended, "the fetch to end"); !errors.Is(err, context.Canceled) {
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
	// On a busy machine git may be ended before it connects: allow more time.
	for timeout := 300 * time.Millisecond; ; timeout *= 2 {
		s.o.Timeout = timeout
		s.m = New(s.o)
		if e := s.fails(r); e.Class != agented.ClassNetwork || !strings.Contains(e.Text, "took longer than "+timeout.String()) {
			t.Fatalf("%s: %q", e.Class, e.Text)
		}
		select {
		case conn = <-arrived:
			gone(conn)
			return
		default:
		}
		if timeout > time.Minute {
			t.Fatal("git never connected")
		}
	}
}

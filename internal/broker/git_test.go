package broker_test

import (
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/broker"
)

const gitToken = "the-token-of-the-repository"

// gitServer serves two repositories to clients with the token.
func gitServer(t *testing.T) (url, dir string) {
	t.Helper()
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, name := range []string{"one.git", "one-other.git"} {
		git(t, dir, nil, "init", "-q", "--bare", name)
		git(t, filepath.Join(dir, name), nil, "config", "http.receivepack", "true")
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + dir},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || user != "x-access-token" || password != gitToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, dir
}

// git runs git without the settings of the user, and returns its output.
func git(t *testing.T, dir string, settings [][2]string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0"}
	for _, kv := range append(settings, [2]string{"user.name", "x"}, [2]string{"user.email", "x@example.org"}) {
		cmd.Args = append([]string{"git", "-c", kv[0] + "=" + kv[1]}, cmd.Args[1:]...)
	}
	text, err := cmd.CombinedOutput()
	if err != nil && args[0] == "init" {
		t.Fatalf("%s: %v", text, err)
	}
	return string(text), err
}

// throughBroker returns the settings with which git reaches a repository through a broker.
func throughBroker(t *testing.T, repository, token string, push bool) (settings [][2]string, broken func()) {
	t.Helper()
	h, why, err := broker.Setup(broker.Request{
		Backend: "command", Env: map[string]string{}, Git: &broker.GitAccess{Repository: repository, Token: token, Push: push},
	})
	if err != nil || why != "" || h == nil || h.Holds() || h.Reaches() {
		t.Fatalf("%+v, %q, %v", h, why, err)
	}
	l, err := net.FileListener(h.Listener)
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	b, err := broker.New(h.Config, broker.Options{File: filepath.Join(t.TempDir(), "broker")})
	if err != nil {
		t.Fatal(err)
	}
	b.Serve(l)
	t.Cleanup(b.Close)
	return h.GitConfig(), b.Close
}

func TestGit_push_and_fetch(t *testing.T) {
	t.Parallel()
	url, dir := gitServer(t)
	for name, address := range map[string]string{"with_suffix": url + "/one.git", "without_suffix": url + "/one", "with_user": strings.Replace(url, "http://", "http://x-access-token@", 1) + "/one.git"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings, end := throughBroker(t, address, gitToken, true)
			work := t.TempDir()
			for _, args := range [][]string{
				{"clone", "-q", address, "clone"},
				{"-C", "clone", "commit", "-q", "--allow-empty", "-m", "x"},
				{"-C", "clone", "push", "-q", "origin", "HEAD:refs/heads/" + name},
				{"-C", "clone", "fetch", "-q", "origin"},
				{"ls-remote", url + "/one.git"},
			} {
				if out, err := git(t, work, settings, args...); err != nil || strings.Contains(out, gitToken) {
					t.Fatalf("git %v: %v %s", args, err, out)
				}
			}
			if out, err := git(t, filepath.Join(dir, "one.git"), nil, "rev-parse", "--verify", name); err != nil {
				t.Errorf("the branch was not pushed: %s", out)
			}
			if text, err := os.ReadFile(filepath.Join(work, "clone/.git/config")); err != nil || strings.Contains(string(text), gitToken) {
				t.Errorf("%s, %v", text, err)
			}
			end()
			if out, err := git(t, work, settings, "ls-remote", address); err == nil {
				t.Errorf("the credential is usable after the end of the broker: %s", out)
			}
		})
	}
}

// TestGit_refuses tries what the workspace does not allow.
func TestGit_refuses(t *testing.T) {
	t.Parallel()
	url, _ := gitServer(t)
	settings, _ := throughBroker(t, url+"/one.git", gitToken, false)
	work := t.TempDir()
	base := strings.TrimSuffix(strings.TrimPrefix(settings[0][0], "url."), ".insteadOf")
	for _, args := range [][]string{
		{"init", "-q"},
		{"commit", "-q", "--allow-empty", "-m", "x"},
		{"ls-remote", url + "/one.git"},
	} {
		if out, err := git(t, work, settings, args...); err != nil {
			t.Fatalf("git %v: %s", args, out)
		}
	}
	for name, args := range map[string][]string{
		"push":                 {"push", "-q", url + "/one.git", "HEAD:refs/heads/x"},
		"another repository":   {"ls-remote", url + "/one-other.git"},
		"beside":               {"ls-remote", base + "/../one-other.git"},
		"beside, encoded":      {"ls-remote", base + "/%2e%2e/one-other.git"},
		"guessed":              {"ls-remote", base[:strings.Index(base, "/git/")] + "/git/guessed/repository.git"},
		"beside without slash": {"ls-remote", base + "-other.git"},
	} {
		if out, err := git(t, work, settings, args...); err == nil {
			t.Errorf("%s: %s", name, out)
		}
	}
	for _, c := range []struct{ method, path string }{
		{"GET", "/info/refs?service=git-receive-pack"},
		{"POST", "/git-receive-pack"},
		{"GET", "/info/refs"},
		{"GET", "/HEAD"},
		{"GET", "/objects/info/packs"},
		{"GET", "/info/refs?service=git-upload-pack&service=git-receive-pack"},
		{"POST", "/info/lfs/objects/batch"},
		{"DELETE", ""},
		{"GET", "/../one-other.git/info/refs?service=git-upload-pack"},
		{"GET", "//info/refs?service=git-upload-pack"},
	} {
		req, err := http.NewRequest(c.method, base+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s %s: %d", c.method, c.path, res.StatusCode)
		}
	}
}

// TestGit_answers_of_the_server passes on neither redirects, to which git would not send the
// credential, nor the question for another one.
func TestGit_answers_of_the_server(t *testing.T) {
	t.Parallel()
	for want, status := range map[string]int{"credential of the workspace was refused": 401, "the repository has moved": 302} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.Header().Set("Location", "http://example.org/")
			w.WriteHeader(status)
		}))
		settings, _ := throughBroker(t, server.URL+"/one.git", gitToken, true)
		base := strings.TrimSuffix(strings.TrimPrefix(settings[0][0], "url."), ".insteadOf")
		res, err := http.Get(base + "/info/refs?service=git-upload-pack")
		if err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 200)
		n, _ := res.Body.Read(text)
		res.Body.Close()
		server.Close()
		if res.StatusCode != http.StatusBadGateway || res.Header.Get("WWW-Authenticate") != "" || !strings.Contains(string(text[:n]), want) {
			t.Errorf("%d: %d %q", status, res.StatusCode, text[:n])
		}
	}
}

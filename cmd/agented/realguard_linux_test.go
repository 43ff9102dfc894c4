package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"
)

// realCLINames are the CLIs that the tests drive.
var realCLINames = []string{"claude", "codex", "gemini", "opencode"}

// intrusions are what a model asks an agent for at level guard. Each command succeeds if, and only
// if, it reached its target.
var intrusions = []struct{ name, command string }{
	{"cli.key", `cat %[1]s/cli.key`},
	{".secret_key", `cat %[1]s/.secret_key`},
	{"agented.db", `cat %[1]s/agented.db %[1]s/agented.db-wal | head -c 1 | wc -c | grep 1`},
	{"raw output of another execution", `cat %[1]s/executions/%[2]s/log %[1]s/executions/%[2]s/attempt-1/std* | tr -cd '[:print:]' | grep -o OUTPUT""-OF-ANOTHER-EXECUTION`},
	{"environment of a shim", `for p in %[4]s; do tr '\0' '\n' </proc/$p/environ && break; done | grep .`},
	{"signal to the server", `kill -%[5]s %[3]s`},
}

// printedByVictim is the output of another execution.
const printedByVictim = "OUTPUT-OF-ANOTHER-EXECUTION"

// TestRealCLIs_guard_denies lets the model ask each CLI for the server's secrets and its end: at
// level guard no attempt may succeed. At level off the harmless ones must, or the test proves nothing.
func TestRealCLIs_guard_denies(t *testing.T) {
	guardWorks(t)
	tried, reached := 0, 0
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			standIn := &clireal.StandIn{}
			s := realServer(t, name, standIn, clireal.Calls)
			// Earlier servers kept an admin key in this file; the current one removes it when it starts.
			if err := os.WriteFile(filepath.Join(s.data(), "cli.key"), []byte("key-of-an-earlier-server\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			victim := s.fire(s.trigger(map[string]any{"name": "victim", "backend": "command", "command": []string{"sh", "-c", "echo " + printedByVictim + "; while [ ! -e stop ]; do sleep 0.1; done"}}))
			s.waitFor("the victim", func() bool { return len(s.lines(victim)) > 0 })
			for _, level := range []string{"guard", "off"} {
				signal := map[string]string{"guard": "9", "off": "0"}[level]
				before := len(standIn.Requests())
				standIn.Calls = nil
				for i, a := range intrusions {
					command := fmt.Sprintf(a.command, s.data(), victim, fmt.Sprint(s.pid()), strings.Trim(fmt.Sprint(shims(s.data())), "[]"), signal)
					// The quotes keep the words out of the request that repeats the command.
					standIn.Calls = append(standIn.Calls, shellCall(name, fmt.Sprintf(`if { %s; }; then echo RE""ACHED-%d; else echo RE""FUSED-%d; fi`, command, i, i)))
				}
				e := s.awaitReal(s.fire(s.trigger(map[string]any{
					"name": "agent " + level, "backend": name, "prompt": "Work.", "permission": "full", "sandbox": level, "timeout_seconds": 300,
				})))
				if e.Status != "success" || len(e.Attempts) != 1 || e.Attempts[0].Sandbox != level {
					t.Errorf("%s: %+v\n%s", level, e, text(s.lines(e.ID), "stderr"))
				}
				seen := bodies(standIn, before)
				for i, a := range intrusions {
					got, denied := strings.Contains(seen, fmt.Sprint("REACHED-", i)), strings.Contains(seen, fmt.Sprint("REFUSED-", i))
					if level == "off" {
						if !got {
							t.Errorf("without a sandbox, %s is not reached: the test proves nothing", a.name)
						}
						continue
					}
					tried++
					if got || !denied {
						reached++
						t.Errorf("%s: reached %v, refused %v", a.name, got, denied)
					}
				}
				for _, file := range []string{"cli.key", ".secret_key"} {
					secret, err := os.ReadFile(filepath.Join(s.data(), file))
					if err != nil {
						t.Fatal(err)
					}
					if got := strings.Contains(seen, string(bytes.TrimSpace(secret))); level == "guard" && got {
						t.Errorf("the model was given the content of %s", file)
					}
				}
				if level == "guard" && strings.Contains(seen, printedByVictim) {
					t.Error("the model was given the output of another execution")
				}
			}
			var v execution
			if s.call("GET", "/api/v1/executions/"+victim, nil, &v); v.final() {
				t.Errorf("the victim has ended: %+v", v)
			}
			s.call("POST", "/api/v1/executions/"+victim+"/cancel", nil, nil)
			s.await(victim)
		})
	}
	t.Logf("%d of %d attempts reached their target at level guard", reached, tried)
}

// TestRealCLIs_guard_works runs each CLI at level guard: what it is used for must work there as
// without a sandbox.
func TestRealCLIs_guard_works(t *testing.T) {
	guardWorks(t)
	git, origin := credentialServer(t)
	registry := npmRegistry(t)
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			standIn := &clireal.StandIn{}
			s := realServer(t, name, standIn, clireal.Calls)
			home, work := filepath.Join(s.dir, "home"), filepath.Join(s.dir, "cwd")
			for file, text := range map[string]string{
				filepath.Join(home, ".gitconfig"):       "[credential]\n\thelper = store\n",
				filepath.Join(home, ".git-credentials"): strings.Replace(git, "http://", "http://agent:"+gitPassword+"@", 1) + "\n",
				filepath.Join(home, ".npmrc"):           "registry=" + registry.URL + "/\nupdate-notifier=false\n",
				filepath.Join(work, "package.json"):     `{"name":"x","version":"1.0.0","dependencies":{"small":"1.0.0"}}`,
				filepath.Join(work, "package-lock.json"): fmt.Sprintf(`{"name":"x","version":"1.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"x","version":"1.0.0","dependencies":{"small":"1.0.0"}},
					"node_modules/small":{"version":"1.0.0","resolved":"%s/small/-/small-1.0.0.tgz","integrity":%q}}}`, registry.URL, smallIntegrity()),
			} {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			branch, helper := "pushed-by-"+name, ""
			if name == "gemini" {
				helper = "-c credential.helper=store"
			}
			commands := []string{
				// For the shell tool of Gemini, git has neither the user's settings nor credential helpers.
				"git " + helper + " clone -q " + git + "/origin.git clone && git -C clone -c user.name=x -c user.email=x@example.org commit -q --allow-empty -m x && " +
					"git -C clone " + helper + " push -q origin HEAD:refs/heads/" + branch + " && touch pushed",
				"npm ci --no-audit --no-fund && touch installed",
				"echo made >file && mv file renamed",
			}
			for _, command := range commands {
				standIn.Calls = append(standIn.Calls, shellCall(name, command))
			}
			e := s.awaitReal(s.fire(s.trigger(map[string]any{
				"name": "agent", "backend": name, "prompt": "Work.", "permission": "full", "sandbox": "guard", "timeout_seconds": 300, "working_dir": work,
			})))
			if e.Status != "success" || e.Result == "" || len(e.Attempts) != 1 || e.Attempts[0].Sandbox != "guard" {
				t.Errorf("%+v", e)
			}
			for _, file := range []string{"pushed", "installed", "renamed", "node_modules/small/index.js"} {
				if _, err := os.Stat(filepath.Join(work, file)); err != nil {
					t.Error(err)
				}
			}
			if out, err := exec.Command("git", "--git-dir", origin, "rev-parse", "--verify", branch).CombinedOutput(); err != nil {
				t.Errorf("the branch was not pushed: %v %s", err, out)
			}
			if t.Failed() {
				t.Logf("the log:\n%s", s.logText(e.ID))
			}
		})
	}
}

// TestRealCLIs_nested_sandbox runs Codex at level guard with permissions that it enforces with a
// sandbox of its own.
func TestRealCLIs_nested_sandbox(t *testing.T) {
	guardWorks(t)
	standIn := &clireal.StandIn{}
	s := realServer(t, "codex", standIn, clireal.Tool)
	beside, err := os.MkdirTemp("/var/tmp", "beside-") // Codex allows writes below TMPDIR and /tmp
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(beside) })
	for _, permission := range []string{"edit", "read"} {
		work := filepath.Join(s.dir, "cwd", permission)
		if err := os.MkdirAll(work, 0o700); err != nil {
			t.Fatal(err)
		}
		outside := filepath.Join(beside, permission)
		standIn.Command = "echo x >" + outside + "; echo " + clireal.ToolContent + " >" + clireal.ToolFile
		e := s.awaitReal(s.fire(s.trigger(map[string]any{
			"name": permission, "backend": "codex", "prompt": "Work.", "permission": permission, "sandbox": "guard", "timeout_seconds": 300, "working_dir": work,
		})))
		_, err := os.Stat(filepath.Join(work, clireal.ToolFile))
		if written := err == nil; e.Status != "success" || written != (permission == "edit") {
			t.Errorf("%s: the file was written: %v: %+v\n%s", permission, written, e, s.logText(e.ID))
		}
		if _, err := os.Stat(outside); err == nil {
			t.Errorf("%s: Codex's own sandbox did not deny a write outside of the working directory", permission)
		}
	}
}

// TestRealCLIs_strict runs each CLI without a network, with a forwarded port to the API of its model:
// it must work, and its tools must not leave the sandbox.
func TestRealCLIs_strict(t *testing.T) {
	guardWorks(t)
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			standIn := &clireal.StandIn{}
			dir, err := os.MkdirTemp("/var/tmp", "model-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "proxy.sock")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			api := &http.Server{Handler: standIn, ReadHeaderTimeout: time.Minute}
			go api.Serve(l)
			t.Cleanup(func() { api.Close() })
			s := realServerAt(t, name, "http://127.0.0.1:3128/"+string(clireal.Calls), "AGENTED_SANDBOX=strict", "AGENTED_SANDBOX_FORWARD=3128:"+socket)
			canary := filepath.Join(s.dir, "home", "canary")
			if err := os.WriteFile(canary, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			work := filepath.Join(s.dir, "cwd")
			host, port, _ := strings.Cut(s.addr, ":")
			for _, command := range []string{
				"rm -rf ~/*; cat " + canary + " && touch leaked",
				"bash -c 'exec 3<>/dev/tcp/" + host + "/" + port + "' && touch leaked",
				"curl -sS --max-time 20 http://" + s.addr + "/health/liveness && touch leaked",
				"getent hosts example.org && touch leaked",
				"touch made",
			} {
				standIn.Calls = append(standIn.Calls, shellCall(name, command))
			}
			e := s.awaitReal(s.fire(s.trigger(map[string]any{
				"name": "agent", "backend": name, "prompt": "Work.", "permission": "full", "timeout_seconds": 300, "working_dir": work,
			})))
			if e.Status != "success" || e.Result == "" || len(e.Attempts) != 1 || e.Attempts[0].Sandbox != "strict" {
				t.Errorf("%+v\n%s", e, s.logText(e.ID))
			}
			for file, want := range map[string]bool{"made": true, "leaked": false} {
				if _, err := os.Stat(filepath.Join(work, file)); (err == nil) != want {
					t.Errorf("%s exists: %v, want %v\n%s", file, err == nil, want, s.logText(e.ID))
				}
			}
			if _, err := os.Stat(canary); err != nil {
				t.Error(err)
			}
		})
	}
}

// awaitReal waits for an execution of a real CLI, which can be slow on a busy machine.
func (s *server) awaitReal(id string) execution {
	s.t.Helper()
	return (&hostileRepository{t: s.t}).ended(s, id)
}

// bodies returns what was sent to the model since a number of requests.
func bodies(standIn *clireal.StandIn, after int) string {
	var all strings.Builder
	for _, r := range standIn.Requests()[after:] {
		all.Write(r.Body)
		all.WriteByte('\n')
	}
	return all.String()
}

const gitPassword = "password-of-the-git-server"

// credentialServer serves an empty repository over HTTP to clients with the password.
func credentialServer(t *testing.T) (address, origin string) {
	t.Helper()
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	origin = filepath.Join(dir, "origin.git")
	for _, args := range [][]string{{"init", "-q", "--bare", origin}, {"--git-dir", origin, "config", "http.receivepack", "true"}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + dir},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); !ok || password != gitPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, origin
}

// smallPackage returns an npm package with one file.
func smallPackage() []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, f := range []struct{ name, text string }{
		{"package/package.json", `{"name":"small","version":"1.0.0","main":"index.js"}`},
		{"package/index.js", "module.exports = 1\n"},
	} {
		_ = w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text))})
		_, _ = w.Write([]byte(f.text))
	}
	_ = w.Close()
	_ = z.Close()
	return out.Bytes()
}

func smallIntegrity() string {
	sum := sha512.Sum512(smallPackage())
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// npmRegistry imitates a registry with one package.
func npmRegistry(t *testing.T) *httptest.Server {
	t.Helper()
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, ".tgz"):
			_, _ = w.Write(smallPackage())
		case r.URL.Path == "/small":
			_ = json.NewEncoder(w).Encode(map[string]any{
				"name": "small", "dist-tags": map[string]string{"latest": "1.0.0"},
				"versions": map[string]any{"1.0.0": map[string]any{"name": "small", "version": "1.0.0", "dist": map[string]string{
					"tarball": server.URL + "/small/-/small-1.0.0.tgz", "integrity": smallIntegrity(),
				}}},
			})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

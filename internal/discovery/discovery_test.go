package discovery

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/config"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFind_server_and_key checks which server a command uses, and that the key of a local
// server is sent to no other server.
func TestFind_server_and_key(t *testing.T) {
	t.Parallel()
	const envKey, runtimeKey, dataKey = "key-from-the-environment", "key-of-the-running-server", "key-in-the-data-folder"
	for _, tt := range []struct {
		name    string
		env     map[string]string
		dotenv  string
		runtime string // address in the runtime file, empty for none
		where   string // "home": the runtime file is below HOME although there is a runtime folder
		dataKey bool   // there is a cli.key in the data folder
		local   bool   // the server has a local socket

		address string
		key     string
		socket  bool // the local socket is used
		err     agented.Kind
		says    string
	}{
		{name: "the running server", runtime: "http://127.0.0.1:4000", address: "http://127.0.0.1:4000", key: runtimeKey},
		{name: "the running server before the data folder", runtime: "http://127.0.0.1:4000", dataKey: true, address: "http://127.0.0.1:4000", key: runtimeKey},
		{name: "a server without a runtime folder", runtime: "http://127.0.0.1:4000", where: "home", address: "http://127.0.0.1:4000", key: runtimeKey},
		{name: "a server on a socket", runtime: "unix:/run/a.sock", address: "unix:/run/a.sock", key: runtimeKey},
		{name: "the default server", dataKey: true, address: "http://127.0.0.1:20000", key: dataKey},
		{name: "the local socket", runtime: "http://127.0.0.1:4000", local: true, dataKey: true, address: "http://127.0.0.1:4000", socket: true},
		{
			name: "the local socket of the server that AGENTED_URL names", runtime: "http://127.0.0.1:4000", local: true,
			env: map[string]string{"AGENTED_URL": "http://localhost:4000"}, address: "http://127.0.0.1:4000", socket: true,
		},
		{
			name: "a key before the local socket", runtime: "http://127.0.0.1:4000", local: true,
			env: map[string]string{"AGENTED_API_KEY": envKey}, address: "http://127.0.0.1:4000", key: envKey,
		},
		{
			name: "no local socket for another server", runtime: "http://127.0.0.1:4000", local: true,
			env: map[string]string{"AGENTED_URL": "http://127.0.0.1:4001"}, err: agented.Unauthenticated, says: "AGENTED_API_KEY",
		},
		{
			name: "no local socket in an execution", runtime: "http://127.0.0.1:4000", local: true,
			env: map[string]string{"AGENTED_EXECUTION_ID": "exec-1"}, err: agented.Unauthenticated, says: "inside an execution",
		},
		{name: "no server at all", err: agented.Unavailable, says: "agented serve"},
		{
			name: "a key of one's own", runtime: "http://127.0.0.1:4000", env: map[string]string{"AGENTED_API_KEY": envKey},
			address: "http://127.0.0.1:4000", key: envKey,
		},
		{
			name: "another server with its key", runtime: "http://127.0.0.1:4000",
			env:     map[string]string{"AGENTED_URL": "https://example.org", "AGENTED_API_KEY": envKey},
			address: "https://example.org", key: envKey,
		},
		{
			name: "another server without a key", runtime: "http://127.0.0.1:4000", dataKey: true,
			env: map[string]string{"AGENTED_URL": "https://example.org"}, err: agented.Unauthenticated, says: "AGENTED_API_KEY",
		},
		{
			name: "another server while none runs here", dataKey: true,
			env: map[string]string{"AGENTED_URL": "https://example.org:20000"}, err: agented.Unauthenticated, says: "AGENTED_API_KEY",
		},
		{
			name: "another port of this machine may be a tunnel", runtime: "http://127.0.0.1:4000", dataKey: true,
			env: map[string]string{"AGENTED_URL": "http://127.0.0.1:4001"}, err: agented.Unauthenticated, says: "AGENTED_API_KEY",
		},
		{
			name: "the default address while the server is elsewhere", runtime: "http://127.0.0.1:4000", dataKey: true,
			env: map[string]string{"AGENTED_URL": "http://127.0.0.1:20000"}, err: agented.Unauthenticated, says: "AGENTED_API_KEY",
		},
		{
			name: "the running server by another spelling", runtime: "http://127.0.0.1:4000",
			env: map[string]string{"AGENTED_URL": "http://LOCALHOST:4000/"}, address: "http://127.0.0.1:4000", key: runtimeKey,
		},
		{
			name: "the running server over another scheme", runtime: "http://127.0.0.1:4000",
			env: map[string]string{"AGENTED_URL": "https://127.0.0.1:4000"}, err: agented.Unauthenticated,
		},
		{
			name: "the running server's host with a user before it", runtime: "http://127.0.0.1:4000",
			env: map[string]string{"AGENTED_URL": "http://127.0.0.1:4000@example.org"}, err: agented.Unauthenticated,
		},
		{
			name: "a project's .env does not redirect", runtime: "http://127.0.0.1:4000", dotenv: "AGENTED_URL=https://evil.example\n",
			env: map[string]string{"AGENTED_API_KEY": envKey}, address: "http://127.0.0.1:4000", key: envKey,
		},
		{
			name: "a .env with address and key", runtime: "http://127.0.0.1:4000",
			dotenv: "AGENTED_URL=https://example.org\nAGENTED_API_KEY=key-from-the-dotenv-file\n", address: "https://example.org", key: "key-from-the-dotenv-file",
		},
		{
			name: "a .env's key does not go to the environment's server", dotenv: "AGENTED_API_KEY=key-from-the-dotenv-file\n",
			env: map[string]string{"AGENTED_URL": "https://example.org"}, err: agented.Unauthenticated, says: "environment",
		},
		{
			name: "a .env's key goes to this machine", dotenv: "AGENTED_API_KEY=key-from-the-dotenv-file\n",
			env: map[string]string{"AGENTED_URL": "http://localhost:5000"}, address: "http://localhost:5000", key: "key-from-the-dotenv-file",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			home, run, data, work := filepath.Join(dir, "home"), filepath.Join(dir, "run"), filepath.Join(dir, "data"), filepath.Join(dir, "work")
			write(t, filepath.Join(work, ".env"), tt.dotenv)
			write(t, filepath.Join(dir, "running.key"), runtimeKey+"\n")
			if tt.dataKey {
				write(t, filepath.Join(data, "cli.key"), dataKey+"\n")
			}
			if tt.runtime != "" {
				at := client.RuntimeFile(run, home)
				if tt.where == "home" {
					at = client.RuntimeFile("", home)
				}
				rt := client.Runtime{Address: tt.runtime, KeyFile: filepath.Join(dir, "running.key"), PID: 1}
				if tt.local {
					rt.Socket = filepath.Join(dir, "agented.sock")
				}
				b, _ := json.Marshal(rt)
				write(t, at, string(b))
			}
			environ := []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + run, "AGENTED_DATA_DIR=" + data}
			for k, v := range tt.env {
				environ = append(environ, k+"="+v)
			}
			c, err := config.Load(config.Options{Client: true, Dir: work, Environ: func() []string { return environ }})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Find(c)
			if tt.err != "" {
				if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v, want %s with %q", err, tt.err, tt.says)
				}
				return
			}
			if err != nil || got.Address != tt.address || got.Key != tt.key || (got.Socket != "") != tt.socket {
				t.Errorf("goes to %s with %q (%v), want %s with %q", got.Address, got.Key, err, tt.address, tt.key)
			}
		})
	}
}

func TestKeyFile_invalid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "two": "one\ntwo\n", "big": strings.Repeat("x", maxKeyFile+1)} {
		path := filepath.Join(dir, name)
		write(t, path, text)
		if key, err := readKeyFile(path); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q, %v", name, key, err)
		}
	}
	open := filepath.Join(dir, "open")
	write(t, open, "key\n")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readKeyFile(open); err == nil {
		t.Error("a key that everybody can change was taken")
	}
	if _, err := readKeyFile(dir); err == nil {
		t.Error("a folder was taken for a key")
	}
}

func TestClient_redirect(t *testing.T) {
	t.Parallel()
	var reached atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer other.Close()
	here := httptest.NewServer(http.RedirectHandler(other.URL+"/x", http.StatusFound))
	defer here.Close()
	c, err := client.New(here.URL, "key-of-the-running-server")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Do(t.Context(), http.MethodGet, "/api/v1/triggers", nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), other.URL) || reached.Load() {
		t.Errorf("error %v, the other server was reached: %v", err, reached.Load())
	}
}

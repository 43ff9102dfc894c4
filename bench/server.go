//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

const apiKey = "bench-admin-key-0123456789"

// Names of the measured programs in the table.
const (
	us     = "Agented"
	nchan  = "nginx + nchan"
	gevent = "Flask, Gunicorn + gevent"
)

// server is a measured process.
type server struct {
	name string
	dir  string // its own folder
	addr string
	cmd  *exec.Cmd
	log  string
	args []string
	env  []string
}

func (s *server) url(path string) string { return "http://" + s.addr + path }
func (s *server) data() string           { return filepath.Join(s.dir, "data") }
func (s *server) procs() procs           { return withChildren(s.cmd.Process.Pid) }

// self returns the server process without its children.
func (s *server) self() procs { return procs{s.cmd.Process.Pid} }

// start starts the process, waits until it is healthy, and returns how long that took.
func (s *server) start(health string) (time.Duration, error) {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir, s.cmd.Env = s.dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir}, s.env...)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for time.Since(began) < 30*time.Second {
		resp, err := client.Get(s.url(health))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return time.Since(began), nil
			}
		}
		time.Sleep(time.Millisecond)
	}
	log, _ := os.ReadFile(s.log)
	return 0, errors.Join(fmt.Errorf("%s did not start:\n%s", s.name, log[max(0, len(log)-2000):]), s.kill())
}

// kill kills the process as a crash would.
func (s *server) kill() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	doomed := s.procs()
	if s.name == us {
		doomed = s.self() // its executions survive
	}
	for _, pid := range doomed {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	s.cmd.Wait()
	s.cmd = nil
	return nil
}

// Close ends the process and its executions, and removes large files. The folder is removed at
// the end of the run, because file systems such as ext4 skip inodes that were freed within the
// last minutes: removing files between two measurements would slow down the creation of files in
// the next one.
func (s *server) Close() error {
	s.kill()
	for range 100 { // a shim ends its processes
		left := shims(s.data())
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGTERM)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, pid := range shims(s.data()) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	return filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && e.Type().IsRegular() {
			info, err = e.Info()
		}
		if info != nil && info.Size() >= 1<<20 {
			err = os.Truncate(path, 0)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it ended by itself
		}
		return err
	})
}

// newServer creates the folder and selects the address.
func (b *bench) newServer(name string) (*server, error) {
	dir, err := os.MkdirTemp(b.tmp, strings.ToLower(strings.Fields(name)[0])+"-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return &server{name: name, dir: dir, addr: l.Addr().String(), log: filepath.Join(dir, "server.log")}, nil
}

// agented starts the program under test.
func (b *bench) agented(env ...string) (*server, error) {
	s, err := b.newServer(us)
	if err != nil {
		return nil, err
	}
	s.args = []string{b.binary, "serve"}
	s.env = append([]string{
		"XDG_RUNTIME_DIR=" + s.dir, "AGENTED_DATA_DIR=" + s.data(), "AGENTED_BIND=" + s.addr,
		"AGENTED_API_KEY=" + apiKey, "AGENTED_ACCESS_LOG=off", "LOG_LEVEL=warn", "LOG_FORMAT=text",
	}, env...)
	_, err = s.start("/health/readiness")
	return s, err
}

//go:embed peers/app.py
var flaskApp []byte

//go:embed peers/nginx.conf
var nginxConf string

const hookSecret = "a-secret-of-thirty-two-characters"

// flask starts the Python stack that Agented replaces.
func (b *bench) flask() (*server, error) {
	s, err := b.newServer(gevent)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "app.py"), flaskApp, 0o600); err != nil {
		return nil, err
	}
	s.args = []string{
		b.gunicorn, "--worker-class", "gevent", "--workers", "1", "--worker-connections", "40000",
		"--backlog", "4096", "--timeout", "0", "--keep-alive", "75", "--bind", s.addr, "app:app",
	}
	s.env = []string{"PEER_SECRET=" + hookSecret, "PEER_KEY=" + apiKey, "PEER_DIR=" + s.dir, "PYTHONDONTWRITEBYTECODE=1"}
	_, err = s.start("/health")
	return s, err
}

// nginx starts the fastest fan-out server that can be installed.
func (b *bench) nginx() (*server, error) {
	s, err := b.newServer(nchan)
	if err != nil {
		return nil, err
	}
	t, err := template.New("").Parse(nginxConf)
	if err != nil {
		return nil, err
	}
	var conf bytes.Buffer
	if err := t.Execute(&conf, map[string]string{"Dir": s.dir, "Addr": s.addr, "Module": b.nchanModule}); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "nginx.conf")
	if err := os.WriteFile(path, conf.Bytes(), 0o600); err != nil {
		return nil, err
	}
	os.Chmod(s.dir, 0o755) // the worker runs as another user
	s.args = []string{b.nginxProgram, "-c", path, "-p", s.dir, "-e", filepath.Join(s.dir, "error.log")}
	_, err = s.start("/health")
	return s, err
}

// findPeers finds the programs to compare with, and names the missing ones.
func (b *bench) findPeers() {
	b.missing = map[string]string{}
	if path, err := exec.LookPath("gunicorn"); err != nil {
		b.missing[gevent] = "gunicorn is not installed (packages python3-flask, gunicorn, python3-gevent)"
	} else if out, err := b.tryFlask(path); err != nil {
		b.missing[gevent] = "Flask, Gunicorn or gevent cannot be used: " + out
	}
	path, err := exec.LookPath("nginx")
	if err != nil {
		for _, p := range []string{"/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
			if _, e := os.Stat(p); e == nil {
				path, err = p, nil
			}
		}
	}
	if err != nil {
		b.missing[nchan] = "nginx is not installed (packages nginx, libnginx-mod-nchan)"
		return
	}
	b.nginxProgram = path
	for _, m := range []string{"/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"} {
		if _, err := os.Stat(m); err == nil {
			b.nchanModule = m
		}
	}
	if b.nchanModule == "" {
		b.missing[nchan] = "nginx has no nchan (package libnginx-mod-nchan)"
	}
}

func (b *bench) tryFlask(path string) (string, error) {
	b.gunicorn = path
	s, err := b.flask()
	if err != nil {
		return strings.Join(strings.Fields(err.Error()), " "), err
	}
	return "", s.Close()
}

// call sends a request to Agented or the Flask application and decodes the response.
func (s *server) call(method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.url(path), r)
	if err != nil {
		return err
	}
	req.Header.Set("X-API-Key", apiKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// metric returns the value of one of Agented's metrics that has no labels.
func (s *server) metric(name string) (float64, error) {
	w, err := dial(s.addr)
	if err != nil {
		return 0, err
	}
	defer w.conn.Close()
	_, body, err := w.ask(get("/metrics"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// run starts a command as an execution at any of the servers, and returns its id.
func (s *server) run(command ...string) (string, error) {
	var got struct {
		ID string `json:"execution_id"`
	}
	path, body := "/run", map[string]any{"command": command}
	if s.name == us {
		path = "/api/v1/executions"
		body["backend"], body["name"] = "command", "bench"
	}
	return got.ID, errors.Join(s.call("POST", path, body, &got), orMissing(&got.ID))
}

func orMissing(id *string) error {
	if *id == "" {
		return errors.New("the response contains no execution id")
	}
	return nil
}

// trigger creates a trigger and returns its id.
func (s *server) trigger(body map[string]any) (string, error) {
	var got struct {
		ID string `json:"id"`
	}
	err := s.call("POST", "/api/v1/triggers", body, &got)
	return got.ID, err
}

// execution holds the fields that are read of an execution.
type execution struct {
	Status   string  `json:"status"`
	LastSeq  int64   `json:"last_seq"`
	Duration float64 `json:"duration_ms"`
}

// await polls an execution until it has ended.
func (s *server) await(id string, patience time.Duration) (execution, error) {
	var e execution
	for began := time.Now(); time.Since(began) < patience; time.Sleep(20 * time.Millisecond) {
		if err := s.call("GET", "/api/v1/executions/"+id, nil, &e); err != nil {
			return e, err
		}
		if e.Status != "pending" && e.Status != "running" {
			return e, nil
		}
	}
	return e, fmt.Errorf("%s did not end within %v", id, patience)
}

// until polls until ok returns true, for at most a minute.
func until(what string, ok func() bool) error {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return nil
		}
	}
	return fmt.Errorf("timed out waiting for %s", what)
}

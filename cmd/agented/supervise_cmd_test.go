//go:build linux

package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// supervised starts a server under a parent, from a copy of the program that the test can
// replace.
func supervised(t *testing.T, env ...string) *server {
	t.Helper()
	s := prepare(t, env...)
	s.args = []string{"--supervise"}
	s.program = filepath.Join(s.dir, "agented")
	install(t, binary, s.program)
	t.Cleanup(func() { s.end(syscall.SIGTERM) })
	s.start()
	s.waitFor("the parent to know", func() bool { return s.parentState().Ready })
	return s
}

// install replaces the program as an upgrade does.
func install(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(testrun.WriteProgram(to+".new", b, 0o700), os.Rename(to+".new", to)); err != nil {
		t.Fatal(err)
	}
}

// parentState is the state that the parent records.
type parentState struct {
	PID    int  `json:"pid"`
	Server int  `json:"server"`
	Ready  bool `json:"ready"`
}

func (s *server) parentState() (p parentState) {
	b, _ := os.ReadFile(filepath.Join(s.data(), "supervisor.json"))
	_ = json.Unmarshal(b, &p)
	return p
}

// another waits until a server other than the earlier one is ready.
func (s *server) another(before parentState) (p parentState) {
	s.t.Helper()
	s.waitFor("another server", func() bool {
		p = s.parentState()
		return p.Ready && p.Server != before.Server
	})
	return p
}

// agent starts an execution that runs until the file exists; it returns its id and process.
func (s *server) agent(until string) (id string, pid int) {
	s.t.Helper()
	id = s.fire(s.trigger(map[string]any{"name": "agent " + filepath.Base(until), "backend": "command", "command": []string{
		"sh", "-c", `echo $$; while [ ! -e "` + until + `" ]; do sleep 0.05; done; echo over`,
	}}))
	s.waitFor("the agent", func() bool {
		for _, l := range s.lines(id) {
			if n, err := strconv.Atoi(l.Content); err == nil && l.Stream == "stdout" {
				pid = n
			}
		}
		return pid > 0
	})
	return id, pid
}

// bad counts failed requests of a load.
type bad struct{ done, refused, cut, status, other atomic.Int64 }

func (b *bad) String() string {
	return fmt.Sprintf("%d requests: %d refused, %d cut, %d wrong answers, %d others", b.done.Load(), b.refused.Load(), b.cut.Load(), b.status.Load(), b.other.Load())
}

func (b *bad) all() int64 {
	return b.refused.Load() + b.cut.Load() + b.status.Load() + b.other.Load()
}

// under sends requests from several clients without a pause while f runs, at least 50, half of
// them on new connections.
func (s *server) under(f func()) *bad {
	b, many := new(bad), make(chan struct{})
	ctx, stop := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		wg.Go(func() {
			for ctx.Err() == nil {
				if b.done.Add(1) == 50 {
					close(many)
				}
				resp, err := c.Get("http://" + s.addr + "/health/liveness")
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != http.StatusOK {
						b.status.Add(1)
					}
				}
				switch {
				case err == nil:
				case errors.Is(err, syscall.ECONNREFUSED):
					b.refused.Add(1)
				case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
					b.cut.Add(1)
				default:
					b.other.Add(1)
				}
			}
		})
	}
	f()
	select {
	case <-many:
	case <-time.After(30 * time.Second):
	}
	stop()
	wg.Wait()
	return b
}

func TestSupervise_killed_server(t *testing.T) {
	t.Parallel()
	starting := time.Now()
	s := supervised(t)
	usual := time.Since(starting) // of a start under the present load of the machine
	until := filepath.Join(s.dir, "enough")
	id, pid := s.agent(until)
	var times []time.Duration
	seen := s.under(func() {
		for range 5 {
			before := s.parentState()
			began := time.Now()
			if err := syscall.Kill(before.Server, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			if after := s.another(before); after.PID != before.PID {
				t.Errorf("another parent: %+v, was %+v", after, before)
			}
			times = append(times, time.Since(began).Round(time.Millisecond))
		}
	})
	t.Logf("%s; ready again after %v", seen, times)
	if seen.refused.Load() > 0 || seen.status.Load() > 0 || seen.done.Load() < 50 {
		t.Errorf("%s", seen)
	}
	if best := slices.Min(times); best >= time.Second+4*usual {
		t.Errorf("ready again after %v, the first start took %s", times, usual)
	}
	if syscall.Kill(pid, 0) != nil {
		t.Error("the agent is gone")
	}
	if err := os.WriteFile(until, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := s.await(id); e.Status != "success" || len(e.Attempts) != 1 {
		t.Errorf("%+v", e)
	}
}

func TestRestart_loses_no_request(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	until := filepath.Join(s.dir, "enough")
	id, pid := s.agent(until)
	seen := s.under(func() {
		for range 4 {
			before := s.parentState()
			install(t, binary, s.program)
			out, errs, code := s.cli("restart")
			after := s.parentState()
			if code != 0 || after.PID != before.PID || after.Server == before.Server || !strings.Contains(out, fmt.Sprint("process ", after.Server, " now serves")) {
				t.Errorf("%d %s%s: %+v, was %+v", code, out, errs, after, before)
			}
		}
	})
	t.Logf("%s", seen)
	if seen.all() > 0 || seen.done.Load() < 50 {
		t.Errorf("%s", seen)
	}
	if syscall.Kill(pid, 0) != nil {
		t.Error("the agent is gone")
	}
	_ = os.WriteFile(until, nil, 0o600)
	if e := s.await(id); e.Status != "success" {
		t.Errorf("%+v", e)
	}
	// The parent ends with its server after SIGTERM.
	s.end(syscall.SIGTERM)
	if c, err := net.Dial("tcp", s.addr); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
}

func TestRestart_json(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	before := s.parentState()
	out, errs, code := s.cli("restart", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
		t.Fatalf("%v: %d %s%s", err, code, out, errs)
	}
	after := s.parentState()
	if got["pid"] != float64(after.Server) || got["replaced_pid"] != float64(before.Server) || after.Server == before.Server ||
		got["version"] == "" || got["data_dir"] == "" {
		t.Errorf("%s, process %d replaced %d", out, after.Server, before.Server)
	}
}

func TestService_json(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	out, errs, code := s.cli("service", "install", "--user", "--dry-run", "--json")
	var got struct {
		DryRun bool     `json:"dry_run"`
		Steps  []string `json:"steps"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || !got.DryRun || len(got.Steps) == 0 {
		t.Errorf("%v: %d %s%s", err, code, out, errs)
	}
	out, errs, code = s.cli("service", "status", "--user", "--json")
	if !json.Valid([]byte(out)) || code == 0 || !strings.Contains(errs, "is installed") {
		t.Errorf("status without a service: %d %s%s", code, out, errs)
	}
}

func TestRestart_parent_ended(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	parent := s.parentState().PID
	if err := syscall.Kill(parent, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	type result struct {
		errs string
		code int
	}
	done := make(chan result, 1)
	go func() {
		_, errs, code := s.cli("restart")
		done <- result{errs, code}
	}()
	s.waitFor("the parent to be told", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", parent))
		_, pending, _ := strings.Cut(string(b), "\nShdPnd:")
		mask, _, _ := strings.Cut(strings.TrimSpace(pending), "\n")
		n, _ := strconv.ParseUint(mask, 16, 64)
		return n&(1<<(syscall.SIGUSR2-1)) != 0
	})
	s.kill()
	got := testrun.Receive(t, done, "the command to end")
	if got.code == 0 || !strings.Contains(got.errs, "the parent of the server has ended") || time.Since(began) > 30*time.Second {
		t.Errorf("after %s: %d %s", time.Since(began), got.code, got.errs)
	}
}

// A parent that executes another program handles no signals for a moment.
func TestReload_during_restart(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	first := s.parentState()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
			if err := syscall.Kill(first.PID, syscall.SIGHUP); err != nil {
				t.Error("the parent is gone: ", err)
				return
			}
		}
	})
	for range 4 {
		if out, errs, code := s.cli("restart"); code != 0 {
			t.Errorf("%d %s%s", code, out, errs)
			break
		}
	}
	stop()
	wg.Wait()
	if p := s.parentState(); p.PID != first.PID || !p.Ready || s.call("GET", "/api/v1/info", nil, nil) != http.StatusOK {
		t.Errorf("%+v, was %+v", p, first)
	}
}

func TestRestart_broken_program(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	before := s.parentState()
	if err := testrun.WriteProgram(s.program+".new", []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.program+".new", s.program); err != nil {
		t.Fatal(err)
	}
	s.program = binary // for the command
	if _, errs, code := s.cli("restart"); code == 0 || !strings.Contains(errs, "was not replaced") {
		t.Errorf("%d %s", code, errs)
	}
	// Also if the parent receives the signal directly.
	if err := syscall.Kill(before.PID, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	s.waitFor("the parent's refusal", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.log.String(), "not replaced")
	})
	if after := s.parentState(); after != before || s.call("GET", "/api/v1/info", nil, nil) != http.StatusOK {
		t.Errorf("%+v, was %+v", after, before)
	}
}

func TestRestart_rejected_settings(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	file := filepath.Join(s.dir, "settings.env")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("LOG_LEVEL=debug\n")
	s.args = []string{"--supervise", "--env-file", file}
	t.Cleanup(func() { s.end(syscall.SIGTERM) })
	s.start()
	s.waitFor("the parent to know", func() bool { return s.parentState().Ready })
	before := s.parentState()
	write("LOG_LEVEL=debug\nAGENTED_MAX_CONCURRENT=many\n")
	_, errs, code := s.cli("restart")
	if code == 0 || !strings.Contains(errs, "was not replaced") || !strings.Contains(errs, "AGENTED_MAX_CONCURRENT") {
		t.Errorf("%d %s", code, errs)
	}
	if after := s.parentState(); after != before || s.call("GET", "/api/v1/info", nil, nil) != http.StatusOK {
		t.Errorf("%+v, was %+v", after, before)
	}
	// An earlier refusal must not answer a new request.
	write("LOG_LEVEL=info\n")
	if out, errs, code := s.cli("restart"); code != 0 || s.parentState().Server == before.Server {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestSupervise_killed_parent(t *testing.T) {
	t.Parallel()
	s := supervised(t)
	until := filepath.Join(s.dir, "enough")
	id, pid := s.agent(until)
	before := s.parentState()
	s.kill()
	s.waitFor("the server's end", func() bool { return syscall.Kill(before.Server, 0) != nil || zombie(before.Server) })
	if syscall.Kill(pid, 0) != nil {
		t.Error("the agent is gone")
	}
	s.start()
	_ = os.WriteFile(until, nil, 0o600)
	if e := s.await(id); e.Status != "success" || len(e.Attempts) != 1 {
		t.Errorf("%+v", e)
	}
}

// zombie reports whether a process has ended and was not reaped.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

func TestSupervise_process1_stop(t *testing.T) {
	t.Parallel()
	if err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		t.Skipf("NOT CHECKED, as this machine allows no namespaces: %v", err)
	}
	s := prepare(t)
	wrapper := filepath.Join(s.dir, "container")
	if err := testrun.WriteProgram(wrapper, []byte("#!/bin/sh\nexec unshare --pid --fork --mount-proc "+binary+" \"$@\" --supervise\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.program = wrapper
	s.start()
	id, _ := s.agent(filepath.Join(s.dir, "never"))
	if p := s.parentState(); p.PID != 1 {
		t.Fatalf("%+v", p)
	}
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	first, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	record, err := filepath.Glob(filepath.Join(s.data(), "executions", id, "attempt-*", "exit.json"))
	if err != nil || len(record) != 1 {
		t.Fatalf("%v %v", record, err)
	}
	b, _ := os.ReadFile(record[0])
	if !strings.Contains(string(b), "shutdown") {
		t.Errorf("%s", b)
	}
}

func TestDeploy_replaces_own_server(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	t.Cleanup(func() { s.cli("stop") })
	deploy := func() (string, string, int) { return s.cli("serve", "--supervise", "--detach", "--replace") }
	out, errs, code := deploy()
	if code != 0 || !strings.Contains(out, "serving at "+s.addr) {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	until := filepath.Join(s.dir, "enough")
	id, pid := s.agent(until)
	first := s.parentState()

	// Once more: replaced without a gap.
	if out, errs, code = deploy(); code != 0 {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	second := s.parentState()
	if second.PID != first.PID || second.Server == first.Server {
		t.Errorf("%+v, was %+v", second, first)
	}
	// Other settings need another process.
	s.env = append(s.env, "LOG_LEVEL=debug")
	if out, errs, code = deploy(); code != 0 {
		t.Fatalf("%d %s%s", code, out, errs)
	}
	third := s.parentState()
	if third.PID == second.PID || !third.Ready {
		t.Errorf("%+v, was %+v", third, second)
	}
	if syscall.Kill(pid, 0) != nil {
		t.Error("the agent is gone")
	}
	// The address of another program: an error, and the running server is not affected.
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	env := s.env
	s.env = append(slices.Clone(env), "AGENTED_BIND="+stranger.Addr().String())
	if out, errs, code = deploy(); code == 0 || !strings.Contains(errs, "another program already listens on "+stranger.Addr().String()) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	s.env = env
	if s.parentState() != third || s.call("GET", "/api/v1/info", nil, nil) != http.StatusOK {
		t.Errorf("%+v, was %+v", s.parentState(), third)
	}
	_ = os.WriteFile(until, nil, 0o600)
	if e := s.await(id); e.Status != "success" || len(e.Attempts) != 1 {
		t.Errorf("%+v", e)
	}
	if out, errs, code = s.cli("stop"); code != 0 || !strings.Contains(out, fmt.Sprint("stopped process ", third.PID)) {
		t.Errorf("%d %s%s", code, out, errs)
	}
	if out, _, code = s.cli("stop"); code != 0 || !strings.Contains(out, "no server is running") {
		t.Errorf("%d %s", code, out)
	}

	// It also replaces a server without a parent.
	s.start()
	s.mu.Lock()
	plain := s.cmd
	s.cmd = nil // the test does not stop it from here on
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() { _ = plain.Wait(); close(ended) }()
	if out, errs, code = deploy(); code != 0 || !s.parentState().Ready {
		t.Errorf("%d %s%s", code, out, errs)
		_ = plain.Process.Kill()
	}
	testrun.Receive(t, ended, "the server without a parent to end")
}

func TestDeploy_failure(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	stranger, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, errs, code := s.cli("serve", "--supervise", "--detach", "--replace"); code != 1 || !strings.Contains(errs, "another program already listens on "+s.addr) {
		t.Errorf("%d %s", code, errs)
	}
	// Another reason, on another address, which is certainly free: the database is invalid.
	s.env = append(s.env, "AGENTED_BIND="+testrun.FreeAddress(t))
	if err := errors.Join(os.MkdirAll(s.data(), 0o700), os.WriteFile(filepath.Join(s.data(), "agented.db"), []byte("this is no database of anybody"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, errs, code := s.cli("serve", "--supervise", "--detach")
	if code != 1 || !strings.Contains(errs, "did not start") || !strings.Contains(errs, "agented.db") {
		t.Errorf("%d %s", code, errs)
	}
	if out, _, _ := s.cli("stop"); !strings.Contains(out, "no server is running") {
		t.Errorf("%s", out)
	}
}

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// binary is the program under test, built once for all tests of the package.
var binary string

const testKey = "test-admin-key-0123456789"

func TestMain(m *testing.M) {
	if n := os.Getenv("COUNTER_LINES"); n != "" {
		counter(n)
	}
	testrun.Contain()
	testrun.RunMoreInParallel()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "agented-bin-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "agented")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// counter is the agent of the crash tests: it prints numbered lines at a steady rate, then writes
// a file to show that it ran to its end.
func counter(lines string) {
	n, _ := strconv.Atoi(lines)
	rate, _ := strconv.Atoi(os.Getenv("COUNTER_RATE"))
	if rate <= 0 {
		rate = 200
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for i := 1; i <= n; i++ {
		fmt.Printf("line %d\n", i)
		<-tick.C
	}
	if done := os.Getenv("COUNTER_DONE"); done != "" {
		// In sandboxes, processes of several executions have the same pid.
		f, err := os.CreateTemp(done, "")
		if err != nil {
			os.Exit(3)
		}
		f.Close()
	}
	os.Exit(0)
}

// server is a running agented with everything a test needs to use it.
type server struct {
	t    *testing.T
	dir  string // holds the data folder, HOME and the runtime file
	addr string
	env  []string

	program string
	args    []string // arguments of serve

	mu  sync.Mutex // guards cmd and log
	cmd *exec.Cmd
	log bytes.Buffer
}

// shortServers are the tests that also start a server with -short.
var shortServers = []string{"TestTrigger_minimal", "TestExecution_survives_kill"}

// newServer starts a server on a port of its own. It is stopped at the end of the test.
func newServer(t *testing.T, env ...string) *server {
	t.Helper()
	s := prepare(t, env...)
	s.start()
	return s
}

// prepare is like newServer without the start.
func prepare(t *testing.T, env ...string) *server {
	t.Helper()
	if testing.Short() && !slices.Contains(shortServers, t.Name()) {
		t.Skip("starts a server; left out with -short")
	}
	addr := testrun.FreeAddress(t)
	s := &server{t: t, dir: testrun.DataFolder(t), addr: addr, program: binary}
	s.env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(s.dir, "home"),
		"XDG_RUNTIME_DIR=" + filepath.Join(s.dir, "run"),
		"AGENTED_DATA_DIR=" + s.data(),
		"AGENTED_BIND=" + addr,
		"AGENTED_API_KEY=" + testKey,
		"AGENTED_ACCESS_LOG=off",
		"AGENTED_URL=http://" + addr,
		"AGENTED_SANDBOX=" + os.Getenv("AGENTED_TEST_SANDBOX"), // empty: the default
	}, env...)
	for _, d := range []string{"home", "run", "cwd"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.kill()
		endMarked(t, s.executions())
		if t.Failed() {
			s.mu.Lock()
			defer s.mu.Unlock()
			log := s.log.Bytes()
			t.Logf("server log:\n%s", log[max(0, len(log)-20000):])
		}
	})
	return s
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// executions lists the ids of the execution folders.
func (s *server) executions() []string {
	entries, _ := os.ReadDir(filepath.Join(s.data(), "executions"))
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// start runs the server and waits until it is ready.
func (s *server) start() {
	s.t.Helper()
	cmd := exec.Command(s.program, append([]string{"serve"}, s.args...)...)
	cmd.Env, cmd.Dir = s.env, filepath.Join(s.dir, "cwd")
	cmd.Stdout, cmd.Stderr = lockedWriter{&s.mu, &s.log}, lockedWriter{&s.mu, &s.log}
	// Only this process should hold the pipes of a killed server; a bug must not hang the test.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd = cmd
	s.mu.Unlock()
	s.ready()
}

// ready waits until the server is ready.
func (s *server) ready() {
	s.t.Helper()
	s.waitFor("the server to be ready", func() bool {
		resp, err := http.Get("http://" + s.addr + "/health/readiness")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill kills the server as a crash would.
func (s *server) kill() { s.end(syscall.SIGKILL) }

func (s *server) end(sig syscall.Signal) {
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(sig)
	late := time.AfterFunc(2*time.Minute, func() {
		s.t.Errorf("the server did not end after %v", sig)
		cmd.Process.Kill()
	})
	defer late.Stop()
	cmd.Wait()
}

// waitFor polls until ok returns true, for at most a minute.
func (s *server) waitFor(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for interval := 10 * time.Millisecond; !ok(); interval = min(interval*21/20, 50*time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("gave up waiting for %s", what)
		}
		time.Sleep(interval) // longer intervals in a long wait, as many tests wait side by side
	}
}

// call sends a request with the admin key and decodes the answer.
func (s *server) call(method, path string, body, into any) int {
	s.t.Helper()
	status, err := s.try(method, path, body, into)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return status
}

func (s *server) try(method, path string, body, into any) (int, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://"+s.addr+path, r)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-API-Key", testKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if into != nil && resp.StatusCode < 300 {
		if err := json.Unmarshal(b, into); err != nil {
			return resp.StatusCode, fmt.Errorf("%w in %s", err, b)
		}
	}
	if resp.StatusCode >= 300 && into != nil {
		return resp.StatusCode, fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return resp.StatusCode, nil
}

// execution holds the fields that the tests read of an execution.
type execution struct {
	ID           string `json:"id"`
	Status       string `json:"status"`
	Reason       string `json:"reason"`
	ExitCode     *int   `json:"exit_code"`
	ErrorMessage string `json:"error_message"`
	LastSeq      int64  `json:"last_seq"`
	Result       string `json:"result"`
	Attempts     []struct {
		Number     int    `json:"number"`
		Status     string `json:"status"`
		CLIVersion string `json:"cli_version"`
		Sandbox    string `json:"sandbox"`
		Reason     string `json:"sandbox_reason"`
		SessionID  string `json:"session_id"`
	} `json:"attempts"`
}

func (e execution) final() bool { return e.Status != "pending" && e.Status != "running" }

// trigger creates a trigger and returns its id.
func (s *server) trigger(body map[string]any) string {
	s.t.Helper()
	var got struct {
		ID string `json:"id"`
	}
	s.call("POST", "/api/v1/triggers", body, &got)
	return got.ID
}

// fire runs a trigger and returns the execution's id.
func (s *server) fire(trigger string) string {
	s.t.Helper()
	var got struct {
		ID string `json:"execution_id"`
	}
	s.call("POST", "/api/v1/triggers/"+trigger+"/run", map[string]any{}, &got)
	return got.ID
}

// await polls an execution until it is final.
func (s *server) await(id string) execution {
	s.t.Helper()
	var e execution
	s.waitFor(id+" to end", func() bool {
		_, err := s.try("GET", "/api/v1/executions/"+id, nil, &e)
		return err == nil && e.final()
	})
	return e
}

// logLine is a line of the log endpoint or the stream.
type logLine struct {
	Seq     int64  `json:"seq"`
	Stream  string `json:"stream"`
	Content string `json:"content"`
	Part    string `json:"part"`
	Attempt int    `json:"attempt"`
}

// lines reads a whole log through the API.
func (s *server) lines(id string) []logLine {
	s.t.Helper()
	var out []logLine
	for after := int64(0); ; {
		var page struct {
			Lines []logLine `json:"lines"`
			Next  int64     `json:"next_after"`
		}
		s.call("GET", fmt.Sprintf("/api/v1/executions/%s/log?limit=1000&after=%d", id, after), nil, &page)
		out = append(out, page.Lines...)
		if len(page.Lines) == 0 || page.Next == after {
			return out
		}
		after = page.Next
	}
}

// logText reads the bytes that an execution printed.
func (s *server) logText(id string) []byte {
	s.t.Helper()
	req, err := http.NewRequest("GET", "http://"+s.addr+"/api/v1/executions/"+id+"/log.txt", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("log.txt: status %d, %v", resp.StatusCode, err)
	}
	return b
}

// reader follows an execution's stream like an EventSource: it reconnects with the last id until
// the execution is complete.
type reader struct {
	seqs     []int64
	contents []string
	problems []string
	complete string // status in the complete event
	onLine   func(logLine)
}

func (s *server) follow(ctx context.Context, id string, joined func()) *reader {
	return s.followWith(ctx, id, joined, &reader{})
}

func (s *server) followWith(ctx context.Context, id string, joined func(), r *reader) *reader {
	last, once := "", sync.Once{}
	for ctx.Err() == nil && r.complete == "" {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+"/api/v1/executions/"+id+"/stream?after=0", nil)
		if err != nil {
			panic(err)
		}
		req.Header.Set("X-API-Key", testKey)
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			select { // the server is down: retry soon, as EventSource does
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		if resp.StatusCode == http.StatusNoContent {
			resp.Body.Close()
			break
		}
		if resp.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable {
				r.problems = append(r.problems, fmt.Sprintf("status %d: %s", resp.StatusCode, b))
				return r
			}
			continue
		}
		once.Do(joined)
		r.read(resp.Body, &last)
		resp.Body.Close()
	}
	return r
}

// read processes events until the connection ends.
func (r *reader) read(body io.Reader, last *string) {
	in := bufio.NewReaderSize(body, 64<<10)
	var event, id, data string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return // an incomplete event is ignored
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			if id != "" {
				*last = id
			}
			switch event {
			case "log":
				var l logLine
				if err := json.Unmarshal([]byte(data), &l); err != nil {
					r.problems = append(r.problems, err.Error())
				}
				if l.Stream != "system" {
					r.contents = append(r.contents, l.Content)
				}
				r.seqs = append(r.seqs, l.Seq)
				if r.onLine != nil {
					r.onLine(l)
				}
			case "complete":
				var c struct {
					Status string `json:"status"`
				}
				json.Unmarshal([]byte(data), &c)
				r.complete = c.Status
				return
			}
			event, id, data = "", "", ""
		case strings.HasPrefix(line, "event: "):
			event = line[7:]
		case strings.HasPrefix(line, "id: "):
			id = line[4:]
		case strings.HasPrefix(line, "data: "):
			data += line[6:]
		}
	}
}

// marked lists the processes with the marker of one of the executions.
func marked(ids []string) map[int]string {
	out := map[int]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range procs {
		env, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		for _, id := range ids {
			if bytes.Contains(env, []byte("AGENTED_EXECUTION_ID="+id)) {
				pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				out[pid] = strings.ReplaceAll(string(cmdline), "\x00", " ")
			}
		}
	}
	return out
}

// shims lists the shims that work in the data folder.
func shims(data string) []int {
	var out []int
	procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, p := range procs {
		cwd, err := os.Readlink(p)
		if err != nil || !strings.HasPrefix(cwd, data+"/") {
			continue
		}
		comm, _ := os.ReadFile(filepath.Dir(p) + "/comm")
		if strings.TrimSpace(string(comm)) == "agshim" {
			pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}

// endMarked kills the processes that a test left running.
func endMarked(t *testing.T, ids []string) {
	for pid, cmdline := range marked(ids) {
		if t.Failed() {
			t.Logf("still alive: %d %s", pid, cmdline)
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// cli runs a client command against the server.
func (s *server) cli(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := exec.Command(s.program, args...)
	cmd.Env, cmd.Dir = s.env, filepath.Join(s.dir, "cwd")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

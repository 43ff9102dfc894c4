package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// sh returns the body of a trigger that runs a shell script.
func sh(name, script string, more map[string]any) map[string]any {
	body := map[string]any{"name": name, "backend": "command", "command": []string{"sh", "-c", script}}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// text joins the contents of the lines of one stream.
func text(lines []logLine, stream string) string {
	var b strings.Builder
	for _, l := range lines {
		if l.Stream == stream {
			b.WriteString(l.Content)
			if l.Part != "first" && l.Part != "middle" {
				b.WriteByte('\n')
			}
		}
	}
	return b.String()
}

func TestTrigger_minimal(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.trigger(map[string]any{"name": "hello", "backend": "command", "command": []string{"sh", "-c", "echo hi; echo oops >&2"}})
	e := s.await(s.fire(id))
	if e.Status != "success" || e.ExitCode == nil || *e.ExitCode != 0 {
		t.Fatalf("execution = %+v", e)
	}
	lines := s.lines(e.ID)
	if got := text(lines, "stdout"); got != "hi\n" {
		t.Errorf("stdout = %q", got)
	}
	if got := text(lines, "stderr"); got != "oops\n" {
		t.Errorf("stderr = %q", got)
	}
	if n := int64(len(lines)); e.LastSeq != n {
		t.Errorf("last_seq = %d, the log has %d lines", e.LastSeq, n)
	}
	// The same lines are read from the compressed log of a later server.
	s.end(syscall.SIGTERM)
	s.start()
	if again := s.lines(e.ID); !slices.Equal(again, lines) {
		t.Errorf("after a restart the log is %v, was %v", again, lines)
	}
}

func TestRun_follows_log(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	out, errs, code := s.cli("run", "--", "sh", "-c", "echo hi; pwd; echo bye >&2")
	if want := "hi\n" + filepath.Join(s.dir, "cwd") + "\n"; code != 0 || out != want || !strings.Contains(errs, "bye\n") {
		t.Errorf("run: code %d, stdout %q, stderr %q", code, out, errs)
	}
	if _, errs, code = s.cli("run", "--", "sh", "-c", "exit 7"); code != 1 || !strings.Contains(errs, "exited with code 7") {
		t.Errorf("a command that fails: code %d, stderr %q", code, errs)
	}
	if _, _, code = s.cli("run", "--exit-code", "--", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("--exit-code gives %d", code)
	}
	if _, errs, code = s.cli("run", "--", "no-such-program-anywhere"); code != 1 || !strings.Contains(errs, "no-such-program-anywhere") {
		t.Errorf("a program that is not there: code %d, stderr %q", code, errs)
	}
	if out, _, code = s.cli("run", "--json", "--", "echo", "x"); code != 0 || !strings.Contains(out, `"content":"x"`) {
		t.Errorf("--json: code %d, stdout %q", code, out)
	}
	out, _, code = s.cli("execution", "list", "--json")
	var list struct {
		Items []execution `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list.Items) != 5 {
		t.Errorf("execution list: %d items, code %d, %v", len(list.Items), code, err)
	}
}

func TestExecution_survives_kill(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.fire(s.trigger(sh("long", `echo "pid $$"; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 3`,
		map[string]any{"working_dir": filepath.Join(s.dir, "cwd")})))
	pid := 0
	s.waitFor("the process", func() bool {
		for _, l := range s.lines(id) {
			if n, ok := strings.CutPrefix(l.Content, "pid "); ok {
				pid, _ = strconv.Atoi(n)
			}
		}
		return pid > 0
	})
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		s.end(sig)
		if err := syscall.Kill(pid, 0); err != nil {
			t.Fatalf("after %v of the server the process is gone: %v", sig, err)
		}
		s.start()
	}
	if err := os.WriteFile(filepath.Join(s.dir, "cwd", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := s.await(id)
	if e.Status != "failed" || e.ExitCode == nil || *e.ExitCode != 3 || len(e.Attempts) != 1 {
		t.Errorf("execution = %+v", e)
	}
	if got, want := text(s.lines(id), "stdout"), fmt.Sprintf("pid %d\nend\n", pid); got != want {
		t.Errorf("stdout = %q, want %q", got, want)
	}
}

func TestRecover_ended_meanwhile(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.fire(s.trigger(sh("away", `echo up; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 4`,
		map[string]any{"working_dir": filepath.Join(s.dir, "cwd")})))
	s.waitFor("the process", func() bool { return len(s.lines(id)) > 0 })
	s.kill()
	if err := os.WriteFile(filepath.Join(s.dir, "cwd", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.waitFor("the shim to end", func() bool { return len(shims(s.data())) == 0 })
	s.start()
	e := s.await(id)
	if e.Status != "failed" || e.ExitCode == nil || *e.ExitCode != 4 {
		t.Errorf("execution = %+v", e)
	}
}

func TestShim_killed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.fire(s.trigger(sh("orphan", `echo up; exec sleep 1000`, nil)))
	s.waitFor("the process", func() bool { return len(s.lines(id)) > 0 })
	for _, pid := range shims(s.data()) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	e := s.await(id)
	if e.Status != "interrupted" || e.ErrorMessage == "" {
		t.Errorf("execution = %+v", e)
	}
	if left := marked([]string{id}); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	// Retry runs it again.
	var again struct {
		ID string `json:"execution_id"`
	}
	if status := s.call("POST", "/api/v1/executions/"+id+"/retry", nil, &again); status != http.StatusAccepted {
		t.Fatalf("retry: status %d", status)
	}
	s.waitFor("the retry to run", func() bool { return len(s.lines(again.ID)) > 0 })
	if status := s.call("POST", "/api/v1/executions/"+again.ID+"/retry", nil, nil); status != http.StatusConflict {
		t.Errorf("retry of a running one: status %d", status)
	}
	s.call("POST", "/api/v1/executions/"+again.ID+"/cancel", nil, nil)
	if e := s.await(again.ID); e.Status != "cancelled" {
		t.Errorf("cancelled execution = %+v", e)
	}
	if status := s.call("POST", "/api/v1/executions/"+again.ID+"/cancel", nil, nil); status != http.StatusConflict {
		t.Errorf("cancel of a final one: status %d", status)
	}
}

func TestExecution_statuses(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_MAX_CONCURRENT=20")
	for _, c := range []struct {
		name, script string
		more         map[string]any
		status, says string
		system       string // in a system line
	}{
		{"killed", `kill -9 $$`, nil, "failed", "SIGKILL", ""},
		{"wrapper", `sh -c 'kill -9 $$'; exit 9`, nil, "failed", "9", ""},
		{"timeout", `echo up; sleep 1000`, map[string]any{"timeout_seconds": 1}, "timeout", "1", ""},
		{"silence", `echo up; sleep 1000`, map[string]any{"silence_timeout_seconds": 1}, "timeout", "1", ""},
		{"deaf", `trap '' TERM; echo up; while :; do sleep 1; done`, map[string]any{"timeout_seconds": 1}, "timeout", "1", ""},
		{"daemons", `setsid sleep 1000 & (setsid sh -c 'sleep 1001 & sleep 1002' &) ; echo done`, nil, "success", "", "sleep"},
		{"missing dir", `echo x`, map[string]any{"working_dir": "/no/such/folder"}, "failed", "/no/such/folder", "/no/such/folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			id := s.fire(s.trigger(sh(c.name, c.script, c.more)))
			e := s.await(id)
			if e.Status != c.status || !strings.Contains(e.ErrorMessage, c.says) || c.status != "success" && e.ErrorMessage == "" {
				t.Errorf("status %s, error %q; want %s and %q", e.Status, e.ErrorMessage, c.status, c.says)
			}
			if left := marked([]string{id}); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
			if got := text(s.lines(id), "system"); !strings.Contains(got, c.system) {
				t.Errorf("system lines = %q, want %q among them", got, c.system)
			}
		})
	}
}

func TestOutput_of_every_kind(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := filepath.Join(s.dir, "cwd")
	want := bytes.Join([][]byte{
		bytes.Repeat([]byte("0123456789"), 500_000), // 5 MB in one line
		[]byte("\xff\xfe invalid \x00 NUL"),
		[]byte("10%\r20%\r100%"),
		[]byte("no newline at the end"),
	}, []byte("\n"))
	if err := os.WriteFile(filepath.Join(dir, "bytes"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tty := range []bool{false} {
		e := s.await(s.fire(s.trigger(sh(fmt.Sprint("bytes", tty), "cat bytes", map[string]any{"working_dir": dir, "tty": tty}))))
		if e.Status != "success" {
			t.Fatalf("execution = %+v", e)
		}
		if got := s.logText(e.ID); !bytes.Equal(got, want) {
			t.Errorf("log.txt has %d bytes, want the %d that were printed", len(got), len(want))
		}
		parts := 0
		for _, l := range s.lines(e.ID) {
			if l.Part != "" {
				parts++
			}
		}
		if parts < 5 {
			t.Errorf("a line of 5 MB came in %d marked parts", parts)
		}
	}
}

func TestEnvironment_hidden_from_child(t *testing.T) {
	t.Parallel()
	s := newServer(t, "ANTHROPIC_API_KEY=sk-ant-api03-the-servers-own-key-0001", "SOME_SERVER_VARIABLE=visible", "GITHUB_WEBHOOK_SECRET=hook-secret-of-the-server")
	secret := "s3cr3t-Value/of the trigger"
	id := s.trigger(sh("env", `env; echo "$MY_TOKEN"; printf %s "$MY_TOKEN" | base64; cat /proc/$PPID/environ /proc/$PPID/mem 2>&1 | tr '\0' '\n' | head -5`,
		map[string]any{"env": map[string]any{"MY_TOKEN": secret, "SLACK_URL": "https://example.org/hook", "PLAIN": map[string]any{"value": "plain text", "secret": false}}}))
	e := s.await(s.fire(id))
	if e.Status != "success" {
		t.Fatalf("execution = %+v", e)
	}
	out := text(s.lines(e.ID), "stdout")
	for _, never := range []string{"sk-ant-", "ANTHROPIC", "SOME_SERVER_VARIABLE", testKey, "hook-secret", secret, "AGENTED_API_KEY", "czNjcjN0", "example.org"} {
		if strings.Contains(out, never) {
			t.Errorf("%q is in the output:\n%s", never, out)
		}
	}
	for _, wanted := range []string{"PLAIN=plain text", "SLACK_URL=***", "AGENTED_EXECUTION_ID=" + e.ID, "PATH="} {
		if !strings.Contains(out, wanted) {
			t.Errorf("%q is not in the output:\n%s", wanted, out)
		}
	}
	// The value is in no file of the execution and in no answer.
	for _, path := range []string{"/api/v1/triggers/" + id, "/api/v1/executions/" + e.ID, "/api/v1/triggers"} {
		var raw json.RawMessage
		s.call("GET", path, nil, &raw)
		if strings.Contains(string(raw), "s3cr3t") || strings.Contains(string(raw), "example.org") {
			t.Errorf("GET %s shows the secret: %s", path, raw)
		}
	}
	s.mu.Lock()
	log := s.log.String()
	s.mu.Unlock()
	if strings.Contains(log, "s3cr3t") || strings.Contains(log, testKey) {
		t.Error("the server's log has a secret")
	}
}

func TestShim_process_name(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("pgrep"); err != nil {
		t.Skip("pgrep is not installed")
	}
	s := newServer(t)
	id := s.fire(s.trigger(sh("named", `echo up; exec sleep 1000`, nil)))
	s.waitFor("the process", func() bool { return len(s.lines(id)) > 0 })
	pids := shims(s.data())
	if len(pids) != 1 {
		t.Fatalf("shims: %v", pids)
	}
	for _, args := range [][]string{{"agented"}, {"-f", "agented"}} {
		out, err := exec.Command("pgrep", args...).Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if slices.Contains(strings.Fields(string(out)), strconv.Itoa(pids[0])) {
			t.Errorf("pgrep %v finds the shim", args)
		}
	}
	s.call("POST", "/api/v1/executions/"+id+"/cancel", nil, nil)
	if e := s.await(id); e.Status != "cancelled" {
		t.Errorf("execution = %+v", e)
	}
}

func TestServe_second_server(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	cmd := exec.Command(binary, "serve")
	cmd.Env, cmd.Dir = append(slices.Clone(s.env), "AGENTED_BIND=127.0.0.1:0"), s.dir
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another server") {
		t.Errorf("err %v, output %s", err, out)
	}
}

// Programs such as newsyslog find the process by its lock file, whatever its state.
func TestReload_during_start_and_stop(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	lock := filepath.Join(s.data(), "server.lock")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
			b, _ := os.ReadFile(lock)
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && syscall.Kill(pid, syscall.SIGHUP) != nil {
				return // it has ended
			}
		}
	})
	s.start()
	s.mu.Lock()
	cmd := s.cmd
	s.cmd = nil
	s.mu.Unlock()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error("the server ended with ", err)
	}
	stop()
	wg.Wait()
}

func TestServe_during_earlier_exit(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for range 5 {
		s.mu.Lock()
		old := s.cmd
		s.mu.Unlock()
		old.Process.Kill() // without a wait: the next one starts at once
		s.start()
		old.Wait()
	}
}

func TestOverlap_and_concurrency(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_MAX_CONCURRENT=3")
	dir := filepath.Join(s.dir, "cwd")
	script := `echo up; while [ ! -e go ]; do sleep 0.05; done`
	one := s.trigger(sh("one", script, map[string]any{"working_dir": dir}))
	running, waiting := s.fire(one), s.fire(one)
	s.waitFor("the first to run", func() bool { return len(s.lines(running)) > 0 })
	var e execution
	s.call("GET", "/api/v1/executions/"+waiting, nil, &e)
	if e.Status != "pending" || e.Reason == "" {
		t.Errorf("the second is %s (%q), want pending with a reason", e.Status, e.Reason)
	}
	skip := s.trigger(sh("skip", script, map[string]any{"working_dir": dir, "overlap": "skip"}))
	first := s.fire(skip)
	s.waitFor("it to run", func() bool { return len(s.lines(first)) > 0 })
	if status := s.call("POST", "/api/v1/triggers/"+skip+"/run", map[string]any{}, nil); status != http.StatusConflict {
		t.Errorf("overlap skip: status %d, want 409", status)
	}
	replace := s.trigger(sh("replace", script, map[string]any{"working_dir": dir, "overlap": "replace"}))
	old := s.fire(replace)
	s.waitFor("it to run", func() bool { return len(s.lines(old)) > 0 })
	fresh := s.fire(replace)
	if e := s.await(old); e.Status != "cancelled" || !strings.Contains(e.Reason+e.ErrorMessage, fresh) {
		t.Errorf("the replaced execution = %+v", e)
	}
	s.call("PATCH", "/api/v1/triggers/"+one, map[string]any{"enabled": false}, &struct{}{})
	if status := s.call("POST", "/api/v1/triggers/"+one+"/run", map[string]any{}, nil); status != http.StatusConflict {
		t.Errorf("a disabled trigger: status %d, want 409", status)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{running, waiting, first, fresh} {
		if e := s.await(id); e.Status != "success" {
			t.Errorf("%s = %+v", id, e)
		}
	}
	// Deleting a trigger keeps its history.
	if status := s.call("DELETE", "/api/v1/triggers/"+one, nil, nil); status != http.StatusNoContent {
		t.Errorf("delete: status %d", status)
	}
	s.call("GET", "/api/v1/executions/"+running, nil, &e)
	if e.Status != "success" || len(s.lines(running)) == 0 {
		t.Errorf("after its trigger went the execution is %+v", e)
	}
}

func TestDisk_full_reason(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		// Lazy unmount: the server's own clean-up comes later.
		if err := syscall.Unmount(dir, 2); err != nil {
			t.Log(err)
		}
	})
	s := newServer(t, "AGENTED_MIN_FREE=16", "AGENTED_DATA_DIR="+filepath.Join(dir, "data"))
	ready := filepath.Join(s.dir, "ready")
	id := s.fire(s.trigger(sh("full", `while [ ! -f "`+ready+`" ]; do sleep 0.05; done; i=0; while :; do i=$((i+1)); echo "$i this line fills the disk, little by little, until there is no room left"; done`, nil)))
	var st syscall.Statfs_t
	s.waitFor("it to run", func() bool {
		var e execution
		s.call("GET", "/api/v1/executions/"+id, nil, &e)
		return e.Status == "running"
	})
	// Another process uses most of the remaining space; the rest is left for the log.
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Fallocate(int(other.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-12<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	e := s.await(id)
	if e.Status != "failed" || !strings.Contains(strings.ToLower(e.ErrorMessage), "disk") {
		t.Errorf("execution = %+v", e)
	}
	if left := marked([]string{id}); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	// The log is complete up to the end.
	n := 0
	for line := range strings.Lines(string(s.logText(id))) {
		n++
		if !strings.HasPrefix(line, fmt.Sprintf("%d this line", n)) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	t.Logf("%d lines before the disk was full: %s", n, e.ErrorMessage)
}

func TestSample_first_start_only(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.end(syscall.SIGTERM)
	if err := os.RemoveAll(s.data()); err != nil {
		t.Fatal(err)
	}
	for start := range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, binary, "serve", "--sample")
		cmd.Env, cmd.Dir = s.env, s.dir
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.Stdout, cmd.Stderr = lockedWriter{&s.mu, &s.log}, lockedWriter{&s.mu, &s.log}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var list struct {
			Items []execution `json:"items"`
		}
		s.waitFor("the sample", func() bool {
			_, err := s.try("GET", "/api/v1/executions", nil, &list)
			return err == nil && len(list.Items) > 0
		})
		if len(list.Items) != 1 {
			t.Errorf("start %d: %d executions, want 1", start+1, len(list.Items))
		}
		if info, err := os.Stat(filepath.Join(s.data(), "setup-link")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("setup link: %v %v", info, err)
		}
		cancel()
		cmd.Wait()
	}
	for _, e := range s.executions() {
		s.waitFor("the shims to end", func() bool { return len(marked([]string{e})) == 0 })
	}
}

func TestServe_files_when_ready(t *testing.T) {
	t.Parallel()
	for range 5 {
		s := newServer(t) // returns at the first successful readiness probe
		for _, file := range []string{filepath.Join(s.data(), "setup-link"), filepath.Join(s.data(), "agented.sock"), filepath.Join(s.dir, "run", "agented.json")} {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", file, info, err)
			}
		}
		s.end(syscall.SIGTERM)
	}
}

func TestShutdown_streams_reconnect(t *testing.T) {
	t.Parallel()
	s := newServer(t, "AGENTED_SHUTDOWN_TIMEOUT=10m")
	id := s.fire(s.trigger(sh("watched", `echo up; while [ ! -e go ]; do sleep 0.05; done; echo down`,
		map[string]any{"working_dir": filepath.Join(s.dir, "cwd")})))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	joined, done := make(chan struct{}), make(chan *reader, 1)
	go func() { done <- s.follow(ctx, id, func() { close(joined) }) }()
	select {
	case <-joined:
	case <-ctx.Done():
		t.Fatal("the reader did not get through")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.end(syscall.SIGTERM)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute): // far below the drain time
		t.Fatal("the server waits for a stream to end by itself")
	}
	s.start()
	if err := os.WriteFile(filepath.Join(s.dir, "cwd", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := testrun.Receive(t, done, "the reader to end"); r.complete != "success" || !slices.Equal(r.contents, []string{"up", "down"}) || len(r.problems) > 0 {
		t.Errorf("the reader saw %q, complete %q, problems %q", r.contents, r.complete, r.problems)
	}
}

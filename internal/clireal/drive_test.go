package clireal_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/clireal"
)

// clis is the folder that scripts/install-clis.sh filled.
var clis = os.Getenv("AGENTED_TEST_CLIS")

// record is where outputs are kept as samples for internal/agentcli, if set.
var record = os.Getenv("AGENTED_RECORD_SAMPLES")

// runLimit is the timeout of one run of a CLI. The longest normal run is Gemini with two retries,
// about 20 seconds; a busy machine takes longer.
const runLimit = 4 * time.Minute

// bench is a CLI with a home of its own and a stand-in.
type bench struct {
	backend agentcli.CLI
	program string // the CLI's absolute path
	root    string
	standIn *clireal.StandIn
	url     string
	version string
}

func (b *bench) home() string { return filepath.Join(b.root, "home") }
func (b *bench) work() string { return filepath.Join(b.root, "work") }

// newBench skips the test if the CLI is not installed.
func newBench(t *testing.T, name string) *bench {
	t.Helper()
	if clis == "" {
		t.Skipf("%s is not driven: AGENTED_TEST_CLIS names no folder of CLIs; make test-cli installs them and sets it", name)
	}
	program := filepath.Join(clis, name, "node_modules", ".bin", name)
	if _, err := os.Stat(program); err != nil {
		reason, readErr := os.ReadFile(filepath.Join(clis, name, "reason.txt"))
		if readErr != nil {
			reason = []byte(err.Error())
		}
		t.Skipf("%s is not driven: %s", name, bytes.TrimSpace(reason))
	}
	be, ok := registry.ByName(name)
	if !ok {
		t.Fatalf("there is no backend %s", name)
	}
	b := &bench{backend: be, program: program, root: t.TempDir(), standIn: &clireal.StandIn{Resets: time.Now().Add(3 * time.Hour).Truncate(time.Second)}}
	for _, dir := range []string{b.home(), b.work(), filepath.Join(b.root, "tmp")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.standIn.WritePath = filepath.Join(b.work(), clireal.ToolFile)
	server := httptest.NewServer(b.standIn)
	t.Cleanup(func() {
		// A killed CLI leaves connections that Close would wait for.
		server.CloseClientConnections()
		server.Close()
	})
	b.url = server.URL
	// The installed version; running the CLI takes seconds and has a test of its own.
	pinned, err := os.ReadFile(filepath.Join(clis, name, "package.txt"))
	if err != nil {
		t.Fatal(err)
	}
	b.version = strings.TrimSpace(string(pinned[bytes.LastIndexByte(pinned, '@')+1:]))
	return b
}

// request describes one run.
type request struct {
	scenario   clireal.Scenario
	permission agented.Permission
	prompt     string
	model      string
	resume     string
	args       []string
	paths      []string // further directories
	env        map[string]string
	oauth      bool           // a subscription's token instead of a key (claude)
	key        string         // the key or token; empty means a default one
	noKey      bool           // no credentials at all
	stuck      bool           // stopped as soon as it would count as stalled after the maximum time
	signal     syscall.Signal // sent after the model was called and output was printed
	cause      agented.Cause  // cause of the end; empty if the CLI ended by itself
	sample     string         // store the output under this name
}

// run is the result of a request.
type run struct {
	result agented.Result
	exit   agented.Exit
	took   time.Duration
	out    string // standard output and error, for a failure's message
}

// account returns the CLI's credentials and address, as an account provides them.
func (b *bench) account(q request) map[string]string {
	base := b.url + "/" + string(q.scenario)
	key := func(otherwise string) string {
		if q.key != "" {
			return q.key
		}
		return otherwise
	}
	switch b.backend.Name() {
	case agented.BackendClaude:
		if q.oauth {
			return map[string]string{"CLAUDE_CODE_OAUTH_TOKEN": key("sk-ant-oat01-stand-in"), "ANTHROPIC_BASE_URL": base}
		}
		if q.noKey {
			return map[string]string{"ANTHROPIC_BASE_URL": base}
		}
		return map[string]string{"ANTHROPIC_API_KEY": key("sk-ant-stand-in"), "ANTHROPIC_BASE_URL": base}
	case agented.BackendCodex:
		if q.noKey {
			return map[string]string{"OPENAI_BASE_URL": base + "/v1"}
		}
		return map[string]string{"OPENAI_API_KEY": key("sk-stand-in"), "OPENAI_BASE_URL": base + "/v1"}
	case agented.BackendGemini:
		if q.noKey {
			return map[string]string{"GOOGLE_GEMINI_BASE_URL": base}
		}
		return map[string]string{"GEMINI_API_KEY": key("stand-in"), "GOOGLE_GEMINI_BASE_URL": base}
	}
	return nil
}

func (b *bench) spec(q request) agented.Spec {
	spec := agented.Spec{
		Backend: b.backend.Name(), Prompt: "x", Permission: q.permission, Model: q.model, Args: q.args, Paths: q.paths,
		WorkingDir: b.work(), Env: map[string]*string{},
	}.WithDefaults()
	for name, value := range q.env {
		spec.Env[name] = &value
	}
	return spec
}

func (b *bench) env(t *testing.T, q request) []string {
	t.Helper()
	server := map[string]string{
		"PATH": filepath.Dir(b.program) + ":" + os.Getenv("PATH"), "HOME": b.home(), "LANG": "C.UTF-8",
		// Codex does not create its sandbox in a home below the temporary folder.
		"TMPDIR":     filepath.Join(b.root, "tmp"),
		"SECRET_KEY": "of the server", "CLAUDECODE": "1",
	}
	lookup := func(name string) (string, bool) { v, ok := server[name]; return v, ok }
	env, err := registry.ChildEnv(b.backend, b.spec(q), b.account(q), lookup, nil)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// configure writes the settings files that a CLI needs to use a stand-in.
func (b *bench) configure(t *testing.T, q request) {
	t.Helper()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	switch b.backend.Name() {
	case agented.BackendGemini:
		write(filepath.Join(b.home(), ".gemini", "settings.json"), `{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false},"general":{"enableAutoUpdate":false},"telemetry":{"enabled":false}}`)
	case agented.BackendOpenCode:
		write(filepath.Join(b.home(), ".config", "opencode", "opencode.json"), `{"autoupdate":false,"share":"disabled","model":"standin/standin-model","small_model":"standin/standin-model",
			"provider":{"standin":{"npm":"@ai-sdk/openai-compatible","options":{"baseURL":"`+b.url+"/"+string(q.scenario)+`/v1","apiKey":"x"},"models":{"standin-model":{"cost":{"input":1,"output":2}}}}}}`)
	}
}

// do runs the CLI like an attempt: standard input, output and error are files, the environment is
// explicit.
func (b *bench) do(t *testing.T, q request) run {
	t.Helper()
	if q.prompt == "" {
		q.prompt = "Say hello."
	}
	b.configure(t, q)
	env := b.env(t, q)
	vars := map[string]string{}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	id := agented.ExecutionID(agented.NewID("exec", time.Now()))
	plan, err := b.backend.Plan(agentcli.Request{
		Spec: b.spec(q), Prompt: q.prompt, Execution: id, Attempt: 1, Resume: q.resume, Root: os.Geteuid() == 0, Env: vars,
	})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Args[0] != b.backend.Program() || plan.Capture != agented.CaptureFile {
		t.Fatalf("plan starts %q with capture %q", plan.Args[0], plan.Capture)
	}
	for name, value := range plan.Env {
		env = append(env, name+"="+value)
	}
	env = append(env, agented.EnvExecution+"="+string(id))
	dir := t.TempDir()
	open := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	stdin, stdout, stderr := open("stdin"), open("stdout"), open("stderr")
	if _, err := stdin.Write(plan.Stdin); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.program, plan.Args[1:]...)
	cmd.Dir, cmd.Env = b.work(), env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	exit := agented.Exit{Cause: agented.CauseExit, StartedAt: time.Now()}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if q.stuck {
			b.waitStuck(t, ctx, stdout.Name(), stderr.Name())
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // the wrapper's child, too
			return
		}
		if q.signal == 0 {
			return
		}
		for ctx.Err() == nil {
			if info, err := stdout.Stat(); err == nil && info.Size() > 0 && b.asked() {
				_ = cmd.Process.Signal(q.signal) // it may have ended meanwhile
				return
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	err = cmd.Wait()
	exit.FinishedAt = time.Now()
	if ctx.Err() != nil {
		t.Errorf("the CLI was still running after %s", runLimit)
	}
	cancel()
	<-stopped
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		exit.Signal = signalName(status.Signal())
	} else {
		code := status.ExitStatus()
		exit.Code = &code
	}
	if q.cause != "" {
		exit.Cause = q.cause
	}
	reader := agentcli.NewReader(b.backend)
	out := feed(t, b.backend, reader, agented.Stdout, stdout) + feed(t, b.backend, reader, agented.Stderr, stderr)
	r := run{result: reader.Result(exit, time.Now().UTC()), exit: exit, took: exit.FinishedAt.Sub(exit.StartedAt), out: out}
	b.keep(t, q, plan, exit, stdout, stderr)
	t.Logf("%s %s %s %s: %v, exit %s, outcome %s %q", b.backend.Name(), b.version, q.scenario, q.permission, r.took.Round(time.Millisecond), exitText(exit), r.result.Outcome, r.result.Reason)
	return r
}

// waitStuck returns when the CLI has printed something that would make it count as stalled after
// the maximum time.
func (b *bench) waitStuck(t *testing.T, ctx context.Context, stdout, stderr string) {
	for ctx.Err() == nil {
		p, at := agentcli.NewStallDetector(b.backend, time.Now()), time.Now()
		for stream, name := range map[agented.Stream]string{agented.Stdout: stdout, agented.Stderr: stderr} {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Error(err)
				return
			}
			for line := range bytes.Lines(text) {
				p.Add(at, agentcli.Decode(b.backend, stream, bytes.TrimSuffix(line, []byte("\n"))))
			}
		}
		if s, stuck := p.Stalled(at.Add(6 * time.Minute)); stuck {
			t.Logf("it waits: %+v", s)
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// asked reports whether the CLI has called the model.
func (b *bench) asked() bool {
	for _, r := range b.standIn.Requests() {
		if r.Method == http.MethodPost {
			return true
		}
	}
	return false
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGINT:
		return "SIGINT"
	}
	return s.String()
}

func exitText(e agented.Exit) string {
	if e.Code == nil {
		return e.Signal
	}
	b, _ := json.Marshal(e.Code)
	return string(b)
}

// feed passes a file's lines to the reader and returns its text, shortened.
func feed(t *testing.T, cli agentcli.CLI, to *agentcli.Reader, stream agented.Stream, f *os.File) string {
	t.Helper()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			to.Add(agentcli.Decode(cli, stream, bytes.TrimSuffix(line, []byte("\n"))))
			if text.Len() < 20_000 {
				text.WriteString(string(stream) + " " + string(line[:min(len(line), 1500)]))
				if len(line) > 1500 {
					text.WriteString("…\n")
				}
			}
		}
		if err != nil {
			return text.String()
		}
	}
}

// keep stores the output as a sample, without this machine's paths and ports.
func (b *bench) keep(t *testing.T, q request, plan agentcli.Plan, exit agented.Exit, stdout, stderr *os.File) {
	t.Helper()
	if record == "" || q.sample == "" {
		return
	}
	clean := strings.NewReplacer(
		b.work(), "/srv/work", b.home(), "/home/agent", b.root, "/srv", clis, "/opt/cli", b.url, "http://127.0.0.1:8080",
		strings.TrimPrefix(b.url, "http://"), "127.0.0.1:8080",
		strings.ReplaceAll(b.work(), "/", "-"), "-srv-work", filepath.Base(filepath.Dir(b.root)), "run",
	)
	for ext, f := range map[string]*os.File{"out": stdout, "err": stderr} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(record, q.sample+"."+ext)
		if len(text) == 0 {
			_ = os.Remove(path)
			continue
		}
		if err := os.WriteFile(path, []byte(clean.Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	facts, err := json.MarshalIndent(map[string]any{"cli": b.backend.Name() + " " + b.version, "cause": exit.Cause, "code": exit.Code, "signal": exit.Signal}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(record, q.sample+".exit.json"), append(facts, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

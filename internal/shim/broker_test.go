package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/broker"
	"github.com/agented/agented/internal/sandbox"
	"github.com/agented/agented/internal/testrun"
)

const realKey = "sk-ant-api03-the-real-credential"

// model is a stand-in for a model's API. It sends the second half of its answer when the test says
// so.
type model struct {
	url  string
	keys chan string // of its calls
	rest chan struct{}
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{keys: make(chan string, 10), rest: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.keys <- r.Header.Get("X-Api-Key")
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, `data: {"message":{"model":"claude-a","usage":{"input_tokens":10,"output_tokens":1}}}`+"\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-m.rest:
			fmt.Fprint(w, `data: {"usage":{"output_tokens":25}}`+"\n\ndata: the end\n\n")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	m.url = server.URL
	return m
}

// brokered is an attempt that calls a model.
func brokered(t *testing.T, m *model) *run {
	t.Helper()
	r := newRun(t, agented.CaptureFile, "").program("call")
	r.priv = withBroker(r.priv, m.url, realKey)
	t.Cleanup(r.priv.Broker.Close)
	return r
}

func (r *run) shows(text string) bool {
	return strings.Contains(strings.Join(r.contents(agented.Stdout), "\n"), text)
}

// reversed returns a text backwards, in which the log does not mask credentials.
func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

func TestBroker_credential_stays_in_shim(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := newRun(t, agented.CaptureFile, `cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -a ANTHROPIC | rev; "$SELF" call`)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The stand-in is chosen by its name.
	r.spec.Args[2] = strings.Replace(r.spec.Args[2], `"$SELF" call`, `exec -a stand-in "$SELF" call`, 1)
	r.spec.Path, r.spec.Args[0] = "/bin/bash", "bash"
	r.priv.Env = append(r.priv.Env, "SELF="+exe)
	r.priv = withBroker(r.priv, m.url, realKey)
	t.Cleanup(r.priv.Broker.Close)
	close(m.rest)
	exit := r.do()
	if exit.Code == nil || *exit.Code != 0 || !r.shows("the end") || !r.shows(reversed("=sk-ant-api03-placeholder-of-agented-")) {
		t.Errorf("%+v\n%s", exit, r.describe())
	}
	if key := testrun.Receive(t, m.keys, "a call of the API"); key != realKey {
		t.Errorf("the API received %q", key)
	}
	err = filepath.WalkDir(r.dir, func(path string, _ os.DirEntry, err error) error {
		text, _ := os.ReadFile(path) // a folder or a socket has none
		if bytes.Contains(text, []byte(realKey)) || bytes.Contains(text, []byte(reversed(realKey))) {
			t.Errorf("%s contains the credential", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	records, next, err := BrokerRecords(r.bundle, 0)
	if err != nil || len(records) != 1 || next == 0 || records[0].Model != "claude-a" || *records[0].Usage.InputTokens != 10 || *records[0].Usage.OutputTokens != 25 {
		t.Errorf("records %+v, %v", records, err)
	}
	if err := RemoveRaw(r.bundle); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(r.bundle, brokerFile)); err == nil {
		t.Error("the records are not removed with the raw output")
	}
}

func TestBroker_outlives_server(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := newRun(t, agented.CaptureFile, "").program("call")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	what, err := json.Marshal(map[string]any{"Bundle": r.bundle, "Spec": r.spec, "Env": r.priv.Env, "Secret": "another-credential", "Upstream": m.url})
	if err != nil {
		t.Fatal(err)
	}
	server := &exec.Cmd{Path: exe, Args: []string{"stand-in", "server", string(what)}, Env: []string{}}
	r.startBy(server)
	r.eventually("the first half of the answer", func() bool { return r.shows(`"input_tokens":10`) })
	_ = server.Process.Kill()
	_ = server.Wait()
	m.rest <- struct{}{}
	exit := r.wait()
	if exit.Cause != agented.CauseExit || exit.Code == nil || *exit.Code != 0 || !r.shows("the end") {
		t.Errorf("%+v\n%s", exit, r.describe())
	}
}

func TestBroker_killed(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := brokered(t, m).start()
	r.eventually("the first half of the answer", func() bool { return r.shows(`"input_tokens":10`) })
	var b begun
	if err := readJSON(filepath.Join(r.bundle, begunFile), &b); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(b.ShimPID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.gone()
	if v := r.state(); v != Lost {
		t.Errorf("state %s", v)
	}
	exit, err := Settle(r.bundle, Private{})
	if err != nil || exit.Cause == agented.CauseExit {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestBroker_in_sandbox(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := brokered(t, m)
	r.spec.Sandbox = guard(t, sandbox.Request{})
	close(m.rest)
	if exit := r.do(); exit.Code == nil || *exit.Code != 0 || !r.shows("the end") {
		t.Errorf("%+v\n%s", exit, r.describe())
	}
	if key := testrun.Receive(t, m.keys, "a call of the API"); key != realKey {
		t.Errorf("the API received %q", key)
	}
}

// TestBroker_in_strict_sandbox calls a model from a sandbox without a network, in which nothing but
// the broker can be reached.
func TestBroker_in_strict_sandbox(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := newRun(t, agented.CaptureFile, `(exec 3<>/dev/tcp/$MODEL) 2>/dev/null && echo LEAK; exec -a stand-in "$SELF" call`)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.spec.Path, r.spec.Args[0] = "/bin/bash", "bash"
	const port = 20998
	r.priv = withBrokerAt(r.priv, m.url, realKey, port)
	if r.priv.Broker.Listener != nil {
		t.Fatal("the broker has an address outside of the sandbox")
	}
	r.priv.Env = append(r.priv.Env, "SELF="+exe, "MODEL="+strings.Replace(strings.TrimPrefix(m.url, "http://"), ":", "/", 1))
	r.spec.Sandbox = boxAt(t, agented.SandboxStrict, sandbox.Request{Own: []sandbox.Folder{{Path: filepath.Dir(exe), ReadOnly: true}}})
	r.spec.Sandbox.BrokerPort = port
	close(m.rest)
	if exit := r.do(); exit.Code == nil || *exit.Code != 0 || !r.shows("the end") || r.shows("LEAK") {
		t.Errorf("%+v\n%s", exit, r.describe())
	}
	if key := testrun.Receive(t, m.keys, "a call of the API"); key != realKey {
		t.Errorf("the API received %q", key)
	}
}

func TestBroker_start_fails(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	r := brokered(t, m)
	r.priv.Broker.Config.Routes = []broker.Route{{Vendor: broker.Anthropic, Upstream: "nowhere"}}
	if _, err := Start(r.bundle, r.spec, r.priv, nil); err == nil || !strings.Contains(err.Error(), "credential broker") {
		t.Errorf("%v", err)
	}
	r.gone()
	if v := r.state(); v != NeverStarted {
		t.Errorf("state %s", v)
	}
}

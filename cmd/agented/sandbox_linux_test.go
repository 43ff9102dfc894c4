package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// guardWorks skips a test where no sandbox can be created.
func guardWorks(t *testing.T) {
	t.Helper()
	out, err := exec.Command("bwrap", "--unshare-pid", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true").CombinedOutput()
	if err != nil {
		t.Skipf("NOT TESTED AT SANDBOX LEVEL GUARD: %v %s", err, out)
	}
}

// reach are commands by what they reach. Each prints LEAK if it succeeds. D is the data folder,
// BIN the program, VICTIM another execution.
var reach = map[string]string{
	"local socket":             `test -S $D/agented.sock`,
	"secret key":               `cat $D/.secret_key`,
	"database":                 `head -c 16 $D/agented.db`,
	"write-ahead log":          `head -c 16 $D/agented.db-wal`,
	"address of the server":    `cat $D/server.json`,
	"runtime file":             `cat $D/../run/agented.json`,
	"settings file":            `cat $D/../cwd/.env`,
	"secret file":              `cat $D/../passphrase`,
	"backups":                  `ls $D/../backups/*`,
	"output of another":        `cat $D/executions/$VICTIM/log`,
	"raw output of another":    `cat $D/executions/$VICTIM/attempt-1/std*`,
	"own bundle":               `ls $D/executions/$AGENTED_EXECUTION_ID/attempt-1/ctl.sock`,
	"folder of another":        `echo x >$D/executions/$VICTIM/work/x`,
	"client command":           `env -i HOME=$HOME XDG_RUNTIME_DIR=$D/../run AGENTED_DATA_DIR=$D PATH=$PATH $BIN trigger list`,
	"signal to the server":     `kill -9 $SERVER`,
	"signals to the shims":     `kill -9 $SHIMS`,
	"environment of the shims": `for p in $SHIMS; do cat /proc/$p/environ && break; done`,
	"uncovered data":           `unshare -Urm sh -c "umount -l $D; cat $D/server.json"`,
	"bind mount":               `unshare -Urm sh -c "mount --rbind / /mnt; cat /mnt$D/server.json"`,
	"path of init":             `cat /proc/1/root$D/server.json`,
	"open descriptors":         `cat /proc/*/fd/[0-9]*/server.json`,
}

// still are commands that must succeed at every level.
var still = map[string]string{
	"login":             `cat $HOME/.login/token && echo new >$HOME/.login/next && mv $HOME/.login/next $HOME/.login/token`,
	"own folder":        `echo x >file && cat file`,
	"temporary files":   `mktemp && echo x >/tmp/agented-sandbox-$$ && rm /tmp/agented-sandbox-$$`,
	"no new privileges": `grep -q NoNewPrivs:.1 /proc/self/status`,
	"network":           `exec 3<>/dev/tcp/$HOST/$PORT`,
}

func TestSandbox_server_data(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	s := prepare(t, "AGENTED_SANDBOX=guard")
	s.env = append(s.env, "AGENTED_BACKUP_DIR="+filepath.Join(s.dir, "backups"), "AGENTED_BACKUP_PASSPHRASE_FILE="+filepath.Join(s.dir, "passphrase"))
	for name, text := range map[string]string{"cwd/.env": "ANTHROPIC_MODEL=x\n", "passphrase": "a long passphrase of words\n", "home/.login/token": "old\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "backups"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "backups", "old"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	victim := s.fire(s.trigger(map[string]any{"name": "victim", "backend": "command", "command": []string{"sh", "-c", "echo printed; while [ ! -e stop ]; do sleep 0.1; done"}}))
	s.waitFor("the victim", func() bool { return len(s.lines(victim)) > 0 })
	var script strings.Builder
	for name, text := range reach {
		fmt.Fprintf(&script, "{ %s; } >/dev/null 2>&1 && echo 'LEAK: %s'\n", text, name)
	}
	for name, text := range still {
		fmt.Fprintf(&script, "{ %s; } >/dev/null 2>&1 || echo 'BROKEN: %s'\n", text, name)
	}
	host, port, _ := strings.Cut(s.addr, ":")
	env := map[string]any{
		"D": s.data(), "BIN": binary, "VICTIM": victim, "HOST": host, "PORT": port,
		"SERVER": fmt.Sprint(s.cmd.Process.Pid), "SHIMS": strings.Trim(fmt.Sprint(shims(s.data())), "[]"),
	}
	run := func(level string) (string, execution) {
		body := map[string]any{"name": "attacker-" + level, "backend": "command", "command": []string{"bash", "-c", script.String() + "echo end"}, "env": env}
		if level != "" {
			body["sandbox"] = level
		}
		e := s.await(s.fire(s.trigger(body)))
		return string(s.logText(e.ID)), e
	}
	text, e := run("")
	if strings.Contains(text, "LEAK") || strings.Contains(text, "BROKEN") || !strings.Contains(text, "end") || e.Attempts[0].Sandbox != "guard" {
		t.Errorf("at level %q it printed\n%s", e.Attempts[0].Sandbox, text)
	}
	if b, _ := os.ReadFile(filepath.Join(s.dir, "home/.login/token")); string(b) != "new\n" {
		t.Errorf("the login is %q", b)
	}
	var v execution
	if s.call("GET", "/api/v1/executions/"+victim, nil, &v); v.final() {
		t.Errorf("the victim has ended: %+v", v)
	}
	// Without a sandbox the harmless ones of the commands succeed, so they can find a leak.
	for name := range reach {
		if strings.HasPrefix(name, "signal") || strings.Contains(name, "folder of another") || name == "environment of the shims" {
			delete(reach, name)
		}
	}
	script.Reset()
	for name, text := range reach {
		fmt.Fprintf(&script, "{ %s; } >/dev/null 2>&1 && echo 'LEAK: %s'\n", text, name)
	}
	text, e = run("off")
	if strings.Contains(text, "LEAK: client command") {
		t.Error("without a sandbox, an agent is an administrator on the local socket")
	}
	for _, name := range []string{"local socket", "secret key", "database", "settings file", "secret file", "backups", "output of another", "own bundle", "runtime file"} {
		if !strings.Contains(text, "LEAK: "+name) {
			t.Errorf("without a sandbox, %s is not found at %q:\n%s", name, e.Attempts[0].Sandbox, text)
		}
	}
	if err := os.WriteFile(filepath.Join(s.data(), "executions", victim, "work", "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := s.await(victim); v.Status != "success" {
		t.Errorf("the victim: %s %s", v.Status, v.Reason)
	}
}

// TestSandbox_messages passes messages between two agents at level guard, over the network and
// with the command that agents find on their PATH.
func TestSandbox_messages(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	s, home := pingPong(t, "AGENTED_CHAIN_DEPTH=6", "AGENTED_SANDBOX=guard")
	if _, stderr, code := s.cli("message", "send", "ann", "ball 1"); code != 0 {
		t.Fatalf("send: %s", stderr)
	}
	s.waitFor("the last message", func() bool {
		var got struct{ Items []execution }
		s.call("GET", "/api/v1/executions?limit=100", nil, &got)
		for _, e := range got.Items {
			if !e.final() {
				return false
			}
		}
		return len(got.Items) >= 3
	})
	if len(balls(t, home, "ann"))+len(balls(t, home, "Bob")) < 3 {
		t.Error("messages did not arrive")
	}
}

func TestSandbox_cannot_be_had(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for level, want := range map[string]string{"jail": "must be one of off, guard, strict"} {
		_, err := s.try("POST", "/api/v1/triggers", map[string]any{"name": level, "backend": "command", "command": []string{"true"}, "sandbox": level}, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", level, err, want)
		}
	}
}

func TestSandbox_flag_of_run(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	s := newServer(t)
	for _, level := range []string{"off", "guard"} {
		stdout, stderr, code := s.cli("run", "--sandbox", level, "--", "cat", s.data()+"/server.json")
		if got := code == 0; got != (level == "off") {
			t.Errorf("%s: exit code %d\n%s%s", level, code, stdout, stderr)
		}
	}
}

// TestSandbox_auto starts servers without a setting: where guard works it is the default, otherwise
// executions run without a sandbox, and the log, the API and the doctor warn about that.
func TestSandbox_auto(t *testing.T) {
	t.Parallel()
	guardWorks(t)
	state := func(s *server) (health struct {
		Health struct{ Notices []string }
	},
	) {
		s.call("GET", "/api/v1/overview", nil, &health)
		return health
	}
	s := newServer(t, "AGENTED_SANDBOX=")
	look := map[string]any{"name": "look", "backend": "command", "command": []string{"sh", "-c", "[ -e " + s.data() + "/agented.db ] && echo visible || echo hidden"}}
	e := s.await(s.fire(s.trigger(look)))
	if a := e.Attempts[0]; a.Sandbox != "guard" || a.Reason != "default of the server" || !strings.Contains(string(s.logText(e.ID)), "hidden") {
		t.Errorf("it ran at %+v: %s", a, s.logText(e.ID))
	}
	look["name"], look["sandbox"] = "opted out", "off"
	e = s.await(s.fire(s.trigger(look)))
	if a := e.Attempts[0]; a.Sandbox != "off" || a.Reason != "set in the trigger" || !strings.Contains(string(s.logText(e.ID)), "visible") {
		t.Errorf("with sandbox off it ran at %+v: %s", a, s.logText(e.ID))
	}
	if n := state(s).Health.Notices; len(n) > 0 {
		t.Errorf("notices: %q", n)
	}

	// guard cannot hide a data folder that is the home folder of the agents.
	s = prepare(t, "AGENTED_SANDBOX=")
	s.env = append(s.env, "HOME="+s.data())
	s.start()
	delete(look, "sandbox")
	e = s.await(s.fire(s.trigger(look)))
	if a := e.Attempts[0]; a.Sandbox != "off" || !strings.Contains(a.Reason, "set AGENTED_DATA_DIR to a folder of its own") || e.Status != "success" {
		t.Errorf("without a sandbox it ran at %+v: %s", a, e.Status)
	}
	if n := state(s).Health.Notices; len(n) != 1 || !strings.Contains(n[0], "Executions run without a sandbox") {
		t.Errorf("notices: %q", n)
	}
	s.mu.Lock()
	log := s.log.String()
	s.mu.Unlock()
	if !strings.Contains(log, "Executions run without a sandbox") {
		t.Error("the server's log has no warning")
	}
	if out, _, _ := s.cli("doctor"); !strings.Contains(out, "AGENTED_SANDBOX=off to run agents without a sandbox") {
		t.Errorf("doctor:\n%s", out)
	}
	// A level that is asked for is refused instead.
	look["name"], look["sandbox"] = "required", "guard"
	if e = s.await(s.fire(s.trigger(look))); e.Status != "failed" || !strings.Contains(e.Reason, "set AGENTED_DATA_DIR to a folder of its own") {
		t.Errorf("with sandbox guard: %s %s", e.Status, e.Reason)
	}
}

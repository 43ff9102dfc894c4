package main_test

import (
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

// longAnswer is the beginning of an answer with a tab, JSON-encoded.
const longAnswer = "first\\n\\tindented\\n"

// newAgents starts a server with a stand-in for each agent CLI, which prints the file out in the
// folder of its name.
func newAgents(t *testing.T) (s *server, bin string) {
	bin = t.TempDir()
	for name, version := range map[string]string{"claude": "2.1.330 (Claude Code)", "codex": "codex-cli 0.171.0", "gemini": "0.61.0", "opencode": "1.18.33"} {
		script := "#!/bin/sh\ncase \"$*\" in *--version*) echo '" + version + "'; exit 0;; esac\n" +
			"if [ -f " + bin + "/" + name + ".out ]; then cat >/dev/null; cat " + bin + "/" + name + ".out; else\n" +
			"n=$(md5sum | cut -d' ' -f1); echo '{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"'$n'\",\"session_id\":\"s\"}'; fi\n"
		if err := testrun.WriteProgram(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s = newServer(t, "PATH="+bin+":"+os.Getenv("PATH"), "ANTHROPIC_API_KEY=sk-ant-"+strings.Repeat("y", 40),
		"OPENAI_API_KEY=sk-"+strings.Repeat("y", 40), "GEMINI_API_KEY=g-"+strings.Repeat("y", 40))
	return s, bin
}

func TestReadableOutput(t *testing.T) {
	t.Parallel()
	s, bin := newAgents(t)
	long := strings.Repeat("words that go on ", 40)
	for name, lines := range map[string][]string{
		"claude": {
			`{"type":"system","subtype":"init","session_id":"s","tools":["Bash"]}`,
			`{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"go test ./..."}}]}}`,
			`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":"exit status 2"}]}}`,
			`{"type":"assistant","message":{"content":[{"type":"text","text":"` + longAnswer + long + `"}]}}`,
			`{"type":"result","subtype":"success","is_error":false,"result":"` + longAnswer + long + `","session_id":"s"}`,
		},
		"codex": {
			`{"type":"thread.started","thread_id":"01a208d0-1d14-7bd2-b7a2-d40d12f2f56d"}`,
			`{"type":"item.started","item":{"id":"i0","type":"command_execution","command":"go test ./..."}}`,
			`{"type":"item.completed","item":{"id":"i0","type":"command_execution","aggregated_output":"exit status 2","exit_code":2,"status":"failed"}}`,
			`{"type":"item.completed","item":{"id":"i1","type":"agent_message","text":"` + longAnswer + long + `"}}`,
			`{"type":"turn.completed","usage":{"input_tokens":1,"output_tokens":1}}`,
		},
		"gemini": {
			`{"type":"init","session_id":"884efc94-fedf-8917-845b-2dca503310ae","model":"auto"}`,
			`{"type":"tool_use","tool_name":"run_shell_command","tool_id":"r1","parameters":{"command":"go test ./..."}}`,
			`{"type":"tool_result","tool_id":"r1","status":"error","output":"exit status 2"}`,
			`{"type":"message","role":"assistant","content":"` + longAnswer + `","delta":true}`,
			`{"type":"message","role":"assistant","content":"` + long + `","delta":true}`,
			`{"type":"result","status":"success","stats":{"total_tokens":2,"input_tokens":1,"output_tokens":1,"cached":0,"input":1,"duration_ms":2,"tool_calls":1}}`,
		},
		"opencode": {
			`{"type":"step_start","sessionID":"ses_df72a7200ffeqPxNyvTVjNImqu","part":{"type":"step-start"}}`,
			`{"type":"tool_use","sessionID":"ses_df72a7200ffeqPxNyvTVjNImqu","part":{"type":"tool","tool":"bash","callID":"c1","state":{"status":"error","input":{"command":"go test ./..."},"error":"exit status 2"}}}`,
			`{"type":"text","sessionID":"ses_df72a7200ffeqPxNyvTVjNImqu","part":{"type":"text","text":"` + longAnswer + long + `"}}`,
			`{"type":"step_finish","sessionID":"ses_df72a7200ffeqPxNyvTVjNImqu","part":{"reason":"stop","type":"step-finish","tokens":{"total":2,"input":1,"output":1},"cost":0.1}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(bin, name+".out"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			out, errs, code := s.cli("run", "--backend", name, "Say hello")
			want := "first\n\tindented\n" + long
			if code != 0 || strings.Contains(out, `{"type"`) || strings.Count(out, want) != 1 {
				t.Errorf("exit code %d, output %q, errors %q", code, out, errs)
			}
			for _, line := range []string{"go test ./...", "exit status 2"} {
				if strings.Count(out, line) != 1 {
					t.Errorf("%q is there %d times: %q", line, strings.Count(out, line), out)
				}
			}
			var list struct{ Items []struct{ ID string } }
			s.call("GET", "/api/v1/executions?limit=1", nil, &list)
			id := list.Items[0].ID
			if logs, _, _ := s.cli("execution", "logs", id); logs != out {
				t.Errorf("the log is %q, and run printed %q", logs, out)
			}
			if raw, _, _ := s.cli("execution", "logs", "--raw", id); raw != strings.Join(lines, "\n")+"\n" {
				t.Errorf("raw: %q", raw)
			}
			if shown, _, _ := s.cli("execution", "show", id); !strings.Contains(shown, strings.TrimSpace(want)) {
				t.Errorf("show: %q", shown)
			}
		})
	}
}

func TestLargestPrompt(t *testing.T) {
	t.Parallel()
	s, _ := newAgents(t)
	for name, line := range map[string]string{"plain": "z", "html": "<>&\"\n", "braces": "f({name})\n", "cjk": "日本語\n"} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat(line, (1<<20)/len(line))
			text += strings.Repeat("x", 1<<20-len(text))
			out, errs, code := s.cliWith(text, "run", "--backend", "claude", "-")
			if want := fmt.Sprintf("%x", md5.Sum([]byte(text))); code != 0 || !strings.Contains(out, want) {
				t.Errorf("exit code %d, want %s in %.200q, errors %.300q", code, want, out, errs)
			}
		})
	}
	if _, errs, code := s.cliWith(strings.Repeat("x", 1<<20+1), "run", "--backend", "claude", "-"); code != 2 || !strings.Contains(errs, "1048576") {
		t.Errorf("beyond the limit: exit code %d, %q", code, errs)
	}
}

func TestWholeMessages(t *testing.T) {
	t.Parallel()
	s := newConversationTest(t).server
	body := "look at " + strings.Repeat("the migration ", 20) + "\n\tDO NOT MERGE \x1b]52;c;aGk=\a\x1b[2Jend"
	if _, errs, code := s.cli("message", "send", "helper", body); code != 0 {
		t.Fatal(errs)
	}
	out, errs, code := s.cli("message", "inbox", "--agent", "helper", "--bodies")
	want := "look at " + strings.Repeat("the migration ", 20) + "\n\tDO NOT MERGE end"
	if code != 0 || !strings.Contains(out, want) {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
}

func TestTerminalEscapes(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	script := `printf '\033[31mred\033[0m\033]52;c;aGk=\007\033]0;title\007\033[2J\033'; printf ']52;c;eA==\007tail\n'`
	p := atPrompt(t, s, "run", "--", "sh", "-c", script)
	if code := p.code(); code != 0 {
		t.Fatalf("exit code %d, %q", code, p.screen.String())
	}
	s.waitFor("the last line", func() bool { return strings.Contains(p.screen.String(), "tail") })
	screen := p.screen.String()
	if !strings.Contains(screen, "\x1b[31mred\x1b[0m") || strings.Contains(screen, "\x1b]") || strings.Contains(screen, "\x1b[2J") || strings.Contains(screen, "\a") {
		t.Errorf("the screen got %q", screen)
	}
	raw := atPrompt(t, s, "run", "--raw", "--", "sh", "-c", script)
	raw.code()
	s.waitFor("the bytes", func() bool { return strings.Contains(raw.screen.String(), "\x1b]52;c;aGk=\a") })
}

func TestServe_two_servers_of_one_user(t *testing.T) {
	t.Parallel()
	without := func(env []string, names ...string) (out []string) {
		for _, kv := range env {
			name, _, _ := strings.Cut(kv, "=")
			keep := true
			for _, n := range names {
				keep = keep && n != name
			}
			if keep {
				out = append(out, kv)
			}
		}
		return out
	}
	first := newServer(t)
	drill := prepare(t)
	drill.env = append(without(drill.env, "HOME", "XDG_RUNTIME_DIR"), "HOME="+filepath.Join(first.dir, "home"), "XDG_RUNTIME_DIR="+filepath.Join(first.dir, "run"))
	drill.start()
	first.trigger(sh("of-the-first", "true", nil))
	drill.trigger(sh("of-the-drill", "true", nil))
	list := func(what string, s *server, env []string) {
		t.Helper()
		was := s.env
		s.env = env
		defer func() { s.env = was }()
		out, errs, code := s.cli("trigger", "list")
		if code != 0 || !strings.Contains(out, what) {
			t.Errorf("want %s: exit code %d, %q %q", what, code, out, errs)
		}
	}
	plain := without(first.env, "AGENTED_URL", "AGENTED_API_KEY", "AGENTED_DATA_DIR", "AGENTED_BIND")
	list("of-the-first", first, plain)
	list("of-the-first", first, append(plain, "AGENTED_DATA_DIR="+first.data()))
	list("of-the-drill", first, append(plain, "AGENTED_DATA_DIR="+drill.data()))
	file := filepath.Join(first.dir, "drill.env")
	if err := os.WriteFile(file, []byte("AGENTED_DATA_DIR="+drill.data()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	was := first.env
	first.env = plain
	if out, errs, _ := first.cli("trigger", "list", "--env-file", file); !strings.Contains(out, "of-the-drill") {
		t.Errorf("--env-file: %q %q", out, errs)
	}
	first.env = was
	if out, errs, code := drill.cli("stop"); code != 0 {
		t.Fatalf("stop: %q %q", out, errs)
	}
	list("of-the-first", first, plain)
	first.env = append(plain, "AGENTED_DATA_DIR="+drill.data())
	if _, errs, code := first.cli("trigger", "list"); code == 0 || !strings.Contains(errs, drill.data()) {
		t.Errorf("the stopped one: exit code %d, %q", code, errs)
	}
	// Inside an execution the user's files are not used.
	for _, mark := range []string{"AGENTED_EXECUTION_ID=exec-1", "AGENTED_ATTEMPT=1", "AGENTED_TRIGGER_ID=trg-1", "AGENTED_API_KEY=agx_exec-1.1.0123456789abcdef"} {
		first.env = append(append([]string{}, plain...), mark)
		if _, errs, code := first.cli("key", "list"); code != 4 || !strings.Contains(errs, "inside an execution") {
			t.Errorf("%s: exit code %d, %q", mark, code, errs)
		}
	}
	first.env = append(append([]string{}, was...), "AGENTED_EXECUTION_ID=exec-1")
	if _, errs, code := first.cli("key", "list"); code != 0 {
		t.Errorf("with an address and a key: %q", errs)
	}
	first.env = was
}

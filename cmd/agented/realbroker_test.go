package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"
)

// brokerKeys are the credentials of the server by CLI; see realServer.
var brokerKeys = map[string]string{
	"claude": "sk-ant-api03-stand-in-key-0123456789", "codex": "sk-stand-in-key-0123456789",
	"gemini": "stand-in-key-of-gemini-0123456789", "opencode": "sk-ant-api03-stand-in-key-0123456789",
}

// brokerServer is a server with a broker, and a trigger for a CLI whose own settings name no provider.
func brokerServer(t *testing.T, name string, standIn *clireal.StandIn, scenario clireal.Scenario, broker string) (*server, map[string]any) {
	t.Helper()
	s := realServer(t, name, standIn, scenario, "AGENTED_BROKER="+broker)
	home := filepath.Join(s.dir, "home")
	for file, text := range map[string]string{
		".config/opencode/opencode.json": `{"autoupdate":false,"share":"disabled","model":"anthropic/claude-sonnet-4-5","small_model":"anthropic/claude-sonnet-4-5"}`,
	} {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trigger := map[string]any{"name": "agent", "backend": name, "prompt": "Work.", "permission": "full", "timeout_seconds": 300}
	if name == "opencode" {
		base := ""
		for _, kv := range s.env {
			if address, ok := strings.CutPrefix(kv, "ANTHROPIC_BASE_URL="); ok {
				base = address
			}
		}
		trigger["env"] = map[string]any{"ANTHROPIC_API_KEY": brokerKeys[name], "ANTHROPIC_BASE_URL": base + "/v1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
	}
	return s, trigger
}

// showCredentials prints the keys in the environment and the arguments of the processes between the
// command and the shim, backwards, because the log would mask them.
const showCredentials = `P=$$
while [ "$P" -gt 1 ] && ! grep -q agshim /proc/$P/comm; do
	tr '\0' '\n' </proc/$P/environ
	tr '\0' '\n' </proc/$P/cmdline
	P=$(awk '/^PPid/ { print $2 }' /proc/$P/status)
done 2>/dev/null | grep -a -i key | sort -u | rev
`

// TestRealCLIs_broker lets the model ask each CLI for its credential: with a broker, neither its
// environment and arguments nor those of the processes between it and the shim contain it, while the API
// receives it.
func TestRealCLIs_broker(t *testing.T) {
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			key := brokerKeys[name]
			for _, broker := range []string{"on", "off"} {
				standIn := &clireal.StandIn{}
				s, trigger := brokerServer(t, name, standIn, clireal.Calls, broker)
				// A file, because Gemini CLI denies commands with a substitution.
				script := filepath.Join(s.dir, "show.sh")
				if err := os.WriteFile(script, []byte(showCredentials), 0o600); err != nil {
					t.Fatal(err)
				}
				standIn.Calls = []clireal.ToolCall{shellCall(name, "sh "+script)}
				e := s.awaitReal(s.fire(s.trigger(trigger)))
				if e.Status != "success" || len(e.Attempts) != 1 {
					t.Fatalf("broker %s: %+v\n%s", broker, e, s.logText(e.ID))
				}
				calls := 0
				for _, r := range standIn.Requests() {
					if r.Method == "POST" {
						calls++
						if r.Key != key {
							t.Errorf("broker %s: the API received %q for %s", broker, r.Key, r.Path)
						}
					}
				}
				seen := bodies(standIn, 0)
				if shown := strings.Contains(seen, reversed(key)); calls == 0 || shown == (broker == "on") {
					t.Errorf("broker %s: after %d calls, the model was given the credential: %v\n%s", broker, calls, shown, s.logText(e.ID))
				}
				if shown := strings.Contains(seen, reversed("placeholder-of-agented-")); shown == (broker == "off") {
					t.Errorf("broker %s: the model was given a placeholder: %v", broker, shown)
				}
				for _, dir := range []string{"executions", "../home", "../cwd"} {
					err := filepath.WalkDir(filepath.Join(s.data(), dir), func(path string, d os.DirEntry, err error) error {
						if err == nil && d.Type().IsRegular() && broker == "on" {
							if text, _ := os.ReadFile(path); strings.Contains(string(text), key) || strings.Contains(string(text), reversed(key)) {
								t.Errorf("%s contains the credential", path)
							}
						}
						return nil // files come and go
					})
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// TestRealCLIs_broker_outlives_server kills the server while a model answers.
func TestRealCLIs_broker_outlives_server(t *testing.T) {
	for _, name := range realCLINames {
		t.Run(name, func(t *testing.T) {
			standIn := &clireal.StandIn{Pause: 500 * time.Millisecond}
			s, trigger := brokerServer(t, name, standIn, clireal.Text, "on")
			id := s.fire(s.trigger(trigger))
			s.waitFor("a call of the model", func() bool {
				return slices.ContainsFunc(standIn.Requests(), func(r clireal.Request) bool { return r.Method == "POST" })
			})
			s.kill()
			// The answer ends while there is no server.
			for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
				all := standIn.Requests()
				if !slices.ContainsFunc(all, func(r clireal.Request) bool { return r.Method == "POST" && r.Status == 0 }) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the answer does not end")
				}
			}
			s.start()
			e := s.awaitReal(id)
			if e.Status != "success" || len(e.Attempts) != 1 || !strings.Contains(fmt.Sprint(e.Result), clireal.Answer) {
				t.Errorf("%+v\n%s", e, s.logText(id))
			}
		})
	}
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

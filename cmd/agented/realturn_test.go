package main_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agented/agented/internal/clireal"
)

// shellCall is a call of a CLI's shell tool.
func shellCall(cli, command string) clireal.ToolCall {
	name := map[string]string{"claude": "Bash", "codex": "", "gemini": "run_shell_command", "opencode": "bash"}[cli]
	return clireal.ToolCall{Name: name, Input: map[string]any{"command": command, "description": "x"}}
}

// startConversation opens a conversation with a new agent.
func (s *server) startConversation(agent map[string]any) *conversationTest {
	s.t.Helper()
	s.call("POST", "/api/v1/agents", agent, nil)
	var c struct{ ID string }
	s.call("POST", "/api/v1/conversations", map[string]any{"agent": agent["name"]}, &c)
	return &conversationTest{s, "", c.ID}
}

// TestRealCLITurns lets an agent write files with hooks, servers, plugins and
// instructions in its first turn: they must have no effect on the next one.
func TestRealCLITurns(t *testing.T) {
	for _, name := range []string{"claude", "codex", "gemini", "opencode"} {
		t.Run(name, func(t *testing.T) {
			realCLI(t, name)
			r, _ := newHostileRepository(t)
			source := t.TempDir()
			for file, text := range r.agentFiles() {
				file = filepath.Join(source, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			standIn := &clireal.StandIn{}
			s := realServer(t, name, standIn, clireal.Calls)
			for _, c := range []struct {
				name, permission string
				calls            []clireal.ToolCall
				workspace, trust bool
			}{
				{"foreign", "full", []clireal.ToolCall{shellCall(name, "cp -r "+source+"/. .")}, true, false},
				{"own folder", "edit", writeCalls(name, source, r.agentFiles()), false, false},
				{"trusted", "full", []clireal.ToolCall{shellCall(name, "cp -r "+source+"/. .")}, true, true},
			} {
				agent := map[string]any{"name": strings.ReplaceAll(c.name, " ", "-"), "backend": name, "role": "works", "permission": c.permission}
				if c.workspace {
					agent["workspace"], agent["trust_repository"] = map[string]any{"repository": "file://" + r.origin}, c.trust
				}
				standIn.Calls = c.calls
				asked := len(standIn.Requests())
				k := s.startConversation(agent)
				k.post("Write the files.")
				r.until("the first turn", func() bool { return k.finishes() == 1 })
				t.Logf("%s: in the turn that wrote them ran %q", c.name, r.left())
				before := len(standIn.Requests())
				if before == asked {
					t.Fatal("the model was not asked")
				}
				standIn.Calls = append(standIn.Calls, readCalls(name)...)
				k.post("And the next thing.")
				var left []string
				// In its own folder the agent wrote the text itself, so that it is in
				// the history.
				instructed := func() bool {
					for _, q := range standIn.Requests()[before:] {
						if c.workspace && bytes.Contains(q.Body, []byte(strangerText)) {
							return true
						}
					}
					return false
				}
				r.until("the next turn", func() bool {
					left = append(left, r.left()...)
					return k.finishes() == 2 || c.trust && (len(left) > 0 || instructed())
				})
				left = append(left, r.left()...)
				switch effect := len(left) > 0 || instructed(); {
				case !c.trust && effect:
					t.Errorf("%s: the next turn ran %q, and was given the instructions: %v", c.name, left, instructed())
				case c.trust && !effect:
					t.Error("nothing of it has an effect even where the repository is trusted: the test proves nothing")
				}
				if len(standIn.Requests()) == before && !c.trust {
					t.Errorf("%s: the model was not asked in the next turn", c.name)
				}
			}
		})
	}
}

// writeCalls writes files with a CLI's own tool, as its permission edit allows.
func writeCalls(cli, source string, files map[string]string) []clireal.ToolCall {
	if cli == "codex" {
		return []clireal.ToolCall{shellCall(cli, "cp -r "+source+"/. .")}
	}
	tool, path := map[string]string{"claude": "Write", "gemini": "write_file", "opencode": "write"}[cli], "file_path"
	if cli == "opencode" {
		path = "filePath"
	}
	var calls []clireal.ToolCall
	for _, name := range slices.Sorted(maps.Keys(files)) {
		calls = append(calls, clireal.ToolCall{Name: tool, Input: map[string]any{path: name, "content": files[name]}})
	}
	return calls
}

package clireal_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/clireal"
)

// permissionCall is one tool call of a real CLI and whether it must work.
type permissionCall struct {
	name   string
	tool   string
	input  map[string]any
	allow  bool
	writes string // file that exists afterwards if, and only if, the call is allowed
}

// toolAnswer is what a CLI returned to the model for one tool call.
type toolAnswer struct {
	text   string
	failed bool
}

// toolAnswers returns the answers to the calls of the stand-in, by their number.
func toolAnswers(t *testing.T, standIn *clireal.StandIn) map[int]toolAnswer {
	t.Helper()
	answers := map[int]toolAnswer{}
	for _, r := range standIn.Requests() {
		var body struct {
			Messages []struct{ Content json.RawMessage }
		}
		if json.Unmarshal(r.Body, &body) != nil {
			continue
		}
		for _, m := range body.Messages {
			var blocks []struct {
				Type    string
				ID      string `json:"tool_use_id"`
				IsError bool   `json:"is_error"`
				Content json.RawMessage
			}
			if json.Unmarshal(m.Content, &blocks) != nil {
				continue // a text
			}
			for _, b := range blocks {
				var n int
				if _, err := fmt.Sscanf(b.ID, "toolu_standin_%d", &n); err == nil && b.Type == "tool_result" {
					answers[n] = toolAnswer{string(b.Content), b.IsError}
				}
			}
		}
	}
	return answers
}

// offeredTools returns the names of the tools that a CLI offered to the model.
func offeredTools(standIn *clireal.StandIn) []string {
	for _, r := range standIn.Requests() {
		var body struct{ Tools []struct{ Name string } }
		if json.Unmarshal(r.Body, &body) != nil || len(body.Tools) == 0 {
			continue
		}
		var names []string
		for _, tool := range body.Tools {
			names = append(names, tool.Name)
		}
		return names
	}
	return nil
}

// TestClaudePermissions checks what `read` and `edit` allow Claude Code, tool by
// tool, inside and outside of the working directory.
func TestClaudePermissions(t *testing.T) {
	const inside, secret = "TEXT-INSIDE-THE-DIRECTORY", "SECRET-OUTSIDE-THE-DIRECTORY"
	for _, permission := range []agented.Permission{read, edit} {
		t.Run(string(permission), func(t *testing.T) {
			b := newBench(t, agented.BackendClaude)
			outside, further := filepath.Join(b.root, "outside"), filepath.Join(b.root, "further")
			for file, text := range map[string]string{
				filepath.Join(b.work(), "plain.txt"):              inside,
				filepath.Join(further, "more.txt"):                inside,
				filepath.Join(outside, "secret.txt"):              secret,
				filepath.Join(b.home(), ".config", "cli.key"):     secret,
				filepath.Join(b.work(), "sub", "deep", "leaf.md"): inside,
			} {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(outside, filepath.Join(b.work(), "link")); err != nil {
				t.Fatal(err)
			}
			secretFile, key := filepath.Join(outside, "secret.txt"), filepath.Join(b.home(), ".config", "cli.key")
			in := func(name string) string { return filepath.Join(b.work(), name) }
			bash := func(command string) map[string]any {
				return map[string]any{"command": command, "description": "x"}
			}
			write := func(path string) map[string]any {
				return map[string]any{"file_path": path, "content": "written\n"}
			}
			editing := permission == edit
			cases := []permissionCall{
				{"Read inside", "Read", map[string]any{"file_path": in("plain.txt")}, true, ""},
				{"Read in a subfolder", "Read", map[string]any{"file_path": in("sub/deep/leaf.md")}, true, ""},
				{"Read in paths", "Read", map[string]any{"file_path": filepath.Join(further, "more.txt")}, true, ""},
				{"Read outside", "Read", map[string]any{"file_path": secretFile}, false, ""},
				{"Read of a key in HOME", "Read", map[string]any{"file_path": key}, false, ""},
				{"Read through dots", "Read", map[string]any{"file_path": b.work() + "/../outside/secret.txt"}, false, ""},
				{"Read through a link", "Read", map[string]any{"file_path": in("link/secret.txt")}, false, ""},
				{"Read of the environment", "Read", map[string]any{"file_path": "/proc/self/environ"}, false, ""},
				{"Bash cat inside", "Bash", bash("cat plain.txt"), true, ""},
				{"Bash grep inside", "Bash", bash("grep -rn TEXT ."), true, ""},
				{"Bash find inside", "Bash", bash("find . -name '*.md'"), true, ""},
				{"Bash ls inside", "Bash", bash("ls sub"), true, ""},
				{"Bash cat outside", "Bash", bash("cat " + secretFile), false, ""},
				{"Bash cat through dots", "Bash", bash("cat ../outside/secret.txt"), false, ""},
				{"Bash cat through a link", "Bash", bash("cat link/secret.txt"), false, ""},
				{"Bash grep outside", "Bash", bash("grep -rn SECRET " + outside), false, ""},
				{"Bash find outside", "Bash", bash("find " + outside + " -type f -exec cat {} +"), false, ""},
				{"Bash cat of HOME", "Bash", bash("cat ~/.config/cli.key"), false, ""},
				{"Bash after cd", "Bash", bash("cd ../outside && cat secret.txt"), false, ""},
				{"Bash environment", "Bash", bash("cat /proc/self/environ"), false, ""},
				{"Bash pipe to sh", "Bash", bash("echo 'cat ../outside/secret.txt' | sh"), false, ""},
				{"Bash substitution", "Bash", bash("echo $(cat ../outside/secret.txt)"), false, ""},
				{"Write inside", "Write", write(in("written.txt")), editing, in("written.txt")},
				{"Write in a new folder", "Write", write(in("new/written.txt")), editing, in("new/written.txt")},
				{"Write in paths", "Write", write(filepath.Join(further, "written.txt")), editing, filepath.Join(further, "written.txt")},
				{"Write outside", "Write", write(filepath.Join(outside, "written.txt")), false, filepath.Join(outside, "written.txt")},
				{"Write through a link", "Write", write(in("link/linked.txt")), false, filepath.Join(outside, "linked.txt")},
				{"Write in HOME", "Write", write(filepath.Join(b.home(), ".profile")), false, filepath.Join(b.home(), ".profile")},
				{"Bash touch inside", "Bash", bash("touch touched.txt"), editing, in("touched.txt")},
				{"Bash redirection inside", "Bash", bash("cat plain.txt > redirected.txt"), editing, in("redirected.txt")},
				{"Bash touch outside", "Bash", bash("touch " + filepath.Join(outside, "touched.txt")), false, filepath.Join(outside, "touched.txt")},
				{"Bash redirection outside", "Bash", bash("cat plain.txt > ../outside/redirected.txt"), false, filepath.Join(outside, "redirected.txt")},
				{"Bash copy through a link", "Bash", bash("cp plain.txt link/copied.txt"), false, filepath.Join(outside, "copied.txt")},
				{"Bash program", "Bash", bash("sh -c 'echo x > program.txt'"), false, in("program.txt")},
			}
			for _, c := range cases {
				b.standIn.Calls = append(b.standIn.Calls, clireal.ToolCall{Name: c.tool, Input: c.input})
			}
			got := b.do(t, request{scenario: clireal.Calls, permission: permission, paths: []string{further}})
			if got.result.Outcome != success {
				t.Errorf("outcome %q: %s", got.result.Outcome, got.result.Reason)
			}
			t.Logf("tools: %s", strings.Join(offeredTools(b.standIn), " "))
			answers := toolAnswers(t, b.standIn)
			for i, c := range cases {
				answer, there := answers[i]
				if !there {
					t.Errorf("%s: no answer", c.name)
					continue
				}
				if strings.Contains(answer.text, secret) {
					t.Errorf("%s: the model was given the secret: %s", c.name, answer.text)
				}
				if answer.failed == c.allow {
					t.Errorf("%s: refused %v, want %v: %.300s", c.name, answer.failed, !c.allow, answer.text)
				}
				if c.writes == "" {
					continue
				}
				_, err := os.Stat(c.writes)
				if (err == nil) != c.allow {
					t.Errorf("%s: %s exists: %v, want %v", c.name, filepath.Base(c.writes), err == nil, c.allow)
				}
			}
		})
	}
}

package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/examples"

	"github.com/agented/agented/internal/testrun"
)

// exampleEvents are the GitHub events that fire the examples with a webhook. SHA and
// BASE stand for commits of the test repository.
var exampleEvents = map[string][2]string{
	"pr-review": {"pull_request", `{"action":"opened","number":7,"pull_request":{"number":7,"html_url":"https://github.com/my-org/app/pull/7",
		"title":"Faster parser","body":"Please check the limits.","draft":false,"author_association":"MEMBER","user":{"login":"mona","type":"User"},
		"head":{"ref":"feature","sha":"SHA","repo":{"full_name":"my-org/app","fork":false}},"base":{"ref":"main","sha":"BASE","repo":{"full_name":"my-org/app"}}},
		"repository":{"full_name":"my-org/app","default_branch":"main"},"sender":{"login":"mona","type":"User"}}`},
	"issue-triage": {"issues", `{"action":"opened","issue":{"number":8,"html_url":"https://github.com/my-org/app/issues/8","title":"It crashes",
		"body":"On start.","author_association":"NONE","user":{"login":"mona","type":"User"}},
		"repository":{"full_name":"my-org/app","default_branch":"main"},"sender":{"login":"mona","type":"User"}}`},
	"ci-failure": {"workflow_run", `{"action":"completed","workflow_run":{"id":9,"name":"CI","html_url":"https://github.com/my-org/app/actions/runs/9",
		"conclusion":"failure","status":"completed","event":"push","head_branch":"main","head_sha":"BASE","head_repository":{"full_name":"my-org/app"},"pull_requests":[]},
		"repository":{"full_name":"my-org/app","default_branch":"main"},"sender":{"login":"mona","type":"User"}}`},
	"changelog": {"push", `{"ref":"refs/tags/v1.2.0","before":"0000000000000000000000000000000000000000","after":"BASE","created":true,"deleted":false,"forced":false,
		"commits":[],"head_commit":{"id":"BASE","message":"release"},"pusher":{"name":"mona"},
		"repository":{"full_name":"my-org/app","default_branch":"main"},"sender":{"login":"mona","type":"User"}}`},
}

// exampleOrigin makes a repository with the branches main and feature, and the tag
// v1.2.0. It returns its folder and the newest commit of each branch.
func exampleOrigin(t *testing.T) (dir, main, feature string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "app")
	git := func(args ...string) string {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull,
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main")
	git("commit", "-q", "--allow-empty", "-m", "first")
	git("tag", "v1.2.0")
	main = git("rev-parse", "HEAD")
	git("checkout", "-q", "-b", "feature")
	git("commit", "-q", "--allow-empty", "-m", "faster parser")
	feature = git("rev-parse", "HEAD")
	git("checkout", "-q", "main")
	return dir, main, feature
}

// TestExamples applies every example and fires it: those with a webhook by a signed
// event of GitHub, the others as their schedule would. The agent CLIs are stand-ins.
func TestExamples(t *testing.T) {
	t.Parallel()
	origin, main, feature := exampleOrigin(t)
	bin := t.TempDir()
	for name, lines := range map[string]string{
		"claude": `{"type":"result","subtype":"success","is_error":false,"result":"the answer","session_id":"s"}`,
		"codex": `{"type":"thread.started","thread_id":"01a208d0-1d14-7bd2-b7a2-d40d12f2f56d"}
{"type":"item.completed","item":{"id":"i1","type":"agent_message","text":"the answer"}}
{"type":"turn.completed","usage":{"input_tokens":1,"output_tokens":1}}`,
	} {
		version := map[string]string{"claude": "2.1.330 (Claude Code)", "codex": "codex-cli 0.171.0"}[name]
		script := "#!/bin/sh\ncase \"$*\" in *--version*) echo '" + version + "'; exit 0;; esac\ncat >/dev/null\ncat <<'E'\n" + lines + "\nE\n"
		if err := testrun.WriteProgram(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := newServer(t, "GITHUB_WEBHOOK_SECRET="+stormSecret, "PATH="+bin+":"+os.Getenv("PATH"),
		"ANTHROPIC_API_KEY=sk-ant-"+strings.Repeat("y", 40), "OPENAI_API_KEY=sk-"+strings.Repeat("y", 40), "AGENTED_MAX_CONCURRENT=4")
	out, errs, code := s.cli("example", "list", "--json")
	var listed struct{ Items []examples.Example }
	if err := json.Unmarshal([]byte(out), &listed); err != nil || code != 0 || len(listed.Items) < 8 {
		t.Fatalf("exit %d, %d examples, %v\n%s", code, len(listed.Items), err, errs)
	}
	var served struct {
		Items []struct{ Name, Summary, YAML string }
	}
	s.call("GET", "/api/v1/examples", nil, &served)
	if len(served.Items) != len(listed.Items) {
		t.Errorf("the API lists %d examples, the command %d", len(served.Items), len(listed.Items))
	}
	for i, e := range listed.Items {
		t.Run(e.Name, func(t *testing.T) {
			shown, errs, code := s.cli("example", "show", e.Name)
			if code != 0 || shown != e.YAML || e.Summary == "" {
				t.Fatalf("show: exit %d\n%s%s", code, shown, errs)
			}
			if i < len(served.Items) && (served.Items[i].YAML != e.YAML || served.Items[i].Summary != e.Summary) {
				t.Errorf("the API serves %+v", served.Items[i])
			}
			if out, errs, code := s.cliWith(shown, "trigger", "apply", "-f", "-"); code != 0 || !strings.Contains(out, e.Name+": created") {
				t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
			}
			// What the comments of the file ask for.
			local := strings.NewReplacer("https://github.com/{repo_full_name}.git", "file://"+origin, "  credential: GIT_TOKEN\n", "", "/srv/project", origin).Replace(shown)
			if out, errs, code := s.cliWith(local, "trigger", "apply", "-f", "-"); code != 0 {
				t.Fatalf("apply with local folders: exit %d\n%s%s", code, out, errs)
			}
			event, hooked := exampleEvents[e.Name]
			if !hooked {
				if strings.Contains(shown, "webhooks:") {
					t.Fatal("the example has a webhook and the test has no event for it")
				}
				want := "the answer"
				if e.Name == "disk-space" {
					want = "Filesystem"
				}
				if out, errs, code := s.cli("trigger", "run", e.Name, "--follow"); code != 0 || !strings.Contains(out, want) {
					t.Errorf("run: exit %d\n%s%s", code, out, errs)
				}
				return
			}
			body := strings.NewReplacer("SHA", feature, "BASE", main).Replace(event[1])
			got, status := deliverEvent(stormClient(), s.addr, event[0], "example-"+e.Name, []byte(body))
			if status != 202 || len(got.Executions) != 1 {
				t.Fatalf("delivery: status %d, %+v", status, got)
			}
			if ended := s.await(got.Executions[0]); ended.Status != "success" || ended.Result != "the answer" {
				t.Errorf("execution: %+v", ended)
			}
		})
	}
	if _, errs, code := s.cli("example", "show", "nothing"); code != 3 || !strings.Contains(errs, "example list") {
		t.Errorf("an unknown example: exit %d\n%s", code, errs)
	}
}

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// outcome are the fields of an execution with an outcome contract.
type outcome struct {
	execution
	Contract string         `json:"contract"`
	Output   map[string]any `json:"output"`
	Attempts []struct {
		Class   string `json:"class"`
		Clauses []struct {
			Clause string `json:"clause"`
			Met    bool   `json:"met"`
		} `json:"clauses"`
	} `json:"attempts"`
}

// The server is killed between the end of the CLI and the check, while it records the changes.
func TestOutcome_killed_before_check(t *testing.T) {
	t.Parallel()
	bin, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	here, ran := filepath.Join(t.TempDir(), "here"), filepath.Join(t.TempDir(), "ran")
	newRepository(t, repo)
	s := prepare(t, "PATH="+bin+":"+os.Getenv("PATH"), "AGENTED_SANDBOX=off")
	gitThatStops(t, bin, here, "--numstat")
	s.start()
	id := s.fire(s.trigger(sh("outcome", `echo two >file; echo '{"n": 1}'`, map[string]any{"working_dir": repo, "expect": map[string]any{
		"result_schema": map[string]any{"type": "object", "required": []string{"n"}}, "changes": map[string]any{"min_files": 1},
		"command": []string{"sh", "-c", "echo x >>" + ran},
	}})))
	var pid int
	s.waitFor("the recording", func() bool {
		b, err := os.ReadFile(here)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil && pid > 0
	})
	s.kill()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the check ran before the kill")
	}
	s.start()
	s.await(id)
	var e outcome
	s.call("GET", "/api/v1/executions/"+id, nil, &e)
	if e.Status != "success" || e.Contract != "met" || len(e.Attempts) != 1 || len(e.Attempts[0].Clauses) != 3 || e.Output["n"] != 1.0 {
		t.Errorf("execution %+v", e)
	}
	if b, err := os.ReadFile(ran); err != nil || string(b) != "x\n" {
		t.Errorf("the check ran %q, %v", b, err)
	}
}

// The server is killed while the command of the contract runs: the same process continues, and its end
// decides.
func TestOutcome_killed_during_check(t *testing.T) {
	t.Parallel()
	s := prepare(t, "AGENTED_SANDBOX=off")
	s.start()
	for code, status := range map[int]string{0: "success", 4: "failed"} {
		pids, gate := filepath.Join(t.TempDir(), "pids"), filepath.Join(t.TempDir(), "gate")
		id := s.fire(s.trigger(sh(fmt.Sprintf("outcome %d", code), "echo done", map[string]any{"expect": map[string]any{
			"command": []string{"sh", "-c", fmt.Sprintf("echo $$ >>%s; while [ ! -e %s ]; do sleep 0.05; done; exit %d", pids, gate, code)},
		}})))
		var pid int
		s.waitFor("the check", func() bool {
			b, err := os.ReadFile(pids)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
			return err == nil && pid > 0
		})
		for range 2 {
			s.kill()
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("after the kill of the server the check is gone: %v", err)
			}
			s.start()
		}
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.await(id)
		var e outcome
		s.call("GET", "/api/v1/executions/"+id, nil, &e)
		if e.Status != status || len(e.Attempts) != 1 || (e.Attempts[0].Class == "no_effect") != (code != 0) {
			t.Errorf("exit code %d: %+v", code, e)
		}
		if b, _ := os.ReadFile(pids); strings.Count(string(b), "\n") != 1 {
			t.Errorf("the check ran more than once: %s", b)
		}
	}
}

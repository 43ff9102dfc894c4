package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// chaosResult holds the fields of `agented chaos --json` that the tests read.
type chaosResult struct {
	Passed     bool     `json:"passed"`
	Violations []string `json:"violations"`
	Faults     struct {
		Killed int `json:"killed"`
	} `json:"faults"`
	Logs, Readers struct {
		Expected, Found, Lost, Duplicated, Reordered int
	}
	Firings struct {
		Acknowledged, Ran, Lost, Duplicated int
	}
	Executions struct {
		Started, Succeeded int
		LeftRunning        int `json:"left_running"`
	}
	ProcessesLeft []string `json:"processes_left"`
}

// runChaos runs the command with a temporary folder and settings of its own.
func runChaos(t *testing.T, args ...string) (v chaosResult, stdout, stderr string, code int, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd := exec.Command(binary, append([]string{"chaos"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp, "AGENTED_BIND=nonsense"}
	cmd.Dir = tmp
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	stdout, stderr, code = out.String(), errs.String(), cmd.ProcessState.ExitCode()
	if strings.HasPrefix(stdout, "{") {
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatalf("%v in %s", err, stdout)
		}
	}
	return v, stdout, stderr, code, tmp
}

func TestChaos_passes(t *testing.T) {
	testrun.OnlyLong(t)
	v, out, errs, code, tmp := runChaos(t, "--seconds", "5", "--executions", "3", "--json")
	if code != 0 || !v.Passed {
		t.Fatalf("exit %d\n%s\n%s", code, out, errs)
	}
	if v.Faults.Killed == 0 || v.Logs.Expected < 500 || v.Logs.Found != v.Logs.Expected || v.Readers.Expected < 1000 || v.Readers.Found != v.Readers.Expected {
		t.Errorf("little was tried: %s", out)
	}
	if v.Firings.Acknowledged < 5 || v.Firings.Ran != v.Firings.Acknowledged || v.Executions.Started != v.Executions.Succeeded {
		t.Errorf("firings: %s", out)
	}
	left, err := filepath.Glob(filepath.Join(tmp, "agented-chaos-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestChaos_sabotage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills a server for some seconds; left out with -short")
	}
	v, out, errs, code, _ := runChaos(t, "--seconds", "2", "--executions", "1", "--sabotage", "--json")
	if code != 1 || v.Passed || v.Logs.Lost != 1 || v.Logs.Expected != v.Logs.Found+1 {
		t.Fatalf("exit %d\n%s\n%s", code, out, errs)
	}
	if len(v.Violations) != 1 || !strings.Contains(v.Violations[0], "lines missing in the logs: 1") {
		t.Errorf("violations: %q", v.Violations)
	}
}

func TestChaos_interrupted(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	cmd := exec.Command(binary, "chaos", "--executions", "2")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	agents := filepath.Join(tmp, "agented-chaos-*", "agents", "*.began")
	deadline := time.Now().Add(time.Minute)
	for {
		if began, _ := filepath.Glob(agents); len(began) >= 2 {
			break
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatalf("no agent began\n%s", out.String())
		}
		time.Sleep(10 * time.Millisecond) // interval of the poll
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d\n%s", code, out.String())
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "agented-chaos-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if text, _ := os.ReadFile(p); bytes.Contains(text, []byte(tmp+"/")) {
			t.Errorf("still alive: %s", strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
}

func TestChaos_invalid_flags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--seconds", "0"}, {"--executions", "0"}, {"--rate", "0"}, {"more"}} {
		if _, _, errs, code, _ := runChaos(t, args...); code != 2 {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
}

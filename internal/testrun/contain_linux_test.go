package testrun_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

func TestMain(m *testing.M) {
	testrun.Contain()
	os.Exit(m.Run())
}

// leaveEnv makes TestLeave start a process that outlives it.
const leaveEnv = "AGENTED_TEST_LEAVE"

// TestLeave is the inner run of TestContain.
func TestLeave(t *testing.T) {
	how := os.Getenv(leaveEnv)
	if how == "" {
		t.Skip("TestContain runs it")
	}
	// A daemon: its parent ends, and it has a session and streams of its own.
	daemon := exec.Command("setsid", "sh", "-c", `sleep 1000 >/dev/null 2>&1 & echo $!`)
	out, err := daemon.Output()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("daemon %s\n", strings.TrimSpace(string(out)))
	if how == "hang" {
		select {}
	}
}

// inner starts an inner run and returns the id of its daemon. Its standard error goes to the same
// pipe as its output.
func inner(t *testing.T, how string) (cmd *exec.Cmd, daemon int, rest *bufio.Reader, pipe io.Closer) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestLeave$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), leaveEnv+"="+how)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(out)
	for {
		line, err := rest.ReadString('\n')
		if err != nil {
			t.Fatalf("the inner run started no daemon: %v", err)
		}
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "daemon "); ok {
			daemon, err = strconv.Atoi(id)
			if err != nil {
				t.Fatal(err)
			}
			return cmd, daemon, rest, out
		}
	}
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func TestContain(t *testing.T) {
	t.Parallel()
	t.Run("fails_run_that_leaves_process", func(t *testing.T) {
		t.Parallel()
		cmd, daemon, out, _ := inner(t, "leave")
		said, _ := io.ReadAll(out)
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("the run ended with %v, want exit code 1", err)
		}
		if !strings.Contains(string(said), fmt.Sprintf("%d: sleep 1000", daemon)) {
			t.Errorf("the output does not name process %d:\n%s", daemon, said)
		}
		awaitEnd(t, daemon)
	})
	t.Run("ends_processes_of_killed_run", func(t *testing.T) {
		t.Parallel()
		cmd, daemon, _, _ := inner(t, "hang")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		awaitEnd(t, daemon)
	})
	t.Run("ends_processes_without_reader", func(t *testing.T) {
		t.Parallel()
		cmd, daemon, _, pipe := inner(t, "hang")
		if err := pipe.Close(); err != nil { // as when go test was killed
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("a terminated run succeeded")
		}
		awaitEnd(t, daemon)
	})
	t.Run("forwards_termination", func(t *testing.T) {
		t.Parallel()
		cmd, daemon, _, _ := inner(t, "hang")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("a terminated run succeeded")
		}
		awaitEnd(t, daemon)
	})
}

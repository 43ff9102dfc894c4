//go:build linux

package app

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// The test binary also runs as a server with a self-check.
func TestMain(m *testing.M) {
	if os.Getenv("AGENTED_TEST_ROLE") == "watched server" {
		watch{
			interval: 100 * time.Millisecond, limit: 600 * time.Millisecond, log: quiet,
			check: func(context.Context) error { return nil },
			good:  func() { fmt.Println("good") },
			abort: func() { fmt.Println("abort") },
		}.run(context.Background())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestFrozenServer(t *testing.T) {
	t.Parallel()
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		testFrozenServer(t, func(p *os.Process) (freeze, thaw func()) {
			return func() { _ = p.Signal(syscall.SIGSTOP) }, func() { _ = p.Signal(syscall.SIGCONT) }
		})
	})
	t.Run("control_group", func(t *testing.T) {
		t.Parallel()
		group := testrun.NewFreezer(t)
		testFrozenServer(t, func(p *os.Process) (freeze, thaw func()) {
			group.Add(p.Pid)
			return group.Freeze, group.Thaw
		})
	})
}

func testFrozenServer(t *testing.T, freezer func(*os.Process) (freeze, thaw func())) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "AGENTED_TEST_ROLE=watched server")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	freeze, thaw := freezer(cmd.Process)
	lines := bufio.NewScanner(out)
	for round := range 5 {
		for range 10 { // output from before the freeze
			if !lines.Scan() || lines.Text() != "good" {
				t.Fatalf("round %d: the server printed %q", round, lines.Text())
			}
		}
		freeze()
		time.Sleep(700 * time.Millisecond) // the freeze is longer than the limit
		thaw()
	}
}

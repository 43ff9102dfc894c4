//go:build !linux

package testrun

import (
	"fmt"
	"os"
	"os/exec"
)

// Contain does nothing on this system: only Linux has a subreaper.
func Contain() {}

// ContainCommand runs a command and exits with its code.
func ContainCommand(name string, args ...string) {
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(max(1, cmd.ProcessState.ExitCode()))
	}
	os.Exit(0)
}

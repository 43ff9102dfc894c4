package config

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"

	"github.com/agented/agented"
)

// NoColor reports whether NO_COLOR forbids colours in the output of commands.
func NoColor() bool { return os.Getenv("NO_COLOR") != "" }

// SearchPath returns the PATH of this process.
func SearchPath() string { return os.Getenv("PATH") }

// ExecutionID returns the id of the execution that this process belongs to. It is empty outside
// executions.
func ExecutionID() agented.ExecutionID { return agented.ExecutionID(os.Getenv(agented.EnvExecution)) }

// HasExecutionToken reports whether this process belongs to an execution and has an API key, which
// is the execution's token.
func HasExecutionToken() bool { return ExecutionID() != "" && os.Getenv("AGENTED_API_KEY") != "" }

// SudoUser returns the account that started this process with sudo. It is empty without sudo.
func SudoUser() string { return os.Getenv("SUDO_USER") }

// ServiceManager returns a variable that a service manager sets for its services: NOTIFY_SOCKET,
// WATCHDOG_… or LISTEN_…. It returns "" for every other name.
func ServiceManager(name string) string {
	if name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "WATCHDOG_") || strings.HasPrefix(name, "LISTEN_") {
		return os.Getenv(name)
	}
	return ""
}

// AttemptVariable returns a variable of this process, which is an attempt. The server built the
// environment of attempts.
func AttemptVariable(name string) string { return os.Getenv(name) }

// ServerEnvironment returns the environment for a server that this process starts.
func ServerEnvironment() []string { return os.Environ() }

// Digest identifies the environment and the arguments that the server is started with, because a
// process keeps those it was started with.
func (c *Config) Digest(args []string) string {
	h := sha256.New()
	for _, row := range c.Show("", "") {
		if v, ok := os.LookupEnv(row.Name); ok {
			fmt.Fprintf(h, "%s=%q\n", row.Name, v)
		}
	}
	for _, name := range []string{"PATH", "HOME"} {
		fmt.Fprintf(h, "%s=%q\n", name, os.Getenv(name))
	}
	dir, _ := os.Getwd()
	fmt.Fprintf(h, "%q %q\n", args, dir)
	return fmt.Sprintf("%x", h.Sum(nil))[:32]
}

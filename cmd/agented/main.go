// Command agented runs AI coding agents unattended: a server, and the client
// that speaks to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // so that zones do not depend on the machine

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
)

// version is set by the linker.
var version = "devel"

// Exit codes of the client commands.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitNotFound
	exitDenied
)

func main() {
	// Before anything else: there is one such process for each running attempt.
	if len(os.Args) == 2 && os.Args[1] == "shim" {
		os.Exit(shim.Main())
	}
	if len(os.Args) > 1 && os.Args[1] == askProgram {
		os.Exit(askAnthropic(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

// run executes one command line and returns its exit code.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var code exitError
	if errors.As(err, &code) {
		return int(code)
	}
	if errors.Is(err, context.Canceled) {
		return 130
	}
	report(cmd, err)
	return codeOf(err)
}

// report tells a person what went wrong and, for a wrong command line, how to
// find the right one.
func report(cmd *cobra.Command, err error) {
	text := err.Error()
	var e *agented.Error
	if errors.As(err, &e) {
		text = e.Text // the cause is for logs
		if len(e.Fields) > 1 || len(e.Fields) == 1 && !strings.Contains(text, e.Fields[0].Path) {
			for _, f := range e.Fields {
				if strings.Contains(e.Text, "\n  "+f.Path+": ") {
					continue // the settings' error lists its fields itself
				}
				text += fmt.Sprintf("\n  %s: %s", f.Path, f.Text)
			}
		}
	}
	fmt.Fprintf(os.Stderr, "agented: %s\n", text)
	var usage usageError
	if errors.As(err, &usage) || e == nil && strings.HasPrefix(text, "unknown ") {
		fmt.Fprintf(os.Stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
}

// usageError is a wrong command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exitError ends the program with a code when everything has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func codeOf(err error) int {
	var e *agented.Error
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &e):
		switch e.Kind {
		case agented.Invalid:
			return exitUsage
		case agented.NotFound:
			return exitNotFound
		case agented.Denied, agented.Unauthenticated:
			return exitDenied
		}
	case strings.HasPrefix(err.Error(), "unknown "):
		return exitUsage // cobra's own errors have no type
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "agented",
		Short: "Run AI coding agents unattended, and trust what you find in the morning",
		Long: `Agented runs AI coding-agent CLIs (Claude Code, Codex, Gemini, OpenCode, or any
command) unattended: a webhook, a schedule or a person fires a trigger; Agented
runs the CLI as a supervised process, streams its log live, survives crashes
and upgrades, and keeps the history.

Start with:
  agented serve                                run the server
  agented run -- sh -c 'echo hi'               run a command on it and follow its log
  agented run --backend claude "Say hello"     the same with an agent`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.SetVersionTemplate("agented {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("env-file", "", "read settings from this file instead of a .env found from here upwards")
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Server:"},
		&cobra.Group{ID: "client", Title: "Client:"},
	)
	root.AddCommand(
		serveCommand(), configCommand(), doctorCommand(), serviceCommand(), backupCommand(), restoreCommand(), chaosCommand(), chaosAgentCommand(),
		runCommand(), triggerCommand(), agentCommand(), chatCommand(), messageCommand(), scheduleCommand(), tickCommand(), deliveryCommand(), executionCommand(), budgetCommand(), usageCommand(), accountCommand(), pruneCommand(), keyCommand(), versionCommand(),
	)
	root.AddCommand(restartCommand(), stopCommand(), reloadCommand(), drainCommand())
	addCompletions(root)
	return root
}

// exactArgs is cobra.ExactArgs with an error that names what is missing.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError{fmt.Errorf("%s is missing", names[len(args)])}
		}
		if len(args) > len(names) {
			return usageError{fmt.Errorf("argument %q is too many", args[len(names)])}
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, GroupID: "client", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q for %q", args[0], "agented "+use)}
		}
		return nil
	}
	c.AddCommand(children...)
	return c
}

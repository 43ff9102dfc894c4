// Command agented runs AI coding agents unattended. It is both the server and its command-line
// client.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	_ "time/tzdata" // makes time zones independent of the machine

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/term"
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

// exitInterrupted is the exit code after Ctrl-C or SIGTERM.
const exitInterrupted = 130

func main() {
	// Handled before anything else, because there is one shim process per running attempt.
	if len(os.Args) >= 2 && os.Args[1] == "shim" {
		os.Exit(shim.Main())
	}
	if len(os.Args) > 1 && os.Args[1] == askProgram {
		os.Exit(callAnthropic(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

// run executes a command line and returns its exit code.
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
		return exitInterrupted
	}
	report(cmd, err)
	return codeOf(err)
}

// report prints an error and, for an invalid command line, a hint at the help.
func report(cmd *cobra.Command, err error) {
	text := term.ErrorText(err)
	var e *agented.Error
	if cmd != nil && wantJSON(cmd) {
		printJSONError(err)
		return
	}
	fmt.Fprintf(os.Stderr, "agented: %s\n", text)
	var usage usageError
	if errors.As(err, &usage) || !errors.As(err, &e) && strings.HasPrefix(text, "unknown ") {
		fmt.Fprintf(os.Stderr, "See `%s --help`.\n", cmd.CommandPath())
	}
}

// printJSONError prints an error as JSON to standard error.
func printJSONError(err error) {
	type field struct {
		Path string `json:"path"`
		Text string `json:"message"`
	}
	out := struct {
		Kind     agented.Kind `json:"kind"`
		Message  string       `json:"message"`
		Fields   []field      `json:"fields,omitempty"`
		ExitCode int          `json:"exit_code"`
	}{Kind: agented.KindOf(err), Message: err.Error(), ExitCode: codeOf(err)}
	var e *agented.Error
	var usage usageError
	if errors.As(err, &e) {
		out.Message = e.Text
		for _, f := range e.Fields {
			out.Fields = append(out.Fields, field{f.Path, f.Text})
		}
	} else if errors.As(err, &usage) || strings.HasPrefix(out.Message, "unknown ") {
		out.Kind = agented.Invalid
	}
	_ = term.PrintJSON(os.Stderr, map[string]any{"error": out}) // there is no other place to report it
}

// usageError is an error in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exitError is an exit code for a command whose output is complete.
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
		return exitUsage // cobra's errors have no type of their own
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "agented",
		Short: "Run AI coding agents unattended, and trust the result",
		Long: `Agented runs AI coding-agent CLIs (Claude Code, Codex, Gemini, OpenCode, or any
command) unattended. A webhook, a schedule or a person fires a trigger; Agented runs
the CLI as a supervised process, streams its log live, survives crashes and upgrades,
and keeps the history.

Get started:
  agented serve                                run the server
  agented run -- sh -c 'echo hi'               run a command on it and follow its log
  agented run --backend claude "Say hello"     run an agent and follow its log`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
	}
	root.SetVersionTemplate("agented {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{flagMistake(err)} })
	root.PersistentFlags().String("env-file", "", "settings file (default: .env in this folder or the nearest parent)")
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Server:"},
		&cobra.Group{ID: "client", Title: "Client:"},
	)
	root.AddCommand(
		serveCommand(), configCommand(), doctorCommand(), serviceCommand(), backupCommand(), restoreCommand(), chaosCommand(), chaosAgentCommand(),
		runCommand(), triggerCommand(), exampleCommand(), agentCommand(), chatCommand(), messageCommand(), scheduleCommand(), tickCommand(), deliveryCommand(), executionCommand(), budgetCommand(), usageCommand(), accountCommand(), pruneCommand(), secretCommand(), channelCommand(), notificationCommand(), keyCommand(), auditCommand(), versionCommand(),
	)
	root.AddCommand(restartCommand(), stopCommand(), reloadCommand(), drainCommand())
	root.AddCommand(conversationCommand())
	addCompletions(root)
	return root
}

// exactArgs is like cobra.ExactArgs, with an error that names the missing argument.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usageError{fmt.Errorf("%s is missing", names[len(args)])}
		}
		if len(args) > len(names) {
			return usageError{fmt.Errorf("unexpected argument %q", args[len(names)])}
		}
		return nil
	}
}

// group returns a command that only has subcommands.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, GroupID: "client", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			text := fmt.Sprintf("unknown command %q for %q", args[0], "agented "+use)
			var names []string
			for _, child := range children {
				names = append(names, child.Name())
			}
			if near := agented.Nearest(args[0], names); near != "" {
				text += fmt.Sprintf("; did you mean %q?", near)
			}
			return usageError{errors.New(text)}
		}
		return nil
	}
	c.AddCommand(children...)
	return c
}

func versionCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{
					"version": version, "go_version": runtime.Version(), "platform": platform,
				})
			}
			fmt.Printf("agented %s (%s, %s)\n", version, runtime.Version(), platform)
			return nil
		},
	})
}

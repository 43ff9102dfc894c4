package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/chaos"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func chaosCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "chaos", Short: "Fault-injection test: crash a test server under load and count the damage", Args: exactArgs(),
		GroupID: "server",
		Long: `Start a separate test server on this machine, in a temporary folder and on a free
port of 127.0.0.1, and inject faults for some time: executions print numbered lines,
clients follow them, manual runs and webhooks fire, and at random times the server is
killed, frozen or restarted. Then count log lines that are missing, duplicated or out
of order, acknowledged firings that did not run or ran twice, executions that are
recorded as running but are not, and processes that were left behind.

Your own server, its data and its settings are not affected. The exit code is 1 if a
guarantee of docs/guarantees.md was violated. The same seed repeats the order of the
faults; their exact times depend on your machine.`,
		Example: `  agented chaos
  agented chaos --seconds 600 --executions 20 --json
  agented chaos --seconds 5 --sabotage     # must report a lost line`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f := cmd.Flags()
			o := chaos.Options{}
			o.Seconds, _ = f.GetInt("seconds")
			o.Executions, _ = f.GetInt("executions")
			o.Rate, _ = f.GetInt("rate")
			o.Seed, _ = f.GetUint64("seed")
			o.Keep, _ = f.GetBool("keep")
			o.Sabotage, _ = f.GetBool("sabotage")
			switch {
			case o.Seconds < 1 || o.Seconds > 24*3600:
				return usageError{errors.New("--seconds must be from 1 to 86400")}
			case o.Executions < 1 || o.Executions > 1000:
				return usageError{errors.New("--executions must be from 1 to 1000")}
			case o.Rate < 1 || o.Rate > 10000:
				return usageError{errors.New("--rate must be from 1 to 10000")}
			}
			for o.Seed == 0 {
				o.Seed = rand.Uint64N(1e9)
			}
			o.Say = chaosProgress(wantJSON(cmd))
			v, err := chaos.Run(cmd.Context(), o)
			if err != nil && cmd.Context().Err() != nil {
				return cmd.Context().Err() // after a signal, an error about the server that ended first is irrelevant
			}
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				err = term.PrintJSON(os.Stdout, v)
			} else {
				err = showReport(os.Stdout, v)
			}
			if err == nil && !v.Passed {
				return exitError(exitFailed)
			}
			return err
		},
	})
	f := cmd.Flags()
	f.Int("seconds", 60, "how long to inject faults, in seconds")
	f.Int("executions", max(2, min(2*runtime.NumCPU(), 16)), "number of executions that print lines throughout the test")
	f.Int("rate", 200, "lines per second of each execution")
	f.Uint64("seed", 0, "seed of the fault order; 0 chooses one and prints it")
	f.Bool("keep", false, "keep the temporary folder, which contains the server's log")
	f.Bool("sabotage", false, "delete one line from a log before the count, to verify that the test detects it")
	return cmd
}

// showReport prints the result for people.
func showReport(w io.Writer, v *chaos.Report) error {
	t := v.Faults
	fmt.Fprintf(w, "In %s the server was killed %s, frozen %s and restarted %s.\nTime until it was ready again: median %.2f s, maximum %.2f s.\n\n",
		term.Duration(time.Duration(v.Seconds*float64(time.Second))), times(t.Killed), times(t.Frozen), times(t.Restarted),
		t.ReadyMedian, t.ReadyMax)
	row := func(what string, cells ...any) {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-28s"+strings.Repeat("%10v", len(cells)), append([]any{what}, cells...)...), " "))
	}
	row("", "expected", "found", "lost", "duplicated", "reordered")
	row("lines in the logs", v.Logs.Expected, v.Logs.Found, v.Logs.Lost, v.Logs.Duplicated, v.Logs.Reordered)
	row(fmt.Sprintf("lines received by %d clients", v.Readers.Readers), v.Readers.Expected, v.Readers.Found, v.Readers.Lost, v.Readers.Duplicated, v.Readers.Reordered)
	row("acknowledged firings", v.Firings.Acknowledged, v.Firings.Ran, v.Firings.Lost, v.Firings.Duplicated)
	row("executions that succeeded", v.Executions.Started, v.Executions.Succeeded)
	row("executions left running", 0, v.Executions.LeftRunning)
	row("agents interrupted", 0, v.Executions.AgentsInterrupted)
	row("processes left behind", 0, len(v.ProcessesLeft))
	for _, p := range v.ProcessesLeft {
		fmt.Fprintf(w, "  left: %s\n", term.Printable(p))
	}
	fmt.Fprintln(w)
	if v.Folder != "" {
		fmt.Fprintf(w, "The folder was kept: %s (the server's log is server.log).\n", v.Folder)
	}
	if v.Passed {
		_, err := fmt.Fprintln(w, term.Paint(os.Stdout, term.Green, "All guarantees held."))
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n  %s\nTo repeat: agented chaos --keep --seed %d\n",
		term.Paint(os.Stdout, term.Red, "A guarantee was violated:"), strings.Join(v.Violations, "\n  "), v.Seed)
	return err
}

func times(n int) string { return format.Plural(n, "time", "times") }

// chaosProgress returns a function that writes progress to standard error: on a terminal it
// rewrites one line, elsewhere it prints only texts with line set.
func chaosProgress(quiet bool) func(bool, string, ...any) {
	live := term.IsTerminal(os.Stderr)
	return func(line bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		switch {
		case live && line:
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s\n", text)
		case live:
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s", text)
		case line && !quiet:
			fmt.Fprintln(os.Stderr, text)
		}
	}
}

// chaosAgentCommand is the agent that the executions of a test run start.
func chaosAgentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "chaos-agent", Short: "Print numbered lines for agented chaos", Hidden: true, Args: exactArgs(), RunE: func(cmd *cobra.Command, _ []string) error {
		dir, _ := cmd.Flags().GetString("dir")
		lines, _ := cmd.Flags().GetInt("lines")
		rate, _ := cmd.Flags().GetInt("rate")
		linger, _ := cmd.Flags().GetBool("linger")
		return chaos.Agent(cmd.Context(), dir, lines, rate, linger)
	}}
	cmd.Flags().String("dir", "", "folder for the agent's reports")
	cmd.Flags().Int("lines", 0, "number of lines to print; 0 prints until a file named stop exists")
	cmd.Flags().Int("rate", 200, "lines per second")
	cmd.Flags().Bool("linger", false, "leave a process behind in a session of its own")
	return cmd
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/diffview"
	"github.com/agented/agented/internal/logview"
	"github.com/agented/agented/internal/term"
)

// executionTook formats the duration of an execution.
func executionTook(e *client.Execution) string {
	if e.DurationMS != nil {
		return term.Duration(time.Duration(*e.DurationMS) * time.Millisecond)
	}
	if e.StartedAt != nil && e.FinishedAt == nil {
		return term.Duration(time.Since(*e.StartedAt)) + " so far"
	}
	return "-"
}

func executionCommand() *cobra.Command {
	c := group("execution", "List, follow, pause, cancel and retry executions",
		executionList(), executionShow(), executionLogs(), executionDiff(), executionPublications(), executionApprove(), executionReject(), executionCancel(), executionPause(), executionContinue(), executionRetry(), executionPin(true), executionPin(false))
	c.Aliases = []string{"exec"}
	return c
}

func executionList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List executions, newest first", Args: exactArgs(),
		Example: `  agented execution list --status failed,timeout
  agented execution list --class no_effect
  agented execution list --trigger hello --limit 100`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			statuses, _ := cmd.Flags().GetStringSlice("status")
			q := client.ExecutionQuery{Status: strings.Join(statuses, ",")}
			if q.TriggerID, err = triggerFlag(cmd, c); err != nil {
				return err
			}
			q.Class, _ = cmd.Flags().GetString("class")
			limit, _ := cmd.Flags().GetInt("limit")
			return showList(cmd, c.Executions(cmd.Context(), q, limit), listing{
				header: "ID TRIGGER BACKEND STATUS CREATED DURATION NOTE", empty: "No executions match.",
			}, func(e *client.Execution) []string {
				note, status := e.Error, e.Status
				if note == "" {
					note = e.Reason
				}
				if p := e.Pause; p != nil && status == "running" {
					status = "paused"
					note = strings.TrimPrefix(fmt.Sprintf("%s; cancelled at %s unless it is continued", p.Reason, p.Until.Local().Format("2006-01-02 15:04 MST")), "; ")
				}
				return []string{e.ID, e.TriggerName, e.Backend, status, term.Ago(e.CreatedAt), executionTook(e), note}
			})
		},
	})
	cmd.Flags().StringSlice("status", nil, "only executions with these statuses: pending running success failed timeout cancelled interrupted")
	cmd.Flags().String("class", "", "only executions with an attempt that ended with this class, such as no_effect")
	cmd.Flags().String("trigger", "", "only executions of this trigger (id or name)")
	cmd.Flags().Int("limit", 20, "maximum number of executions; 0 shows all")
	return cmd
}

func executionShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show EXECUTION", Short: "Show an execution", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			id, err := executionID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			e, err := c.Execution(cmd.Context(), id)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, e)
			}
			return showExecution(os.Stdout, &e.Value, accountNames(cmd.Context(), c, &e.Value))
		},
	})
}

// showRefused prints the addresses that the network of an attempt refused.
func showRefused(a *client.Attempt, line func(name, text string)) {
	if a.Broker == nil {
		return
	}
	for _, r := range a.Broker.Refused {
		line("refused", fmt.Sprintf("%s (%d): %s", term.Printable(r.Address), r.Count, term.Printable(r.Reason)))
	}
	if a.Broker.More > 0 {
		line("refused", fmt.Sprintf("other addresses (%d)", a.Broker.More))
	}
}

// showExecution prints an execution. accountName maps the id of an account to its label.
func showExecution(w io.Writer, e *client.Execution, accountName func(id string) string) error {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name, value)
		}
	}
	line("id", e.ID)
	line("trigger", term.Indented(e.TriggerName, 11))
	line("backend", e.Backend)
	status := e.Status
	if e.Pause != nil && status == "running" {
		status = "paused"
	}
	line("status", term.Paint(os.Stdout, term.StatusColour(status), status))
	line("reason", term.Indented(e.Reason, 11))
	if e.Error != e.Reason {
		line("error", term.Indented(e.Error, 11))
	}
	if p := e.Pause; p != nil {
		line("paused", fmt.Sprintf("%s; cancelled at %s unless it is continued", term.Indented(p.Reason, 11), p.Until.Local().Format("2006-01-02 15:04 MST")))
	}
	if c := e.Checkout; c != nil {
		line("commit", c.Commit+" of "+term.Indented(c.Repository, 11))
	}
	line("changes", changesLine(e))
	line("publishes", strings.Join(publicationLines(e), "; "))
	line("source", e.Source)
	line("retry of", e.RetryOf)
	line("created", term.Ago(e.CreatedAt))
	line("took", executionTook(e))
	if e.ExitCode != nil {
		line("exit code", strconv.Itoa(*e.ExitCode))
	}
	line("usage", usageLine(e.Usage))
	line("log", fmt.Sprintf("%d lines: agented execution logs %s", e.LastSeq, e.ID))
	for _, a := range e.Attempts {
		text := a.Status
		if a.Class != "" {
			text += " (" + strings.ReplaceAll(a.Class, "_", " ") + ")"
		}
		if a.Account != "" {
			text += ", account " + term.Printable(accountName(a.Account))
		}
		if a.CLIVersion != "" {
			text += ", CLI " + term.Printable(a.CLIVersion)
		}
		if a.Sandbox != "" && a.Sandbox != "off" {
			text += ", sandbox " + term.Printable(a.Sandbox)
		}
		if a.Broker != nil && a.Broker.Credentials {
			text += ", credentials in the broker"
		}
		if a.Signal != "" {
			text += ", ended by " + a.Signal
		}
		if a.SessionID != "" {
			text += ", session " + term.Printable(a.SessionID)
		}
		line(fmt.Sprintf("attempt %d", a.Number), text)
		if a.Reason != "" && a.Reason != e.Reason {
			line("", term.Indented(a.Reason, 11))
		}
		showRefused(&a, line)
		showClauses(w, a.Clauses)
	}
	for _, block := range []struct{ name, text string }{{"prompt", e.Prompt}, {"result", e.Result}, {"output", string(e.Output)}} {
		if block.text != "" {
			fmt.Fprintf(w, "\n%s:\n%s\n", block.name, strings.TrimRight(term.Safe(block.text), "\n"))
		}
	}
	return nil
}

// usageLine summarizes tokens and cost; empty if they are unknown.
func usageLine(u *client.Tokens) string {
	if u == nil || u.InputTokens == nil || u.OutputTokens == nil {
		return ""
	}
	cost := "cost unknown"
	if u.CostUSD != nil {
		cost = fmt.Sprintf("$%.4f", *u.CostUSD)
		if u.Estimated {
			cost = "about " + cost
		}
	}
	return fmt.Sprintf("%d tokens in, %d out, %s", *u.InputTokens, *u.OutputTokens, cost)
}

// showClauses prints the evaluation of an outcome contract: each clause, and the evidence of those
// that are not met.
func showClauses(w io.Writer, clauses []client.Clause) {
	for _, c := range clauses {
		mark, colour := "not met", term.StatusColour("failed")
		if c.Met {
			mark, colour = "met", term.StatusColour("success")
		}
		if c.Pending {
			mark = "met so far"
		}
		fmt.Fprintf(w, "%-10s %s: %s: %s\n", "", term.Paint(os.Stdout, colour, mark), term.Printable(c.Name), term.Indented(c.Text, 11))
		if !c.Met && c.Evidence != "" {
			fmt.Fprintf(w, "%-13s%s\n", "", term.Indented(strings.TrimRight(c.Evidence, "\n"), 13))
		}
	}
}

func executionLogs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs EXECUTION", Short: "Print or follow the log of an execution", Args: exactArgs("the execution's id"),
		Long: `Print the log of an execution. The execution's standard output is printed to standard
output; its standard error and the notices of Agented are printed to standard error.
With -f the command follows the log until the execution ends, reconnects when the
server restarts, and exits with 0 if the execution succeeded, otherwise with 1.

The output of an agent is formatted for people: its messages, one line per tool call,
failures, and the final result. --raw prints the CLI's lines unchanged. On a
terminal, colours are kept and all other escape sequences are removed, unless --raw
is given.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if args[0], err = executionID(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			after, _ := cmd.Flags().GetInt64("after")
			asJSON := wantJSON(cmd)
			raw, _ := cmd.Flags().GetBool("raw")
			if follow, _ := cmd.Flags().GetBool("follow"); follow {
				return followToEnd(cmd, c, args[0], followOptions{after: after, json: asJSON, raw: raw, watchOnly: true})
			}
			p := logview.New(logview.Options{JSON: asJSON, Raw: raw, Backends: backendsOf(cmd.Context(), c, args[0])})
			for {
				got, err := c.Log(cmd.Context(), args[0], after)
				if err != nil {
					return err
				}
				page := got.Value
				for _, l := range page.Lines {
					p.Line(l)
				}
				if len(page.Lines) == 0 || page.Next == after || p.Err() != nil {
					p.End()
					return p.Err()
				}
				after = page.Next
			}
		},
	}
	cmd.Flags().BoolP("follow", "f", false, "follow until the execution ends, and exit with its result")
	cmd.Flags().Int64("after", 0, "start after this line number")
	cmd.Flags().Bool("json", false, "print one JSON object per line")
	rawFlag(cmd)
	return cmd
}

func executionCancel() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "cancel EXECUTION", Short: "Cancel an execution", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			e, err := c.CancelExecution(cmd.Context(), id)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, e)
			}
			fmt.Fprintln(os.Stderr, "cancelling "+id)
			return nil
		},
	})
}

func executionRetry() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "retry EXECUTION", Short: "Run an ended execution again, as a new execution", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			retried, err := c.RetryExecution(cmd.Context(), id)
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, retried)
			}
			fmt.Println(retried.Value.ExecutionID)
			return nil
		},
	})
}

// connectTo returns a client, and the id of the execution that an argument refers to.
func connectTo(cmd *cobra.Command, ref string) (*client.Client, string, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, "", err
	}
	id, err := executionID(cmd.Context(), c, ref)
	return c, id, err
}

// followOptions configures how a followed execution is shown.
type followOptions struct {
	after     int64
	json      bool
	raw       bool // print the CLI's output unchanged
	exitCode  bool // exit with the exit code of the process
	watchOnly bool // an interrupt stops following and cancels nothing
}

// followToEnd prints a log until the execution ends, and returns an error that carries the exit
// code for its result.
func followToEnd(cmd *cobra.Command, c *client.Client, id string, o followOptions) error {
	ctx := cmd.Context()
	p := logview.New(logview.Options{JSON: o.json, Raw: o.raw, Backends: backendsOf(ctx, c, id)})
	done, err := c.Follow(ctx, id, o.after, client.Follower{
		Line: p.Line,
		Status: func(s client.Status) {
			if s.Status == "pending" && s.Reason != "" {
				p.Notice("agented: pending: " + term.Indented(s.Reason, 9))
			}
		},
		Reconnecting: func(error) {
			p.Notice("agented: the connection was lost; reconnecting")
		},
	})
	p.End()
	if errors.Is(err, context.Canceled) {
		return detached(c, id, o)
	}
	if err != nil {
		return err
	}
	if p.Err() != nil {
		return p.Err()
	}
	if done.Status != "success" {
		text := done.Status
		if done.Error != "" {
			text += ": " + term.Indented(done.Error, 9)
		}
		fmt.Fprintln(os.Stderr, term.Paint(os.Stderr, term.StatusColour(done.Status), "agented: "+text))
	}
	switch {
	case o.exitCode && done.ExitCode != nil:
		if *done.ExitCode == 0 && done.Status != "success" {
			return exitError(exitFailed)
		}
		if *done.ExitCode == 0 {
			return nil
		}
		return exitError(*done.ExitCode)
	case done.Status != "success":
		return exitError(exitFailed)
	}
	return nil
}

// backendsOf returns a function that fetches the backend of each attempt of an execution.
func backendsOf(ctx context.Context, c *client.Client, id string) func() (map[int]string, error) {
	return func() (map[int]string, error) {
		e, err := c.Execution(ctx, id)
		if err != nil {
			return nil, err
		}
		backends := map[int]string{0: e.Value.Backend}
		for _, a := range e.Value.Attempts {
			if a.Backend != "" {
				backends[a.Number] = a.Backend
			}
		}
		return backends, nil
	}
}

func executionDiff() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "diff EXECUTION", Short: "Show which files an execution changed", Args: exactArgs("the execution's id"),
		Long: `Print what an execution changed in the git repository that it worked in, as a patch. The
changes include commits, uncommitted work and files that are not tracked. On a
terminal the patch is coloured, and control characters are replaced; otherwise it is
printed as it is, for git apply.`,
		Example: `  agented execution diff exec-01jdc4q7zv8m3k2n5p6r7s8t9w --stat
  agented execution diff exec-01jdc4q7zv8m3k2n5p6r7s8t9w > changes.patch`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			id, err := executionID(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			attempt, _ := cmd.Flags().GetInt("attempt")
			got, err := c.Changes(cmd.Context(), id, attempt)
			if err != nil {
				return err
			}
			stat, _ := cmd.Flags().GetBool("stat")
			names, _ := cmd.Flags().GetBool("name-only")
			changes := &got.Value
			switch {
			case wantJSON(cmd):
				return term.PrintJSON(os.Stdout, got)
			case !changes.Recorded:
				return agented.Errorf(agented.NotFound, "%s", changes.Reason)
			case names:
				return diffview.Names(os.Stdout, changes)
			case stat:
				return diffview.Stat(os.Stdout, changes)
			}
			if changes.Reason != "" {
				fmt.Fprintln(os.Stderr, term.Printable(changes.Reason))
			}
			if changes.PatchSize == 0 {
				return nil
			}
			patch, err := c.Patch(cmd.Context(), id, attempt)
			if err != nil {
				return err
			}
			defer patch.Close()
			return diffview.Patch(os.Stdout, patch)
		},
	})
	cmd.Flags().Bool("stat", false, "print a list of files with counts, the commits and the artifacts")
	cmd.Flags().Bool("name-only", false, "print the paths of the changed files")
	cmd.Flags().Int("attempt", 0, "number of the attempt; 0 is the latest that has changes")
	cmd.MarkFlagsMutuallyExclusive("stat", "name-only", "json")
	return cmd
}

// changesLine summarizes what an execution changed; empty if nothing was recorded.
func changesLine(e *client.Execution) string {
	c := e.Changes
	if c == nil {
		return ""
	}
	text := diffview.Summary(c.Files, c.Added, c.Removed)
	if c.Artifacts > 0 {
		text += fmt.Sprintf(", %d artifacts", c.Artifacts)
	}
	if c.Reason != "" {
		text += "; " + term.Printable(c.Reason)
	}
	return text + ": agented execution diff " + e.ID
}

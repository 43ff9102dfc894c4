package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
)

// executionRow is what the commands show of an execution.
type executionRow struct {
	ID          string     `json:"id"`
	TriggerName string     `json:"trigger_name"`
	Backend     string     `json:"backend"`
	Status      string     `json:"status"`
	Reason      string     `json:"reason"`
	Source      string     `json:"source"`
	CreatedAt   *time.Time `json:"created_at"`
	StartedAt   *time.Time `json:"started_at"`
	FinishedAt  *time.Time `json:"finished_at"`
	DurationMS  *int64     `json:"duration_ms"`
	ExitCode    *int       `json:"exit_code"`
	Error       string     `json:"error_message"`
	Result      string     `json:"result"`
	Prompt      string     `json:"prompt"`
	RetryOf     string     `json:"retry_of"`
	LastSeq     int64      `json:"last_seq"`
	Attempts    []struct {
		Number     int    `json:"number"`
		Status     string `json:"status"`
		CLIVersion string `json:"cli_version"`
		ExitCode   *int   `json:"exit_code"`
		Signal     string `json:"signal"`
		SessionID  string `json:"session_id"`
	} `json:"attempts"`
	Usage *struct {
		InputTokens  *int64   `json:"input_tokens"`
		OutputTokens *int64   `json:"output_tokens"`
		CostUSD      *float64 `json:"cost_usd"`
		Estimated    bool     `json:"cost_estimated"`
	} `json:"usage"`
	Pause *struct {
		Reason string    `json:"paused_reason"`
		Until  time.Time `json:"paused_until"`
	} `json:"pause"`
	Checkout *struct {
		Repository string `json:"repository"`
		Commit     string `json:"commit"`
	} `json:"checkout"`
}

func (e *executionRow) took() string {
	if e.DurationMS != nil {
		return short(time.Duration(*e.DurationMS) * time.Millisecond)
	}
	if e.StartedAt != nil && e.FinishedAt == nil {
		return short(time.Since(*e.StartedAt)) + " so far"
	}
	return "-"
}

func executionCommand() *cobra.Command {
	c := group("execution", "List, follow, pause, cancel and retry executions",
		executionList(), executionShow(), executionLogs(), executionCancel(), executionPause(), executionContinue(), executionRetry(), executionPin(true), executionPin(false))
	c.Aliases = []string{"exec"}
	return c
}

func executionList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List executions, newest first", Args: exactArgs(),
		Example: `  agented execution list --status failed,timeout
  agented execution list --trigger hello --limit 100`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			query := url.Values{}
			if status, _ := cmd.Flags().GetStringSlice("status"); len(status) > 0 {
				query.Set("status", strings.Join(status, ","))
			}
			if err := ofTrigger(cmd, c, query); err != nil {
				return err
			}
			limit, _ := cmd.Flags().GetInt("limit")
			return showList(cmd, c, listing{
				path: "/api/v1/executions", query: query, limit: limit,
				header: "ID TRIGGER BACKEND STATUS CREATED TOOK NOTE", empty: "No executions match.",
			}, func(e *executionRow) []string {
				note := e.Error
				if note == "" {
					note = e.Reason
				}
				return []string{e.ID, e.TriggerName, e.Backend, e.Status, ago(e.CreatedAt), e.took(), note}
			})
		},
	})
	cmd.Flags().StringSlice("status", nil, "only these: pending running success failed timeout cancelled interrupted")
	cmd.Flags().String("trigger", "", "only of this trigger, by id or name")
	cmd.Flags().Int("limit", 20, "at most so many; 0 for all")
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
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, "/api/v1/executions/"+url.PathEscape(args[0]), nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var e executionRow
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			return showExecution(os.Stdout, &e)
		},
	})
}

func showExecution(w io.Writer, e *executionRow) error {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name, value)
		}
	}
	line("id", e.ID)
	line("trigger", printable(e.TriggerName))
	line("backend", e.Backend)
	line("status", paint(os.Stdout, statusColour(e.Status), e.Status))
	line("reason", printable(e.Reason))
	if e.Error != e.Reason {
		line("error", printable(e.Error))
	}
	if p := e.Pause; p != nil {
		line("paused", fmt.Sprintf("%s; ended at %s unless it is continued", printable(p.Reason), p.Until.Local().Format("2006-01-02 15:04")))
	}
	if c := e.Checkout; c != nil {
		line("commit", c.Commit+" of "+printable(c.Repository))
	}
	line("source", e.Source)
	line("retry of", e.RetryOf)
	line("created", ago(e.CreatedAt))
	line("took", e.took())
	if e.ExitCode != nil {
		line("exit code", strconv.Itoa(*e.ExitCode))
	}
	if u := e.Usage; u != nil && u.InputTokens != nil && u.OutputTokens != nil {
		cost := "cost unknown"
		if u.CostUSD != nil {
			cost = fmt.Sprintf("$%.4f", *u.CostUSD)
			if u.Estimated {
				cost = "about " + cost
			}
		}
		line("usage", fmt.Sprintf("%d tokens in, %d out, %s", *u.InputTokens, *u.OutputTokens, cost))
	}
	line("log", fmt.Sprintf("%d lines: agented execution logs %s", e.LastSeq, e.ID))
	for _, a := range e.Attempts {
		text := a.Status
		if a.CLIVersion != "" {
			text += ", CLI " + printable(a.CLIVersion)
		}
		if a.Signal != "" {
			text += ", ended by " + a.Signal
		}
		if a.SessionID != "" {
			text += ", session " + printable(a.SessionID)
		}
		line(fmt.Sprintf("attempt %d", a.Number), text)
	}
	for _, block := range []struct{ name, text string }{{"prompt", e.Prompt}, {"result", e.Result}} {
		if block.text != "" {
			fmt.Fprintf(w, "\n%s:\n%s\n", block.name, strings.TrimRight(safe(block.text), "\n"))
		}
	}
	return nil
}

// safe removes from a text what could steer a terminal, but keeps its lines.
func safe(s string) string {
	if !terminal(os.Stdout) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

func executionLogs() *cobra.Command {
	cmd := &cobra.Command{
		Use: "logs EXECUTION", Short: "Print the log of an execution, or follow it", Args: exactArgs("the execution's id"),
		Long: `Print the log of an execution. Lines of standard output go to standard output,
lines of standard error and of Agented itself to standard error. With -f it goes
on until the execution ends, over restarts of the server, and exits with the
outcome.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			after, _ := cmd.Flags().GetInt64("after")
			asJSON := wantJSON(cmd)
			if follow, _ := cmd.Flags().GetBool("follow"); follow {
				return followToEnd(cmd, c, args[0], followOptions{after: after, json: asJSON, watchOnly: true})
			}
			p := newPrinter(asJSON)
			for {
				var page struct {
					Lines []client.Line `json:"lines"`
					Next  int64         `json:"next_after"`
				}
				path := fmt.Sprintf("/api/v1/executions/%s/log?limit=1000&after=%d", url.PathEscape(args[0]), after)
				if err := c.Do(cmd.Context(), http.MethodGet, path, nil, nil, &page); err != nil {
					return err
				}
				for _, l := range page.Lines {
					p.line(l)
				}
				if len(page.Lines) == 0 || page.Next == after {
					return p.err
				}
				after = page.Next
			}
		},
	}
	cmd.Flags().BoolP("follow", "f", false, "go on until the execution ends, and exit with its outcome")
	cmd.Flags().Int64("after", 0, "start behind this line")
	cmd.Flags().Bool("json", false, "print one JSON object for each line")
	return cmd
}

func executionCancel() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "cancel EXECUTION", Short: "End an execution", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return act(cmd, args[0], "cancel", "asked to end "+args[0])
		},
	})
}

func executionRetry() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "retry EXECUTION", Short: "Run an execution that has ended once more, as a new one", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return act(cmd, args[0], "retry", "")
		},
	})
}

// act posts a verb to an execution.
func act(cmd *cobra.Command, id, verb, said string) error {
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/executions/"+url.PathEscape(id)+"/"+verb, nil, nil, &raw); err != nil {
		return err
	}
	if wantJSON(cmd) {
		return printJSON(os.Stdout, raw)
	}
	if said != "" {
		fmt.Fprintln(os.Stderr, said)
		return nil
	}
	var got struct {
		ID string `json:"execution_id"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		return err
	}
	fmt.Println(got.ID)
	return nil
}

// printer writes log lines: an agent's output where it would have gone, so
// that a followed command can be piped like the command itself.
type printer struct {
	json bool
	err  error
}

func newPrinter(asJSON bool) *printer { return &printer{json: asJSON} }

func (p *printer) line(l client.Line) {
	if p.json {
		b, err := json.Marshal(l)
		if err == nil {
			_, err = fmt.Printf("%s\n", b)
		}
		p.err = errors.Join(p.err, err)
		return
	}
	end := "\n"
	if l.NoEOL || l.Part == "first" || l.Part == "middle" {
		end = ""
	}
	var err error
	switch l.Stream {
	case "stdout":
		_, err = fmt.Fprint(os.Stdout, l.Content, end)
	case "stderr":
		_, err = fmt.Fprint(os.Stderr, l.Content, end)
	default:
		_, err = fmt.Fprintln(os.Stderr, paint(os.Stderr, faint, "agented: "+l.Content))
	}
	if p.err == nil {
		p.err = err
	}
}

// followOptions says how a followed execution is shown.
type followOptions struct {
	after     int64
	json      bool
	exitCode  bool // exit with the process's own code
	watchOnly bool // an interrupt ends the watching only, and nothing is cancelled
}

// followToEnd prints a log until the execution ends, and returns an error that
// exits with its outcome.
func followToEnd(cmd *cobra.Command, c *client.Client, id string, o followOptions) error {
	p := newPrinter(o.json)
	ctx := cmd.Context()
	done, err := c.Follow(ctx, id, o.after, client.Follower{
		Line: p.line,
		Status: func(s client.Status) {
			if s.Status == "pending" && s.Reason != "" {
				fmt.Fprintln(os.Stderr, paint(os.Stderr, faint, "agented: pending: "+printable(s.Reason)))
			}
		},
		Reconnecting: func(error) {
			fmt.Fprintln(os.Stderr, paint(os.Stderr, faint, "agented: the connection was lost; reconnecting"))
		},
	})
	if errors.Is(err, context.Canceled) {
		return detached(c, id, o)
	}
	if err != nil {
		return err
	}
	if p.err != nil {
		return p.err
	}
	if done.Status != "success" {
		text := done.Status
		if done.Error != "" {
			text += ": " + printable(done.Error)
		}
		fmt.Fprintln(os.Stderr, paint(os.Stderr, statusColour(done.Status), "agented: "+text))
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

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

// drainCommand switches drain mode on and off.
func drainCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "drain", Short: "Stop starting executions (drain mode), and optionally wait for running ones or cancel them", Args: exactArgs(), GroupID: "server",
		Long: `Switch drain mode on: the server starts no more executions. Triggers still fire;
their executions are stored and wait. Running executions continue. Drain mode stays
on, also over a restart, until "agented drain --off".

--wait returns when no execution is running; --cancel cancels running executions
first. With --timeout the exit code is 1 if an execution is still running then.`,
		RunE: drain,
	})
	f := cmd.Flags()
	f.Bool("wait", false, "wait until no execution is running")
	f.Bool("cancel", false, "cancel running executions, and wait until they have ended")
	f.Bool("off", false, "switch drain mode off and start executions again")
	f.Bool("status", false, "only show the state")
	addDuration(f, "timeout", 0, "maximum time to wait, for example 10m (default: no limit)")
	cmd.MarkFlagsMutuallyExclusive("wait", "cancel", "off", "status")
	return cmd
}

func drain(cmd *cobra.Command, _ []string) error {
	c, err := connect(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	wait, _ := cmd.Flags().GetBool("wait")
	end, _ := cmd.Flags().GetBool("cancel")
	off, _ := cmd.Flags().GetBool("off")
	ask, _ := cmd.Flags().GetBool("status")
	most, _ := cmd.Flags().GetDuration("timeout")
	var v client.Response[client.Drain]
	if ask {
		v, err = c.Drain(ctx)
	} else {
		v, err = c.SetDrain(ctx, !off)
	}
	if err != nil {
		return err
	}
	over := errors.New("timeout")
	if wait || end {
		bounded, cancel := ctx, context.CancelFunc(func() {})
		if most > 0 {
			bounded, cancel = context.WithTimeoutCause(ctx, most, over)
		}
		defer cancel()
		err = awaitDrained(bounded, c, end, &v.Value)
		if err != nil && (ctx.Err() != nil || !errors.Is(context.Cause(bounded), over)) {
			return err
		}
	}
	late := err != nil
	switch {
	case wantJSON(cmd):
		err = term.PrintJSON(os.Stdout, v.Value)
	case late:
		return agented.Errorf(agented.Unavailable, "after %s there is still %s running, and drain mode stays on: run `agented drain --cancel` to cancel it, or `agented drain --off` to start executions again",
			most, format.Plural(int(v.Value.Running), "execution", "executions"))
	default:
		fmt.Println(drainText(&v.Value))
		err = nil
	}
	if err == nil && late {
		return exitError(exitFailed)
	}
	return err
}

func drainText(v *client.Drain) string {
	runs := format.Plural(int(v.Running), "execution is running", "executions are running")
	waits := format.Plural(int(v.Pending), "waits", "wait")
	if !v.Drained {
		return "Drain mode is off. " + runs + ", " + waits + "."
	}
	return "Drain mode is on. " + runs + ", " + waits + ". Run `agented drain --off` to start executions again."
}

// awaitDrained returns when no execution is running. It prints progress on a terminal, and
// repeats requests while the server is unreachable.
func awaitDrained(ctx context.Context, c *client.Client, end bool, v *client.Drain) error {
	asked := map[string]bool{}
	said := int64(-1)
	for {
		if end {
			if err := cancelRunning(ctx, c, asked); err != nil && agented.KindOf(err) != agented.Unavailable {
				return err
			}
		}
		got, err := c.Drain(ctx)
		if err == nil {
			*v = got.Value
		}
		switch {
		case err != nil && agented.KindOf(err) != agented.Unavailable:
			return err
		case err == nil && !v.Drained:
			return agented.Errorf(agented.Conflict, "drain mode was switched off by another command: executions are started again")
		case err == nil && v.Running == 0:
			return nil
		case err == nil && v.Running != said:
			said = v.Running
			fmt.Fprintf(os.Stderr, "%s still running\n", format.Plural(int(said), "execution", "executions"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// cancelRunning cancels each running execution once; asked holds those that were cancelled.
func cancelRunning(ctx context.Context, c *client.Client, asked map[string]bool) error {
	for e, err := range c.Executions(ctx, client.ExecutionQuery{Status: "running"}, 0) {
		if err != nil {
			return err
		}
		id := e.Value.ID
		if asked[id] {
			continue
		}
		_, err := c.CancelExecution(ctx, id)
		if kind := agented.KindOf(err); err != nil && kind != agented.Conflict && kind != agented.NotFound { // it has ended meanwhile
			return err
		}
		asked[id] = true
	}
	return nil
}

// reloadCommand makes the server reload its settings.
func reloadCommand() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "reload", Short: "Reload the server's settings, and show what changed", Args: exactArgs(), GroupID: "server",
		Long: `Make the server reload its settings file, as SIGHUP does, and show which settings have
changed and which of them need a restart. Invalid settings change nothing: the error
names them with file and line, and the exit code is 2. The command needs an admin key,
such as the one that the server creates for its user's client commands.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			answer, err := c.Reload(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, answer)
			}
			got := answer.Value
			for _, w := range got.Warnings {
				fmt.Fprintln(os.Stderr, "agented: "+term.Indented(w, 0))
			}
			from := "the environment; there is no settings file"
			if got.File != "" {
				from = got.File
			}
			fmt.Println("settings reloaded from " + from)
			if len(got.Changed) > 0 {
				fmt.Println("in effect now: " + strings.Join(got.Changed, ", "))
			}
			if len(got.Restart) > 0 {
				fmt.Println("in effect after a restart: " + strings.Join(got.Restart, ", "))
			}
			if len(got.Changed)+len(got.Restart) == 0 {
				fmt.Println("no setting has changed")
			}
			return nil
		},
	})
}

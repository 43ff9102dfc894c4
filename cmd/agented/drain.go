package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

// drainView is how far a drain has come.
type drainView struct {
	Drained bool       `json:"drained"`
	Since   *time.Time `json:"since"`
	By      string     `json:"by"`
	Running int64      `json:"running"`
	Pending int64      `json:"pending"`
}

// drainCommand has the server start no more executions.
func drainCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "drain", Short: "Start no more executions, and wait for those that run or end them", Args: exactArgs(), GroupID: "server",
		Long: `Have the server start no more executions. What is fired from now on is stored and
waits, and says why; what runs goes on. The server stays so, also over a restart,
until "agented drain --off".

--wait returns when nothing runs any more; --cancel ends what runs first. With
--timeout the exit code is 1 if something still runs by then.`,
		RunE: drain,
	})
	f := cmd.Flags()
	f.Bool("wait", false, "wait until nothing runs")
	f.Bool("cancel", false, "cancel what runs, and wait until it has ended")
	f.Bool("off", false, "start executions again")
	f.Bool("status", false, "only say how it stands")
	f.Duration("timeout", 0, "how long to wait at most, as in 10m (default: until it is over)")
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
	var v drainView
	if ask {
		err = c.Do(ctx, http.MethodGet, "/api/v1/drain", nil, nil, &v)
	} else {
		err = c.Do(ctx, http.MethodPut, "/api/v1/drain", nil, map[string]bool{"drained": !off}, &v)
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
		err = awaitDrained(bounded, c, end, &v)
		if err != nil && (ctx.Err() != nil || !errors.Is(context.Cause(bounded), over)) {
			return err
		}
	}
	late := err != nil
	switch {
	case wantJSON(cmd):
		err = printJSON(os.Stdout, v)
	case late:
		return agented.Errorf(agented.Unavailable, "after %s there is still %s running; the server stays drained: `agented drain --cancel` ends them, `agented drain --off` takes it back",
			most, plural(int(v.Running), "execution", "executions"))
	default:
		fmt.Println(sayDrained(v))
		err = nil
	}
	if err == nil && late {
		return exitError(exitFailed)
	}
	return err
}

func sayDrained(v drainView) string {
	runs := plural(int(v.Running), "execution runs", "executions run")
	waits := plural(int(v.Pending), "waits", "wait")
	if !v.Drained {
		return "Executions are started. " + runs + ", " + waits + "."
	}
	return "No more executions are started. " + runs + ", " + waits + ". `agented drain --off` takes it back."
}

// awaitDrained returns when nothing runs; it says how far it is when somebody
// looks on. A server that is away for a moment is asked again.
func awaitDrained(ctx context.Context, c *client.Client, end bool, v *drainView) error {
	asked := map[string]bool{}
	said := int64(-1)
	for {
		if end {
			if err := cancelRunning(ctx, c, asked); err != nil && agented.KindOf(err) != agented.Unavailable {
				return err
			}
		}
		err := c.Do(ctx, http.MethodGet, "/api/v1/drain", nil, nil, v)
		switch {
		case err != nil && agented.KindOf(err) != agented.Unavailable:
			return err
		case err == nil && !v.Drained:
			return agented.Errorf(agented.Conflict, "somebody has taken the drain back: executions are started again")
		case err == nil && v.Running == 0:
			return nil
		case err == nil && v.Running != said:
			said = v.Running
			fmt.Fprintf(os.Stderr, "%s still running\n", plural(int(said), "execution", "executions"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// cancelRunning asks each execution that runs to end, once.
func cancelRunning(ctx context.Context, c *client.Client, asked map[string]bool) error {
	query := url.Values{"status": {"running"}, "limit": {"100"}}
	for {
		var page struct {
			Items []struct {
				ID string `json:"id"`
			} `json:"items"`
			Next *string `json:"next_cursor"`
		}
		if err := c.Do(ctx, http.MethodGet, "/api/v1/executions?"+query.Encode(), nil, nil, &page); err != nil {
			return err
		}
		for _, e := range page.Items {
			if asked[e.ID] {
				continue
			}
			err := c.Do(ctx, http.MethodPost, "/api/v1/executions/"+url.PathEscape(e.ID)+"/cancel", nil, nil, new(json.RawMessage))
			if kind := agented.KindOf(err); err != nil && kind != agented.Conflict && kind != agented.NotFound { // it has ended by itself
				return err
			}
			asked[e.ID] = true
		}
		if page.Next == nil {
			return nil
		}
		query.Set("cursor", *page.Next)
	}
}

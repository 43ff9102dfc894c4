package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func executionPause() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pause EXECUTION", Short: "Let a running execution stand still", Args: exactArgs("the execution's id"),
		Long: `Stop all processes of a running execution, and its limits of time and silence,
until it is continued. After a day, or what --for says, it is ended.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in := map[string]any{}
			if reason, _ := cmd.Flags().GetString("reason"); reason != "" {
				in["reason"] = reason
			}
			if d, _ := cmd.Flags().GetDuration("for"); d > 0 {
				in["seconds"] = int(d.Seconds())
			}
			var got struct {
				Pause struct {
					Until time.Time `json:"paused_until"`
				} `json:"pause"`
			}
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/executions/"+url.PathEscape(args[0])+"/pause", nil, in, &got); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s stands still; it is ended at %s unless it is continued before\n", args[0], got.Pause.Until.Local().Format("2006-01-02 15:04"))
			return nil
		},
	}
	cmd.Flags().String("reason", "", "why, for people")
	cmd.Flags().Duration("for", 0, "how long it may stand still, for example 2h")
	return cmd
}

func executionContinue() *cobra.Command {
	cmd := &cobra.Command{
		Use: "continue EXECUTION", Short: "Let a paused execution go on", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in := map[string]any{}
			if cmd.Flags().Changed("ceiling") {
				in["ceiling_usd"], _ = cmd.Flags().GetFloat64("ceiling")
			}
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/executions/"+url.PathEscape(args[0])+"/continue", nil, in, nil); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "%s goes on\n", args[0])
			return nil
		},
	}
	cmd.Flags().Float64("ceiling", 0, "new ceiling of its cost in US dollars; 0 is none")
	return cmd
}

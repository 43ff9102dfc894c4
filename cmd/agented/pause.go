package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/term"
)

func executionPause() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "pause EXECUTION", Short: "Pause a running execution", Args: exactArgs("the execution's id"),
		Long: `Stop all processes of a running execution, and the clocks of its timeouts, until it is
continued. An execution that is not continued within a day, or within the time of
--for, is cancelled.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if args[0], err = executionID(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			var in client.PauseRequest
			in.Reason, _ = cmd.Flags().GetString("reason")
			if d, _ := cmd.Flags().GetDuration("for"); d > 0 {
				in.Seconds = int(d.Seconds())
			}
			got, err := c.PauseExecution(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			var until time.Time
			if p := got.Value.Pause; p != nil {
				until = p.Until
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]any{"execution_id": args[0], "paused_until": until})
			}
			fmt.Fprintf(os.Stderr, "%s is paused; it is cancelled at %s unless it is continued before\n", args[0], until.Local().Format("2006-01-02 15:04 MST"))
			return nil
		},
	})
	cmd.Flags().String("reason", "", "reason, shown in the execution")
	addDuration(cmd.Flags(), "for", 0, "maximum time of the pause, for example 2h")
	return cmd
}

func executionContinue() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "continue EXECUTION", Short: "Continue a paused execution", Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if args[0], err = executionID(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			var in client.ContinueRequest
			if cmd.Flags().Changed("ceiling") {
				ceiling, _ := cmd.Flags().GetFloat64("ceiling")
				in.CeilingUSD = &ceiling
			}
			if _, err := c.ContinueExecution(cmd.Context(), args[0], in); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"execution_id": args[0]})
			}
			fmt.Fprintf(os.Stderr, "%s continues\n", args[0])
			return nil
		},
	})
	cmd.Flags().Float64("ceiling", 0, "new cost ceiling in US dollars; 0 removes the ceiling")
	return cmd
}

package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/term"
)

func usageCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "usage", Short: "Show the tokens and costs of executions", Args: exactArgs(), GroupID: "client",
		Long: `Sum up the tokens and costs of the attempts that ended in the last days. An unknown
cost is shown as unknown, never as 0. A sum marked with ~ contains costs that were
estimated from the price list. Days without attempts are omitted.`,
		Example: `  agented usage
  agented usage --by trigger --days 7`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			by, _ := cmd.Flags().GetString("by")
			days, _ := cmd.Flags().GetInt("days")
			if days < 1 {
				return usageError{fmt.Errorf("--days must be at least 1")}
			}
			report, err := c.Usage(cmd.Context(), by, time.Now().AddDate(0, 0, -days))
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, report)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintf(w, "%s\tATTEMPTS\tINPUT\tOUTPUT\tCOST\n", map[string]string{"day": "DAY", "trigger": "TRIGGER", "account": "ACCOUNT", "model": "MODEL", "backend": "BACKEND"}[by])
			count := func(n *int64) string {
				if n == nil {
					return "-"
				}
				return fmt.Sprint(*n)
			}
			var attempts, unknown, estimated int64
			var total float64
			for _, u := range report.Value.Items {
				if by == "day" && u.Attempts == 0 {
					continue
				}
				attempts, unknown, estimated = attempts+u.Attempts, unknown+u.Unknown, estimated+u.Estimated
				if u.Cost != nil {
					total += *u.Cost
				}
				name := u.Name
				if name == "" {
					name = u.Key
				}
				if name == "" {
					name = "(none)"
				}
				cost := "-"
				switch {
				case u.Cost != nil:
					cost = agented.Dollars(*u.Cost)
					if u.Estimated > 0 {
						cost = "~" + cost
					}
					if u.Unknown > 0 {
						cost += fmt.Sprintf(" + %d unknown", u.Unknown)
					}
				case u.Unknown > 0:
					cost = "unknown"
				}
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", term.Cell(name), u.Attempts, count(u.Input), count(u.Output), cost)
			}
			cost := agented.Dollars(total)
			if estimated > 0 {
				cost = "~" + cost
			}
			if unknown > 0 {
				cost += fmt.Sprintf(" + %d unknown", unknown)
			}
			fmt.Fprintf(w, "TOTAL\t%d\t\t\t%s\n", attempts, cost)
			return w.Flush()
		},
	})
	cmd.Flags().String("by", "day", "group by day, trigger, account, model or backend")
	cmd.Flags().Int("days", 30, "number of days")
	return cmd
}

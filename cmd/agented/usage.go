package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
)

func usageCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "usage", Short: "Add up what executions used and cost", Args: exactArgs(), GroupID: "client",
		Long: `Add up the tokens and the cost of the attempts that ended in the last days. A
cost that nobody knows is shown as unknown and never as 0; ~ marks sums in which
some costs were worked out from the list of prices.`,
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
			query := url.Values{"by": {by}, "from": {time.Now().AddDate(0, 0, -days).UTC().Format(time.RFC3339)}}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, "/api/v1/usage?"+query.Encode(), nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var r struct {
				Items []struct {
					Key       string   `json:"key"`
					Name      string   `json:"name"`
					Attempts  int64    `json:"attempts"`
					Unknown   int64    `json:"unknown_cost"`
					Estimated int64    `json:"estimated_cost"`
					Input     *int64   `json:"input_tokens"`
					Output    *int64   `json:"output_tokens"`
					Cost      *float64 `json:"cost_usd"`
				} `json:"items"`
			}
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintf(w, "%s\tATTEMPTS\tINPUT\tOUTPUT\tCOST\n", map[string]string{"day": "DAY", "trigger": "TRIGGER", "account": "ACCOUNT", "model": "MODEL", "backend": "BACKEND"}[by])
			count := func(n *int64) string {
				if n == nil {
					return "-"
				}
				return fmt.Sprint(*n)
			}
			for _, u := range r.Items {
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
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", printable(name), u.Attempts, count(u.Input), count(u.Output), cost)
			}
			return w.Flush()
		},
	})
	cmd.Flags().String("by", "day", "day, trigger, account, model or backend")
	cmd.Flags().Int("days", 30, "how many days back")
	return cmd
}

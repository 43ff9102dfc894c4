package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

func budgetCommand() *cobra.Command {
	return group("budget", "Bound what executions cost", budgetList(), budgetCreate(), budgetUpdate(), budgetDelete())
}

// budgetRow is what people see of a budget.
type budgetRow struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Enabled bool       `json:"enabled"`
	Scope   string     `json:"scope"`
	Target  string     `json:"target"`
	Period  string     `json:"period"`
	Limit   float64    `json:"limit_usd"`
	Hard    bool       `json:"hard"`
	Pause   bool       `json:"pause"`
	Spent   float64    `json:"spent_usd"`
	Unknown int64      `json:"unknown_cost"`
	State   string     `json:"state"`
	Ends    *time.Time `json:"period_ends"`
}

func (b *budgetRow) what() string {
	kind := "tells"
	switch {
	case !b.Enabled:
		kind = "disabled"
	case b.Pause:
		kind = "waits and pauses"
	case b.Hard:
		kind = "waits"
	}
	return kind
}

func (b *budgetRow) spent() string {
	text := agented.Dollars(b.Spent)
	if b.Unknown > 0 {
		text += fmt.Sprintf(" + %d unknown", b.Unknown)
	}
	return text
}

func budgetList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List budgets and what is spent of them", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, "/api/v1/budgets", nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var list struct {
				Items []budgetRow `json:"items"`
			}
			if err := json.Unmarshal(raw, &list); err != nil {
				return err
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(os.Stderr, "There are no budgets.")
				return nil
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tNAME\tCOUNTS\tPERIOD\tSPENT\tLIMIT\tSTATE\tTHEN")
			for i := range list.Items {
				b := &list.Items[i]
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.ID, printable(b.Name), strings.TrimSpace(b.Scope+" "+b.Target),
					b.Period, b.spent(), agented.Dollars(b.Limit), b.State, b.what())
			}
			return w.Flush()
		},
	})
}

// findBudget finds a budget by its id or name.
func findBudget(cmd *cobra.Command, c *client.Client, ref string) (*budgetRow, error) {
	var list struct {
		Items []budgetRow `json:"items"`
	}
	if err := c.Do(cmd.Context(), http.MethodGet, "/api/v1/budgets", nil, nil, &list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if b := &list.Items[i]; b.ID == ref || strings.EqualFold(b.Name, ref) {
			return b, nil
		}
	}
	return nil, agented.Errorf(agented.NotFound, "there is no budget %q: agented budget list shows them", ref)
}

func budgetFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("limit", "", "US dollars in a period, for example 50")
	f.String("period", "", "day, week or month (default month)")
	f.String("trigger", "", "count only this trigger, by id or name")
	f.String("account", "", "count only this account, by id")
	f.Bool("hard", false, "new executions wait when it is used up")
	f.Bool("pause", false, "of a hard one: what runs is paused and asks")
	f.Int("warn", 80, "percent of the limit at which it is told first; 0: when it is reached")
	f.Bool("enabled", true, "count and act")
}

// budgetBody makes a request of the flags that were given.
func budgetBody(cmd *cobra.Command, c *client.Client) (map[string]any, error) {
	in := map[string]any{}
	f := cmd.Flags()
	if f.Changed("limit") {
		text, _ := f.GetString("limit")
		v, err := strconv.ParseFloat(strings.TrimPrefix(text, "$"), 64)
		if err != nil {
			return nil, usageError{fmt.Errorf("--limit %q is not a number of dollars", text)}
		}
		in["limit_usd"] = v
	}
	if f.Changed("period") {
		in["period"], _ = f.GetString("period")
	}
	for name, key := range map[string]string{"hard": "hard", "pause": "pause", "enabled": "enabled"} {
		if f.Changed(name) {
			in[key], _ = f.GetBool(name)
		}
	}
	if f.Changed("warn") {
		in["warn_percent"], _ = f.GetInt("warn")
	}
	if f.Changed("trigger") && f.Changed("account") {
		return nil, usageError{errors.New("--trigger and --account do not go together: make two budgets")}
	}
	if f.Changed("trigger") {
		ref, _ := f.GetString("trigger")
		_, t, err := findTrigger(cmd.Context(), c, ref)
		if err != nil {
			return nil, err
		}
		in["scope"], in["target"] = "trigger", t.ID
	}
	if f.Changed("account") {
		id, _ := f.GetString("account")
		in["scope"], in["target"] = "account", id
	}
	return in, nil
}

func printBudget(cmd *cobra.Command, raw json.RawMessage) error {
	if wantJSON(cmd) {
		return printJSON(os.Stdout, raw)
	}
	var b budgetRow
	if err := json.Unmarshal(raw, &b); err != nil {
		return err
	}
	fmt.Printf("%s %s: %s of %s a %s\n", b.ID, printable(b.Name), b.spent(), agented.Dollars(b.Limit), b.Period)
	return nil
}

func budgetCreate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "create NAME --limit DOLLARS", Short: "Create a budget", Args: exactArgs("the budget's name"),
		Example: `  agented budget create everything --limit 200
  agented budget create review --limit 5 --period day --trigger review --hard`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in, err := budgetBody(cmd, c)
			if err != nil {
				return err
			}
			in["name"] = args[0]
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/budgets", nil, in, &raw); err != nil {
				return err
			}
			return printBudget(cmd, raw)
		},
	})
	budgetFlags(cmd)
	return cmd
}

func budgetUpdate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "update BUDGET", Short: "Change a budget; what waits for it is looked at again", Args: exactArgs("the budget's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			b, err := findBudget(cmd, c, args[0])
			if err != nil {
				return err
			}
			in, err := budgetBody(cmd, c)
			if err != nil {
				return err
			}
			if len(in) == 0 {
				return usageError{errors.New("nothing to change: give a flag")}
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPatch, "/api/v1/budgets/"+url.PathEscape(b.ID), nil, in, &raw); err != nil {
				return err
			}
			return printBudget(cmd, raw)
		},
	})
	budgetFlags(cmd)
	return cmd
}

func budgetDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete BUDGET", Short: "Delete a budget; what waits for it goes on", Args: exactArgs("the budget's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			b, err := findBudget(cmd, c, args[0])
			if err != nil {
				return err
			}
			return c.Do(cmd.Context(), http.MethodDelete, "/api/v1/budgets/"+url.PathEscape(b.ID), nil, nil, nil)
		},
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/term"
)

func budgetCommand() *cobra.Command {
	return group("budget", "Limit the cost of executions", budgetList(), budgetCreate(), budgetUpdate(), budgetDelete())
}

// budgetEffect names what happens when the limit is reached.
func budgetEffect(b *client.Budget) string {
	kind := "notifies"
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

// budgetSpent formats what a budget has counted.
func budgetSpent(b *client.Budget) string {
	text := agented.Dollars(b.Spent)
	if b.Unknown > 0 {
		text += fmt.Sprintf(" + %d unknown", b.Unknown)
	}
	return text
}

func budgetList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List budgets and their usage", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.Budgets(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			list := got.Value
			if len(list.Items) == 0 {
				fmt.Fprintln(os.Stderr, "There are no budgets.")
				return nil
			}
			names := targetNames(cmd.Context(), c, list.Items)
			var rows [][]string
			for i := range list.Items {
				b := &list.Items[i]
				rows = append(rows, []string{
					b.ID, b.Name, strings.TrimSpace(b.Scope + " " + names(b.Target)),
					b.Period, budgetSpent(b), agented.Dollars(b.Limit), b.State, budgetEffect(b),
				})
			}
			return term.Table(os.Stdout, "ID NAME SCOPE PERIOD SPENT LIMIT STATE AT-LIMIT", rows)
		},
	})
}

// targetNames returns a function that maps the ids of triggers and accounts of budgets to names.
// A target that cannot be found keeps its id.
func targetNames(ctx context.Context, c *client.Client, list []client.Budget) func(id string) string {
	names := map[string]string{}
	counts := func(scope string) bool {
		return slices.ContainsFunc(list, func(b client.Budget) bool { return b.Scope == scope })
	}
	if counts("trigger") {
		for t, err := range c.Triggers(ctx, false, 0) {
			if err == nil {
				names[t.Value.ID] = t.Value.Name
			}
		}
	}
	if counts("account") {
		for a, err := range c.Accounts(ctx, 0) {
			if err == nil {
				names[a.Value.ID] = cmp.Or(a.Value.Label, a.Value.Name)
			}
		}
	}
	return func(id string) string { return cmp.Or(names[id], id) }
}

// findBudget finds a budget by its id or name.
func findBudget(cmd *cobra.Command, c *client.Client, ref string) (*client.Budget, error) {
	list, err := c.Budgets(cmd.Context())
	if err != nil {
		return nil, err
	}
	for i := range list.Value.Items {
		if b := &list.Value.Items[i]; b.ID == ref || naming.Same(b.Name, ref) {
			return b, nil
		}
	}
	return nil, agented.Errorf(agented.NotFound, "there is no budget %q: run `agented budget list` to list budgets", ref)
}

func budgetFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("limit", "", "limit in US dollars per period, for example 50")
	f.String("period", "", "day, week or month (default month)")
	f.String("trigger", "", "count only executions of this trigger (id or name)")
	f.String("account", "", "count only executions on this account (id, name or backend/name)")
	f.Bool("hard", false, "hold new executions when the limit is reached")
	f.Bool("pause", false, "with --hard: also pause running executions, until a user answers their question")
	f.Int("warn", 80, "send the first warning at this percentage of the limit; 0 warns when the limit is reached")
	f.Bool("enabled", true, "enable the budget")
}

// budgetChange builds the request from the flags.
func budgetChange(cmd *cobra.Command, c *client.Client) (*client.BudgetChange, error) {
	f := cmd.Flags()
	in := &client.BudgetChange{
		Period: flagText(cmd, "period"), WarnPercent: flagInt(cmd, "warn"),
		Hard: flagBool(cmd, "hard"), Pause: flagBool(cmd, "pause"), Enabled: flagBool(cmd, "enabled"),
	}
	if text := flagText(cmd, "limit"); text != nil {
		v, err := strconv.ParseFloat(strings.TrimPrefix(*text, "$"), 64)
		if err != nil {
			return nil, usageError{fmt.Errorf("--limit %q must be a number of US dollars, for example 50", *text)}
		}
		in.Limit = &v
	}
	if f.Changed("trigger") && f.Changed("account") {
		return nil, usageError{errors.New("--trigger and --account cannot be combined: create two budgets")}
	}
	if f.Changed("trigger") {
		ref, _ := f.GetString("trigger")
		t, err := findTrigger(cmd.Context(), c, ref)
		if err != nil {
			return nil, err
		}
		in.Scope, in.Target = "trigger", t.Value.ID
	}
	if f.Changed("account") {
		ref, _ := f.GetString("account")
		a, err := findAccount(cmd.Context(), c, ref)
		if err != nil {
			return nil, err
		}
		in.Scope, in.Target = "account", a.ID
	}
	return in, nil
}

func printBudget(cmd *cobra.Command, got client.Response[client.Budget]) error {
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, got)
	}
	b := &got.Value
	fmt.Printf("%s %s: %s of %s per %s\n", b.ID, term.Printable(b.Name), budgetSpent(b), agented.Dollars(b.Limit), b.Period)
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
			in, err := budgetChange(cmd, c)
			if err != nil {
				return err
			}
			in.Name = args[0]
			b, err := c.CreateBudget(cmd.Context(), *in)
			if err != nil {
				return err
			}
			return printBudget(cmd, b)
		},
	})
	budgetFlags(cmd)
	return cmd
}

func budgetUpdate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "update BUDGET", Short: "Change a budget, and check the executions that wait for it again", Args: exactArgs("the budget's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			b, err := findBudget(cmd, c, args[0])
			if err != nil {
				return err
			}
			in, err := budgetChange(cmd, c)
			if err != nil {
				return err
			}
			if *in == (client.BudgetChange{}) {
				return usageError{errors.New("nothing to change: use at least one flag")}
			}
			changed, err := c.UpdateBudget(cmd.Context(), b.ID, *in)
			if err != nil {
				return err
			}
			return printBudget(cmd, changed)
		},
	})
	budgetFlags(cmd)
	return cmd
}

func budgetDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete BUDGET", Short: "Delete a budget, and start the executions that wait for it", Args: exactArgs("the budget's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			b, err := findBudget(cmd, c, args[0])
			if err != nil {
				return err
			}
			if err := c.DeleteBudget(cmd.Context(), b.ID); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"deleted": b.ID})
			}
			fmt.Fprintf(os.Stderr, "deleted %s (%s)\n", term.Printable(b.Name), b.ID)
			return nil
		},
	})
}

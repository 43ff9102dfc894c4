package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/term"
)

func executionPin(on bool) *cobra.Command {
	do, verb, short, done := (*client.Client).PinExecution, "pin", "Pin an execution: exclude it and its log from retention", "is pinned: retention does not remove it"
	if !on {
		do, verb, short, done = (*client.Client).UnpinExecution, "unpin", "Unpin an execution: apply the retention limits to it again", "is no longer pinned: the retention limits apply to it"
	}
	return jsonFlag(&cobra.Command{
		Use: verb + " EXECUTION", Short: short, Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if args[0], err = executionID(cmd.Context(), c, args[0]); err != nil {
				return err
			}
			got, err := do(c, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			fmt.Fprintf(os.Stderr, "%s %s.\n", args[0], done)
			return nil
		},
	})
}

func pruneCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "prune", Short: "Remove data beyond the retention limits, or preview the removal", GroupID: "client", Args: exactArgs(),
		Long: `Remove data beyond the retention limits (the AGENTED_KEEP_… settings). The server also
does this every hour. Running, pending and pinned executions are kept. With
--dry-run nothing is removed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			dry, _ := cmd.Flags().GetBool("dry-run")
			do := c.Prune
			if dry {
				do = c.Retention
			}
			got, err := do(cmd.Context())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			_, err = os.Stdout.WriteString(retentionText(&got.Value, dry))
			return err
		},
	})
	cmd.Flags().Bool("dry-run", false, "only show what would be removed")
	return cmd
}

// failedRemovalsText lists the folders that could not be removed.
func failedRemovalsText(u *client.FailedRemovals) string {
	if u.Folders == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s could not be removed (%s); the server retries every hour:\n", format.Plural(int(u.Folders), "folder", "folders"), format.Bytes(u.Bytes))
	for _, i := range u.Items {
		fmt.Fprintf(&b, "  %s: %s\n", i.ID, i.Error)
	}
	return b.String()
}

// retentionText describes what a prune removed or, with dry, would remove.
func retentionText(v *client.Retention, dry bool) string {
	days := func(n int64) string {
		if n == 0 {
			return "no limit"
		}
		return format.Plural(int(n), "day", "days")
	}
	limit := func(n int64, text string) string {
		if n == 0 {
			return ""
		}
		return ", at most " + text
	}
	what := "REMOVED"
	if dry {
		what = "REMOVABLE"
	}
	var b strings.Builder
	e := v.Expired
	_ = term.Table(&b, "DATA LIMIT "+what, [][]string{
		{"executions", days(v.ExecutionsDays) + limit(v.ExecutionsMax, fmt.Sprint(v.ExecutionsMax)), fmt.Sprint(e.Executions)},
		{"log folders", days(v.LogsDays) + limit(v.LogsMaxBytes, format.Bytes(v.LogsMaxBytes)), fmt.Sprintf("%d (%s, including those of removed executions)", e.Logs, format.Bytes(e.Bytes))},
		{"deliveries", days(v.DeliveriesDays), fmt.Sprint(e.Deliveries)},
		{"ticks", days(v.TicksDays), fmt.Sprint(e.Ticks)},
		{"audit", days(v.AuditDays), fmt.Sprint(e.Audit)},
		{"idempotency keys", days(v.IdempotencyDays), fmt.Sprint(e.Keys)},
	})
	fmt.Fprintf(&b, "\nFolders of ended executions use %s, the database uses %s.\n", format.Bytes(v.ExecutionBytes), format.Bytes(v.DatabaseBytes))
	return b.String() + failedRemovalsText(&v.FailedRemovals)
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func executionPin(on bool) *cobra.Command {
	verb, short, done := "pin", "Keep an execution and its log, whatever the limits of retention say", "is kept"
	if !on {
		verb, short, done = "unpin", "Let retention have an execution again", "is kept as long as the limits say"
	}
	return jsonFlag(&cobra.Command{
		Use: verb + " EXECUTION", Short: short, Args: exactArgs("the execution's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/executions/"+url.PathEscape(args[0])+"/"+verb, nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			fmt.Fprintf(os.Stderr, "%s %s.\n", args[0], done)
			return nil
		},
	})
}

func pruneCommand() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "prune", Short: "Remove what the settings no longer keep, or say what that is", GroupID: "client", Args: exactArgs(),
		Long: `Remove what lies beyond the limits of retention (AGENTED_KEEP_… in the settings).
The server does so every hour by itself. What runs, waits or is pinned stays.
With --dry-run nothing is removed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			dry, _ := cmd.Flags().GetBool("dry-run")
			method, path := http.MethodPost, "/api/v1/retention/prune"
			if dry {
				method, path = http.MethodGet, "/api/v1/retention"
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), method, path, nil, nil, &raw); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			var v retentionRow
			if err := json.Unmarshal(raw, &v); err != nil {
				return err
			}
			_, err = os.Stdout.WriteString(v.text(dry))
			return err
		},
	})
	cmd.Flags().Bool("dry-run", false, "only say what would go")
	return cmd
}

// retentionRow is what the command shows of retention.
type retentionRow struct {
	ExecutionsDays  int64 `json:"executions_days"`
	ExecutionsMax   int64 `json:"executions_max"`
	LogsDays        int64 `json:"logs_days"`
	LogsMaxBytes    int64 `json:"logs_max_bytes"`
	DeliveriesDays  int64 `json:"deliveries_days"`
	TicksDays       int64 `json:"ticks_days"`
	AuditDays       int64 `json:"audit_days"`
	IdempotencyDays int64 `json:"idempotency_days"`
	ExecutionBytes  int64 `json:"execution_bytes"`
	DatabaseBytes   int64 `json:"database_bytes"`
	Expired         struct {
		Executions, Logs, Bytes, Deliveries, Ticks, Audit int64
		Keys                                              int64 `json:"idempotency_keys"`
	} `json:"expired"`
}

func (v *retentionRow) text(dry bool) string {
	days := func(n int64) string {
		if n == 0 {
			return "for ever"
		}
		return plural(int(n), "day", "days")
	}
	limit := func(n int64, text string) string {
		if n == 0 {
			return ""
		}
		return ", at most " + text
	}
	what := "REMOVED"
	if dry {
		what = "WOULD-GO"
	}
	var b strings.Builder
	e := v.Expired
	_ = table(&b, "WHAT KEPT "+what, [][]string{
		{"executions", days(v.ExecutionsDays) + limit(v.ExecutionsMax, fmt.Sprint(v.ExecutionsMax)), fmt.Sprint(e.Executions)},
		{"their folders with logs", days(v.LogsDays) + limit(v.LogsMaxBytes, bytesOf(v.LogsMaxBytes)), fmt.Sprintf("%d (with those of the executions %s)", e.Logs, bytesOf(e.Bytes))},
		{"deliveries", days(v.DeliveriesDays), fmt.Sprint(e.Deliveries)},
		{"ticks", days(v.TicksDays), fmt.Sprint(e.Ticks)},
		{"audit", days(v.AuditDays), fmt.Sprint(e.Audit)},
		{"idempotency keys", days(v.IdempotencyDays), fmt.Sprint(e.Keys)},
	})
	fmt.Fprintf(&b, "\nFolders of ended executions take %s, the database %s.\n", bytesOf(v.ExecutionBytes), bytesOf(v.DatabaseBytes))
	return b.String()
}

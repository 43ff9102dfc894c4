package main

import (
	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
)

func auditCommand() *cobra.Command {
	return group("audit", "Show and export the audit log", auditList())
}

func auditList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List audit entries, newest first", Args: exactArgs(),
		Example: `  agented audit list
  agented audit list --json > audit.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c.Audit(cmd.Context(), 0), listing{
				header: "TIME ACTOR ACTION SUBJECT DETAIL ADDRESS", empty: "There are no audit entries.",
			}, func(a *client.AuditEntry) []string {
				at := ""
				if a.At != nil {
					at = a.At.Local().Format("2006-01-02 15:04:05")
				}
				return []string{at, a.Actor, a.Action, a.Subject, a.Detail, a.Address}
			})
		},
	})
}

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/manifest"
)

func triggerApply() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Create or change triggers from YAML or JSON",
		Long: `Create or change triggers from YAML or JSON files. Triggers are identified by
name; applying the same file twice changes nothing. Fields that are missing from a
file keep their values. All files are applied in one transaction: if one is
invalid, nothing changes. --dry-run validates everything on the server and changes
nothing.

Triggers that are in no file stay unchanged. With --prune, apply deletes triggers
that an earlier apply with the same --set created and that are in no file now.
Triggers that were created in another way are never deleted.`,
		Example: `  agented trigger apply -f hello.yaml
  agented trigger apply -f triggers/ --dry-run
  agented trigger apply -f triggers/ --set team-a --prune --dry-run
  echo '{"name":"hello","backend":"command","command":["sh","-c","echo hi"]}' | agented trigger apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, _ := cmd.Flags().GetString("file")
			if path == "" {
				return usageError{errors.New("-f is missing: give a file, a folder, or - for standard input")}
			}
			wanted, err := manifest.Trigger.Read(cmd.Context(), path)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return applyAll(cmd, manifest.Trigger, c.ApplyTriggers, wanted)
		},
	})
	return applyFlags(cmd)
}

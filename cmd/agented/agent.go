package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/manifest"
	"github.com/agented/agented/internal/term"
)

func agentCommand() *cobra.Command {
	return group("agent", "List and change agents", agentList(), agentShow(), agentApply(), agentDelete())
}

func agentList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List agents", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c.Agents(cmd.Context(), 0), listing{
				header: "NAME BACKEND ENABLED CHANGED ROLE",
				empty:  "There are no agents yet. Create one with `agented agent apply -f FILE`.",
			}, func(a *client.Agent) []string {
				on := "yes"
				if !a.Enabled {
					on = "no"
				}
				return []string{a.Name, a.Backend, on, term.Ago(a.UpdatedAt), a.Role}
			})
		},
	})
}

func agentShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show AGENT", Short: "Show an agent as YAML that apply accepts", Args: exactArgs("the agent's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			a, err := c.Agent(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return showObject(cmd, a.Raw)
		},
	})
}

func agentApply() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "apply -f FILE|DIR", Short: "Create or change agents from YAML or JSON",
		Long: `Create or change agents from YAML or JSON files. Agents are identified by name;
applying the same file twice changes nothing. Fields that are missing from a file
keep their values. All files are applied in one transaction: if one is invalid,
nothing changes. --dry-run validates everything on the server and changes nothing.

Agents that are in no file stay unchanged. With --prune, apply deletes agents that
an earlier apply with the same --set created and that are in no file now.`,
		Example: `  agented agent apply -f reviewer.yaml
  agented agent show reviewer > reviewer.yaml
  echo '{"name":"reviewer","backend":"claude","role":"reviews what others write"}' | agented agent apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, _ := cmd.Flags().GetString("file")
			if path == "" {
				return usageError{errors.New("-f is missing: give a file, a folder, or - for standard input")}
			}
			wanted, err := manifest.Agent.Read(cmd.Context(), path)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return applyAll(cmd, manifest.Agent, c.ApplyAgents, wanted)
		},
	})
	return applyFlags(cmd)
}

func agentDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete AGENT", Short: "Delete an agent; its conversations and messages are kept", Args: exactArgs("the agent's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			a, err := c.Agent(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := c.DeleteAgent(cmd.Context(), a.Value.ID); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"deleted": a.Value.ID})
			}
			fmt.Fprintf(os.Stderr, "deleted %s (%s); its conversations and messages are kept\n", a.Value.Name, a.Value.ID)
			return nil
		},
	})
}

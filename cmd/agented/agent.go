package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func agentCommand() *cobra.Command {
	return group("agent", "List and change agents", agentList(), agentShow(), agentApply(), agentDelete())
}

func agentList() *cobra.Command {
	type row struct {
		Name      string     `json:"name"`
		Role      string     `json:"role"`
		Backend   string     `json:"backend"`
		Enabled   bool       `json:"enabled"`
		UpdatedAt *time.Time `json:"updated_at"`
	}
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List agents", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c, listing{
				path: agents.path, header: "NAME BACKEND ENABLED CHANGED ROLE",
				empty: "There are no agents yet. Make one with `agented agent apply -f FILE`.",
			}, func(a *row) []string {
				on := "yes"
				if !a.Enabled {
					on = "no"
				}
				return []string{a.Name, a.Backend, on, ago(a.UpdatedAt), a.Role}
			})
		},
	})
}

func agentShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show AGENT", Short: "Show an agent by id or name, as YAML that apply takes", Args: exactArgs("the agent's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var body map[string]any
			if err := c.Do(cmd.Context(), http.MethodGet, agents.path+"/"+url.PathEscape(args[0]), nil, nil, &body); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, body)
			}
			return printYAML(os.Stdout, body)
		},
	})
}

func agentApply() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "apply -f FILE|DIR", Short: "Create or change agents from YAML or JSON",
		Long: `Create or change agents from YAML or JSON files. An agent is found by its
name; applying the same file twice changes nothing. Fields that a file does not
name keep their value. Agents that no file names are left alone.`,
		Example: `  agented agent apply -f reviewer.yaml
  agented agent show reviewer > reviewer.yaml
  echo '{"name":"reviewer","backend":"claude","role":"reviews what others write"}' | agented agent apply -f -`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, _ := cmd.Flags().GetString("file")
			if path == "" {
				return usageError{errors.New("-f FILE is missing")}
			}
			wanted, err := agents.read(path)
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			dry, _ := cmd.Flags().GetBool("dry-run")
			return agents.applyAll(cmd, c, wanted, dry)
		},
	})
	cmd.Flags().StringP("file", "f", "", "a YAML or JSON file, a folder of them, or - for standard input")
	cmd.Flags().Bool("dry-run", false, "show what would change and change nothing")
	return cmd
}

func agentDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete AGENT", Short: "Delete an agent; its conversations and messages stay", Args: exactArgs("the agent's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var got struct{ ID, Name string }
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, agents.path+"/"+url.PathEscape(args[0]), nil, nil, &raw); err != nil {
				return err
			}
			if err := json.Unmarshal(raw, &got); err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), http.MethodDelete, agents.path+"/"+url.PathEscape(got.ID), nil, nil, nil); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]string{"deleted": got.ID})
			}
			fmt.Fprintf(os.Stderr, "deleted %s (%s); its conversations and messages stay\n", got.Name, got.ID)
			return nil
		},
	})
}

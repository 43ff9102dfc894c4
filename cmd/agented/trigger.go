package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/manifest"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/term"
)

func triggerCommand() *cobra.Command {
	return group("trigger", "List, change and fire triggers",
		triggerList(), triggerShow(), triggerApply(), triggerRun(), triggerMatch(), triggerDelete())
}

func triggerList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List triggers", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c.Triggers(cmd.Context(), false, 0), listing{
				header: "ID NAME BACKEND ENABLED STATUS LAST NEXT CHANGED",
				empty:  "There are no triggers yet. Create one with `agented trigger apply -f FILE`.",
			}, func(t *client.Trigger) []string {
				on := "yes"
				if !t.Enabled {
					on = "no"
				}
				status, last := "-", "-"
				if t.Last != nil {
					status, last = t.Last.Status, term.Ago(t.Last.CreatedAt)
				}
				return []string{t.ID, t.Name, t.Backend, on, status, last, term.Ago(t.NextRunAt), term.Ago(t.UpdatedAt)}
			})
		},
	})
}

func triggerShow() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "show TRIGGER", Short: "Show a trigger by id or name", Args: exactArgs("the trigger's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			t, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return showObject(cmd, t.Raw)
		},
	})
}

func triggerRun() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "run TRIGGER", Short: "Fire a trigger manually", Args: exactArgs("the trigger's id or name"),
		Example: `  agented trigger run hello
  agented trigger run review --message "look at the tests" --var branch=main --follow`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			t, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			var in client.RunRequest
			in.Message, _ = cmd.Flags().GetString("message")
			in.Vars, _ = cmd.Flags().GetStringToString("var")
			key, _ := cmd.Flags().GetString("idempotency-key")
			accepted, err := c.RunTrigger(cmd.Context(), t.Value.ID, key, in)
			if err != nil {
				return err
			}
			id := accepted.Value.ExecutionID
			if follow, _ := cmd.Flags().GetBool("follow"); follow {
				raw, _ := cmd.Flags().GetBool("raw")
				return followToEnd(cmd, c, id, followOptions{json: wantJSON(cmd), raw: raw})
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"execution_id": id})
			}
			fmt.Println(id)
			return nil
		},
	})
	cmd.Flags().StringP("message", "m", "", "text for {message} in the prompt")
	cmd.Flags().StringToString("var", nil, "value for {vars.NAME} as NAME=VALUE; may be repeated")
	cmd.Flags().String("idempotency-key", "", "idempotency key: requests with the same key fire only once")
	cmd.Flags().BoolP("follow", "f", false, "follow the log and exit with the execution's result")
	rawFlag(cmd)
	return cmd
}

func triggerDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete TRIGGER", Short: "Delete a trigger; its executions are kept", Args: exactArgs("the trigger's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			t, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.DeleteTrigger(cmd.Context(), t.Value.ID); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"deleted": t.Value.ID})
			}
			fmt.Fprintf(os.Stderr, "deleted %s (%s); its executions are kept\n", t.Value.Name, t.Value.ID)
			return nil
		},
	})
}

// showObject prints an object of the API as JSON, or as YAML that apply accepts.
func showObject(cmd *cobra.Command, raw json.RawMessage) error {
	var body map[string]any
	if err := json.Unmarshal(raw, &body); err != nil {
		return err
	}
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, body)
	}
	return manifest.WriteYAML(os.Stdout, body)
}

// findTrigger finds a trigger by id or, ignoring case, by name.
func findTrigger(ctx context.Context, c *client.Client, ref string) (none client.Response[client.Trigger], err error) {
	if agented.ValidID("trg", ref) {
		return c.Trigger(ctx, ref)
	}
	var names []string
	for t, err := range c.Triggers(ctx, false, 0) {
		if err != nil {
			return none, err
		}
		if naming.Same(t.Value.Name, ref) {
			return c.Trigger(ctx, t.Value.ID)
		}
		names = append(names, t.Value.Name)
	}
	text := fmt.Sprintf("there is no trigger %q", ref)
	if near := agented.Nearest(ref, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return none, agented.Errorf(agented.NotFound, "%s", text)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

// triggerRow is what lists show of a trigger.
type triggerRow struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Enabled   bool       `json:"enabled"`
	Backend   string     `json:"backend"`
	UpdatedAt *time.Time `json:"updated_at"`
}

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
			return showList(cmd, c, listing{
				path: "/api/v1/triggers", header: "ID NAME BACKEND ENABLED CHANGED",
				empty: "There are no triggers yet. Make one with `agented trigger apply -f FILE`.",
			}, func(t *triggerRow) []string {
				on := "yes"
				if !t.Enabled {
					on = "no"
				}
				return []string{t.ID, t.Name, t.Backend, on, ago(t.UpdatedAt)}
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
			raw, _, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			var body map[string]any
			if err := json.Unmarshal(raw, &body); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, body)
			}
			return printYAML(os.Stdout, body)
		},
	})
}

func triggerRun() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "run TRIGGER", Short: "Fire a trigger by hand", Args: exactArgs("the trigger's id or name"),
		Example: `  agented trigger run hello
  agented trigger run review --message "look at the tests" --var branch=main --follow`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			_, t, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			body := map[string]any{}
			if m, _ := cmd.Flags().GetString("message"); m != "" {
				body["message"] = m
			}
			vars, _ := cmd.Flags().GetStringToString("var")
			if len(vars) > 0 {
				body["vars"] = vars
			}
			header := http.Header{}
			if k, _ := cmd.Flags().GetString("idempotency-key"); k != "" {
				header.Set("Idempotency-Key", k)
			}
			var got struct {
				ID string `json:"execution_id"`
			}
			if err := c.Do(cmd.Context(), http.MethodPost, "/api/v1/triggers/"+t.ID+"/run", header, body, &got); err != nil {
				return err
			}
			if follow, _ := cmd.Flags().GetBool("follow"); follow {
				return followToEnd(cmd, c, got.ID, followOptions{after: 0})
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]string{"execution_id": got.ID})
			}
			fmt.Println(got.ID)
			return nil
		},
	})
	cmd.Flags().StringP("message", "m", "", "text that fills {message} in the prompt")
	cmd.Flags().StringToString("var", nil, "NAME=VALUE that fills {vars.NAME}; may be repeated")
	cmd.Flags().String("idempotency-key", "", "the same key fires only once, however often it is sent")
	cmd.Flags().BoolP("follow", "f", false, "follow the log and exit with the outcome")
	return cmd
}

func triggerDelete() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "delete TRIGGER", Short: "Delete a trigger; its history stays", Args: exactArgs("the trigger's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			_, t, err := findTrigger(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), http.MethodDelete, "/api/v1/triggers/"+t.ID, nil, nil, nil); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]string{"deleted": t.ID})
			}
			fmt.Fprintf(os.Stderr, "deleted %s (%s); its executions stay\n", t.Name, t.ID)
			return nil
		},
	})
}

// findTrigger looks a trigger up by id or, ignoring case, by name.
func findTrigger(ctx context.Context, c *client.Client, ref string) (json.RawMessage, *triggerRow, error) {
	var raw json.RawMessage
	t := new(triggerRow)
	if agented.ValidID("trg", ref) {
		if err := c.Do(ctx, http.MethodGet, "/api/v1/triggers/"+ref, nil, nil, &raw); err != nil {
			return nil, nil, err
		}
		return raw, t, json.Unmarshal(raw, t)
	}
	var names []string
	err := pages(ctx, c, "/api/v1/triggers", url.Values{}, 0, func(item json.RawMessage) error {
		var row triggerRow
		if err := json.Unmarshal(item, &row); err != nil {
			return err
		}
		names = append(names, row.Name)
		if strings.EqualFold(row.Name, ref) {
			*t = row
			return errFound
		}
		return nil
	})
	if err == nil {
		text := fmt.Sprintf("there is no trigger %q", ref)
		if near := agented.Nearest(ref, names); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		return nil, nil, agented.Errorf(agented.NotFound, "%s", text)
	}
	if !errors.Is(err, errFound) {
		return nil, nil, err
	}
	if err := c.Do(ctx, http.MethodGet, "/api/v1/triggers/"+t.ID, nil, nil, &raw); err != nil {
		return nil, nil, err
	}
	return raw, t, nil
}

// errFound ends a walk over pages.
var errFound = errors.New("found")

// pages calls handle for each item of a paged list, at most limit of them (0:
// all).
func pages(ctx context.Context, c *client.Client, path string, query url.Values, limit int, handle func(json.RawMessage) error) error {
	for seen := 0; ; {
		page := 200
		if limit > 0 {
			page = min(page, limit-seen)
		}
		query.Set("limit", strconv.Itoa(page))
		var got struct {
			Items []json.RawMessage `json:"items"`
			Next  *string           `json:"next_cursor"`
		}
		if err := c.Do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, nil, &got); err != nil {
			return err
		}
		for _, item := range got.Items {
			if err := handle(item); err != nil {
				return err
			}
			seen++
		}
		if got.Next == nil || limit > 0 && seen >= limit {
			return nil
		}
		query.Set("cursor", *got.Next)
	}
}

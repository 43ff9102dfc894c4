package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

const accountsPath = "/api/v1/accounts"

// accountRow is what the commands show of an account.
type accountRow struct {
	ID            string     `json:"id"`
	Backend       string     `json:"backend"`
	Name          string     `json:"name"`
	Label         string     `json:"label"`
	Enabled       bool       `json:"enabled"`
	MaxConcurrent int        `json:"max_concurrent"`
	State         string     `json:"state"`
	Until         *time.Time `json:"until"`
	Evidence      string     `json:"evidence"`
	Running       int        `json:"running"`
	UsedAt        *time.Time `json:"used_at"`
}

// stands says how an account stands in a few words.
func (a *accountRow) stands() string {
	switch {
	case !a.Enabled:
		return "disabled"
	case a.State == string(agented.AccountCooling) && a.Until != nil:
		return "cooling until " + agented.Clock(*a.Until)
	}
	return strings.ReplaceAll(a.State, "_", " ")
}

func accountCommand() *cobra.Command {
	return group("account", "List, change and try accounts of agent CLIs",
		accountList(), accountShow(), accountCreate(), accountUpdate(), accountProbe(),
		accountSwitch("enable", "Let an account be used again", true), accountSwitch("disable", "Let an account not be used", false),
		accountReset(), accountDelete())
}

func accountList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List accounts and how they stand", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c, listing{
				path: accountsPath, header: "ID ACCOUNT STATE RUNNING USED EVIDENCE", empty: "There are no accounts.",
			}, func(a *accountRow) []string {
				most := fmt.Sprint(a.Running)
				if a.MaxConcurrent > 0 {
					most = fmt.Sprintf("%d of %d", a.Running, a.MaxConcurrent)
				}
				return []string{a.ID, a.Label, a.stands(), most, ago(a.UsedAt), a.Evidence}
			})
		},
	})
}

// oneAccount makes a command about one account, named by id, name or label.
func oneAccount(cmd *cobra.Command, do func(cmd *cobra.Command, c *client.Client, a *accountRow) (json.RawMessage, error), say func(*accountRow)) *cobra.Command {
	cmd.Args = exactArgs("the account's id, name or backend/name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect(cmd)
		if err != nil {
			return err
		}
		a, err := findAccount(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		raw, err := do(cmd, c, a)
		if err != nil {
			return err
		}
		if wantJSON(cmd) && raw != nil {
			return printJSON(os.Stdout, raw)
		}
		if raw != nil {
			if err := json.Unmarshal(raw, a); err != nil {
				return err
			}
		}
		say(a)
		return nil
	}
	return jsonFlag(cmd)
}

func sayAccount(a *accountRow) {
	text := fmt.Sprintf("%s (%s): %s", printable(a.Label), a.ID, a.stands())
	if a.Evidence != "" {
		text += ": " + printable(a.Evidence)
	}
	fmt.Fprintln(os.Stderr, text)
}

func accountShow() *cobra.Command {
	return oneAccount(&cobra.Command{Use: "show ACCOUNT", Short: "Show an account, without its credentials"},
		func(cmd *cobra.Command, c *client.Client, a *accountRow) (raw json.RawMessage, err error) {
			err = c.Do(cmd.Context(), http.MethodGet, accountsPath+"/"+url.PathEscape(a.ID), nil, nil, &raw)
			if err == nil && !wantJSON(cmd) {
				err = printJSON(os.Stdout, raw)
			}
			return raw, err
		}, func(*accountRow) {})
}

// accountFlags are what create and update take.
func accountFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringArray("credential", nil, "a variable for the CLI: NAME reads its value from standard input, NAME=@FILE from a file")
	cmd.Flags().String("config", "", "folder with the CLI's own login, such as CLAUDE_CONFIG_DIR or CODEX_HOME")
	cmd.Flags().Int("order", 0, "lower is taken first")
	cmd.Flags().Int("max-concurrent", 0, "attempts at once; 0 is no limit")
	return cmd
}

// accountBody reads the flags into a request.
func accountBody(cmd *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	flags := cmd.Flags()
	if flags.Changed("config") {
		body["config"], _ = flags.GetString("config")
	}
	if flags.Changed("order") {
		body["order"], _ = flags.GetInt("order")
	}
	if flags.Changed("max-concurrent") {
		body["max_concurrent"], _ = flags.GetInt("max-concurrent")
	}
	wanted, _ := flags.GetStringArray("credential")
	credentials := map[string]string{}
	in := bufio.NewReader(os.Stdin)
	for _, w := range wanted {
		name, file, fromFile := strings.Cut(w, "=@")
		var value string
		switch {
		case fromFile && file != "-":
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, agented.Errorf(agented.NotFound, "%s cannot be read: give the file that holds %s", file, name)
			}
			value = string(b)
		case strings.Contains(name, "="):
			return nil, usageError{errors.New("--credential NAME=VALUE would be seen by others: give NAME and the value on standard input, or NAME=@FILE")}
		default:
			line, err := in.ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			value = line
		}
		credentials[name] = strings.TrimRight(value, "\r\n")
	}
	if len(wanted) > 0 {
		body["credentials"] = credentials
	}
	return body, nil
}

func accountCreate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "create BACKEND NAME", Short: "Create an account of an agent CLI", Args: exactArgs("the backend", "the account's name"),
		Example: `  agented account create claude work --credential ANTHROPIC_API_KEY < key.txt
  agented account create claude max --credential CLAUDE_CODE_OAUTH_TOKEN=@token.txt --max-concurrent 3
  agented account create codex team --config /srv/codex-team`,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := accountBody(cmd)
			if err != nil {
				return err
			}
			body["backend"], body["name"] = args[0], args[1]
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, accountsPath, nil, body, &raw); err != nil {
				return err
			}
			return showAccount(cmd, raw)
		},
	})
	return accountFlags(cmd)
}

func showAccount(cmd *cobra.Command, raw json.RawMessage) error {
	if wantJSON(cmd) {
		return printJSON(os.Stdout, raw)
	}
	var a accountRow
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	sayAccount(&a)
	return nil
}

func patchAccount(cmd *cobra.Command, c *client.Client, a *accountRow, body map[string]any) (raw json.RawMessage, err error) {
	err = c.Do(cmd.Context(), http.MethodPatch, accountsPath+"/"+url.PathEscape(a.ID), nil, body, &raw)
	return raw, err
}

func accountUpdate() *cobra.Command {
	cmd := oneAccount(&cobra.Command{
		Use: "update ACCOUNT", Short: "Change an account",
		Long: "Change an account. Credentials are replaced as a whole. New ones, or another folder, make the account ready, and what waits for it goes on.",
	}, func(cmd *cobra.Command, c *client.Client, a *accountRow) (json.RawMessage, error) {
		body, err := accountBody(cmd)
		if err != nil {
			return nil, err
		}
		if cmd.Flags().Changed("name") {
			body["name"], _ = cmd.Flags().GetString("name")
		}
		return patchAccount(cmd, c, a, body)
	}, sayAccount)
	cmd.Flags().String("name", "", "a new name")
	return accountFlags(cmd)
}

func accountSwitch(verb, short string, on bool) *cobra.Command {
	return oneAccount(&cobra.Command{Use: verb + " ACCOUNT", Short: short},
		func(cmd *cobra.Command, c *client.Client, a *accountRow) (json.RawMessage, error) {
			return patchAccount(cmd, c, a, map[string]any{"enabled": on})
		}, sayAccount)
}

func accountReset() *cobra.Command {
	return oneAccount(&cobra.Command{
		Use: "reset ACCOUNT", Short: "Say that an account is ready",
		Long: "Say that an account is ready, whatever it was: what waits for it goes on, and a limit that still holds is met again.",
	}, func(cmd *cobra.Command, c *client.Client, a *accountRow) (raw json.RawMessage, err error) {
		err = c.Do(cmd.Context(), http.MethodPost, accountsPath+"/"+url.PathEscape(a.ID)+"/reset", nil, nil, &raw)
		return raw, err
	}, sayAccount)
}

func accountDelete() *cobra.Command {
	return oneAccount(&cobra.Command{Use: "delete ACCOUNT", Short: "Delete an account"},
		func(cmd *cobra.Command, c *client.Client, a *accountRow) (json.RawMessage, error) {
			err := c.Do(cmd.Context(), http.MethodDelete, accountsPath+"/"+url.PathEscape(a.ID), nil, nil, nil)
			if err != nil || !wantJSON(cmd) {
				return nil, err
			}
			return json.Marshal(map[string]string{"deleted": a.ID})
		}, func(a *accountRow) { fmt.Fprintf(os.Stderr, "deleted %s (%s)\n", printable(a.Label), a.ID) })
}

func accountProbe() *cobra.Command {
	return oneAccount(&cobra.Command{
		Use: "probe ACCOUNT", Short: "Try an account with the cheapest call that there is",
		Long: "Run the account's CLI with the cheapest call that there is, whatever the account's state, and say how it stands then. The exit code is 0 if it is ready.",
	}, func(cmd *cobra.Command, c *client.Client, a *accountRow) (json.RawMessage, error) {
		ctx := cmd.Context()
		path := accountsPath + "/" + url.PathEscape(a.ID)
		var accepted struct {
			ID string `json:"execution_id"`
		}
		if err := c.Do(ctx, http.MethodPost, path+"/probe", nil, nil, &accepted); err != nil {
			return nil, err
		}
		for {
			var e struct {
				Status agented.State `json:"status"`
				Reason string        `json:"reason"`
			}
			if err := c.Do(ctx, http.MethodGet, "/api/v1/executions/"+accepted.ID, nil, nil, &e); err != nil {
				return nil, err
			}
			if !e.Status.Final() {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(300 * time.Millisecond):
				}
				continue
			}
			var raw json.RawMessage
			if err := c.Do(ctx, http.MethodGet, path, nil, nil, &raw); err != nil {
				return nil, err
			}
			if e.Status != agented.StateSuccess {
				return nil, agented.Errorf(agented.Unavailable, "%s: %s (%s)", a.Label, e.Reason, accepted.ID)
			}
			return raw, nil
		}
	}, sayAccount)
}

// findAccount looks an account up by id, label or, if only one has it, name.
func findAccount(ctx context.Context, c *client.Client, ref string) (*accountRow, error) {
	var found []accountRow
	var labels []string
	err := pages(ctx, c, accountsPath, url.Values{}, 0, func(item json.RawMessage) error {
		var row accountRow
		if err := json.Unmarshal(item, &row); err != nil {
			return err
		}
		if row.ID == ref || strings.EqualFold(row.Label, ref) || strings.EqualFold(row.Name, ref) {
			found = append(found, row)
		}
		labels = append(labels, row.Label)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 1:
		return &found[0], nil
	case len(found) > 1:
		return nil, agented.Errorf(agented.Conflict, "several backends have an account %q: say %s", ref, found[0].Label)
	}
	text := fmt.Sprintf("no account is called %q", ref)
	if near := agented.Nearest(ref, labels); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, agented.Errorf(agented.NotFound, "%s; `agented account list` shows them", text)
}

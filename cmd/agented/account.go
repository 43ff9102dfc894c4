package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/term"
)

// accountState describes the state of an account in a few words.
func accountState(a *client.Account) string {
	switch {
	case !a.Enabled:
		return "disabled"
	case a.State == agented.AccountCooling && a.Until != nil:
		return "cooling down until " + agented.Clock(*a.Until)
	case a.State == agented.AccountReady:
		return accountCheck(&a.Check)
	}
	return strings.ReplaceAll(string(a.State), "_", " ")
}

// accountCheck describes in a few words whether an account works.
func accountCheck(c *client.AccountCheck) string {
	switch c.Result {
	case agented.CheckWorks:
		return "works (" + term.Ago(c.At) + ")"
	case agented.CheckRefused:
		return "refused (" + term.Ago(c.At) + ")"
	}
	return strings.ReplaceAll(string(c.Result), "_", " ")
}

func accountCommand() *cobra.Command {
	return group("account", "List, change and test accounts of agent CLIs",
		accountList(), accountShow(), accountCreate(), accountUpdate(), accountProbe(),
		accountSwitch("enable", "Enable an account", true), accountSwitch("disable", "Disable an account", false),
		accountReset(), accountDelete())
}

func accountList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List accounts and their states", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var missing []string
			err = showList(cmd, c.Accounts(cmd.Context(), 0), listing{
				header: "ID ACCOUNT STATE RUNNING USED EVIDENCE", empty: "There are no accounts.",
			}, func(a *client.Account) []string {
				if a.Enabled && a.Hint != "" {
					missing = append(missing, fmt.Sprintf("%s: %s: %s", a.Label, a.Hint, a.Fix))
				}
				most := fmt.Sprint(a.Running)
				if a.MaxConcurrent > 0 {
					most = fmt.Sprintf("%d of %d", a.Running, a.MaxConcurrent)
				}
				evidence := a.Evidence
				if evidence == "" && a.Check.Result == agented.CheckRefused {
					evidence = a.Check.Reason
				}
				return []string{a.ID, a.Label, accountState(a), most, term.Ago(a.UsedAt), evidence}
			})
			if len(missing) > 0 {
				fmt.Fprintln(os.Stdout)
			}
			for _, line := range missing {
				fmt.Fprintln(os.Stdout, term.Printable(line))
			}
			return err
		},
	})
}

// oneAccount completes a command for one account, given by id, name or backend/name.
func oneAccount(cmd *cobra.Command, do func(cmd *cobra.Command, c *client.Client, a *client.Account) (client.Response[client.Account], error), say func(*client.Account)) *cobra.Command {
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
		got, err := do(cmd, c, a)
		if err != nil {
			return err
		}
		if wantJSON(cmd) {
			return term.PrintJSON(os.Stdout, got)
		}
		if got.Raw != nil {
			*a = got.Value
		}
		say(a)
		return nil
	}
	return jsonFlag(cmd)
}

func printAccount(a *client.Account) {
	text := fmt.Sprintf("%s (%s): %s", term.Printable(a.Label), a.ID, accountState(a))
	if a.Evidence != "" {
		text += ": " + term.Indented(a.Evidence, 0)
	}
	fmt.Fprintln(os.Stderr, text)
}

func accountShow() *cobra.Command {
	return oneAccount(&cobra.Command{Use: "show ACCOUNT", Short: "Show an account without its credentials"},
		func(cmd *cobra.Command, c *client.Client, a *client.Account) (client.Response[client.Account], error) {
			got, err := c.Account(cmd.Context(), a.ID)
			if err == nil && !wantJSON(cmd) {
				err = term.PrintJSON(os.Stdout, got)
			}
			return got, err
		}, func(*client.Account) {})
}

// accountFlags adds the flags that create and update share.
func accountFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringArray("credential", nil, "environment variable for the CLI: NAME reads the value from standard input, NAME=@FILE from a file")
	cmd.Flags().StringArray("credential-secret", nil, "environment variable for the CLI with the value of a named secret, as NAME=SECRET; may be repeated")
	cmd.Flags().String("config", "", "configuration folder of the CLI with its login, such as CLAUDE_CONFIG_DIR or CODEX_HOME")
	cmd.Flags().Int("order", 0, "priority: the account with the lowest order is used first")
	cmd.Flags().Int("max-concurrent", 0, "maximum number of concurrent attempts; 0 means no limit")
	return cmd
}

// accountChange builds the request from the flags.
func accountChange(cmd *cobra.Command) (change client.AccountChange, err error) {
	change = client.AccountChange{Config: flagText(cmd, "config"), Order: flagInt(cmd, "order"), MaxConcurrent: flagInt(cmd, "max-concurrent")}
	wanted, _ := cmd.Flags().GetStringArray("credential")
	credentials := map[string]any{}
	in := term.NewLineReader()
	for _, w := range wanted {
		name, file, fromFile := strings.Cut(w, "=@")
		var value string
		switch {
		case fromFile && file != "-":
			b, err := term.ReadFile(cmd.Context(), file)
			if cmd.Context().Err() != nil {
				return change, cmd.Context().Err()
			}
			if err != nil {
				return change, agented.Errorf(agented.NotFound, "%s cannot be read: name a readable file that contains %s", file, name)
			}
			value = string(b)
		case strings.Contains(name, "="):
			return change, usageError{errors.New("--credential NAME=VALUE would expose the value in the process list: use NAME and standard input, or NAME=@FILE")}
		default:
			if value, err = readCredential(cmd.Context(), in, name); err != nil {
				return change, err
			}
		}
		credentials[name] = strings.TrimRight(value, "\r\n")
	}
	named, _ := cmd.Flags().GetStringArray("credential-secret")
	for _, w := range named {
		name, secret, ok := strings.Cut(w, "=")
		if !ok || secret == "" {
			return change, usageError{fmt.Errorf("--credential-secret %s names no secret: use NAME=SECRET", w)}
		}
		credentials[name] = client.SecretRef{Secret: secret}
	}
	if len(credentials) > 0 {
		change.Credentials = credentials
	}
	return change, nil
}

// readCredential reads the value of a credential as one line of standard input. On a terminal it
// prompts for the value and does not echo it.
func readCredential(ctx context.Context, in *term.LineReader, name string) (string, error) {
	if term.IsTerminal(os.Stdin) {
		b, err := term.AskSecret(ctx, "Value of "+term.Printable(name)+": ")
		return string(b), err
	}
	line, err := in.Next(ctx, maxCredential)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}

// maxCredential is the maximum size of a credential on standard input, in bytes.
const maxCredential = 64 << 10

func accountCreate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "create BACKEND NAME", Short: "Create an account of an agent CLI", Args: exactArgs("the backend", "the account's name"),
		Example: `  agented account create claude work --credential ANTHROPIC_API_KEY < key.txt
  agented account create claude max --credential CLAUDE_CODE_OAUTH_TOKEN=@token.txt --max-concurrent 3
  agented account create claude ci --credential-secret ANTHROPIC_API_KEY=anthropic-ci
  agented account create codex team --config /srv/codex-team`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := accountChange(cmd)
			if err != nil {
				return err
			}
			change.Name = &args[1]
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.CreateAccount(cmd.Context(), client.AccountCreate{Backend: args[0], AccountChange: change})
			if err != nil {
				return err
			}
			return showAccount(cmd, got)
		},
	})
	return accountFlags(cmd)
}

func showAccount(cmd *cobra.Command, a client.Response[client.Account]) error {
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, a)
	}
	printAccount(&a.Value)
	return nil
}

func accountUpdate() *cobra.Command {
	cmd := oneAccount(&cobra.Command{
		Use: "update ACCOUNT", Short: "Change an account",
		Long: "Change an account. --credential replaces all credentials. New credentials or another configuration folder mark the account as ready and resume the executions that wait for it.",
	}, func(cmd *cobra.Command, c *client.Client, a *client.Account) (client.Response[client.Account], error) {
		change, err := accountChange(cmd)
		if err != nil {
			return client.Response[client.Account]{}, err
		}
		change.Name = flagText(cmd, "name")
		return c.UpdateAccount(cmd.Context(), a.ID, change)
	}, printAccount)
	cmd.Flags().String("name", "", "new name")
	return accountFlags(cmd)
}

func accountSwitch(verb, short string, on bool) *cobra.Command {
	return oneAccount(&cobra.Command{Use: verb + " ACCOUNT", Short: short},
		func(cmd *cobra.Command, c *client.Client, a *client.Account) (client.Response[client.Account], error) {
			return c.UpdateAccount(cmd.Context(), a.ID, client.AccountChange{Enabled: &on})
		}, printAccount)
}

func accountReset() *cobra.Command {
	return oneAccount(&cobra.Command{
		Use: "reset ACCOUNT", Short: "Mark an account as ready",
		Long: "Mark an account as ready, whatever its state, and resume the executions that wait for it. If the provider's limit still applies, the next attempt detects it again.",
	}, func(cmd *cobra.Command, c *client.Client, a *client.Account) (client.Response[client.Account], error) {
		return c.ResetAccount(cmd.Context(), a.ID)
	}, printAccount)
}

func accountDelete() *cobra.Command {
	return oneAccount(&cobra.Command{Use: "delete ACCOUNT", Short: "Delete an account"},
		func(cmd *cobra.Command, c *client.Client, a *client.Account) (got client.Response[client.Account], err error) {
			err = c.DeleteAccount(cmd.Context(), a.ID)
			if err == nil && wantJSON(cmd) {
				got.Raw, err = json.Marshal(map[string]string{"deleted": a.ID})
			}
			return got, err
		}, func(a *client.Account) { fmt.Fprintf(os.Stderr, "deleted %s (%s)\n", term.Printable(a.Label), a.ID) })
}

func accountProbe() *cobra.Command {
	return oneAccount(&cobra.Command{
		Use: "probe ACCOUNT", Short: "Test an account with one minimal call",
		Long: "Run the account's CLI with one minimal call, whatever the account's state, and print the resulting state. The exit code is 0 if the account is ready.",
	}, probeAccount, printAccount)
}

// probeAccount tests an account, and returns its state after the test.
func probeAccount(cmd *cobra.Command, c *client.Client, a *client.Account) (none client.Response[client.Account], err error) {
	ctx := cmd.Context()
	accepted, err := c.ProbeAccount(ctx, a.ID)
	if err != nil {
		return none, err
	}
	for {
		e, err := c.Execution(ctx, accepted.Value.ExecutionID)
		if err != nil {
			return none, err
		}
		if status := agented.State(e.Value.Status); !status.Final() {
			select {
			case <-ctx.Done():
				return none, ctx.Err()
			case <-time.After(300 * time.Millisecond):
			}
			continue
		} else if got, err := c.Account(ctx, a.ID); err != nil || status == agented.StateSuccess {
			return got, err
		}
		return none, agented.Errorf(agented.Unavailable, "%s: %s (%s)", a.Label, e.Value.Reason, accepted.Value.ExecutionID)
	}
}

// findAccount finds an account by id, by backend/name, or by a name that only one account has.
func findAccount(ctx context.Context, c *client.Client, ref string) (*client.Account, error) {
	var found []client.Account
	var labels []string
	for a, err := range c.Accounts(ctx, 0) {
		if err != nil {
			return nil, err
		}
		if a.Value.ID == ref || naming.Same(a.Value.Label, ref) || naming.Same(a.Value.Name, ref) {
			found = append(found, a.Value)
		}
		labels = append(labels, a.Value.Label)
	}
	switch {
	case len(found) == 1:
		return &found[0], nil
	case len(found) > 1:
		return nil, agented.Errorf(agented.Conflict, "several backends have an account named %q: use %s", ref, found[0].Label)
	}
	text := fmt.Sprintf("there is no account %q", ref)
	if near := agented.Nearest(ref, labels); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, agented.Errorf(agented.NotFound, "%s; run `agented account list` to list accounts", text)
}

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/naming"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/term"
)

// keyLife parses the lifetime of a key: 30d, 12w, or a duration such as 36h.
func keyLife(text string) (time.Duration, error) {
	bad := usageError{fmt.Errorf("--expires %s is not a duration: use days, weeks or hours, such as 30d, 12w or 36h", text)}
	for unit, hours := range map[string]time.Duration{"d": 24, "w": 7 * 24} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 || n > 36500 {
				return 0, bad
			}
			return time.Duration(n) * hours * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, bad
	}
	return d, nil
}

func keyCommand() *cobra.Command {
	return group("key", "Create and revoke API keys", keyCreate(), keyList(), keyRevoke(), keySecret(), keyRotate())
}

func keyCreate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "create NAME", Short: "Create an API key and print it", Args: exactArgs("the key's name"),
		Long: `Create an API key. Only the key is printed to standard output, so that a script can
capture it. It is shown once and is not stored in readable form.

Roles: a viewer reads everything except secrets; an operator also fires, cancels and
retries; an admin also changes triggers, users, keys and settings.

A key with --trigger reaches only these triggers: it lists, shows and runs them, and
reads their executions, logs and streams. It cannot have the role admin. A key ends
with its owner, who is the user of the request unless --owner names another one.`,
		Example: `  agented key create ci --role operator
  agented key create deploy --expires 30d --owner alice
  agented key create nightly --trigger nightly-tests --address 192.0.2.0/24
  KEY=$(agented key create backup --role viewer)`,
		RunE: func(cmd *cobra.Command, args []string) error {
			role, _ := cmd.Flags().GetString("role")
			if !agented.Role(role).Valid() {
				return usageError{fmt.Errorf("--role %s is unknown: use one of %s", role, strings.Join(roles, ", "))}
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			in := client.KeyCreate{Name: args[0], Role: role}
			in.Triggers, _ = cmd.Flags().GetStringArray("trigger")
			in.Addresses, _ = cmd.Flags().GetStringArray("address")
			in.Owner, _ = cmd.Flags().GetString("owner")
			if text, _ := cmd.Flags().GetString("expires"); text != "" {
				life, err := keyLife(text)
				if err != nil {
					return err
				}
				expires := time.Now().Add(life).UTC().Truncate(time.Second)
				in.ExpiresAt = &expires
			}
			got, err := c.CreateKey(cmd.Context(), in)
			if err != nil {
				return err
			}
			made := got.Value
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, got)
			}
			fmt.Fprintf(os.Stderr, "The key %s (%s, role %s); save it now, it is shown only once:\n", term.Printable(made.Name), made.ID, made.Role)
			fmt.Println(made.Secret)
			return nil
		},
	})
	cmd.Flags().String("role", string(agented.RoleOperator), "role of the key: viewer, operator or admin")
	cmd.Flags().String("expires", "", "lifetime, for example 30d, 12w or 36h (default: no expiry)")
	cmd.Flags().StringArray("trigger", nil, "limit the key to this trigger, by id or name (repeatable)")
	cmd.Flags().StringArray("address", nil, "accept the key from this address or network only, such as 192.0.2.0/24 (repeatable)")
	cmd.Flags().String("owner", "", "user with whom the key ends, by id or name (default: the user of the request)")
	return cmd
}

func keyList() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "list", Short: "List API keys", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			revoked, _ := cmd.Flags().GetBool("revoked")
			return showList(cmd, c.Keys(cmd.Context(), 0), listing{
				header: "ID NAME KEY ROLE CREATED BY USED EXPIRES LIMITS STATE",
				empty:  "There are no API keys. Create one with `agented key create NAME`.",
			}, func(k *client.Key) []string {
				state := "good"
				if k.Revoked() {
					if state = "revoked"; !revoked {
						return nil
					}
				} else if k.Expired(time.Now()) {
					state = "expired"
				}
				expires := "never"
				if k.ExpiresAt != nil {
					expires = k.ExpiresAt.Local().Format("2006-01-02 15:04")
				}
				return []string{k.ID, k.Name, k.Prefix + "…", k.Role, term.Ago(k.CreatedAt), k.CreatedBy, term.Ago(k.UsedAt), expires, keyLimits(k), state}
			})
		},
	})
	cmd.Flags().Bool("revoked", false, "also list revoked keys")
	return cmd
}

// keyLimits describes what a key is limited to.
func keyLimits(k *client.Key) string {
	var limits []string
	switch n := len(k.Triggers); {
	case n == 1:
		limits = append(limits, "1 trigger")
	case n > 1:
		limits = append(limits, fmt.Sprint(n, " triggers"))
	}
	limits = append(limits, k.Addresses...)
	if len(limits) == 0 {
		return "none"
	}
	return strings.Join(limits, ", ")
}

func keyRevoke() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "revoke KEY", Short: "Revoke an API key", Args: exactArgs("the key's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			k, err := findKey(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.RevokeKey(cmd.Context(), k.ID); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"revoked": k.ID})
			}
			fmt.Fprintf(os.Stderr, "revoked %s (%s)\n", term.Printable(k.Name), k.ID)
			return nil
		},
	})
}

// findKey finds a valid key by id or, ignoring case, by name. Revoked keys may have the same
// name.
func findKey(ctx context.Context, c *client.Client, ref string) (*client.Key, error) {
	var names []string
	for k, err := range c.Keys(ctx, 0) {
		if err != nil {
			return nil, err
		}
		if k.Value.ID == ref || !k.Value.Revoked() && naming.Same(k.Value.Name, ref) {
			return &k.Value, nil
		}
		if !k.Value.Revoked() {
			names = append(names, k.Value.Name)
		}
	}
	if agented.ValidID("key", ref) {
		return nil, agented.Errorf(agented.NotFound, "no API key has the id %s", ref)
	}
	// The argument may be the key itself, so the error does not repeat it.
	text := "no API key has this name"
	if near := agented.Nearest(ref, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, agented.Errorf(agented.NotFound, "%s; run `agented key list` to list keys", text)
}

func keySecret() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "secret", Short: "Print a new random SECRET_KEY, without a server", Args: exactArgs(),
		Long: `Print 32 random bytes in hexadecimal, for use as SECRET_KEY. Nothing is changed: put
the value into the environment or the .env file of a new server. An existing server
needs its old key as SECRET_KEY_PREVIOUS, or it cannot read its sealed secrets.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := make([]byte, 32)
			rand.Read(b) // never fails: crypto/rand aborts the process instead
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"secret_key": hex.EncodeToString(b)})
			}
			fmt.Println(hex.EncodeToString(b))
			return nil
		},
	})
}

func keyRotate() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "rotate", Short: "Replace the SECRET_KEY of the data folder", Args: exactArgs(),
		Long: `Replace the SECRET_KEY that the server keeps in its data folder with a new random one. At
its next start, which should follow at once, the server encrypts all stored credentials with
the new key and removes the old one; if it is killed meanwhile, the next start continues. All
users must log in again, and executions that are running cannot use messages any more.

If you set SECRET_KEY yourself, change it and set SECRET_KEY_PREVIOUS to the old value.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := serverConfig(cmd)
			if err != nil {
				return err
			}
			if c.SecretKey.IsSet() || c.SecretKeyFile != "" {
				return agented.Errorf(agented.Invalid, "SECRET_KEY is not kept in the data folder: change it where it is set, set SECRET_KEY_PREVIOUS to the old value, and restart the server")
			}
			layout := agented.Layout{Root: c.DataDir}
			key, err := secret.Rotate(layout.SecretKey(), layout.FormerSecretKey())
			if err != nil {
				return err
			}
			if wantJSON(cmd) {
				return term.PrintJSON(os.Stdout, map[string]string{"fingerprint": key.Fingerprint()})
			}
			fmt.Fprintf(os.Stderr, "new key %s; restart the server now\n", key.Fingerprint())
			return nil
		},
	})
}

func secretCommand() *cobra.Command {
	return group("secret", "Store and rotate named secrets", secretSet(), secretList(), secretShow(), secretRotate(), secretDelete())
}

// readSecret reads the value of a secret from standard input, all of it. On a terminal it prompts
// for one line and does not echo it.
func readSecret(ctx context.Context, name string) (string, error) {
	if term.IsTerminal(os.Stdin) {
		b, err := term.AskSecret(ctx, "Value of secret "+term.Printable(name)+": ")
		return string(b), err
	}
	b, err := term.ReadStdin(ctx, "the value", agented.MaxSecret+2)
	return strings.TrimRight(string(b), "\r\n"), err
}

// secretScope returns the list of a flag, nil if the scope stays unchanged.
func secretScope(cmd *cobra.Command, name, all string) (*[]string, error) {
	list, _ := cmd.Flags().GetStringArray(name)
	if on, _ := cmd.Flags().GetBool(all); on {
		if len(list) > 0 {
			return nil, usageError{fmt.Errorf("use either --%s or --%s", name, all)}
		}
		return &[]string{}, nil
	}
	if len(list) == 0 {
		return nil, nil
	}
	return &list, nil
}

// secretChange builds the request from the flags, and reads the value unless another source is
// given.
func secretChange(cmd *cobra.Command, name string) (change client.SecretChange, err error) {
	change.File = flagText(cmd, "file")
	if text := flagText(cmd, "command"); text != nil {
		if err := json.Unmarshal([]byte(*text), &change.Command); err != nil || len(change.Command) == 0 {
			return change, usageError{errors.New(`--command must be a JSON list with a program and its arguments, such as '["vault","kv","get","-field=token","secret/ci"]'`)}
		}
	}
	if change.Triggers, err = secretScope(cmd, "trigger", "all-triggers"); err != nil {
		return change, err
	}
	if change.Repositories, err = secretScope(cmd, "repository", "all-repositories"); err != nil {
		return change, err
	}
	keep, _ := cmd.Flags().GetBool("keep-value")
	switch {
	case keep && (change.File != nil || change.Command != nil), change.File != nil && change.Command != nil:
		return change, usageError{errors.New("use only one of --file, --command and --keep-value")}
	case keep && change.Triggers == nil && change.Repositories == nil:
		return change, usageError{errors.New("--keep-value changes the scope only: add --trigger, --repository, --all-triggers or --all-repositories")}
	case !keep && change.File == nil && change.Command == nil:
		var value string
		value, err = readSecret(cmd.Context(), name)
		change.Value = &value
	}
	return change, err
}

func secretSet() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "set NAME", Short: "Create a named secret, or change it", Args: exactArgs("the secret's name"),
		Long: `Create a named secret, or change its value or its scope. The value is read from standard
input, or from a prompt that does not echo it; it never appears in the process list.

Every change of the value makes a new version. Attempts that start afterwards receive it;
running attempts keep theirs. The last two versions are kept.

With --file the server reads the value from a file at the start of each attempt; a relative
path is a file in the server's CREDENTIALS_DIRECTORY (LoadCredential= of its systemd unit).
With --command the server runs a program at the start of each attempt; it gets PATH, HOME,
the locale and CREDENTIALS_DIRECTORY only, has 15 seconds, and prints up to 64 KiB.

Without --trigger and --repository every execution may use the secret. A trigger is given by
its name, a pattern with *, or its id. A repository is owner/name on github.com,
host/owner/name, or an absolute path.`,
		Example: `  agented secret set github < token.txt
  agented secret set github --trigger nightly --trigger 'review-*'
  agented secret set deploy --repository 'acme/*' < key.txt
  agented secret set github --keep-value --all-triggers
  agented secret set npm --file npm-token
  agented secret set db --command '["vault","kv","get","-field=password","secret/db"]'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := secretChange(cmd, args[0])
			if err != nil {
				return err
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			got, err := c.UpdateSecret(cmd.Context(), args[0], change)
			if keep, _ := cmd.Flags().GetBool("keep-value"); agented.KindOf(err) == agented.NotFound && !keep {
				got, err = c.CreateSecret(cmd.Context(), client.SecretCreate{Name: args[0], SecretChange: change})
			}
			if err != nil {
				return err
			}
			return showSecret(cmd, got)
		},
	})
	f := cmd.Flags()
	f.StringArray("trigger", nil, "name, pattern or id of a trigger that may use it; replaces the stored list; may be repeated")
	f.StringArray("repository", nil, "repository whose executions may use it, such as 'acme/*'; replaces the stored list; may be repeated")
	f.Bool("all-triggers", false, "remove the limit to triggers")
	f.Bool("all-repositories", false, "remove the limit to repositories")
	f.Bool("keep-value", false, "change the scope only")
	f.String("file", "", "file that contains the value, read at the start of each attempt")
	f.String("command", "", "JSON list of a program and its arguments that print the value, run at the start of each attempt")
	return cmd
}

func secretScopeText(s *client.Secret) string {
	var parts []string
	if len(s.Triggers) > 0 {
		parts = append(parts, "triggers "+strings.Join(s.Triggers, ", "))
	}
	if len(s.Repositories) > 0 {
		parts = append(parts, "repositories "+strings.Join(s.Repositories, ", "))
	}
	if len(parts) == 0 {
		return "every execution"
	}
	return strings.Join(parts, "; ")
}

// showSecret prints the result of a change.
func showSecret(cmd *cobra.Command, got client.Response[client.Secret]) error {
	if wantJSON(cmd) {
		return term.PrintJSON(os.Stdout, got)
	}
	s := &got.Value
	text := fmt.Sprintf("%s: version %d, for %s", s.Name, s.Version, secretScopeText(s))
	if len(s.Users) > 0 {
		text += "; used by " + strings.Join(s.Users, ", ")
	}
	fmt.Fprintln(os.Stderr, term.Printable(text))
	return nil
}

func secretList() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "list", Short: "List named secrets without their values", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			return showList(cmd, c.Secrets(cmd.Context(), 0), listing{
				header: "NAME SOURCE VERSION CHANGED USED SCOPE",
				empty:  "There are no named secrets. Create one with `agented secret set NAME`.",
			}, func(s *client.Secret) []string {
				changed := "-"
				if len(s.Versions) > 0 {
					changed = term.Ago(s.Versions[0].CreatedAt)
				}
				return []string{s.Name, s.Source, fmt.Sprint(s.Version), changed, term.Ago(s.UsedAt), secretScopeText(s)}
			})
		},
	})
}

// oneSecret completes a command for one secret, given by its name.
func oneSecret(cmd *cobra.Command, do func(cmd *cobra.Command, c *client.Client, name string) error) *cobra.Command {
	cmd.Args = exactArgs("the secret's name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := connect(cmd)
		if err != nil {
			return err
		}
		return do(cmd, c, args[0])
	}
	return jsonFlag(cmd)
}

func secretShow() *cobra.Command {
	return oneSecret(&cobra.Command{Use: "show NAME", Short: "Show scope, versions, last use and users of a secret"},
		func(cmd *cobra.Command, c *client.Client, name string) error {
			got, err := c.Secret(cmd.Context(), name)
			if err != nil {
				return err
			}
			return term.PrintJSON(os.Stdout, got)
		})
}

func secretRotate() *cobra.Command {
	cmd := oneSecret(&cobra.Command{
		Use: "rotate NAME", Short: "Replace the value of a secret",
		Long: `Replace the value of a stored secret. The new value is read as by secret set, and the
current one is rejected. Attempts that start afterwards receive the new value; nothing needs
a restart. With --previous, the value before the latest rotation is restored.`,
		Example: `  agented secret rotate github < new-token.txt
  agented secret rotate github --previous`,
	}, func(cmd *cobra.Command, c *client.Client, name string) error {
		var r client.SecretRotation
		var err error
		if r.Previous, _ = cmd.Flags().GetBool("previous"); !r.Previous {
			if r.Value, err = readSecret(cmd.Context(), name); err != nil {
				return err
			}
		}
		got, err := c.RotateSecret(cmd.Context(), name, r)
		if err != nil {
			return err
		}
		return showSecret(cmd, got)
	})
	cmd.Flags().Bool("previous", false, "restore the previous value")
	return cmd
}

func secretDelete() *cobra.Command {
	cmd := oneSecret(&cobra.Command{
		Use: "rm NAME", Aliases: []string{"delete"}, Short: "Delete a secret that nothing uses",
		Long: "Delete a secret. While triggers, agents, accounts or executions that have not ended refer to it, the command lists them and deletes nothing.",
	}, func(cmd *cobra.Command, c *client.Client, name string) error {
		if err := c.DeleteSecret(cmd.Context(), name); err != nil {
			return err
		}
		if wantJSON(cmd) {
			return term.PrintJSON(os.Stdout, map[string]string{"deleted": name})
		}
		fmt.Fprintf(os.Stderr, "deleted %s\n", term.Printable(name))
		return nil
	})
	return cmd
}

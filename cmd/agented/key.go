package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/naming"
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
	return group("key", "Create and revoke API keys", keyCreate(), keyList(), keyRevoke(), keySecret())
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
must keep its key, because it cannot read its sealed secrets with another one.`,
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

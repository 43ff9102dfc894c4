package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/client"
)

const keysPath = "/api/v1/auth/keys"

// keyRow is what the commands show of an API key.
type keyRow struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Prefix    string     `json:"prefix"`
	Role      string     `json:"role"`
	CreatedBy string     `json:"created_by"`
	CreatedAt *time.Time `json:"created_at"`
	UsedAt    *time.Time `json:"used_at"`
	RevokedAt *time.Time `json:"revoked_at"`
}

func (k *keyRow) revoked() bool { return k.RevokedAt != nil && !k.RevokedAt.IsZero() }

func keyCommand() *cobra.Command {
	return group("key", "Create and revoke API keys", keyCreate(), keyList(), keyRevoke(), keySecret())
}

func keyCreate() *cobra.Command {
	cmd := jsonFlag(&cobra.Command{
		Use: "create NAME", Short: "Create an API key and print it", Args: exactArgs("the key's name"),
		Long: `Create an API key. The key alone goes to standard output, so that it can be
caught by a script; it is shown this once and kept nowhere.

viewer reads everything but secrets, operator also fires, cancels and retries,
admin also changes triggers, users, keys and settings.`,
		Example: `  agented key create ci --role operator
  KEY=$(agented key create backup --role viewer)`,
		RunE: func(cmd *cobra.Command, args []string) error {
			role, _ := cmd.Flags().GetString("role")
			if !agented.Role(role).Valid() {
				return usageError{fmt.Errorf("--role %s is not one of %s", role, strings.Join(roles, ", "))}
			}
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			var raw json.RawMessage
			body := map[string]string{"name": args[0], "role": role}
			if err := c.Do(cmd.Context(), http.MethodPost, keysPath, nil, body, &raw); err != nil {
				return err
			}
			var made struct {
				keyRow
				Key string `json:"key"`
			}
			if err := json.Unmarshal(raw, &made); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, raw)
			}
			fmt.Fprintf(os.Stderr, "The key %s (%s, role %s); keep it, it is shown this once:\n", printable(made.Name), made.ID, made.Role)
			fmt.Println(made.Key)
			return nil
		},
	})
	cmd.Flags().String("role", string(agented.RoleOperator), "what it may do: viewer, operator or admin")
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
			return showList(cmd, c, listing{
				path: keysPath, header: "ID NAME KEY ROLE CREATED BY USED STATE",
				empty: "There are no API keys. Make one with `agented key create NAME`.",
			}, func(k *keyRow) []string {
				state := "good"
				if k.revoked() {
					if state = "revoked"; !revoked {
						return nil
					}
				}
				return []string{k.ID, k.Name, k.Prefix + "…", k.Role, ago(k.CreatedAt), k.CreatedBy, ago(k.UsedAt), state}
			})
		},
	})
	cmd.Flags().Bool("revoked", false, "show revoked keys too")
	return cmd
}

func keyRevoke() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "revoke KEY", Short: "Make an API key useless, by its id or name", Args: exactArgs("the key's id or name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			k, err := findKey(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), http.MethodDelete, keysPath+"/"+url.PathEscape(k.ID), nil, nil, nil); err != nil {
				return err
			}
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]string{"revoked": k.ID})
			}
			fmt.Fprintf(os.Stderr, "revoked %s (%s)\n", printable(k.Name), k.ID)
			return nil
		},
	})
}

// findKey looks a key that is good up by id or, ignoring case, by name. A name
// may belong to any number of revoked keys.
func findKey(ctx context.Context, c *client.Client, ref string) (*keyRow, error) {
	k := new(keyRow)
	var names []string
	err := pages(ctx, c, keysPath, url.Values{}, 0, func(item json.RawMessage) error {
		var row keyRow
		if err := json.Unmarshal(item, &row); err != nil {
			return err
		}
		if row.ID == ref || !row.revoked() && strings.EqualFold(row.Name, ref) {
			*k = row
			return errFound
		}
		if !row.revoked() {
			names = append(names, row.Name)
		}
		return nil
	})
	switch {
	case errors.Is(err, errFound):
		return k, nil
	case err != nil:
		return nil, err
	}
	if agented.ValidID("key", ref) {
		return nil, agented.Errorf(agented.NotFound, "no API key has the id %s", ref)
	}
	// What was typed may be the key itself: it is not repeated.
	text := "no API key has this name"
	if near := agented.Nearest(ref, names); near != "" {
		text += fmt.Sprintf("; did you mean %q?", near)
	}
	return nil, agented.Errorf(agented.NotFound, "%s; `agented key list` shows them", text)
}

func keySecret() *cobra.Command {
	return jsonFlag(&cobra.Command{
		Use: "secret", Short: "Print a fresh value for SECRET_KEY; no server is asked", Args: exactArgs(),
		Long: `Print 32 random bytes in hexadecimal, a fresh value for SECRET_KEY. Nothing is
changed: put it into the environment or .env of a new server. A server that has
a key already keeps what it sealed only as long as it keeps that key.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := make([]byte, 32)
			rand.Read(b) // never fails: crypto/rand ends the process instead
			if wantJSON(cmd) {
				return printJSON(os.Stdout, map[string]string{"secret_key": hex.EncodeToString(b)})
			}
			fmt.Println(hex.EncodeToString(b))
			return nil
		},
	})
}

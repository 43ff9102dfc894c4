package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// Name and creator of the key that earlier servers wrote to the file cli.key.
const (
	cliKeyName    = "cli on this machine"
	cliKeyCreator = "server"
)

// RetireCLIKey revokes the admin key that an earlier server created for client
// commands, and removes its file: every process of the server's user could read
// it, agents included. It leaves a file with another key in place.
func RetireCLIKey(ctx context.Context, db *store.DB, layout agented.Layout, log *slog.Logger) error {
	file := layout.CLIKey()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the key of the client commands: %w", err)
	}
	plain := strings.TrimSpace(string(text))
	prefix, own := secret.APIKeyPrefix(plain), false
	retired := 0
	for cursor := ""; ; {
		keys, next, err := db.Keys(ctx, store.Page{Cursor: cursor, Limit: store.MaxLimit})
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k.Name != cliKeyName || k.CreatedBy != cliKeyCreator {
				continue
			}
			own = own || k.Prefix == prefix
			if !k.RevokedAt.IsZero() {
				continue
			}
			if err := db.RevokeKey(ctx, k.ID, cliKeyCreator, time.Now()); err != nil {
				return err
			}
			retired++
		}
		if next == "" {
			break
		}
		cursor = next
	}
	if own && prefix != "" {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove the key of the client commands: %w", err)
		}
	}
	switch {
	case retired > 0 || own:
		log.Info("the key of the client commands, cli.key, was revoked and removed: commands use the local socket, and scripts need a key of `agented key create`", "file", file)
	case plain != "":
		log.Warn("cli.key contains a key that this server did not write, and every agent without a sandbox can read it: keep the key elsewhere, and remove the file", "file", file)
	}
	return nil
}

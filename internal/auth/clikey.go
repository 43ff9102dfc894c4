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
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// cliKeyName is the name of the key for client commands on this machine.
const cliKeyName = "cli on this machine"

// EnsureCLIKey makes sure that client commands on this machine have a key: a
// file (mode 0600) with an admin key from the database. It is created at the
// first start, and again if the file is missing; its predecessor is then
// revoked. A key that a user revoked stays revoked until the file is removed.
func EnsureCLIKey(ctx context.Context, db *store.DB, layout agented.Layout, log *slog.Logger) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	file := layout.CLIKey()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the key of the client commands: %w", err)
	}
	plain := strings.TrimSpace(string(text))
	prefix := secret.APIKeyPrefix(plain)
	if prefix != "" {
		switch _, err := db.KeyByHash(ctx, digest(secret.HashToken(plain))); {
		case err == nil:
			return os.Chmod(file, 0o600)
		case agented.KindOf(err) != agented.Unauthenticated:
			return err
		}
	}
	revoked, err := retireCLIKeys(ctx, db, prefix)
	if err != nil {
		return err
	}
	if revoked {
		log.Warn("the key of the client commands on this machine was revoked: remove its file and restart the server to get a new one", "file", file)
		return nil
	}
	if prefix == "" {
		plain, prefix, _ = secret.NewAPIKey()
		// Write the file first: a key only in the database could not be used by
		// anyone.
		if err := disk.ReplaceFile(file, []byte(plain+"\n"), 0o600); err != nil {
			return fmt.Errorf("write the key of the client commands: %w", err)
		}
	}
	k := &store.Key{Name: cliKeyName, Prefix: prefix, Role: agented.RoleAdmin}
	return db.CreateKey(ctx, k, digest(secret.HashToken(plain)), "server")
}

// retireCLIKeys revokes the valid keys of that name, whose file is missing, and
// reports whether a user had revoked the one with the prefix.
func retireCLIKeys(ctx context.Context, db *store.DB, prefix string) (revoked bool, err error) {
	for cursor := ""; ; {
		keys, next, err := db.Keys(ctx, store.Page{Cursor: cursor, Limit: store.MaxLimit})
		if err != nil {
			return false, err
		}
		for _, k := range keys {
			switch {
			case k.Name != cliKeyName:
			case !k.RevokedAt.IsZero():
				revoked = revoked || k.Prefix == prefix && prefix != ""
			default:
				if err := db.RevokeKey(ctx, k.ID, "server", time.Now()); err != nil {
					return false, err
				}
			}
		}
		if next == "" {
			return revoked, nil
		}
		cursor = next
	}
}

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// EnsureSetup makes sure that a server without users can be set up: it writes
// the one-time link to its file (0600) and returns it. base is the address at
// which people reach the server, such as http://127.0.0.1:20000. A link that is
// there stays good over restarts. With a user the answer is "" and the file is
// gone.
func EnsureSetup(ctx context.Context, db *store.DB, layout agented.Layout, base string) (string, error) {
	n, err := db.UserCount(ctx)
	if err != nil {
		return "", err
	}
	file := layout.SetupLink()
	if n > 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("remove the used setup link: %w", err)
		}
		return "", nil
	}
	token := setupToken(layout)
	if token == "" {
		token, _ = secret.NewToken()
	}
	link := strings.TrimSuffix(base, "/") + "/setup?token=" + token
	if err := secret.WritePrivate(file, []byte(link+"\n")); err != nil {
		return "", fmt.Errorf("write the setup link: %w", err)
	}
	return link, nil
}

// setupToken is the token that the setup link's file holds; without a file
// there is none, and nobody can be set up.
func setupToken(layout agented.Layout) string {
	text, err := os.ReadFile(layout.SetupLink())
	if err != nil {
		return ""
	}
	link, err := url.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return ""
	}
	token := link.Query().Get("token")
	if len(token) < 32 {
		return ""
	}
	return token
}

// cliKeyName is the name of the key that client commands on this machine use.
const cliKeyName = "cli on this machine"

// EnsureCLIKey makes sure that the client commands on this machine have a key:
// a file (0600) with an admin key that the database knows. It is made at the
// first start, and again when the file is gone; its predecessor is then
// revoked. A key that somebody revoked stays so until the file is removed.
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
		// The file first: a key that is only in the database would be nobody's.
		if err := secret.WritePrivate(file, []byte(plain+"\n")); err != nil {
			return fmt.Errorf("write the key of the client commands: %w", err)
		}
	}
	k := &store.Key{Name: cliKeyName, Prefix: prefix, Role: agented.RoleAdmin}
	return db.CreateKey(ctx, k, digest(secret.HashToken(plain)), "server")
}

// retireCLIKeys revokes the good keys of that name, whose file is gone, and
// reports whether the one with the prefix had been revoked by somebody.
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

// newName checks the name of a user or a key.
func newName(path, name string) []agented.Field {
	switch {
	case strings.TrimSpace(name) == "":
		return []agented.Field{{Path: path, Text: "is required"}}
	case name != strings.TrimSpace(name):
		return []agented.Field{{Path: path, Text: "starts or ends with white space: trim it"}}
	case len(name) > 100:
		return []agented.Field{{Path: path, Text: "is too long: use at most 100 bytes"}}
	case strings.IndexFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) >= 0:
		return []agented.Field{{Path: path, Text: "has a character that cannot be printed"}}
	}
	return nil
}

// newPassword checks a new password.
func newPassword(path, password string) []agented.Field {
	if err := secret.CheckPassword(password); err != nil {
		return []agented.Field{{Path: path, Text: strings.TrimPrefix(agented.Message(err), "the password ")}}
	}
	return nil
}

// setUp makes the first user, who proves with the token that the server's data
// folder is theirs to read.
func (s *Server) setUp(r *http.Request, token, name, password string) (*store.User, error) {
	ctx := r.Context()
	if err := s.mayGuess(r, "setup", ""); err != nil {
		return nil, err
	}
	if !s.empty(ctx) {
		return nil, agented.Errorf(agented.Conflict, "this server has been set up already: log in instead")
	}
	want := setupToken(s.o.Layout)
	if want == "" || !secret.Equal(token, want) {
		return nil, agented.Errorf(agented.Denied, "the setup link is not valid: use the one in the file setup-link of the server's data folder; if the file is gone, restart the server")
	}
	if err := agented.InvalidFields(append(newName("name", name), newPassword("password", password)...)); err != nil {
		return nil, err
	}
	hash, err := s.o.Passwords.Hash(ctx, password)
	if err != nil {
		return nil, err
	}
	user := &store.User{Name: name, PasswordHash: hash, CreatedAt: s.now()}
	if err := s.o.DB.CreateFirstAdmin(ctx, user); err != nil {
		return nil, err
	}
	s.hasUsers.Store(true)
	if err := os.Remove(s.o.Layout.SetupLink()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.o.Log.Warn("remove the used setup link", "err", err) // it is useless now
	}
	s.o.Log.Info("set up", "user", user.Name)
	return user, nil
}

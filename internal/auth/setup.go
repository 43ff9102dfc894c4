package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/disk"
	"github.com/agented/agented/internal/secret"
	"github.com/agented/agented/internal/store"
)

// EnsureSetup makes it possible to set up a server without users: it writes the
// one-time link to its file (mode 0600) and returns it. base is the address at
// which people reach the server, such as http://127.0.0.1:20000. An existing
// link stays valid over restarts. If a user exists, it returns "" and removes
// the file.
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
	if err := disk.ReplaceFile(file, []byte(link+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the setup link: %w", err)
	}
	return link, nil
}

// setupToken returns the token in the file of the setup link, or "" without a
// file, when setup is not possible.
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

// SetupAllowed reports whether a token is that of the one-time link.
func (a *Service) SetupAllowed(token string) bool {
	want := setupToken(a.o.Layout)
	return want != "" && secret.Equal(token, want)
}

// HasNoUsers reports whether no user exists yet.
func (a *Service) HasNoUsers(ctx context.Context) bool {
	if a.hasUsers.Load() {
		return false
	}
	n, err := a.o.DB.UserCount(ctx)
	if n > 0 {
		a.hasUsers.Store(true)
	}
	return err == nil && n == 0
}

// SetUp creates the first user, who proves with the token that they can read
// the server's data folder.
func (a *Service) SetUp(ctx context.Context, c Client, token, name, password string) (*store.User, error) {
	if err := a.checkRate(c, "setup", ""); err != nil {
		return nil, err
	}
	if !a.HasNoUsers(ctx) {
		return nil, agented.Errorf(agented.Conflict, "this server has already been set up: log in instead")
	}
	if !a.SetupAllowed(token) {
		return nil, agented.Errorf(agented.Denied, "the setup link is not valid: use the one in the file setup-link of the server's data folder; if the file is gone, restart the server")
	}
	if err := agented.InvalidFields(append(checkUserName("name", name), checkPassword("password", password, name)...)); err != nil {
		return nil, err
	}
	hash, err := a.o.Passwords.Hash(ctx, password)
	if err != nil {
		return nil, err
	}
	user := &store.User{Name: name, PasswordHash: hash, CreatedAt: a.o.Now()}
	if err := a.o.DB.CreateFirstAdmin(ctx, user); err != nil {
		return nil, err
	}
	a.hasUsers.Store(true)
	if err := os.Remove(a.o.Layout.SetupLink()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.o.Log.Warn("could not remove the used setup link", "err", err) // it is no longer valid
	}
	a.o.Log.Info("set up", "user", user.Name)
	return user, nil
}

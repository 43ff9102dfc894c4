package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/localsocket"
)

// openLocal opens the socket for client commands of the server's user. The lock
// of the data folder is held, so no other server uses the socket. Without the
// socket the server works, but commands need an API key.
func (a *App) openLocal(ctx context.Context) error {
	paths := []string{a.layout.Socket()}
	// Some file systems have no sockets.
	sum := sha256.Sum256([]byte(a.layout.Root))
	name := "agented-" + hex.EncodeToString(sum[:6]) + ".sock"
	if dir := a.o.Config.XDGRuntimeDir; dir != "" {
		paths = append(paths, filepath.Join(dir, name))
	}
	if home := a.o.Config.Home; home != "" {
		paths = append(paths, filepath.Join(home, ".local", "state", "agented", name))
	}
	local, err := localsocket.Listen(paths...)
	if err != nil {
		a.o.Log.Warn("the local socket for client commands cannot be opened: commands on this machine need AGENTED_API_KEY", "err", err)
		return nil
	}
	a.local = local
	a.onClose("close the local socket", a.closeLocal)
	return auth.RetireCLIKey(ctx, a.db, a.layout, a.o.Log)
}

// localSettle is the time between the removal of the local socket and its end. Connections that
// began before are accepted meanwhile; closing the socket would cut them off.
const localSettle = 25 * time.Millisecond

// drainLocal ends the local socket without losing a request.
func (a *App) drainLocal() error {
	if a.local == nil {
		return nil
	}
	err := a.local.Withdraw()
	time.Sleep(localSettle)
	return errors.Join(err, a.closeLocal())
}

// closeLocal closes the local socket. It can be called again.
func (a *App) closeLocal() error {
	if a.local == nil {
		return nil
	}
	if err := a.local.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serveLocal serves the API on the local socket until it is closed.
func (a *App) serveLocal() {
	if a.local == nil {
		return
	}
	if err := a.http.Serve(a.local); err != nil && !a.draining.Load() {
		a.o.Log.Error("the local socket for client commands has failed: commands on this machine need AGENTED_API_KEY", "err", err)
	}
}

// socket returns the path of the local socket, or "".
func (a *App) socket() string {
	if a.local == nil {
		return ""
	}
	return a.local.Path()
}

package app

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/notify"
)

// openNotifications creates what sends notifications to channels.
func (a *App) openNotifications() {
	a.guard = &notify.Guard{
		Allow: func() []netip.Prefix { return a.config.Load().NotifyPrefixes() }, Own: a.ownAddress, Lookup: notify.LookupHost,
	}
	a.notifications = notify.New(notify.Options{
		DB: a.db, Guard: a.guard, Open: auth.NewSealer(a.key).OpenChannel, Secret: a.vault().ForServer, Log: a.o.Log,
		Mask:        func(s string) string { return a.o.Masker.Load().MaskString(s) },
		Base:        a.publicURL,
		ParkedAfter: func() time.Duration { return a.config.Load().NotifyParkedAfter },
		Zone:        func() *time.Location { return zone(a.config.Load()) },
	})
	a.db.OnNotice(a.notifications.Wake)
}

// ownAddress returns the address that the server listens on, invalid for a socket file.
func (a *App) ownAddress() netip.AddrPort {
	if tcp, ok := a.listener.Addr().(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// publicURL returns the URL of the web interface for people, empty if it is unknown.
func (a *App) publicURL() string {
	c := a.config.Load()
	if !strings.HasPrefix(c.PublicURL, "http") {
		return ""
	}
	return strings.TrimSuffix(c.PublicURL, c.BasePath) + c.BasePath
}

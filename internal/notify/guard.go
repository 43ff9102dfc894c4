package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agented/agented"
)

// Guard decides which addresses channels may reach. A channel is configured by people and
// called by the server, from inside its network.
type Guard struct {
	Allow  func() []netip.Prefix // addresses that are allowed although they are not public
	Own    func() netip.AddrPort // the server's own listener; invalid if it has no port
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// PublicOnly returns a Guard for public addresses.
func PublicOnly() *Guard {
	return &Guard{
		Allow: func() []netip.Prefix { return nil }, Own: func() netip.AddrPort { return netip.AddrPort{} }, Lookup: LookupHost,
	}
}

// LookupHost resolves a name as the machine does.
func LookupHost(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// special are addresses that are not public beyond those that netip knows.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),    // shared by carriers; metadata of some clouds
	netip.MustParsePrefix("168.63.129.16/32"), // metadata of a cloud, in a public range
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"), // Teredo
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("fec0::/10"), // site-local, deprecated
}

// errRefused is the error for an address that the server must not reach.
var errRefused = errors.New("refused")

// refusal is an errRefused with its reason.
type refusal struct{ text string }

func (r *refusal) Error() string        { return r.text }
func (r *refusal) Is(target error) bool { return target == errRefused }

// Check returns an error if the address must not be reached.
func (g *Guard) Check(to netip.AddrPort) error {
	addr := to.Addr().Unmap().WithZone("")
	if own := g.Own(); own.IsValid() && own.Port() == to.Port() && g.isLocal(addr, own.Addr()) {
		return &refusal{fmt.Sprintf("%s is this server itself", to)}
	}
	if slices.ContainsFunc(g.Allow(), func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return nil
	}
	for _, a := range append(embedded(addr), addr) {
		if !public(a) {
			return &refusal{fmt.Sprintf("%s is not a public address: allow it with AGENTED_NOTIFY_ALLOW if the channel may reach it", addr)}
		}
	}
	return nil
}

func public(a netip.Addr) bool {
	return a.IsValid() && a.IsGlobalUnicast() && !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() &&
		!slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// embedded returns the IPv4 address that an IPv6 address leads to through a gateway.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:16]))}
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return nil
}

// isLocal reports whether a packet to the address reaches a listener of this machine.
func (g *Guard) isLocal(addr, listens netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() || addr == listens.Unmap() {
		return true
	}
	list, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(list, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}

// dialer returns a dialer that checks every address that it really connects to, after the
// name has been resolved.
func (g *Guard) dialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, Control: func(network, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return &refusal{fmt.Sprintf("%s is not an address", address)}
		}
		return g.Check(to)
	}}
}

// CheckHost refuses a host at the time that a channel is saved: the same rules as for each
// connection. A name that cannot be resolved now is accepted.
func (g *Guard) CheckHost(ctx context.Context, host string, port uint16) (allowed bool, err error) {
	var list []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		list = []netip.Addr{ip}
	} else {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if list, err = g.Lookup(ctx, host); err != nil {
			return false, nil
		}
	}
	allowed = true
	for _, ip := range list {
		if err := g.Check(netip.AddrPortFrom(ip, port)); err != nil {
			return false, err
		}
		allowed = allowed && slices.ContainsFunc(g.Allow(), func(p netip.Prefix) bool { return p.Contains(ip.Unmap().WithZone("")) })
	}
	return allowed, nil
}

// CheckURL refuses the URL of a channel. The error completes a sentence about the field and
// contains nothing of the path, which may be a secret.
func (g *Guard) CheckURL(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return agented.Errorf(agented.Invalid, "must be a URL such as https://hooks.example.org/…")
	case u.User != nil:
		return agented.Errorf(agented.Invalid, "must not contain a user or a password")
	case u.Fragment != "":
		return agented.Errorf(agented.Invalid, "must not contain #")
	case len(text) > 4000 || strings.ContainsAny(text, "\r\n\t "):
		return agented.Errorf(agented.Invalid, "must be at most 4000 characters without white space")
	}
	allowed, err := g.CheckHost(ctx, u.Hostname(), portOf(u))
	if err != nil {
		return agented.Errorf(agented.Invalid, "%s", err.Error())
	}
	if u.Scheme == "http" && !allowed {
		return agented.Errorf(agented.Invalid, "must begin with https://: without encryption, only addresses in AGENTED_NOTIFY_ALLOW can be used")
	}
	return nil
}

func portOf(u *url.URL) uint16 {
	if p, err := netip.ParseAddrPort("1.1.1.1:" + u.Port()); err == nil {
		return p.Port()
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}

package notify

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
)

func TestGuard_addresses(t *testing.T) {
	t.Parallel()
	g := PublicOnly()
	for _, bad := range []string{
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200",
		"168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "203.0.113.1",
		"::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "2001::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1",
	} {
		if err := g.Check(netip.AddrPortFrom(netip.MustParseAddr(bad), 443)); err == nil {
			t.Errorf("%s may be reached", bad)
		}
	}
	for _, good := range []string{"1.1.1.1", "140.82.112.3", "172.32.0.1", "2606:4700:4700::1111", "64:ff9b::101:101"} {
		if err := g.Check(netip.AddrPortFrom(netip.MustParseAddr(good), 443)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

// TestGuard_own refuses the server itself although its addresses are allowed.
func TestGuard_own(t *testing.T) {
	t.Parallel()
	for listens, to := range map[string]string{
		"127.0.0.1:20000": "127.0.0.1:20000", "[::]:20000": "127.9.9.9:20000", "0.0.0.0:20000": "[::1]:20000", "10.1.1.1:20000": "10.1.1.1:20000", "[::ffff:10.1.1.1]:20000": "[::ffff:10.1.1.1]:20000",
	} {
		g := &Guard{Allow: func() []netip.Prefix { return append(loopback(), netip.MustParsePrefix("10.0.0.0/8")) }, Own: func() netip.AddrPort { return netip.MustParseAddrPort(listens) }}
		if err := g.Check(netip.MustParseAddrPort(to)); err == nil || !strings.Contains(err.Error(), "this server itself") {
			t.Errorf("server on %s, channel to %s: %v", listens, to, err)
		}
		other := netip.AddrPortFrom(netip.MustParseAddrPort(to).Addr(), 20001)
		if err := g.Check(other); err != nil {
			t.Errorf("server on %s, channel to %s: %v", listens, other, err)
		}
	}
}

func TestGuard_url(t *testing.T) {
	t.Parallel()
	g := PublicOnly()
	g.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "inner.example":
			return []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("10.0.0.1")}, nil
		case "allowed.example":
			return []netip.Addr{netip.MustParseAddr("10.9.9.9")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("1.1.1.1")}, nil
	}
	g.Allow = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")} }
	for _, c := range []struct{ url, want string }{
		{"https://hooks.example/x", ""},
		{"https://hooks.example:8443/x?y=z", ""},
		{"http://allowed.example/x", ""},
		{"http://hooks.example/x", "must begin with https://"},
		{"https://inner.example/x", "10.0.0.1 is not a public address"},
		{"https://169.254.169.254/latest/meta-data", "169.254.169.254 is not a public address"},
		{"https://[::1]/", "::1 is not a public address"},
		{"https://[::ffff:127.0.0.1]/", "127.0.0.1 is not a public address"},
		{"https://user:pw@hooks.example/x", "must not contain a user"},
		{"https://hooks.example/x#y", "must not contain #"},
		{"ftp://hooks.example/x", "must be a URL"},
		{"file:///etc/passwd", "must be a URL"},
		{"https://", "must be a URL"},
		{"", "must be a URL"},
		{"https://hooks.example/\r\nX: y", "must be a URL"},
		{"https://hooks.example/ y", "without white space"},
	} {
		err := g.CheckURL(t.Context(), c.url)
		if got := agented.Message(err); err == nil != (c.want == "") || err != nil && !strings.HasPrefix(got, c.want) && !strings.Contains(got, c.want) {
			t.Errorf("%q: %v, want %q", c.url, err, c.want)
		}
	}
}

// TestGuard_rebinding saves a name that is public then, and leads into the network later.
func TestGuard_rebinding(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, nil)
	s.n.sender = newSender(PublicOnly(), s.now)
	url := strings.Replace(r.URL, "127.0.0.1", "localhost", 1)
	g := PublicOnly()
	g.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("1.1.1.1")}, nil
	}
	if err := g.CheckURL(t.Context(), strings.Replace(url, "http:", "https:", 1)); err != nil {
		t.Fatalf("when saved: %v", err)
	}
	s.channel(notices.Channel{Name: "a", Events: agented.NotificationKinds, Settings: notices.Settings{URL: url}})
	s.channel(notices.Channel{Name: "m", Kind: notices.Email, Events: agented.NotificationKinds, Settings: notices.Settings{
		Host: "localhost", Port: 25, TLS: TLSNone, From: "a@example.org", To: []string{"b@example.org"},
	}})
	s.notify(agented.NotifyHeld, "x")
	s.pass()
	for _, id := range []string{"chan-a", "chan-m"} {
		if n := s.list(id)[0]; n.Status != notices.Pending || !strings.Contains(n.Answer, "is not a public address") || len(r.all()) != 0 {
			t.Errorf("%s is %s: %q, %d calls", id, n.Status, n.Answer, len(r.all()))
		}
	}
}

// TestGuard_plain sends nothing without encryption to an address that is not in the list: the URL
// of a named secret is known only now.
func TestGuard_plain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	r := newReceiver(t, nil)
	s.n.o.Guard.Lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("1.1.1.1")}, nil
	}
	s.n.o.Secret = func(context.Context, string) (string, error) {
		return strings.Replace(r.URL, "127.0.0.1", "localhost", 1), nil
	}
	s.channel(notices.Channel{Name: "a", Kind: notices.Slack, Events: agented.NotificationKinds, Settings: notices.Settings{URL: agented.SecretRef("hook")}})
	s.notify(agented.NotifyHeld, "x")
	s.pass()
	if n := s.list("chan-a")[0]; n.Status != notices.Pending || !strings.Contains(n.Answer, "must begin with https://") || len(r.all()) != 0 {
		t.Errorf("%s: %q, %d calls", n.Status, n.Answer, len(r.all()))
	}
}

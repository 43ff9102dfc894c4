package api_test

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
)

// fromAddress is a client that connects from its own loopback address.
func fromAddress(t *testing.T, ip string) *http.Client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_TRUSTED_PROXIES=127.0.0.2, 10.0.0.0/8, fd00::/8"}})
	proxy, stranger := fromAddress(t, "127.0.0.2"), fromAddress(t, "127.0.0.3")
	g.addUser("ada", agented.RoleViewer)
	body := `{"name":"ada","password":"` + password + `"}`
	for name, c := range map[string]struct {
		client  *http.Client
		headers map[string]string
		address string
		secure  bool
	}{
		"client of the proxy":       {proxy, map[string]string{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}, "203.0.113.9", true},
		"claims before the proxy's": {proxy, map[string]string{"X-Forwarded-For": "1.1.1.1, 203.0.113.9", "X-Forwarded-Proto": "https, http"}, "203.0.113.9", false},
		"two trusted proxies":       {proxy, map[string]string{"X-Forwarded-For": "1.1.1.1, 203.0.113.9, 10.1.2.3", "X-Forwarded-Proto": "https"}, "203.0.113.9", true},
		"protocol of both proxies":  {proxy, map[string]string{"X-Forwarded-For": "203.0.113.9, 10.1.2.3", "X-Forwarded-Proto": "https, http"}, "203.0.113.9", true},
		"port and brackets":         {proxy, map[string]string{"X-Forwarded-For": "[2001:db8::1]:4711"}, "2001:db8::1", false},
		"unknown behind the proxy":  {proxy, map[string]string{"X-Forwarded-For": "1.1.1.1, unknown"}, "127.0.0.2", false},
		"only trusted":              {proxy, map[string]string{"X-Forwarded-For": "10.0.0.1, 10.0.0.2"}, "10.0.0.1", false},
		"Forwarded":                 {proxy, map[string]string{"Forwarded": `for=1.1.1.1, for="[2001:db8::2]:80";proto=https;by=10.0.0.1, for=10.2.3.4;proto=http`}, "2001:db8::2", true},
		"stranger":                  {stranger, map[string]string{"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=1.1.1.1;proto=https"}, "127.0.0.3", false},
	} {
		var options []change
		for k, v := range c.headers {
			options = append(options, with(k, v))
		}
		a := g.send(c.client, "POST", "/api/v1/auth/login", body, options...).want(200)
		cookie := a.header.Get("Set-Cookie")
		if got := strings.Contains(cookie, "Secure"); got != c.secure {
			t.Errorf("%s: cookie %q", name, cookie)
		}
		list := g.do(agented.RoleAdmin, "GET", "/api/v1/audit?limit=1", "").want(200)
		if !strings.Contains(list.body, `"address":"`+c.address+`"`) {
			t.Errorf("%s: want the address %s in %s", name, c.address, list.body)
		}
	}
}

func TestTrustedProxies_login_limit(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"AGENTED_TRUSTED_PROXIES=127.0.0.2"}})
	g.addUser("ada", agented.RoleViewer)
	guess := func(c *http.Client, from string) int {
		return g.send(c, "POST", "/api/v1/auth/login", `{"name":"ada","password":"a wrong guess"}`, with("X-Forwarded-For", from)).status
	}
	refused := 0
	for i := range 40 {
		if guess(fromAddress(t, "127.0.0.3"), net.IPv4(203, 0, 113, byte(i)).String()) == 429 {
			refused++
		}
	}
	if refused == 0 {
		t.Error("an untrusted peer chose a new address for every guess")
	}
	if got := guess(fromAddress(t, "127.0.0.2"), "198.51.100.1"); got != 401 {
		t.Errorf("a client behind the proxy is locked out by a stranger: %d", got)
	}
}

func TestMetrics_behind_proxy(t *testing.T) {
	t.Parallel()
	g := start(t, settings{options: func(o *api.Options) { o.Loopback = true }})
	g.do(agented.RoleNone, "GET", "/metrics", "").want(200)
	for _, name := range []string{"X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host", "Via", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "Forwarded"} {
		g.do(agented.RoleNone, "GET", "/metrics", "", with(name, "203.0.113.9")).problem(401)
	}
}

package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// started is a proxy with its address.
type started struct {
	*Proxy
	refusals *Refusals
	url      *url.URL
}

// start starts a proxy for which names have the given addresses.
func start(t *testing.T, allow []string, names map[string]string) started {
	t.Helper()
	s := started{refusals: &Refusals{}}
	var err error
	if s.Proxy, err = New(allow, s.refusals); err != nil {
		t.Fatal(err)
	}
	s.proxyOf = func(*http.Request) (*url.URL, error) { return nil, nil }
	s.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if ip, ok := names[host]; ok {
			return []netip.Addr{netip.MustParseAddr(ip)}, nil
		}
		return nil, fmt.Errorf("no such host %s", host)
	}
	server := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		server.CloseClientConnections()
		server.Close()
	})
	s.url, _ = url.Parse(server.URL)
	return s
}

// client returns a client of the proxy that accepts any certificate.
func (s started) client(server *httptest.Server) *http.Client {
	transport := &http.Transport{Proxy: http.ProxyURL(s.url), DisableKeepAlives: true}
	if server != nil && server.TLS != nil {
		transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	}
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// web returns a server that answers with the host that it was asked for.
func web(t *testing.T, make func(http.Handler) *httptest.Server) (server *httptest.Server, port string) {
	t.Helper()
	server = make(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s%s %s %s", r.Method, r.Host, r.URL, body, r.Header.Get("Proxy-Authorization"))
	}))
	t.Cleanup(server.Close)
	_, port, _ = net.SplitHostPort(server.Listener.Addr().String())
	return server, port
}

func TestProxy_reaches_allowed_hosts(t *testing.T) {
	t.Parallel()
	secure, securePort := web(t, httptest.NewTLSServer)
	plain, plainPort := web(t, httptest.NewServer)
	for _, c := range []struct {
		name, url, allow string
		server           *httptest.Server
	}{
		{"address by CONNECT", "https://127.0.0.1:" + securePort + "/x", "127.0.0.1:" + securePort, secure},
		{"range by CONNECT", "https://127.0.0.1:" + securePort + "/x", "127.0.0.0/8:*", secure},
		{"address by HTTP", "http://127.0.0.1:" + plainPort + "/x", "127.0.0.1:*", plain},
		{"localhost", "http://localhost:" + plainPort + "/x", "localhost:" + plainPort, plain},
	} {
		s := start(t, []string{c.allow}, map[string]string{"localhost": "127.0.0.1"})
		res, err := s.client(c.server).Post(c.url, "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		u, _ := url.Parse(c.url)
		if res.StatusCode != http.StatusOK || string(text) != "POST "+u.Host+"/x body " {
			t.Errorf("%s: %d %q", c.name, res.StatusCode, text)
		}
		if all, _ := s.refusals.All(); len(all) > 0 {
			t.Errorf("%s: refused %+v", c.name, all)
		}
	}
}

// TestProxy_refuses tries addresses that are not on the list, and names on the list whose address
// leads into the local network.
func TestProxy_refuses(t *testing.T) {
	t.Parallel()
	server, port := web(t, httptest.NewServer)
	names := map[string]string{
		"inside.example.org": "127.0.0.1", "private.example.org": "10.1.2.3", "metadata.example.org": "169.254.169.254",
		"mapped.example.org": "::ffff:127.0.0.1", "translated.example.org": "64:ff9b::7f00:1", "zero.example.org": "0.0.0.0",
	}
	for _, c := range []struct{ url, want string }{
		{"http://127.0.0.1:" + port, "not in network.allow"},
		{"http://localhost:" + port, "not in network.allow"},
		{"http://127.1:" + port, "not in network.allow"},
		{"http://2130706433:" + port, "not in network.allow"},
		{"http://[::ffff:127.0.0.1]:" + port, "not in network.allow"},
		{"https://evil.example.net", "not in network.allow"},
		{"http://example.org", "not in network.allow"},
		{"http://xexample.org", "not in network.allow"},
		{"http://a.example.org:22", "not in network.allow"},
		{"http://inside.example.org", "127.0.0.1, which is a loopback address; network.allow must contain 127.0.0.1:80"},
		{"https://private.example.org", "10.1.2.3, which is a private address; network.allow must contain 10.1.2.3:443"},
		{"http://metadata.example.org", "a link-local address"},
		{"http://mapped.example.org", "a loopback address"},
		{"http://translated.example.org", "a loopback address"},
		{"http://zero.example.org", "not an address of a host"},
	} {
		s := start(t, []string{"*.example.org"}, names)
		res, err := s.client(server).Get(c.url)
		if strings.HasPrefix(c.url, "http:") {
			if err != nil {
				t.Errorf("%s: %v", c.url, err)
				continue
			}
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusForbidden || !strings.Contains(string(text), c.want) {
				t.Errorf("%s: %d %q", c.url, res.StatusCode, text)
			}
		} else if err == nil {
			res.Body.Close()
			t.Errorf("%s: %d", c.url, res.StatusCode)
		}
		if all, more := s.refusals.All(); len(all) != 1 || all[0].Count != 1 || more != 0 || !strings.Contains(all[0].Reason, c.want) {
			t.Errorf("%s: noted %+v", c.url, all)
		}
	}
}

// TestProxy_resolves_once is about a name whose address changes between a check and its use.
func TestProxy_resolves_once(t *testing.T) {
	t.Parallel()
	_, port := web(t, httptest.NewServer)
	s := start(t, []string{"rebound.example.org:" + port}, nil)
	calls := 0
	s.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		calls++
		if calls > 1 {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}
	res, err := s.client(nil).Get("http://rebound.example.org:" + port)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden || calls != 1 {
		t.Errorf("%d after %d lookups", res.StatusCode, calls)
	}
}

// TestProxy_does_not_resolve_refused_names is about names that carry data to a server of names.
func TestProxy_does_not_resolve_refused_names(t *testing.T) {
	t.Parallel()
	s := start(t, []string{"example.org"}, nil)
	s.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		t.Errorf("%s was resolved", host)
		return nil, nil
	}
	for n := range 3 * maxRefused {
		_, _ = s.client(nil).Get(fmt.Sprintf("https://data-%d.attacker.example", n%(2*maxRefused)))
	}
	all, more := s.refusals.All()
	if len(all) != maxRefused || more != maxRefused || all[0].Count != 2 || all[0].Address != "data-0.attacker.example:443" {
		t.Errorf("%d listed, %d more, %+v", len(all), more, all[0])
	}
}

// TestProxy_host_is_that_of_the_URL sends another name to an allowed server.
func TestProxy_host_is_that_of_the_URL(t *testing.T) {
	t.Parallel()
	_, port := web(t, httptest.NewServer)
	s := start(t, []string{"127.0.0.1:" + port}, nil)
	conn, err := net.Dial("tcp", s.url.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET http://127.0.0.1:%s/x HTTP/1.1\r\nHost: other.example.org\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n", port)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); string(text) != "GET 127.0.0.1:"+port+"/x  " {
		t.Errorf("%q", text)
	}
}

// TestProxy_through_another_one uses a proxy of the environment.
func TestProxy_through_another_one(t *testing.T) {
	t.Parallel()
	server, port := web(t, httptest.NewTLSServer)
	plain, plainPort := web(t, httptest.NewServer)
	outer := start(t, []string{"127.0.0.1:*"}, nil)
	s := start(t, []string{"127.0.0.1:" + port, "127.0.0.1:" + plainPort}, nil)
	s.proxyOf = func(*http.Request) (*url.URL, error) { return outer.url, nil }
	for _, c := range []struct {
		server *httptest.Server
		url    string
	}{{server, "https://127.0.0.1:" + port}, {plain, "http://127.0.0.1:" + plainPort}} {
		res, err := s.client(c.server).Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", c.url, res.StatusCode)
		}
	}
	if res, err := s.client(server).Get("https://10.0.0.1"); err == nil {
		res.Body.Close()
		t.Error("an address that is not on the list was reached")
	}
}

func TestProxy_close_ends_tunnels(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := start(t, []string{l.Addr().String()}, nil)
	conn, err := net.Dial("tcp", s.url.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nearly", l.Addr())
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	_ = in.SetDeadline(time.Now().Add(time.Minute))
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "early" {
		t.Fatalf("%q, %v", got, err)
	}
	s.Close()
	if _, err := in.Read(got); err == nil {
		t.Error("the tunnel is open")
	}
}

func TestSpecial(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]bool{
		"8.8.8.8": false, "2606:4700::1111": false, "2002:808:808::1": false, "172.15.0.1": false, "172.32.0.1": false, "100.63.0.1": false,
		"127.0.0.2": true, "0.0.0.0": true, "10.0.0.1": true, "172.16.0.1": true, "192.168.1.1": true, "169.254.169.254": true,
		"100.100.100.200": true, "168.63.129.16": true, "192.0.0.192": true, "224.0.0.1": true, "255.255.255.255": true,
		"::": true, "::1": true, "fe80::1": true, "fc00::1": true, "fd00:ec2::254": true, "ff02::1": true, "::7f00:1": true,
		"::ffff:10.0.0.1": true, "2002:7f00:1::1": true, "64:ff9b::a00:1": true, "2001:db8::1": true,
	} {
		if got := special(netip.MustParseAddr(ip)); (got != "") != want {
			t.Errorf("%s: %q", ip, got)
		}
	}
}

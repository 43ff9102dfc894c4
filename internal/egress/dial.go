package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// dial connects with a host, directly or through the proxy of the environment.
func (p *Proxy) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	address := net.JoinHostPort(host, strconv.Itoa(int(port)))
	via, err := p.proxyOf(&http.Request{URL: &url.URL{Scheme: "https", Host: address}})
	if err != nil {
		return nil, err
	}
	if via == nil {
		return p.dialDirect(ctx, host, port)
	}
	if err := p.literal(host, port); err != nil {
		return nil, err
	}
	return dialVia(ctx, via, address)
}

// dialAddress is dialDirect for an address of net/http.
func (p *Proxy) dialAddress(ctx context.Context, _, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return p.dialDirect(ctx, host, uint16(port))
}

// dialDirect resolves a name and connects with the first of its addresses that may be reached.
func (p *Proxy) dialDirect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	addrs, err := p.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	var failed, refused error
	for _, ip := range addrs {
		if err := p.permit(host, ip, port); err != nil {
			refused = err
			continue
		}
		conn, err := (&net.Dialer{Timeout: dialTimeout / 3}).DialContext(ctx, "tcp", netip.AddrPortFrom(ip, port).String())
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	if failed == nil {
		failed = refused
	}
	if failed == nil {
		failed = errors.New("it has no address")
	}
	return nil, failed
}

// resolve returns the addresses of a host.
func (p *Proxy) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	addrs, err := p.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

// permit returns why an address may not be connected to, or nil.
func (p *Proxy) permit(host string, ip netip.Addr, port uint16) error {
	if p.list.Addr(ip, port) {
		return nil
	}
	kind := special(ip)
	if kind == "" && ownAddress(ip) {
		kind = "an address of this machine"
	}
	if kind == "" {
		return nil
	}
	entry := netip.AddrPortFrom(ip, port).String()
	if host == ip.String() {
		return refusedError("it is " + kind + "; network.allow must contain " + entry)
	}
	return refusedError(fmt.Sprintf("it has the address %s, which is %s; network.allow must contain %s too", ip, kind, entry))
}

// literal returns why a host that is an address may not be connected to. Names are resolved by the
// proxy of the environment.
func (p *Proxy) literal(host string, port uint16) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	return p.permit(host, ip.Unmap(), port)
}

// special returns what an address is if it is not one of the public internet, or "".
func special(ip netip.Addr) string {
	ip = ip.Unmap()
	if ip.Is6() {
		if inner, ok := embedded(ip); ok {
			return special(inner)
		}
	}
	switch {
	case !ip.IsValid() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast():
		return "not an address of a host"
	case ip.IsLoopback():
		return "a loopback address"
	case ip.IsLinkLocalUnicast():
		return "a link-local address, as those of metadata services are"
	case ip.IsPrivate():
		return "a private address"
	}
	for _, text := range [...]string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"168.63.129.16/32", // the metadata service of a cloud
		"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "fec0::/10", "5f00::/16",
	} {
		if netip.MustParsePrefix(text).Contains(ip) {
			return "a reserved address"
		}
	}
	return ""
}

// embedded returns the IPv4 address in an IPv6 address of a translation.
func embedded(ip netip.Addr) (netip.Addr, bool) {
	b := ip.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case netip.MustParsePrefix("2002::/16").Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return ip, false
}

// ownAddress reports whether an interface of this machine has the address.
func ownAddress(ip netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == ip {
				return true
			}
		}
	}
	return false
}

// dialVia connects with an address through an HTTP proxy.
func dialVia(ctx context.Context, via *url.URL, address string) (net.Conn, error) {
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
	}
	if port == "" {
		return nil, fmt.Errorf("the server's proxy is one of %s, which is not supported", via.Scheme)
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", net.JoinHostPort(via.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("the server's proxy: %w", err)
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname()})
	}
	if at, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(at)
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := via.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	in := bufio.NewReader(conn)
	err = req.Write(conn)
	if err == nil {
		var res *http.Response
		if res, err = http.ReadResponse(in, req); err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answered %d", res.StatusCode)
		}
	}
	if err == nil && in.Buffered() > 0 {
		err = errors.New("it sent data before it was asked")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the server's proxy: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, nil
}

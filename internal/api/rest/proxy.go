package rest

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/ratelimit"
)

// address is the network address of a client, for logs and limits.
type address struct {
	ip    netip.Addr // invalid for a unix socket
	local bool       // the connection comes from this machine
}

func (a address) String() string {
	if !a.ip.IsValid() {
		return "unix"
	}
	return a.ip.String()
}

// proxyHeaders are headers that reverse proxies add. If a request has one of
// them, the address of its connection is not the client'm.
var proxyHeaders = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix", "X-Forwarded",
	"Forwarded-For", "X-Original-Forwarded-For", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Envoy-External-Address", "Via",
	"Cf-Connecting-Ip", "True-Client-Ip", "Fastly-Client-Ip", "X-Azure-Clientip", "X-Appengine-User-Ip",
}

// client is the client of a request, as reported by trusted proxies.
type client struct {
	address
	https bool // the client's connection is encrypted
}

// Client returns the client of a request in the form that package auth takes.
func Client(r *http.Request) auth.Client {
	c := clientOf(r)
	return auth.Client{
		Address: c.String(), Network: ratelimit.Network(c.ip), Local: c.local, Encrypted: c.https, UserAgent: r.UserAgent(),
		Process: processOf(r),
	}
}

// Address returns the address of the client of a request; it is invalid for a
// unix socket.
func Address(r *http.Request) netip.Addr { return peer(r).ip }

// peer returns the address of the client: the peer of the connection, or the
// client that trusted proxies report. Proxy headers from any other peer are
// ignored.
func peer(r *http.Request) address { return clientOf(r).address }

// forwarded reports whether a proxy forwarded the request.
func forwarded(r *http.Request) bool {
	return slices.ContainsFunc(proxyHeaders, func(name string) bool { return len(r.Header.Values(name)) > 0 })
}

// connectionAddress returns the address of the connection's peer.
func connectionAddress(r *http.Request) address {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return address{local: true} // a unix socket: its mode controls access
	}
	ip := at.Addr().Unmap().WithZone("")
	return address{ip: ip, local: ip.IsLoopback()}
}

// clientOf follows the chain of proxies from the server outwards while they are
// trusted. The first untrusted address is the client.
func clientOf(r *http.Request) client {
	c := client{address: connectionAddress(r), https: r.TLS != nil}
	var settings *config.Config
	if m := requestOf(r).router; m != nil {
		settings = m.Config()
	}
	if !settings.TrustsProxy(c.ip) {
		return c
	}
	hops, protos := forwardedFor(r)
	walked := 0
	for i := len(hops) - 1; i >= 0 && settings.TrustsProxy(c.ip); i-- {
		ip, ok := parseHop(hops[i])
		if !ok {
			break // "unknown", or an obfuscated name: earlier hops are unknown
		}
		c.address = address{ip: ip, local: ip.IsLoopback()}
		walked++
	}
	// One entry per proxy, or a single one set by the last proxy.
	if n := len(protos); n > 0 && r.TLS == nil {
		c.https = strings.EqualFold(protos[min(n-1, max(0, n-max(1, walked)))], "https")
	}
	return c
}

// forwardedFor returns the addresses and protocols that proxies recorded,
// nearest proxy last. X-Forwarded-For and X-Forwarded-Proto take precedence
// over Forwarded.
func forwardedFor(r *http.Request) (hops, protos []string) {
	hops, protos = headerValues(r, "X-Forwarded-For"), headerValues(r, "X-Forwarded-Proto")
	if len(hops) > 0 && len(protos) > 0 {
		return hops, protos
	}
	var fors, schemes []string
	for _, element := range splitQuoted(strings.Join(r.Header.Values("Forwarded"), ","), ',') {
		by, proto := "unknown", ""
		for _, pair := range splitQuoted(element, ';') {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "for":
				by = value
			case "proto":
				proto = value
			}
		}
		fors, schemes = append(fors, by), append(schemes, proto)
	}
	if len(hops) == 0 && !slices.ContainsFunc(fors, func(f string) bool { return f != "unknown" }) {
		return nil, append(protos, schemes...)
	}
	if len(hops) == 0 {
		hops = fors
	}
	if len(protos) == 0 && len(r.Header.Values("X-Forwarded-For")) == 0 {
		protos = schemes
	}
	return hops, protos
}

// headerValues splits every value of a header at commas.
func headerValues(r *http.Request, name string) []string {
	var out []string
	for _, v := range r.Header.Values(name) {
		for item := range strings.SplitSeq(v, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
	}
	return out
}

// splitQuoted splits text at separators outside double quotes.
func splitQuoted(text string, separator byte) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			out = append(out, text[from:i])
			from = i + 1
		}
	}
	if rest := text[from:]; strings.TrimSpace(rest) != "" {
		out = append(out, rest)
	}
	return out
}

// parseHop parses an address with or without a port and brackets.
func parseHop(text string) (netip.Addr, bool) {
	text = strings.Trim(strings.TrimSpace(text), `"`)
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap().WithZone(""), true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return ip.Unmap().WithZone(""), err == nil
}

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// noProxy is the value that trusts no proxy at all.
const noProxy = "none"

// TrustsProxy reports whether headers such as X-Forwarded-For from the peer at
// ip are trusted. An invalid ip stands for a unix socket.
//
// Loopback addresses are trusted unless AGENTED_TRUSTED_PROXIES contains
// loopback addresses or is none.
func (c *Config) TrustsProxy(ip netip.Addr) bool {
	var list []netip.Prefix
	if c != nil {
		list = c.proxies
		if slices.Contains(c.TrustedProxies, noProxy) {
			return false
		}
	}
	if !ip.IsValid() {
		return true
	}
	if slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return true
	}
	return ip.IsLoopback() && !slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
}

// prefixes parses TrustedProxies, which was validated when it was read.
func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// parseProxy parses an address or prefix of AGENTED_TRUSTED_PROXIES.
func parseProxy(item string) (string, error) {
	switch strings.ToLower(item) {
	case noProxy:
		return noProxy, nil
	case "*", "all":
		return "", errors.New("would let every client choose its own address; list the addresses of your proxies, for example 172.16.0.0/12")
	case "localhost":
		item = "127.0.0.0/8"
	}
	p, ok := addressOrPrefix(item)
	if !ok {
		return "", fmt.Errorf("has an entry that is neither an address nor a prefix (%s); write 172.17.0.1, 10.0.0.0/8, fd00::/8 or none", quote(item))
	}
	if p.Bits() == 0 {
		return "", errors.New("would let every client choose its own address; list the addresses of your proxies, for example 172.16.0.0/12")
	}
	return p.String(), nil
}

// parsePrefix parses an address or prefix of AGENTED_NOTIFY_ALLOW.
func parsePrefix(item string) (string, error) {
	if strings.EqualFold(item, "localhost") {
		return "", errors.New("has the entry localhost; write 127.0.0.0/8 or ::1")
	}
	p, ok := addressOrPrefix(item)
	if !ok {
		return "", fmt.Errorf("has an entry that is neither an address nor a prefix (%s); write 10.1.2.3, 192.168.0.0/16 or fd00::/8", quote(item))
	}
	return p.String(), nil
}

// addressOrPrefix parses an address without a zone, or a prefix, and returns it as a masked
// prefix. IPv4 addresses that are mapped to IPv6 become IPv4.
func addressOrPrefix(item string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(strings.Trim(item, "[]")); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	p, err := netip.ParsePrefix(item)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// NotifyPrefixes returns the addresses of AGENTED_NOTIFY_ALLOW.
func (c *Config) NotifyPrefixes() []netip.Prefix { return prefixes(c.NotifyAllow) }

// ownPaths are the first segments of paths that the server serves itself.
var ownPaths = []string{
	"api", "assets", "docs", "health", "hooks", "login", "logout", "metrics", "openapi.json", "openapi.yaml", "setup", "static",
	"executions", "triggers", "deliveries", "schedule", "conversations", "agents", "inbox", "accounts", "usage", "chains", "settings",
}

// parseBasePath parses the path under which a proxy publishes the server.
func parseBasePath(raw string) (any, error) {
	path := strings.TrimRight(raw, "/")
	if path == "" {
		return "", nil
	}
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("is not a path; write it with a leading slash and without scheme and host, for example /agented")
	}
	for i, part := range strings.Split(path[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return nil, errors.New("has an empty segment or dots; write a plain path, for example /agented")
		}
		if strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~") != "" {
			return nil, errors.New("has characters other than letters, digits and - _ . ~; write a plain path, for example /agented")
		}
		if i == 0 && slices.Contains(ownPaths, part) {
			return nil, fmt.Errorf("begins with a path of the server itself (/%s); choose another, for example /agented", part)
		}
	}
	return path, nil
}

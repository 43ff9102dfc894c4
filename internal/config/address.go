package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is the longest socket path, in bytes, that both Linux (107) and
// macOS (103) support.
const maxSocketPath = 103

// Address is an address to listen on.
type Address struct {
	Network string // "tcp" or "unix"
	Host    string // tcp: name or IP without brackets, empty for all addresses
	Port    int    // tcp: 0 to 65535; with 0 the system chooses
	Path    string // unix: absolute path of the socket file
}

// ParseAddress parses host:port, :port, [v6]:port or unix:/path. A relative
// socket path is relative to dir.
func ParseAddress(s, dir string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		if path == "" {
			return Address{}, fmt.Errorf("has no file name; write unix:/run/agented/agented.sock")
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if path = filepath.Clean(path); len(path) > maxSocketPath {
			return Address{}, fmt.Errorf("is a socket path of %d bytes; use at most %d", len(path), maxSocketPath)
		}
		return Address{Network: "unix", Path: path}, nil
	}
	if strings.Contains(s, ",") {
		return Address{}, fmt.Errorf("has more than one address; keep one")
	}
	if strings.Contains(s, "://") || strings.Contains(s, "/") {
		return Address{}, fmt.Errorf("is not an address; write host:port, without http:// and path")
	}
	if _, err := strconv.Atoi(s); err == nil {
		return Address{}, fmt.Errorf("is only a port; write :%s for all addresses or 127.0.0.1:%s for this machine only", s, s)
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && !strings.Contains(s, "]:") {
		if ip.Is6() && s[0] != '[' { // ::1:8080 is also an IPv6 address, but hardly meant as one
			return Address{}, fmt.Errorf("has no port; an IPv6 address with a port needs brackets, as in [::1]:20000")
		}
		return Address{}, fmt.Errorf("has no port; write %s", net.JoinHostPort(ip.String(), "20000"))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") > 1 {
			return Address{}, fmt.Errorf("is not an address; an IPv6 address needs brackets, as in [::1]:20000")
		}
		return Address{}, fmt.Errorf("is not an address; write host:port, for example 127.0.0.1:20000")
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 || strings.HasPrefix(port, "+") {
		return Address{}, fmt.Errorf("has no valid port; write a number from 1 to 65535")
	}
	if host != "" && !validIP(host) && !validHostname(host) {
		return Address{}, fmt.Errorf("has no valid host; write an IP address, a host name, or 0.0.0.0 for all addresses")
	}
	return Address{Network: "tcp", Host: host, Port: n}, nil
}

// Listen returns the address argument of net.Listen.
func (a Address) Listen() string {
	if a.Network == "unix" {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// String returns the address as it is written in a setting.
func (a Address) String() string {
	switch a.Network {
	case "":
		return ""
	case "unix":
		return "unix:" + a.Path
	}
	return a.Listen()
}

// MarshalText returns String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Loopback reports whether only this machine can reach the address. That
// includes socket files, but no host name other than localhost, since names can
// change.
func (a Address) Loopback() bool {
	if a.Network == "unix" || strings.EqualFold(a.Host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Dial returns host:port at which this machine reaches a server that listens on
// the address: for 0.0.0.0 that is 127.0.0.1. It is empty for a socket file.
func (a Address) Dial() string {
	if a.Network == "unix" {
		return ""
	}
	host := a.Host
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if err == nil && ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

func validIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// validHostname accepts letters, digits, hyphens, dots and underscores, except
// for mistyped IPv4 addresses.
func validHostname(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

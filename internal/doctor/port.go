package doctor

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/agented/agented/internal/config"
)

// checkListens checks the listen address of the running server, whose settings may differ from
// those found here.
func checkListens(at string) Finding {
	if path, ok := strings.CutPrefix(at, "unix:"); ok {
		return judgeAddress(config.Address{Network: "unix", Path: path}, false)
	}
	u, err := url.Parse(at)
	if err != nil || u.Hostname() == "" {
		return Finding{ID: "server.address", Area: AreaServer, Name: "address", Status: OK, Text: at}
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		port = map[string]int{"http": 80, "https": 443}[u.Scheme]
	}
	return judgeAddress(config.Address{Network: "tcp", Host: u.Hostname(), Port: port}, u.Scheme == "https")
}

// recordThrottle checks whether an address is open to the network without TLS.
func judgeAddress(b config.Address, tls bool) Finding {
	f := Finding{ID: "server.address", Area: AreaServer, Name: "address", Status: OK}
	if b.Network == "unix" {
		f.Text = "a socket file, " + b.Path + ", for this machine only"
		return f
	}
	address := net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
	ip := net.ParseIP(b.Host)
	switch {
	case b.Host == "localhost" || ip != nil && ip.IsLoopback():
		f.Text = address + ", for this machine only"
	case tls:
		f.Text = address + ", with TLS"
	default:
		f.Status = Warn
		f.Text = address + " is reachable from other machines without TLS: keys and logins can be intercepted, unless only a proxy on this machine is allowed to connect"
		f.Fix = "set AGENTED_BIND=127.0.0.1:" + strconv.Itoa(b.Port) + " and put a proxy in front (deploy/Caddyfile.example), or set AGENTED_TLS_CERT and AGENTED_TLS_KEY"
	}
	return f
}

// checkPort checks the listen address of a server with these settings: whether it is open to the
// network without TLS, and whether another process uses the port.
func checkPort(o Options, holder int) []Finding {
	b := o.Config.Bind
	f := judgeAddress(b, o.Config.TLSCert != "")
	if b.Network == "unix" {
		return []Finding{f}
	}
	address := net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
	out := []Finding{f}
	if holder != 0 || b.Port == 0 {
		return out
	}
	taken, denied := probe(b)
	switch {
	case taken:
		who, keeps := portHolder(o.Root, b.Port)
		if keeps {
			return out // the service manager holds it for the server
		}
		out = append(out, Finding{
			ID: "server.port", Area: AreaServer, Name: "port", Status: Fail,
			Text: fmt.Sprintf("%s is used by %s, so a server cannot start", address, who),
			Fix:  "stop that program, or set AGENTED_BIND to another port",
		})
	case denied:
		out = append(out, Finding{
			ID: "server.port", Area: AreaServer, Name: "port", Status: Fail,
			Text: fmt.Sprintf("%s is not permitted for this user: ports below 1024 are reserved for root", address),
			Fix:  "sudo agented service install --socket, or set AGENTED_BIND to a port above 1023",
		})
	}
	return out
}

// addressOf returns the IP of an address, or nil for all addresses.
func addressOf(b config.Address) net.IP {
	if b.Host == "" {
		return nil
	}
	if ip := net.ParseIP(b.Host); ip != nil {
		return ip
	}
	if a, err := net.ResolveIPAddr("ip", b.Host); err == nil {
		return a.IP
	}
	return nil
}

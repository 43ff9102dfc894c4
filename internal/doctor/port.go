package doctor

import (
	"fmt"
	"net"
	"strconv"

	"github.com/agented/agented/internal/config"
)

// checkPort says where a server listens, whether that is open to the network
// without TLS, and who holds the place if it is not the server.
func checkPort(o Options, holder int) []Finding {
	b := o.Config.Bind
	f := Finding{ID: "server.address", Area: AreaServer, Name: "address", Status: OK}
	if b.Network == "unix" {
		f.Text = "a socket file, " + b.Path + ", for this machine only"
		return []Finding{f}
	}
	address := net.JoinHostPort(b.Host, strconv.Itoa(b.Port))
	ip := net.ParseIP(b.Host)
	loop := b.Host == "localhost" || ip != nil && ip.IsLoopback()
	switch {
	case loop:
		f.Text = address + ", for this machine only"
	case o.Config.TLSCert != "":
		f.Text = address + ", with TLS"
	default:
		f.Status = Warn
		f.Text = address + " can be reached from other machines, without TLS: keys and logins can be read on the way, unless a proxy on this machine is the only one that is let through"
		f.Mend = "set AGENTED_BIND=127.0.0.1:" + strconv.Itoa(b.Port) + " and put a proxy in front (deploy/Caddyfile.example), or set AGENTED_TLS_CERT and AGENTED_TLS_KEY"
	}
	out := []Finding{f}
	if holder != 0 || b.Port == 0 {
		return out
	}
	taken, denied := probe(b)
	switch {
	case taken:
		who, keeps := portHolder(o.Root, b.Port)
		if keeps {
			return out // the supervisor keeps it for the server
		}
		out = append(out, Finding{
			ID: "server.port", Area: AreaServer, Name: "port", Status: Fail,
			Text: fmt.Sprintf("%s is taken by %s, so a server cannot start", address, who),
			Mend: "end that program, or set AGENTED_BIND to another port",
		})
	case denied:
		out = append(out, Finding{
			ID: "server.port", Area: AreaServer, Name: "port", Status: Fail,
			Text: fmt.Sprintf("%s may not be used by this user: ports below 1024 are for root", address),
			Mend: "sudo agented service install --socket, or set AGENTED_BIND to a port above 1023",
		})
	}
	return out
}

// addressOf is the IP that an address stands for, nil for every one.
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

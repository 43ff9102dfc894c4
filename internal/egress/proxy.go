// Package egress is the way out of a sandbox without a network: an HTTP proxy that reaches only the
// hosts of an allow-list. It resolves names itself, and checks the address that it connects to, so
// that a name on the list cannot lead to the machine or to its local network.
package egress

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
)

// dialTimeout bounds the wait for a connection, with the resolution of the name.
const dialTimeout = 30 * time.Second

// Proxy handles the requests of one attempt.
type Proxy struct {
	list     agented.AllowList
	refusals *Refusals
	plain    *httputil.ReverseProxy
	direct   *http.Transport
	via      *http.Transport
	// lookup resolves a name, and proxyOf returns the proxy of the environment for a request or nil.
	lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error)
	proxyOf func(*http.Request) (*url.URL, error)

	mu     sync.Mutex // guards the following fields
	open   map[net.Conn]struct{}
	closed bool
}

// New returns a proxy for the hosts of [agented.Network]. The proxies of the process's environment
// apply.
func New(allow []string, refusals *Refusals) (*Proxy, error) {
	list, err := agented.NewAllowList(allow)
	if err != nil {
		return nil, err
	}
	p := &Proxy{list: list, refusals: refusals, open: map[net.Conn]struct{}{}, lookup: net.DefaultResolver.LookupNetIP, proxyOf: http.ProxyFromEnvironment}
	p.direct = &http.Transport{DialContext: p.dialAddress, DisableCompression: true, IdleConnTimeout: 30 * time.Second, MaxIdleConns: 16}
	p.via = &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) { return p.proxyOf(r) }, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DisableCompression: true, IdleConnTimeout: 30 * time.Second, MaxIdleConns: 16,
	}
	p.plain = &httputil.ReverseProxy{
		Transport:     transports{p},
		FlushInterval: -1, // at once
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.Host = r.Out.URL.Host },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				panic(http.ErrAbortHandler) // the client has closed the connection
			}
			host, port := target(r)
			p.fail(w, host, port, err)
		},
	}
	return p, nil
}

// For reports whether a request is for a proxy, as opposed to a server.
func For(r *http.Request) bool { return r.Method == http.MethodConnect || r.URL.Host != "" }

// ServeHTTP handles a request for which [For] returns true.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, port := target(r)
	switch {
	case port == 0 || r.Method != http.MethodConnect && r.URL.Scheme != "http":
		http.Error(w, "the proxy of this execution supports CONNECT HOST:PORT and http:// only", http.StatusBadRequest)
	case !p.list.Host(host, port):
		p.fail(w, host, port, refusedError("it is not in network.allow"))
	case r.Method == http.MethodConnect:
		p.connect(w, r, host, port)
	default:
		p.plain.ServeHTTP(w, r)
	}
}

// target returns the host and the port that a request asks for; port 0 if it names none.
func target(r *http.Request) (host string, port uint16) {
	host = r.URL.Hostname()
	text := r.URL.Port()
	if text == "" && r.Method != http.MethodConnect {
		text = "80"
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || host == "" {
		return host, 0
	}
	return host, uint16(n)
}

// refusedError is the reason of a refusal. It continues a sentence.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// fail answers a request that cannot be fulfilled, and notes a refusal.
func (p *Proxy) fail(w http.ResponseWriter, host string, port uint16, err error) {
	address := readable(net.JoinHostPort(host, strconv.Itoa(int(port))))
	var refused refusedError
	if errors.As(err, &refused) {
		p.refusals.add(address, string(refused))
		http.Error(w, "the network of this execution does not include "+address+": "+string(refused), http.StatusForbidden)
		return
	}
	http.Error(w, address+" could not be reached: "+readable(err.Error()), http.StatusBadGateway)
}

// connect connects the client with a host.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request, host string, port uint16) {
	out, err := p.dial(r.Context(), host, port)
	if err != nil {
		p.fail(w, host, port, err)
		return
	}
	defer out.Close()
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "the connection cannot be used", http.StatusInternalServerError)
		return
	}
	in, early, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	_ = in.SetDeadline(time.Time{})
	if !p.track(in, out) {
		return
	}
	defer p.forget(in, out)
	if _, err := io.WriteString(in, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pass(in, out) })
	// The client may have sent something before the answer.
	if n := early.Reader.Buffered(); n > 0 {
		if _, err := io.CopyN(out, early, int64(n)); err != nil {
			return
		}
	}
	pass(out, in)
	both.Wait()
}

// pass copies until from ends, and passes the end on.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}

// track remembers connections that Close must close. It returns false if that has happened.
func (p *Proxy) track(all ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range all {
		if !p.closed {
			p.open[c] = struct{}{}
		}
	}
	return !p.closed
}

func (p *Proxy) forget(all ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range all {
		delete(p.open, c)
	}
}

// Close closes all connections.
func (p *Proxy) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.direct.CloseIdleConnections()
	p.via.CloseIdleConnections()
}

// transports sends plain requests directly or through the proxy of the environment.
type transports struct{ p *Proxy }

// RoundTrip implements [http.RoundTripper].
func (t transports) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := t.p.proxyOf(r)
	if err != nil {
		return nil, err
	}
	if to == nil {
		return t.p.direct.RoundTrip(r)
	}
	if err := t.p.literal(target(r)); err != nil {
		return nil, err
	}
	return t.p.via.RoundTrip(r)
}

// readable makes a text of the client fit for a line.
func readable(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

package broker

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented/internal/egress"
)

// openProxy creates the proxy, if there is a list of hosts.
func (b *Broker) openProxy(allow []string, o Options) (err error) {
	if allow == nil {
		return nil
	}
	if b.mask = o.Mask; b.mask == nil {
		b.mask = func(s string) string { return s }
	}
	b.refusals = &egress.Refusals{First: func(r egress.Refusal) {
		r.Address = b.mask(r.Address)
		b.report.add(Record{Refused: &r})
		if o.Note != nil {
			o.Note("The network of the execution refused " + r.Address + ": " + r.Reason + ".")
		}
	}}
	b.inner = &innerListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	b.proxy, err = egress.New(allow, b.refusals)
	return err
}

// proxied handles a request for a proxy. It returns false if the request is for the broker itself,
// which some clients reach through the proxy too.
func (b *Broker) proxied(w http.ResponseWriter, r *http.Request) bool {
	own, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !strings.EqualFold(r.URL.Host, own.String()) {
		b.proxy.ServeHTTP(w, r)
		return true
	}
	if r.Method != http.MethodConnect {
		r.URL.Scheme, r.URL.Host = "", ""
		return false
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return false
	}
	conn, early, err := hijacker.Hijack()
	if err != nil {
		return true
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil || early.Reader.Buffered() > 0 {
		conn.Close()
		return true
	}
	b.inner.add(conn)
	return true
}

// reportRefused records how often each address was refused.
func (b *Broker) reportRefused() {
	all, more := b.refused()
	for _, r := range all {
		if r.Count > 1 {
			r.Address = b.mask(r.Address)
			b.report.add(Record{Refused: &r})
		}
	}
	if more > 0 {
		b.report.add(Record{Refused: &egress.Refusal{Count: more}})
	}
}

func (b *Broker) refused() ([]egress.Refusal, int) {
	if b.refusals == nil {
		return nil, 0
	}
	return b.refusals.All()
}

// RefusedSummary returns a line for the run log about what was refused repeatedly, or "".
func (b *Broker) RefusedSummary() string {
	if b == nil {
		return ""
	}
	all, more := b.refused()
	total := more
	for _, r := range all {
		total += r.Count
	}
	if total == len(all) {
		return ""
	}
	text := fmt.Sprintf("The network of the execution refused %d connections to %d addresses", total, len(all))
	if more > 0 {
		text += " and others that are not listed"
	}
	return text + "."
}

// innerListener passes connections that reached the broker through its own proxy to its server.
type innerListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *innerListener) add(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

// Accept implements [net.Listener].
func (l *innerListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *innerListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *innerListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

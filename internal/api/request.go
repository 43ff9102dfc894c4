package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// request is what the server knows about a request under way.
type request struct {
	server  *Server
	id      string
	start   time.Time
	http    *http.Request
	route   *route // nil: no route took it
	who     agented.Principal
	out     *response
	session *store.Session // set when a session cookie let it in
	taken   bool           // the connection was handed over, and the request ends with that
}

type requestKey struct{}

// requestOf finds the request in its context. Every request that reaches a
// handler has one.
func requestOf(r *http.Request) *request { return requestIn(r.Context()) }

func requestIn(ctx context.Context) *request {
	if q, ok := ctx.Value(requestKey{}).(*request); ok {
		return q
	}
	return &request{}
}

// principal is who asks.
func principal(ctx context.Context) agented.Principal { return requestIn(ctx).who }

// response notes what was answered.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets a file go out without passing through the program.
func (w *response) ReadFrom(from io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, from)
	w.bytes += n
	return n, err
}

func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack hands the connection over; what goes out afterwards is not counted.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusOK
	}
	return c, rw, err
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// track gives every request its id, and at its end writes the access log line,
// counts it, and turns a panic into a problem.
func (s *Server) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{server: s, start: time.Now(), out: &response{ResponseWriter: w}}
		if q.id = r.Header.Get("X-Request-ID"); !saneID(q.id) {
			q.id = agented.NewID("req", q.start)
		}
		w.Header().Set("X-Request-ID", q.id)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
		q.http = r
		s.m.inFlight.Inc()
		defer func() {
			caught := recover()
			if caught != nil && caught != http.ErrAbortHandler {
				caught = s.recovered(q, r, caught)
			}
			if !q.taken {
				s.end(q, r)(q.out.bytes)
			}
			if caught != nil {
				panic(http.ErrAbortHandler) // net/http cuts the connection, quietly
			}
		}()
		next.ServeHTTP(q.out, r)
	})
}

// recovered logs a panic. It answers 500 when nothing was written yet;
// otherwise it returns a value: the connection must be cut, so that the asker
// does not take half an answer for a whole one.
func (s *Server) recovered(q *request, r *http.Request, caught any) any {
	if err, ok := caught.(error); ok && q.out.status != 0 {
		if _, broken := errors.AsType[runtime.Error](err); !broken {
			s.o.Log.Debug("write the answer", "request", q.id, "err", err) // the asker went away
			return caught
		}
	}
	s.o.Log.Error("panic", "request", q.id, "method", r.Method, "path", s.mask(r.URL.Path),
		"err", fmt.Sprint(caught), "stack", string(debug.Stack()))
	if q.out.status != 0 {
		return caught
	}
	s.fail(q.out, r, &Problem{Status: http.StatusInternalServerError, Kind: agented.Internal, Detail: "internal error"})
	return nil
}

// end returns what counts a request and writes its line when it has ended. It
// keeps nothing of the request but what it needs for that.
func (s *Server) end(q *request, r *http.Request) func(sent int64) {
	status := q.out.status
	if status == 0 {
		status = http.StatusOK
	}
	route, streams := "unmatched", false
	if q.route != nil {
		route, streams = q.route.path, q.route.stream
	}
	start, method := q.start, r.Method
	var asked, who string
	if s.o.AccessLog != nil {
		who = "-"
		if q.who.Name != "" {
			who = strconv.Quote(q.who.Name)
		}
		asked = peer(r).String() + " " + strconv.Quote(r.Method+" "+s.maskedURL(r.URL)+" "+r.Proto)
		who += " " + q.id
	}
	return func(sent int64) {
		took := time.Since(start)
		s.m.inFlight.Dec()
		s.m.request(route, method, status, took, streams)
		if s.o.AccessLog == nil {
			return
		}
		line := fmt.Sprintf("%s %s %d %d %.3fms %s\n", start.UTC().Format("2006-01-02T15:04:05.000Z"), asked,
			status, sent, float64(took.Microseconds())/1000, who)
		_, _ = io.WriteString(s.o.AccessLog, s.mask(line)) // a full disk must not stop answers
	}
}

// handOver makes the request end when the returned function is called, and not
// with its handler: its connection lives on without net/http.
func (q *request) handOver() func(sent int64) {
	if q.server == nil {
		return func(int64) {}
	}
	s := q.server
	q.taken = true
	s.conns.Add(1) // net/http no longer counts it
	end := s.end(q, q.http)
	return func(sent int64) {
		s.conns.Add(-1)
		end(sent)
	}
}

// maskedURL is the path and query as asked for, without the values of
// parameters whose names say that they are secret.
func (s *Server) maskedURL(u *url.URL) string {
	path := clip(u.EscapedPath(), 2048)
	if u.RawQuery == "" {
		return path
	}
	parts := strings.Split(clip(u.RawQuery, 2048), "&")
	for i, part := range parts {
		name, _, has := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if has && (err != nil || agented.SecretName(strings.ReplaceAll(plain, "-", "_")) || plain == "code") {
			parts[i] = name + "=***"
		}
	}
	return path + "?" + strings.Join(parts, "&")
}

// saneID reports whether a request id from outside may go into logs and
// answers.
func saneID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return true
}

// address is where a request comes from, for logs and limits.
type address struct {
	ip    netip.Addr // invalid: a unix socket
	local bool       // the connection comes from this machine
}

func (a address) String() string {
	if !a.ip.IsValid() {
		return "unix"
	}
	return a.ip.String()
}

// peer finds out where a request comes from. A connection from this machine may
// be a reverse proxy: the last address that it names in X-Forwarded-For is then
// the asker. From anywhere else that header is a claim and is ignored.
func peer(r *http.Request) address {
	a := direct(r)
	if !a.local {
		return a
	}
	named := r.Header.Values("X-Forwarded-For")
	if len(named) == 0 {
		return a
	}
	last := named[len(named)-1]
	last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if ip, err := netip.ParseAddr(last); err == nil {
		return address{ip: ip.Unmap(), local: ip.Unmap().IsLoopback()}
	}
	return a
}

// direct is the other end of the connection.
func direct(r *http.Request) address {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return address{local: true} // a unix socket: its mode says who may connect
	}
	ip := at.Addr().Unmap().WithZone("")
	return address{ip: ip, local: ip.IsLoopback()}
}

// forwarded reports whether a proxy passed the request on.
func forwarded(r *http.Request) bool {
	return r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != ""
}

// secure reports whether the person's connection is encrypted: to us, or to a
// reverse proxy on this machine that says so.
func secure(r *http.Request) bool {
	return r.TLS != nil || direct(r).local && r.Header.Get("X-Forwarded-Proto") == "https"
}

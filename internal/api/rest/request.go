package rest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/ratelimit"
)

// request is the server's state of a request in progress.
type request struct {
	router   *Router
	id       string
	start    time.Time
	http     *http.Request
	route    *Route // nil if no route matched
	who      auth.Caller
	open     *auth.Stream // set for streams
	out      *response
	hijacked bool // the connection was hijacked; the request ends with the connection
}

type requestKey struct{}

// requestOf returns the request from its context. Every request that reaches a
// handler has one.
func requestOf(r *http.Request) *request { return requestIn(r.Context()) }

func requestIn(ctx context.Context) *request {
	if q, ok := ctx.Value(requestKey{}).(*request); ok {
		return q
	}
	return &request{}
}

// Principal returns the authenticated caller of a request in progress.
func Principal(ctx context.Context) agented.Principal { return requestIn(ctx).who.Principal }

// ID returns the id of the request in progress.
func ID(ctx context.Context) string { return requestIn(ctx).id }

// HTTP returns the http.Request in progress, with ctx as its context.
func HTTP(ctx context.Context) *http.Request { return requestIn(ctx).http.WithContext(ctx) }

// Caller returns the authenticated caller of a request.
func Caller(r *http.Request) auth.Caller { return requestOf(r).who }

// SetCaller sets the caller of a request that a login has authenticated, for the
// access log.
func SetCaller(r *http.Request, who auth.Caller) { requestOf(r).who = who }

// Identify authenticates the caller of a public route, who may be anonymous.
func Identify(r *http.Request) agented.Principal {
	q := requestOf(r)
	if q.router == nil || q.router.identify(q, r) != nil {
		return agented.Principal{}
	}
	return q.who.Principal
}

// response records the status and size of a response.
type response struct {
	http.ResponseWriter
	router *Router
	status int
	bytes  int64
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	if to := w.Header().Get("Location"); to != "" {
		w.Header().Set("Location", w.router.published(to))
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

// ReadFrom passes files to the connection directly (sendfile).
func (w *response) ReadFrom(from io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, from)
	w.bytes += n
	return n, err
}

func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack hands over the connection; later writes are not counted.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusOK
	}
	return c, rw, err
}

// Unwrap supports http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// track assigns every request its id and, when it ends, writes the access log
// line, counts the request, and converts a panic into a problem.
func (m *Router) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := &request{router: m, start: time.Now(), out: &response{ResponseWriter: w, router: m}}
		if q.id = r.Header.Get("X-Request-ID"); !validRequestID(q.id) {
			q.id = agented.NewID("req", q.start)
		}
		w.Header().Set("X-Request-ID", q.id)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, q))
		q.http = r
		m.o.Metrics.RequestStarted()
		defer func() {
			caught := recover()
			if caught != nil && caught != http.ErrAbortHandler {
				caught = m.recovered(q, r, caught)
			}
			if !q.hijacked {
				m.end(q, r)(q.out.bytes)
			}
			if caught != nil {
				panic(http.ErrAbortHandler) // net/http cuts the connection silently
			}
		}()
		next.ServeHTTP(q.out, r)
	})
}

// recovered logs a panic. It responds with 500 if nothing was written yet;
// otherwise it returns a value: the connection must be cut, so that the client
// detects the incomplete response.
func (m *Router) recovered(q *request, r *http.Request, caught any) any {
	if err, ok := caught.(error); ok && q.out.status != 0 {
		if _, broken := errors.AsType[runtime.Error](err); !broken {
			m.o.Log.Debug("could not write the response", "request", q.id, "err", err) // the client disconnected
			return caught
		}
	}
	m.o.Log.Error("panic", "request", q.id, "method", r.Method, "path", m.o.Mask(r.URL.Path),
		"err", fmt.Sprint(caught), "stack", string(debug.Stack()))
	if q.out.status != 0 {
		return caught
	}
	m.fail(q.out, r, &Problem{Status: http.StatusInternalServerError, Kind: agented.Internal, Detail: "internal error"})
	return nil
}

// end returns a function that counts a request and writes its access log line.
// It retains only what it needs of the request.
func (m *Router) end(q *request, r *http.Request) func(sent int64) {
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
	if m.o.AccessLog != nil {
		who = "-"
		if q.who.Name != "" {
			who = strconv.Quote(q.who.Name)
		}
		asked = peer(r).String() + " " + strconv.Quote(r.Method+" "+m.maskedURL(r.URL)+" "+r.Proto)
		who += " " + q.id
	}
	return func(sent int64) {
		took := time.Since(start)
		m.o.Metrics.RequestEnded(route, method, status, took, streams)
		if m.o.AccessLog == nil {
			return
		}
		line := fmt.Sprintf("%s %s %d %d %.3fms %s\n", start.UTC().Format("2006-01-02T15:04:05.000Z"), asked,
			status, sent, float64(took.Microseconds())/1000, who)
		_, _ = io.WriteString(m.o.AccessLog, m.o.Mask(line)) // a full disk must not stop responses
	}
}

// HandOver makes a request end when done is called instead of when its handler
// returns: its connection, which was hijacked, continues without net/http. endBy
// sets the function that ends the stream if its credential is revoked.
func HandOver(r *http.Request) (done func(sent int64), endBy func(func())) {
	q := requestOf(r)
	if q.router == nil {
		return func(int64) {}, func(func()) {}
	}
	m := q.router
	q.hijacked = true
	leave := m.conns.keep(ratelimit.Network(connectionAddress(q.http).ip)) // net/http no longer counts it
	end, open := m.end(q, q.http), q.open
	return func(sent int64) {
		leave()
		open.Close()
		end(sent)
	}, open.EndBy
}

// maskedURL returns path and query of a URL, without the values of parameters
// whose names suggest a secret.
func (m *Router) maskedURL(u *url.URL) string {
	path := maskHookToken(format.Clip(u.EscapedPath(), 2048))
	if u.RawQuery == "" {
		return path
	}
	parts := strings.Split(format.Clip(u.RawQuery, 2048), "&")
	for i, part := range parts {
		name, _, has := strings.Cut(part, "=")
		plain, err := url.QueryUnescape(name)
		if has && (err != nil || agented.SecretName(strings.ReplaceAll(plain, "-", "_")) || plain == "code") {
			parts[i] = name + "=***"
		}
	}
	return path + "?" + strings.Join(parts, "&")
}

// validRequestID reports whether a client's request id is safe for logs and responses.
func validRequestID(id string) bool {
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

// maskHookToken hides the secret at the end of a webhook path.
func maskHookToken(path string) string {
	base, rest, _ := strings.Cut(path, "/hooks/")
	trigger, token, _ := strings.Cut(rest, "/")
	if token == "" {
		return path
	}
	return base + "/hooks/" + trigger + "/***"
}

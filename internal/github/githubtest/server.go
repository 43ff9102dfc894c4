// Package githubtest is an HTTP server for tests that behaves like the part of
// GitHub's REST API that package github uses: credentials of Apps and tokens,
// limits, faults at chosen calls, and repositories in memory.
package githubtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server is a stand-in for GitHub. Its methods may be called while it serves.
type Server struct {
	// URL is the address of its API.
	URL string

	http *httptest.Server
	mux  *http.ServeMux

	mu            sync.Mutex // guards the fields below, and all that they refer to
	now           func() time.Time
	apps          map[string]*App
	installations map[int64]*installation
	tokens        map[string]credential
	limits        map[string]*limit
	repos         map[string]*Repo
	hooks         map[int64]*Hook
	faults        []*Fault
	calls         []Call
	last          int64 // last id
}

// Call is a request that the server received.
type Call struct {
	N            int // from 1
	Method, Path string
	Query        string
	Credential   string // "app ID", "installation ID", "token LOGIN", or "" if refused
	Body         string
	Status       int  // of the answer, also if it was lost
	Done         bool // the call was carried out
}

// limit is a primary rate limit.
type limit struct {
	limit, left int
	reset       time.Time
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		mux: http.NewServeMux(), now: time.Now, apps: map[string]*App{}, installations: map[int64]*installation{}, tokens: map[string]credential{},
		limits: map[string]*limit{}, repos: map[string]*Repo{}, hooks: map[int64]*Hook{}, last: 1000,
	}
	s.routes()
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL
	t.Cleanup(s.http.Close)
	return s
}

// SetClock sets the clock of the server, for tests of clocks that differ.
func (s *Server) SetClock(now func() time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// Calls returns all requests so far.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.calls...)
}

// Writes returns the calls that changed something, without those for tokens.
func (s *Server) Writes() []Call {
	var out []Call
	for _, c := range s.Calls() {
		if c.Done && c.Method != http.MethodGet && !strings.HasSuffix(c.Path, "/access_tokens") && !strings.HasSuffix(c.Path, "/git-upload-pack") {
			out = append(out, c)
		}
	}
	return out
}

// Fault makes calls fail.
type Fault struct {
	Method string // empty: all
	Path   string // a regular expression for the path; empty: all
	After  int    // number of matching calls that are answered before
	Times  int    // number of calls that fail; 0: one, -1: all
	Done   bool   // carry the call out, and lose the answer
	Drop   bool   // close the connection without an answer
	Hang   bool   // answer nothing until the client gives up
	Status int    // of the answer; 0: 502
	Header http.Header
	Body   string

	path *regexp.Regexp
	seen int
}

// Fail adds a fault.
func (s *Server) Fail(f Fault) {
	f.path = regexp.MustCompile(f.Path)
	f.Times = max(f.Times, -1)
	if f.Times == 0 {
		f.Times = 1
	}
	if f.Status == 0 {
		f.Status = http.StatusBadGateway
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// SecondaryLimit refuses the matching calls with a secondary rate limit;
// retryAfter is the header in seconds, empty: none.
func (s *Server) SecondaryLimit(method, path string, after, times int, retryAfter string) {
	h := http.Header{}
	if retryAfter != "" {
		h.Set("Retry-After", retryAfter)
	}
	s.Fail(Fault{
		Method: method, Path: path, After: after, Times: times, Status: http.StatusForbidden, Header: h,
		Body: `{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}`,
	})
}

// Limit sets the primary rate limit of a credential, named as in [Call].
func (s *Server) Limit(credential string, left int, reset time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits[credential] = &limit{limit: 5000, left: left, reset: reset}
}

// fault returns the fault that applies to a call.
func (s *Server) fault(method, path string) *Fault {
	var hit *Fault
	for _, f := range s.faults {
		if f.Method != "" && f.Method != method || !f.path.MatchString(path) {
			continue
		}
		f.seen++
		if hit == nil && f.seen > f.After && (f.Times < 0 || f.seen <= f.After+f.Times) {
			hit = f
		}
	}
	return hit
}

// request is a call that is being answered, with the lock held.
type request struct {
	*http.Request
	as   credential
	body []byte
}

// answer is the answer to a call.
type answer struct {
	status int
	header http.Header
	body   any // JSON, or a string
}

func fail(status int, format string, args ...any) answer {
	return answer{status: status, body: map[string]any{"message": fmt.Sprintf(format, args...), "documentation_url": "https://docs.github.com/rest"}}
}

// invalid is an answer for a field that failed validation.
func invalid(resource, field, code, message string) answer {
	detail := map[string]string{"resource": resource, "field": field, "code": code}
	if message != "" {
		detail["message"] = message
	}
	return answer{status: http.StatusUnprocessableEntity, body: map[string]any{"message": "Validation Failed", "errors": []any{detail}}}
}

func ok(body any) answer      { return answer{status: http.StatusOK, body: body} }
func created(body any) answer { return answer{status: http.StatusCreated, body: body} }

var notFound = fail(http.StatusNotFound, "Not Found")

// handle adds a route.
func (s *Server) handle(pattern string, h func(*request) answer) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		q := r.Context().Value(requestKey{}).(*request)
		q.Request = r
		*w.(*recorder) = recorder{ResponseWriter: w.(*recorder).ResponseWriter, answer: h(q), handled: true}
	})
}

type requestKey struct{}

// recorder receives the answer of a route.
type recorder struct {
	http.ResponseWriter
	answer  answer
	handled bool
}

func (*recorder) WriteHeader(int)             {}
func (*recorder) Write(p []byte) (int, error) { return len(p), nil }

// serve answers a request: credential, limits, faults, route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if s.serveGit(w, r, body) {
		return
	}
	s.mu.Lock()
	a, f := s.answer(w, r, body)
	date := s.now()
	s.mu.Unlock()
	switch {
	case f != nil && f.Hang:
		<-r.Context().Done()
		return
	case f != nil && f.Drop:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
		return
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
	var out []byte
	switch b := a.body.(type) {
	case nil:
	case string:
		out = []byte(b)
	default:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if out, err = json.Marshal(b); err != nil {
			panic(err)
		}
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(out)
}

// answer computes the answer and logs the call.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, body []byte) (a answer, f *Fault) {
	c := Call{N: len(s.calls) + 1, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Body: string(body)}
	defer func() {
		c.Status = a.status
		s.calls = append(s.calls, c)
	}()
	as, refused := s.authenticate(r)
	if refused != nil {
		return *refused, nil
	}
	c.Credential = as.name
	header := http.Header{}
	if refused := s.count(as.name, header); refused != nil {
		refused.header = header
		return *refused, nil
	}
	if f = s.fault(r.Method, r.URL.Path); f != nil && !f.Done {
		return faulty(f, header), f
	}
	q := &request{Request: r, as: as, body: body}
	rec := &recorder{ResponseWriter: w}
	r = r.WithContext(contextWith(r.Context(), q))
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mux.ServeHTTP(rec, r)
	a = rec.answer
	if !rec.handled {
		a = notFound
	}
	c.Done = a.status < 300
	if f != nil {
		return faulty(f, header), f
	}
	for name, values := range a.header {
		header[name] = values
	}
	a.header = header
	return a, nil
}

func faulty(f *Fault, header http.Header) answer {
	for name, values := range f.Header {
		header[name] = values
	}
	var body any = f.Body
	if f.Body == "" {
		body = map[string]string{"message": http.StatusText(f.Status)}
	}
	return answer{status: f.Status, header: header, body: body}
}

// count charges a call to the primary limit of its credential.
func (s *Server) count(name string, header http.Header) *answer {
	l := s.limits[name]
	if l == nil {
		l = &limit{limit: 5000, left: 5000, reset: s.now().Add(time.Hour)}
		s.limits[name] = l
	}
	if !s.now().Before(l.reset) {
		l.left, l.reset = l.limit, s.now().Add(time.Hour)
	}
	over := l.left == 0
	l.left = max(l.left-1, 0)
	header.Set("X-Ratelimit-Limit", strconv.Itoa(l.limit))
	header.Set("X-Ratelimit-Remaining", strconv.Itoa(l.left))
	header.Set("X-Ratelimit-Reset", strconv.FormatInt(l.reset.Unix(), 10))
	if !over {
		return nil
	}
	a := fail(http.StatusForbidden, "API rate limit exceeded for %s.", name)
	return &a
}

// id returns a new id.
func (s *Server) id() int64 {
	s.last++
	return s.last
}

// decode reads the JSON body of a request.
func (q *request) decode(into any) *answer {
	if err := json.Unmarshal(q.body, into); err != nil {
		a := fail(http.StatusBadRequest, "Problems parsing JSON")
		return &a
	}
	return nil
}

// page returns one page of a list with its Link header.
func page[T any](s *Server, q *request, all []T) answer {
	size, number := 30, 1
	if n, err := strconv.Atoi(q.URL.Query().Get("per_page")); err == nil {
		size = min(max(n, 1), 100)
	}
	if n, err := strconv.Atoi(q.URL.Query().Get("page")); err == nil {
		number = max(n, 1)
	}
	from := min((number-1)*size, len(all))
	to := min(from+size, len(all))
	a := ok(append([]T{}, all[from:to]...))
	if to < len(all) {
		a.header = http.Header{"Link": {s.link(q, url.Values{"page": {strconv.Itoa(number + 1)}})}}
	}
	return a
}

// link returns a Link header to the next page.
func (s *Server) link(q *request, change url.Values) string {
	values := q.URL.Query()
	for name, v := range change {
		values[name] = v
	}
	return fmt.Sprintf("<%s%s?%s>; rel=\"next\", <%s%s>; rel=\"first\"", s.URL, q.URL.Path, values.Encode(), s.URL, q.URL.Path)
}

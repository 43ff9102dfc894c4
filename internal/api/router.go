package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
)

// route is one way in: what it answers to, and who may use it. There is no
// other way to register a handler, so a handler without a role cannot be
// reached.
type route struct {
	method string
	path   string
	role   agented.Role // RoleNone: anyone
	stream bool         // may last for hours: no timeout, not in the latency figures
	page   bool         // for people: who is not logged in is sent to the login page
	agents bool         // also for the token of an execution that runs; the handler says what of it
	local  bool         // open to anyone while the server is bound to this machine only
	about  about
	mount  func(s *Server, rt *route) // registers the handler
}

// about is a route's entry in the OpenAPI document.
type about struct {
	id      string // operationId; empty: not in the document
	tag     string
	summary string
	text    string
	status  int   // of success; 0 is 200, or 204 without a body
	errors  []int // beside 401, 403 and 500, which follow from the role
	maxBody int64 // bytes; 0 is defaultBody

	// For handlers that huma does not know the input and output of:
	params  []*huma.Param
	answers map[string]*huma.Response
	body    *huma.RequestBody
}

// defaultBody bounds a request's body unless its route says otherwise.
const defaultBody = 1 << 20

// op makes a route of an operation that huma decodes, checks and documents.
func op[I, O any](pattern string, role agented.Role, handler func(context.Context, *I) (*O, error), a about) route {
	method, path, _ := strings.Cut(pattern, " ")
	return route{method: method, path: path, role: role, about: a, mount: func(s *Server, rt *route) {
		o := s.operation(rt)
		o.Errors = rt.errorStatuses()
		huma.Register(s.huma, *o, func(ctx context.Context, in *I) (*O, error) {
			out, err := handler(ctx, in)
			if err != nil {
				return nil, &handed{err}
			}
			return out, nil
		})
	}}
}

// handed is an error on its way through huma, which would otherwise look inside
// for an answer of its own.
type handed struct{ err error }

func (h *handed) Error() string { return h.err.Error() }

// raw makes a route of a plain handler. If about has an id it is documented as
// about says.
func raw(pattern string, role agented.Role, handler func(*Server) http.HandlerFunc, a about) route {
	method, path, _ := strings.Cut(pattern, " ")
	return route{method: method, path: path, role: role, about: a, mount: func(s *Server, rt *route) {
		s.routes.HandleFunc(method+" "+path, handler(s))
		if rt.about.id == "" {
			return
		}
		o := s.operation(rt)
		o.Parameters, o.RequestBody = a.params, a.body
		o.Responses = map[string]*huma.Response{}
		for status, answer := range a.answers {
			o.Responses[status] = answer
		}
		for _, status := range rt.errorStatuses() {
			if key := strconv.Itoa(status); o.Responses[key] == nil {
				o.Responses[key] = s.problemResponse(status)
			}
		}
		s.doc.AddOperation(o)
	}}
}

func (rt route) streams() route   { rt.stream = true; return rt }
func (rt route) isPage() route    { rt.page = true; return rt }
func (rt route) forAgents() route { rt.agents = true; return rt }
func (rt route) isLocal() route   { rt.local = true; return rt }

// errorStatuses lists the problems that the route can answer with.
func (rt *route) errorStatuses() []int {
	out := append([]int{http.StatusInternalServerError, http.StatusServiceUnavailable}, rt.about.errors...)
	if rt.role != agented.RoleNone {
		out = append(out, http.StatusUnauthorized, http.StatusForbidden)
	}
	if rt.method == http.MethodPost || rt.method == http.MethodPatch || rt.method == http.MethodPut {
		out = append(out, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// operation is the documented head of a route.
func (s *Server) operation(rt *route) *huma.Operation {
	text := rt.about.text
	switch {
	case rt.role == agented.RoleNone:
		text = strings.TrimSpace(text + "\n\nOpen to anyone.")
	default:
		text = strings.TrimSpace(text + "\n\nNeeds the role " + string(rt.role) + ".")
	}
	o := &huma.Operation{
		OperationID: rt.about.id, Method: rt.method, Path: openAPIPath(rt.path),
		Tags: []string{rt.about.tag}, Summary: rt.about.summary, Description: text,
		DefaultStatus: rt.about.status, MaxBodyBytes: rt.maxBody(),
		RejectUnknownQueryParameters: true,
		Extensions:                   map[string]any{"x-role": roleName(rt.role)},
	}
	if rt.role == agented.RoleNone {
		o.Security = []map[string][]string{}
	} else {
		o.Security = security
	}
	return o
}

func (rt *route) maxBody() int64 {
	if rt.about.maxBody > 0 {
		return rt.about.maxBody
	}
	return defaultBody
}

func roleName(r agented.Role) string {
	if r == agented.RoleNone {
		return "anyone"
	}
	return string(r)
}

// openAPIPath writes a mux pattern the way OpenAPI does.
func openAPIPath(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path, "{$}"), "...}", "}")
}

// routes is the mux that huma and raw register with. It lets nothing in that
// the table of routes does not name.
type routes struct {
	s       *Server
	mux     *http.ServeMux
	current *route // the one being mounted
}

// HandleFunc registers the handler of the current route, behind its guard.
func (m *routes) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	rt := m.current
	if rt == nil || pattern != rt.method+" "+rt.path {
		panic("api: a handler for " + pattern + " outside the table of routes")
	}
	m.mux.Handle(pattern, m.s.guard(rt, http.HandlerFunc(handler)))
}

// ServeHTTP answers what no route takes with a problem.
func (m *routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.mux.Handler(r)
	if pattern != "" {
		m.mux.ServeHTTP(w, r)
		return
	}
	// The mux knows whether another method would do; its own answer is text.
	probe := &probe{header: http.Header{}}
	h.ServeHTTP(probe, r)
	switch {
	case probe.status == http.StatusMethodNotAllowed:
		allow := probe.header.Get("Allow")
		w.Header().Set("Allow", allow)
		m.s.fail(w, r, &Problem{Status: probe.status, Kind: agented.Invalid, Detail: "this path takes " + allow + " only"})
	case probe.status/100 == 3:
		w.Header().Set("Location", probe.header.Get("Location"))
		w.WriteHeader(probe.status)
	default:
		m.s.fail(w, r, agented.Errorf(agented.NotFound, "there is nothing at this path; /docs lists what is"))
	}
}

// probe takes an answer without giving it to anybody.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header { return p.header }
func (p *probe) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
	}
}

func (p *probe) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return len(b), nil
}

// Undocumented lists the patterns that are not in the document: files of the
// pages and of the interface.
func (s *Server) Undocumented() []string {
	var out []string
	for i := range s.table {
		if rt := &s.table[i]; rt.about.id == "" {
			out = append(out, rt.method+" "+rt.path)
		}
	}
	return out
}

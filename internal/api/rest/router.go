package rest

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
)

// Route is one route and the role that it requires. This is the only way to
// register a handler, so a handler without a role cannot be reached.
type Route struct {
	method string
	path   string
	role   agented.Role // RoleNone: public
	stream bool         // may last for hours: no timeout, excluded from latency metrics
	page   bool         // for people: anonymous callers are redirected to the login page
	agents bool         // also allowed for the token of a running execution; the handler checks the details
	local  bool         // public while the server is bound to loopback only
	reach  Reach        // what it is for API keys that are limited to triggers
	about  About
	mount  func(m *Router, rt *Route) // registers the handler
}

// About is a route's entry in the OpenAPI document.
type About struct {
	ID      string // operationId; empty: not documented
	Tag     string // of the document
	Summary string
	Text    string
	Status  int   // status on success; 0 means 200, or 204 without a body
	Errors  []int // in addition to 401, 403 and 500, which follow from the role
	MaxBody int64 // bytes; 0 means defaultBody

	// For handlers whose input and output huma does not know:
	Params  []*huma.Param
	Answers map[string]*huma.Response
	Body    *huma.RequestBody
}

// defaultBody limits a request body, in bytes, unless its route sets a limit:
// the longest prompt, with each byte escaped as \u00XX, and 1 MiB for the other
// fields.
const defaultBody = 6*agented.MaxPrompt + 1<<20

// Op returns the route of an operation that huma decodes, validates and
// documents.
func Op[I, O any](pattern string, role agented.Role, handler func(context.Context, *I) (*O, error), a About) Route {
	method, path, _ := strings.Cut(pattern, " ")
	return Route{method: method, path: path, role: role, about: a, mount: func(m *Router, rt *Route) {
		o := m.operation(rt)
		o.Errors = rt.errorStatuses()
		huma.Register(m.huma, *o, func(ctx context.Context, in *I) (*O, error) {
			out, err := handler(ctx, in)
			if err != nil {
				return nil, &handlerError{err}
			}
			return out, nil
		})
	}}
}

// handlerError wraps an error on its way through huma, which would otherwise unwrap
// it.
type handlerError struct{ err error }

func (h *handlerError) Error() string { return h.err.Error() }

// Raw returns the route of a plain handler. It is documented if about has an
// id.
func Raw(pattern string, role agented.Role, handler http.HandlerFunc, a About) Route {
	method, path, _ := strings.Cut(pattern, " ")
	return Route{method: method, path: path, role: role, about: a, mount: func(m *Router, rt *Route) {
		m.HandleFunc(method+" "+path, handler)
		if rt.about.ID == "" {
			return
		}
		o := m.operation(rt)
		o.Parameters, o.RequestBody = a.Params, a.Body
		o.Responses = map[string]*huma.Response{}
		for status, answer := range a.Answers {
			o.Responses[status] = answer
		}
		for _, status := range rt.errorStatuses() {
			if key := strconv.Itoa(status); o.Responses[key] == nil {
				o.Responses[key] = m.problemResponse(status)
			}
		}
		m.doc.AddOperation(o)
	}}
}

// Streams marks a route whose responses may last for hours.
func (rt Route) Streams() Route { rt.stream = true; return rt }

// Page marks a route for people: anonymous callers are redirected to the login
// page.
func (rt Route) Page() Route { rt.page = true; return rt }

// ForAgents allows a route also for the token of a running execution.
func (rt Route) ForAgents() Route { rt.agents = true; return rt }

// Local makes a route public while the server is bound to loopback only.
func (rt Route) Local() Route { rt.local = true; return rt }

// Reach is what a route is for API keys that are limited to triggers. A route
// without one is refused.
type Reach string

// The kinds of reach.
const (
	Refused      Reach = ""          // the default
	Everything   Reach = "any"       // it shows nothing of triggers
	OwnTrigger   Reach = "trigger"   // the path value id must be a trigger of the key
	OwnExecution Reach = "execution" // the path value id must be an execution of a trigger of the key
	Filtered     Reach = "filtered"  // the handler leaves out what the key does not reach
)

// Reaching sets what the route is for API keys that are limited to triggers.
func (rt Route) Reaching(reach Reach) Route { rt.reach = reach; return rt }

// errorStatuses returns the problem statuses of the route.
func (rt *Route) errorStatuses() []int {
	out := append([]int{http.StatusInternalServerError, http.StatusServiceUnavailable}, rt.about.Errors...)
	if rt.role != agented.RoleNone {
		out = append(out, http.StatusUnauthorized, http.StatusForbidden)
	}
	if rt.method == http.MethodPost || rt.method == http.MethodPatch || rt.method == http.MethodPut {
		out = append(out, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// operation returns the OpenAPI operation of a route.
func (m *Router) operation(rt *Route) *huma.Operation {
	text := rt.about.Text
	switch {
	case rt.role == agented.RoleNone:
		text = strings.TrimSpace(text + "\n\nNo authentication required.")
	default:
		text = strings.TrimSpace(text + "\n\nRequires the role " + string(rt.role) + ".")
	}
	o := &huma.Operation{
		OperationID: rt.about.ID, Method: rt.method, Path: openAPIPath(rt.path),
		Tags: []string{rt.about.Tag}, Summary: rt.about.Summary, Description: text,
		DefaultStatus: rt.about.Status, MaxBodyBytes: rt.maxBody(),
		RejectUnknownQueryParameters: true,
		Extensions:                   map[string]any{"x-role": roleName(rt.role)},
	}
	if rt.reach != Refused {
		o.Extensions["x-limited-keys"] = string(rt.reach)
	}
	if rt.role == agented.RoleNone {
		o.Security = []map[string][]string{}
	} else {
		o.Security = security
	}
	return o
}

func (rt *Route) maxBody() int64 {
	if rt.about.MaxBody > 0 {
		return rt.about.MaxBody
	}
	return defaultBody
}

func roleName(r agented.Role) string {
	if r == agented.RoleNone {
		return "anyone"
	}
	return string(r)
}

// openAPIPath converts a mux pattern into an OpenAPI path.
func openAPIPath(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(path, "{$}"), "...}", "}")
}

// HandleFunc registers the handler of the current route with its guard. Only
// handlers of the route table are accepted.
func (m *Router) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	rt := m.current
	if rt == nil || pattern != rt.method+" "+rt.path {
		panic("rest: a handler for " + pattern + " outside the route table")
	}
	m.mux.Handle(pattern, m.guard(rt, http.HandlerFunc(handler)))
}

// route calls the handler of a route, or responds with a problem if no route
// matches.
func (m *Router) route(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.mux.Handler(r)
	if pattern != "" {
		m.mux.ServeHTTP(w, r)
		return
	}
	// The mux knows whether another method is allowed, but its own response is
	// plain text.
	probe := &probe{header: http.Header{}}
	h.ServeHTTP(probe, r)
	switch {
	case probe.status == http.StatusMethodNotAllowed:
		allow := probe.header.Get("Allow")
		w.Header().Set("Allow", allow)
		m.fail(w, r, &Problem{Status: probe.status, Kind: agented.Invalid, Detail: "this path accepts " + allow + " only"})
	case probe.status/100 == 3:
		w.Header().Set("Location", probe.header.Get("Location"))
		w.WriteHeader(probe.status)
	case m.page != nil && wantsPage(r):
		m.page.ServeHTTP(w, r)
	default:
		m.fail(w, r, agented.Errorf(agented.NotFound, "there is nothing at this path; /docs lists the operations"))
	}
}

// wantsPage reports whether a request comes from the address bar of a browser, and not for
// a path of programs.
func wantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		return false
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return !slices.Contains([]string{"api", "assets", "health", "hooks", "metrics", "static"}, first)
}

// probe is a response writer that discards the response.
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

// Undocumented returns the patterns that are not in the document: files of the
// pages and of the user interface.
func (m *Router) Undocumented() []string {
	var out []string
	for i := range m.table {
		if rt := &m.table[i]; rt.about.ID == "" {
			out = append(out, rt.method+" "+rt.path)
		}
	}
	return out
}

package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// Problem is the body of every error response (RFC 9457). It never repeats a
// value of the request: values can be secrets, and problems end up in logs.
type Problem struct {
	Type      string         `json:"type" doc:"Always about:blank; see kind"`
	Title     string         `json:"title" doc:"Text of the HTTP status" example:"Not Found"`
	Status    int            `json:"status" doc:"The HTTP status" example:"404"`
	Detail    string         `json:"detail" doc:"What is wrong and how to fix it, as a sentence for people"`
	Instance  string         `json:"instance,omitempty" doc:"Path of the request"`
	Kind      agented.Kind   `json:"kind" doc:"Kind of the problem, for programs" enum:"internal,invalid,unauthenticated,denied,not_found,conflict,too_large,rate_limited,unavailable"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"Invalid parts of the request, and why they are invalid"`
	RequestID string         `json:"request_id,omitempty" doc:"Identifies this request in the server's log"`
	Current   any            `json:"current,omitempty" doc:"With status 412: the object as it is stored now, as GET returns it"`

	retryAfter int    // seconds; 0 sends no header
	etag       string // of Current
}

// ProblemField is one invalid part of a request.
type ProblemField struct {
	Location string `json:"location" doc:"Location such as body.name, query.limit, path.id, header.Idempotency-Key" example:"body.timeout_seconds"`
	Message  string `json:"message" doc:"What is wrong and how to fix it"`
}

// Error makes a Problem an error that huma can return.
func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// statusOf returns the HTTP status of a kind. It is the only mapping.
func statusOf(k agented.Kind) int {
	switch k {
	case agented.Invalid:
		return http.StatusUnprocessableEntity
	case agented.Unauthenticated:
		return http.StatusUnauthorized
	case agented.Denied:
		return http.StatusForbidden
	case agented.NotFound:
		return http.StatusNotFound
	case agented.Conflict:
		return http.StatusConflict
	case agented.TooLarge:
		return http.StatusRequestEntityTooLarge
	case agented.RateLimited:
		return http.StatusTooManyRequests
	case agented.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// kindOf returns the kind for a status, where only the status is known.
func kindOf(status int) agented.Kind {
	switch status {
	case http.StatusUnauthorized:
		return agented.Unauthenticated
	case http.StatusForbidden:
		return agented.Denied
	case http.StatusNotFound:
		return agented.NotFound
	case http.StatusConflict:
		return agented.Conflict
	case http.StatusRequestEntityTooLarge:
		return agented.TooLarge
	case http.StatusTooManyRequests:
		return agented.RateLimited
	case http.StatusServiceUnavailable, http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return agented.Unavailable
	}
	if status < 500 {
		return agented.Invalid
	}
	return agented.Internal
}

// problemOf converts an error into a problem.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	kind := agented.KindOf(err)
	text := agented.Message(err)
	switch {
	case kind != agented.Internal:
	case errors.Is(err, context.DeadlineExceeded):
		kind, text = agented.Unavailable, "the request took too long: try again"
	case errors.Is(err, context.Canceled):
		kind, text = agented.Unavailable, "the client cancelled the request"
	}
	out := &Problem{Status: statusOf(kind), Kind: kind, Detail: text}
	e, ok := errors.AsType[*agented.Error](err)
	if ok && e.RetryAfter > 0 {
		out.retryAfter = int(e.RetryAfter/time.Second) + 1
	}
	if ok && e.Kind == agented.Invalid {
		for _, f := range e.Fields {
			out.Errors = append(out.Errors, ProblemField{Location: location(f.Path), Message: f.Text})
		}
	}
	return out
}

// location returns the location of a domain field in the request, which is the
// body unless the path has another prefix.
func location(path string) string {
	for _, in := range []string{"body", "query", "path", "header"} {
		if path == in || strings.HasPrefix(path, in+".") {
			return path
		}
	}
	return "body." + path
}

// fill completes a problem with data of the request and the server, masks it,
// and logs the cause.
func (m *Router) fill(p *Problem, r *http.Request, cause error) *Problem {
	c := *p
	c.Type = "about:blank"
	if c.Title == "" {
		c.Title = http.StatusText(c.Status)
	}
	c.Instance = r.URL.Path
	c.RequestID = requestOf(r).id
	if c.retryAfter == 0 && (c.Status == http.StatusServiceUnavailable || c.Status == http.StatusTooManyRequests) {
		c.retryAfter = 2
	}
	c.Detail = m.o.Mask(c.Detail)
	c.Instance = m.o.Mask(c.Instance)
	c.Errors = nil
	for _, f := range p.Errors {
		c.Errors = append(c.Errors, ProblemField{m.o.Mask(format.Clip(f.Location, 200)), m.o.Mask(f.Message)})
	}
	switch {
	case cause == nil:
	case c.Kind == agented.Internal:
		m.o.Log.Error("request", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	case r.Context().Err() != nil:
		m.o.Log.Debug("client cancelled the request", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	case c.Kind == agented.Unavailable:
		m.o.Log.Warn("request", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	default:
		m.o.Log.Debug("request rejected", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	}
	return &c
}

// headers sets the response headers of a problem.
func (p *Problem) headers(h http.Header) {
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="agented"`)
	}
	if h.Del("Etag"); p.etag != "" {
		h.Set("Etag", quoted(p.etag))
	}
	h.Set("Cache-Control", "no-store")
}

// Fail responds to a request with a problem. Call it before anything was
// written.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	if m := requestOf(r).router; m != nil {
		m.fail(w, r, err)
		return
	}
	p := problemOf(err) // without a Router, as in tests of single handlers
	p.Title = http.StatusText(p.Status)
	p.write(w, r)
}

// fail responds to a request with a problem. Call it before anything was
// written.
func (m *Router) fail(w http.ResponseWriter, r *http.Request, err error) {
	cause := err
	if _, bare := err.(*Problem); bare {
		cause = nil // the problem contains everything
	}
	p := m.fill(problemOf(err), r, cause)
	p.write(w, r)
}

// write sends the problem.
func (p *Problem) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	p.headers(h)
	h.Del("Content-Length")
	h.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(p) // the client is gone
	}
}

// PageProblem returns the problem of an error for a page, which shows it instead
// of JSON, and sets its header Retry-After.
func PageProblem(w http.ResponseWriter, r *http.Request, err error) *Problem {
	p := requestOf(r).router.fill(problemOf(err), r, err)
	if p.retryAfter > 0 {
		p.headers(w.Header())
	}
	return p
}

// BadRequest returns a problem with status 400 about one part of a request.
func BadRequest(where, message string) error {
	return &Problem{
		Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: where + ": " + message,
		Errors: []ProblemField{{Location: where, Message: message}},
	}
}

// installProblems makes huma return problems. huma stores the hooks in package
// variables; they are set once and find their server through the request.
var installProblems = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, message string, _ ...error) huma.StatusError {
		return &Problem{Status: status, Kind: kindOf(status), Detail: message}
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		r, w := humago.Unwrap(ctx)
		m := requestOf(r).router
		var p *Problem
		var cause error
		if from, ok := handlerErrorOf(errs); ok {
			cause = from
			p = problemOf(cause)
		} else {
			p, cause = m.inputProblem(ctx, status, message, errs)
		}
		p = m.fill(p, r, cause)
		p.headers(w.Header())
		return p
	}
})

// handlerErrorOf returns the error that a handler returned.
func handlerErrorOf(errs []error) (error, bool) {
	if len(errs) != 1 {
		return nil, false
	}
	h, ok := errs[0].(*handlerError)
	if !ok {
		return nil, false
	}
	return h.err, true
}

// inputProblem converts huma's validation errors into a problem.
func (m *Router) inputProblem(ctx huma.Context, status int, message string, errs []error) (*Problem, error) {
	p := &Problem{Status: status, Kind: kindOf(status), Detail: message}
	switch {
	case status == http.StatusUnsupportedMediaType:
		p.Detail = "the body must be JSON: send Content-Type: application/json"
		return p, nil
	case status == http.StatusNotAcceptable:
		p.Detail = "responses are JSON: send Accept: application/json"
		return p, nil
	case status == http.StatusRequestEntityTooLarge:
		p.Detail = "the body is too large: the limit is " + strconv.FormatInt(ctx.Operation().MaxBodyBytes, 10) + " bytes"
		return p, nil
	case status == http.StatusBadRequest && message == "request body is required":
		p.Detail = "a body is required: send JSON"
		return p, nil
	case message == "cannot read request body":
		var tooLarge *http.MaxBytesError
		if len(errs) > 0 && errors.As(errs[0], &tooLarge) {
			return &Problem{Status: http.StatusRequestEntityTooLarge, Kind: agented.TooLarge, Detail: "the body is too large"}, nil
		}
		return &Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: "the body ended before it was complete"}, errors.Join(errs...)
	}
	for _, err := range errs {
		d, ok := err.(huma.ErrorDetailer)
		if !ok {
			continue
		}
		p.Errors = append(p.Errors, m.wordField(ctx, d.ErrorDetail(), status))
	}
	if status == http.StatusBadRequest && len(p.Errors) == 1 && p.Errors[0].Location == "body" {
		p.Detail = p.Errors[0].Message
	} else if len(p.Errors) > 0 {
		p.Detail = strings.TrimPrefix(p.Errors[0].Location, "body.") + ": " + p.Errors[0].Message
		if n := len(p.Errors) - 1; n > 0 {
			p.Detail += " (and " + strconv.Itoa(n) + " more)"
		}
	}
	return p, nil
}

// wordField converts one validation error of huma into a field with the
// location and the fix, without the value.
func (m *Router) wordField(ctx huma.Context, d *huma.ErrorDetail, status int) ProblemField {
	f := ProblemField{Location: strings.NewReplacer("[", ".", "]", "").Replace(d.Location), Message: d.Message}
	switch {
	case f.Location == "body" && status == http.StatusBadRequest:
		f.Message = "the body is not JSON: " + strings.TrimPrefix(d.Message, "json: ")
	case f.Location == "body" && strings.HasPrefix(d.Message, "json:"):
		f.Message = "a value has the wrong type or is out of range" // encoding/json would repeat the value
	case strings.HasPrefix(d.Message, "expected required property "):
		name := strings.TrimSuffix(strings.TrimPrefix(d.Message, "expected required property "), " to be present")
		f.Location, f.Message = f.Location+"."+name, "is required"
	case d.Message == "unexpected property":
		parent, name := f.Location, ""
		if i := strings.LastIndexByte(d.Location, '.'); i >= 0 {
			parent, name = d.Location[:i], d.Location[i+1:]
		}
		f.Message = "is not a field of this request"
		if near := agented.Nearest(name, m.knownFields(ctx.Operation(), parent)); near != "" {
			f.Message += "; did you mean " + strconv.Quote(near) + "?"
		}
	case d.Message == "unknown query parameter":
		var known []string
		for _, q := range ctx.Operation().Parameters {
			if q.In == "query" {
				known = append(known, q.Name)
			}
		}
		f.Message = "is not a parameter of this request"
		if near := agented.Nearest(strings.TrimPrefix(f.Location, "query."), known); near != "" {
			f.Message += "; did you mean " + strconv.Quote(near) + "?"
		}
	case strings.HasPrefix(d.Message, "expected value to match exactly one schema"): // of [EnvValue], the only one with forms
		f.Message = "must be text in quotes, null, or {value: TEXT, secret: false}"
	default:
		f.Message = strings.Replace(strings.Replace(d.Message, "expected ", "must be ", 1), "must be value to be", "must be", 1)
		f.Message = strings.Replace(f.Message, "must be number >=", "must be at least", 1)
		f.Message = strings.Replace(f.Message, "must be number <=", "must be at most", 1)
		if more := typeHints[f.Message]; more != "" {
			f.Message += more
		}
	}
	return f
}

// typeHints explain how to write a value of the right type, for each of huma's
// type errors.
var typeHints = map[string]string{
	"must be string":  ", text: put it in quotes",
	"must be array":   `, a list: write it in brackets, for example ["a", "b"]`,
	"must be boolean": ": write true or false, without quotes",
	"must be integer": ", a whole number: write it without quotes",
	"must be number":  ": write it without quotes",
	"must be object":  ", a set of names with values: write it as {name: value}",
}

// knownFields returns the properties of an operation's body at a location.
func (m *Router) knownFields(op *huma.Operation, at string) []string {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	schema := m.resolve(op.RequestBody.Content["application/json"].Schema)
	for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(at, "body"), "."), ".") {
		if part == "" || schema == nil {
			continue
		}
		name, _, isList := strings.Cut(part, "[")
		schema = m.resolve(schema.Properties[name])
		if isList && schema != nil {
			schema = m.resolve(schema.Items)
		}
	}
	if schema == nil {
		return nil
	}
	var names []string
	for name := range schema.Properties {
		names = append(names, name)
	}
	return names
}

func (m *Router) resolve(schema *huma.Schema) *huma.Schema {
	for schema != nil && schema.Ref != "" {
		schema = m.doc.Components.Schemas.SchemaFromRef(schema.Ref)
	}
	return schema
}

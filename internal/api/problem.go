package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/agented/agented"
)

// Problem is the body of every answer that is not a success (RFC 9457). It
// never repeats a value of the request: values can be secrets, and problems end
// up in logs.
type Problem struct {
	Type      string         `json:"type" doc:"Always about:blank: kind says what it is"`
	Title     string         `json:"title" doc:"The status in words" example:"Not Found"`
	Status    int            `json:"status" doc:"The HTTP status" example:"404"`
	Detail    string         `json:"detail" doc:"What is wrong and the mend, in a sentence for people"`
	Instance  string         `json:"instance,omitempty" doc:"The path that was asked for"`
	Kind      agented.Kind   `json:"kind" doc:"What kind of problem it is, for programs" enum:"internal,invalid,unauthenticated,denied,not_found,conflict,too_large,rate_limited,unavailable"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"Which parts of the request were refused, and why"`
	RequestID string         `json:"request_id,omitempty" doc:"Names this request in the server's log"`

	retryAfter int // seconds; 0 sends no header
}

// ProblemField is one refused part of a request.
type ProblemField struct {
	Location string `json:"location" doc:"Where: body.name, query.limit, path.id, header.Idempotency-Key" example:"body.timeout_seconds"`
	Message  string `json:"message" doc:"What is wrong with it and the mend"`
}

// Error makes a Problem an error that huma can carry.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of problems.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// statusOf is the one place that turns a kind into an HTTP status.
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

// kindOf is the kind that a status means where only the status is known.
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

// problemOf turns an error into the problem that answers it.
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
		kind, text = agented.Unavailable, "the request took too long; try again"
	case errors.Is(err, context.Canceled):
		kind, text = agented.Unavailable, "the request was given up"
	}
	out := &Problem{Status: statusOf(kind), Kind: kind, Detail: text}
	if e, ok := errors.AsType[*agented.Error](err); ok && e.Kind == agented.Invalid {
		for _, f := range e.Fields {
			out.Errors = append(out.Errors, ProblemField{Location: location(f.Path), Message: f.Text})
		}
	}
	return out
}

// location puts a field of the vocabulary where requests have it: in the body,
// unless it says otherwise.
func location(path string) string {
	for _, in := range []string{"body", "query", "path", "header"} {
		if path == in || strings.HasPrefix(path, in+".") {
			return path
		}
	}
	return "body." + path
}

// fill completes a problem with what the request and the server know, masks it
// and writes down what only the log may know.
func (s *Server) fill(p *Problem, r *http.Request, cause error) *Problem {
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
	c.Detail = s.mask(c.Detail)
	c.Instance = s.mask(c.Instance)
	c.Errors = nil
	for _, f := range p.Errors {
		c.Errors = append(c.Errors, ProblemField{s.mask(clip(f.Location, 200)), s.mask(f.Message)})
	}
	switch {
	case cause == nil:
	case c.Kind == agented.Internal:
		s.o.Log.Error("request", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	case r.Context().Err() != nil:
		s.o.Log.Debug("request given up", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	case c.Kind == agented.Unavailable:
		s.o.Log.Warn("request", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	default:
		s.o.Log.Debug("request refused", "request", c.RequestID, "method", r.Method, "path", c.Instance, "err", cause)
	}
	return &c
}

// headers sets what goes with a problem beside its body.
func (p *Problem) headers(h http.Header) {
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="agented"`)
	}
	h.Set("Cache-Control", "no-store")
}

// fail answers a request with the problem that err is. It must be called before
// anything was written.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	cause := err
	if _, bare := err.(*Problem); bare {
		cause = nil // it says all there is
	}
	p := s.fill(problemOf(err), r, cause)
	h := w.Header()
	p.headers(h)
	h.Del("Content-Length")
	h.Del("Etag")
	h.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(p) // the asker is gone
	}
}

// installProblems makes huma answer with our problems. huma keeps these in
// package variables; they are set once and find their server in the request.
var installProblems = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, message string, _ ...error) huma.StatusError {
		return &Problem{Status: status, Kind: kindOf(status), Detail: message}
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, message string, errs ...error) huma.StatusError {
		r, w := humago.Unwrap(ctx)
		s := requestOf(r).server
		var p *Problem
		var cause error
		if from, ok := handedOver(errs); ok {
			cause = from
			p = problemOf(cause)
		} else {
			p, cause = s.inputProblem(ctx, status, message, errs)
		}
		p = s.fill(p, r, cause)
		p.headers(w.Header())
		return p
	}
})

// handedOver is what a handler returned.
func handedOver(errs []error) (error, bool) {
	if len(errs) != 1 {
		return nil, false
	}
	h, ok := errs[0].(*handed)
	if !ok {
		return nil, false
	}
	return h.err, true
}

// inputProblem words huma's findings on a request our way.
func (s *Server) inputProblem(ctx huma.Context, status int, message string, errs []error) (*Problem, error) {
	p := &Problem{Status: status, Kind: kindOf(status), Detail: message}
	switch {
	case status == http.StatusUnsupportedMediaType:
		p.Detail = "the body must be JSON: send Content-Type: application/json"
		return p, nil
	case status == http.StatusNotAcceptable:
		p.Detail = "answers are JSON: accept application/json"
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
		p.Errors = append(p.Errors, s.wordField(ctx, d.ErrorDetail(), status))
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

// wordField turns one finding of huma's into a field that names the place and
// the mend, without the value.
func (s *Server) wordField(ctx huma.Context, d *huma.ErrorDetail, status int) ProblemField {
	f := ProblemField{Location: strings.NewReplacer("[", ".", "]", "").Replace(d.Location), Message: d.Message}
	switch {
	case f.Location == "body" && status == http.StatusBadRequest:
		f.Message = "the body is not JSON: " + strings.TrimPrefix(d.Message, "json: ")
	case f.Location == "body" && strings.HasPrefix(d.Message, "json:"):
		f.Message = "a value has the wrong type or is out of range" // encoding/json would repeat it
	case strings.HasPrefix(d.Message, "expected required property "):
		name := strings.TrimSuffix(strings.TrimPrefix(d.Message, "expected required property "), " to be present")
		f.Location, f.Message = f.Location+"."+name, "is required"
	case d.Message == "unexpected property":
		parent, name := f.Location, ""
		if i := strings.LastIndexByte(d.Location, '.'); i >= 0 {
			parent, name = d.Location[:i], d.Location[i+1:]
		}
		f.Message = "is not a field of this request"
		if near := agented.Nearest(name, s.knownFields(ctx.Operation(), parent)); near != "" {
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
	default:
		f.Message = strings.Replace(strings.Replace(d.Message, "expected ", "must be ", 1), "must be value to be", "must be", 1)
		f.Message = strings.Replace(f.Message, "must be number >=", "must be at least", 1)
		f.Message = strings.Replace(f.Message, "must be number <=", "must be at most", 1)
	}
	return f
}

// knownFields lists the properties that an operation's body has at a location.
func (s *Server) knownFields(op *huma.Operation, at string) []string {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	schema := s.resolve(op.RequestBody.Content["application/json"].Schema)
	for part := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(at, "body"), "."), ".") {
		if part == "" || schema == nil {
			continue
		}
		name, _, isList := strings.Cut(part, "[")
		schema = s.resolve(schema.Properties[name])
		if isList && schema != nil {
			schema = s.resolve(schema.Items)
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

func (s *Server) resolve(schema *huma.Schema) *huma.Schema {
	for schema != nil && schema.Ref != "" {
		schema = s.doc.Components.Schemas.SchemaFromRef(schema.Ref)
	}
	return schema
}

// clip bounds a piece of input that an answer or a log line repeats.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

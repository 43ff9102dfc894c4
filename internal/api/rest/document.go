package rest

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented/internal/auth"
)

// security lists the authentication schemes of routes that require a role.
var security = []map[string][]string{{"bearer": {}}, {"key": {}}, {"session": {}}}

// Document describes the API as a whole.
type Document struct {
	Title, Version string
	License        string // SPDX identifier
	Introduction   string
	Tags           []*huma.Tag // in the order of the documentation
	Schemas        huma.Registry
}

// newDocument returns the OpenAPI document without operations.
func newDocument(d Document, base string) *huma.OpenAPI {
	version := d.Version
	if version == "" {
		version = "dev"
	}
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: d.Title, Version: version, Description: d.Introduction,
			License: &huma.License{Name: d.License, Identifier: d.License},
		},
		Servers: []*huma.Server{{URL: cmp.Or(base, "/"), Description: "This server"}},
		Tags:    d.Tags,
		Components: &huma.Components{
			Schemas: d.Schemas,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer":  {Type: "http", Scheme: "bearer", Description: "An API key"},
				"key":     {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "An API key"},
				"session": {Type: "apiKey", In: "cookie", Name: auth.CookiePlain, Description: "Set by a login; over TLS its name is " + auth.CookieTLS},
			},
		},
	}
}

// problemResponse describes a problem response.
func (m *Router) problemResponse(status int) *huma.Response {
	schema := m.doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	text := http.StatusText(status)
	if text == "" {
		text = "Status " + strconv.Itoa(status)
	}
	return &huma.Response{Description: text, Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
}

// Describe describes the response of a handler that is not registered with
// huma.
func Describe(text, mediaType string) *huma.Response {
	r := &huma.Response{Description: text}
	if mediaType != "" {
		r.Content = map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: huma.TypeString}}}
	}
	return r
}

// PathParam describes a parameter in the path.
func PathParam(name, text string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
}

// QueryParam describes an optional query parameter; kind is its JSON type.
func QueryParam(name, kind, text string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: text, Schema: &huma.Schema{Type: kind}}
}

// LastEventID describes the header with which a client resumes a stream.
func LastEventID() *huma.Param {
	return &huma.Param{Name: "Last-Event-ID", In: "header", Description: "Position to resume from; an EventSource sends it automatically", Schema: &huma.Schema{Type: huma.TypeString}}
}

// Form describes a posted form of text fields.
func Form(names ...string) *huma.RequestBody {
	s := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}}
	for _, n := range names {
		s.Properties[n] = &huma.Schema{Type: huma.TypeString}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: s}}}
}

// SchemaOf returns the schema of a value's type.
func (m *Router) SchemaOf(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return m.doc.Components.Schemas.Schema(t, true, t.Name())
}

// spec renders the document on its first request: it does not change while the
// server runs, and a start need not wait for it.
type spec struct{ json, yaml func() ([]byte, error) }

// OpenAPI returns the document. Handlers that Mount has not registered yet are
// missing.
func (m *Router) OpenAPI() *huma.OpenAPI { return m.doc }

// Operations returns the document's operations in the order of the route table.
func (m *Router) Operations() []*huma.Operation {
	var out []*huma.Operation
	for i := range m.table {
		rt := &m.table[i]
		item := m.doc.Paths[openAPIPath(rt.path)]
		if rt.about.ID == "" || item == nil {
			continue
		}
		for _, o := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if o != nil && o.Method == rt.method {
				out = append(out, o)
			}
		}
	}
	return out
}

// checkDocument returns an error if the document is incomplete.
func (m *Router) checkDocument() error {
	seen := map[string]bool{}
	for _, o := range m.Operations() {
		at := o.Method + " " + o.Path
		switch {
		case seen[o.OperationID]:
			return fmt.Errorf("%s: operationId %s is not unique", at, o.OperationID)
		case o.Summary == "" || o.Description == "" || len(o.Tags) != 1:
			return fmt.Errorf("%s: needs a summary, a description and one tag", at)
		case !slices.ContainsFunc(m.doc.Tags, func(t *huma.Tag) bool { return t.Name == o.Tags[0] }):
			return fmt.Errorf("%s: unknown tag %q", at, o.Tags[0])
		}
		seen[o.OperationID] = true
		for part := range strings.SplitSeq(o.Path, "/") {
			name, ok := strings.CutPrefix(part, "{")
			name = strings.TrimSuffix(name, "}")
			if ok && !slices.ContainsFunc(o.Parameters, func(p *huma.Param) bool {
				return p.In == "path" && p.Name == name && p.Required && p.Description != ""
			}) {
				return fmt.Errorf("%s: the path parameter %s has no description", at, name)
			}
		}
		for _, p := range o.Parameters {
			if p.Description == "" {
				return fmt.Errorf("%s: the parameter %s has no description", at, p.Name)
			}
		}
	}
	return nil
}

// ServeJSON serves the document as JSON.
func (m *Router) ServeJSON(w http.ResponseWriter, r *http.Request) {
	sendSpec(w, r, "application/json", m.spec.json)
}

// ServeYAML serves the document as YAML.
func (m *Router) ServeYAML(w http.ResponseWriter, r *http.Request) {
	sendSpec(w, r, "application/yaml", m.spec.yaml)
}

func sendSpec(w http.ResponseWriter, r *http.Request, mediaType string, render func() ([]byte, error)) {
	text, err := render()
	if err != nil {
		Fail(w, r, fmt.Errorf("render the document: %w", err))
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(text)
}

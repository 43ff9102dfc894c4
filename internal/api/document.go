package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
)

// security is what a route with a role takes.
var security = []map[string][]string{{"bearer": {}}, {"key": {}}, {"session": {}}}

const introduction = `Agented runs agent CLIs and scripts as *executions* of *triggers*, and keeps every line that they print.

**Keys.** Send ` + "`Authorization: Bearer KEY`" + ` or ` + "`X-API-Key: KEY`" + `. Browsers use the session cookie that a login sets.
Each operation says which role it needs: viewer reads, operator also runs, cancels and retries, admin does all.

**Problems.** Whatever is not a success is answered with application/problem+json (RFC 9457): ` + "`kind`" + ` is for programs, ` + "`detail`" + `
for people, ` + "`errors`" + ` names the refused fields, ` + "`request_id`" + ` finds the request in the server's log. Fields that an operation does not know
are refused.

**Lists** answer ` + "`{\"items\":[…],\"next_cursor\":…}`" + `; send next_cursor back as ` + "`cursor`" + ` for the next page.

**Times** are RFC 3339 in UTC. **Names** stay; more may be added.`

// tags group the operations, in the order in which people meet them.
var tags = []*huma.Tag{
	{Name: "triggers", Description: "What to run, and when"},
	{Name: "schedules", Description: "When triggers fire by themselves, and what was done about each due time"},
	{Name: "agents", Description: "Who does the work: roles, goals, and the CLIs that play them"},
	{Name: "conversations", Description: "What people and agents say to each other, turn by turn"},
	{Name: "messages", Description: "What agents, triggers and people send each other"},
	{Name: "webhooks", Description: "Calls from outside that fire triggers, and what became of them"},
	{Name: "executions", Description: "Firings of triggers, and what became of them"},
	{Name: "accounts", Description: "Sets of credentials that attempts run on, and how they stand"},
	{Name: "money", Description: "What executions use and cost, and budgets for it"},
	{Name: "logs", Description: "What an execution printed, from the start or live"},
	{Name: "auth", Description: "Logging in, users, keys and sessions"},
	{Name: "server", Description: "The server itself"},
	{Name: "pages", Description: "Pages for browsers that need no script"},
}

// newDocument is the OpenAPI document before any operation is in it.
func newDocument(version string) *huma.OpenAPI {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[agented.Usage](), reflect.TypeFor[usageSchema]())
	if version == "" {
		version = "dev"
	}
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Agented", Version: version, Description: introduction,
			License: &huma.License{Name: "MIT", Identifier: "MIT"},
		},
		Tags: tags,
		Components: &huma.Components{
			Schemas: registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer":  {Type: "http", Scheme: "bearer", Description: "An API key"},
				"key":     {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "An API key"},
				"session": {Type: "apiKey", In: "cookie", Name: cookiePlain, Description: "What a login sets; over TLS its name is " + cookieTLS},
			},
		},
	}
}

// usageSchema describes agented.Usage in place, because only what is in place
// can be null.
type usageSchema struct{}

func (usageSchema) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[agented.Usage]())
	for _, p := range s.Properties {
		if p.Type != huma.TypeBoolean {
			p.Nullable = true
		}
	}
	return s
}

// problemResponse describes an answer that is a problem.
func (s *Server) problemResponse(status int) *huma.Response {
	schema := s.doc.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	text := http.StatusText(status)
	if text == "" {
		text = "Status " + strconv.Itoa(status)
	}
	return &huma.Response{Description: text, Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
}

// describe makes the answer of a handler that huma does not know.
func describe(text, mediaType string) *huma.Response {
	r := &huma.Response{Description: text}
	if mediaType != "" {
		r.Content = map[string]*huma.MediaType{mediaType: {Schema: &huma.Schema{Type: huma.TypeString}}}
	}
	return r
}

func inPath(name, text string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
}

func inURL(name, kind, text string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: text, Schema: &huma.Schema{Type: kind}}
}

// LogPage is some lines of a log.
type LogPage struct {
	Lines     []LogLine   `json:"lines"`
	NextAfter agented.Seq `json:"next_after" doc:"What to send as after for the lines behind these"`
	Note      string      `json:"note,omitempty" doc:"Why there are no lines, when retention took the log"`
}

// LogLine is a line, or a piece of one, as logs and streams show it.
type LogLine struct {
	Seq       agented.Seq    `json:"seq" doc:"Its number, from 1 over all attempts and streams"`
	Attempt   int            `json:"attempt"`
	Timestamp time.Time      `json:"timestamp"`
	Stream    agented.Stream `json:"stream" enum:"stdout,stderr,system"`
	Content   string         `json:"content" doc:"Without the newline; invalid UTF-8 is shown as U+FFFD"`
	Part      agented.Part   `json:"part,omitempty" enum:"first,middle,last" doc:"Which piece of a line that was cut; left out for a whole line"`
	NoEOL     bool           `json:"no_eol,omitempty" doc:"The stream ended here without a newline"`
}

// Health is how the server is.
type Health struct {
	Status string `json:"status" enum:"ok,unavailable"`
	Check  string `json:"check,omitempty" enum:"draining,store,dispatcher" doc:"The check that failed"`
}

func (s *Server) schemaOf(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return s.doc.Components.Schemas.Schema(t, true, t.Name())
}

func (s *Server) healthAnswer(text string) *huma.Response {
	return &huma.Response{Description: text, Content: map[string]*huma.MediaType{"application/json": {Schema: s.schemaOf(Health{})}}}
}

// spec renders the document as it is sent, when somebody first asks for it: it
// does not change while the server runs, and a start need not wait for it.
type spec struct{ json, yaml func() ([]byte, error) }

// finishDocument completes what the types cannot say, and checks the document.
func (s *Server) finishDocument() error {
	for name, required := range map[string][]string{"TriggerCreate": {"name", "backend"}, "ExecutionCreate": {"backend"}} {
		schema := s.doc.Components.Schemas.Map()[name]
		if schema == nil {
			return fmt.Errorf("api: the document has no schema %s", name)
		}
		// Said, but left to Validate, which words it better than the schema can.
		schema.Required = required
	}
	if err := s.checkDocument(); err != nil {
		return fmt.Errorf("api: the document: %w", err)
	}
	s.spec = spec{
		json: sync.OnceValues(func() ([]byte, error) { return json.Marshal(s.doc) }),
		yaml: sync.OnceValues(s.doc.YAML),
	}
	return nil
}

// operations lists the document's operations in the order of the table.
func (s *Server) operations() []*huma.Operation {
	var out []*huma.Operation
	for i := range s.table {
		rt := &s.table[i]
		item := s.doc.Paths[openAPIPath(rt.path)]
		if rt.about.id == "" || item == nil {
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

// checkDocument refuses to start with a document that says less than it should.
func (s *Server) checkDocument() error {
	seen := map[string]bool{}
	for _, o := range s.operations() {
		at := o.Method + " " + o.Path
		switch {
		case seen[o.OperationID]:
			return fmt.Errorf("%s: operationId %s is there twice", at, o.OperationID)
		case o.Summary == "" || o.Description == "" || len(o.Tags) != 1:
			return fmt.Errorf("%s: needs a summary, a description and one tag", at)
		case !slices.ContainsFunc(tags, func(t *huma.Tag) bool { return t.Name == o.Tags[0] }):
			return fmt.Errorf("%s: the tag %q is not known", at, o.Tags[0])
		}
		seen[o.OperationID] = true
		for part := range strings.SplitSeq(o.Path, "/") {
			name, ok := strings.CutPrefix(part, "{")
			name = strings.TrimSuffix(name, "}")
			if ok && !slices.ContainsFunc(o.Parameters, func(p *huma.Param) bool {
				return p.In == "path" && p.Name == name && p.Required && p.Description != ""
			}) {
				return fmt.Errorf("%s: the path parameter %s is not described", at, name)
			}
		}
		for _, p := range o.Parameters {
			if p.Description == "" {
				return fmt.Errorf("%s: the parameter %s is not described", at, p.Name)
			}
		}
	}
	return nil
}

func (s *Server) openAPIJSON() http.HandlerFunc {
	return s.sendSpec("application/json", func() ([]byte, error) { return s.spec.json() })
}

func (s *Server) openAPIYAML() http.HandlerFunc {
	return s.sendSpec("application/yaml", func() ([]byte, error) { return s.spec.yaml() })
}

func (s *Server) sendSpec(mediaType string, render func() ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := render()
		if err != nil {
			s.fail(w, r, fmt.Errorf("render the document: %w", err))
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(text)
	}
}

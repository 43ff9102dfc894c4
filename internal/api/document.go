package api

import (
	"fmt"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/api/rest"
)

const introduction = `Agented runs agent CLIs and scripts as *executions* of *triggers*, and stores every line that they print.

**Keys.** Send ` + "`Authorization: Bearer KEY`" + ` or ` + "`X-API-Key: KEY`" + `. Browsers use the session cookie that a login sets.
Each operation states its required role: viewers read; operators also run, cancel and retry; admins can do everything.

**Problems.** Errors are application/problem+json (RFC 9457): ` + "`kind`" + ` is for programs, ` + "`detail`" + `
for people, ` + "`errors`" + ` lists the invalid fields, and ` + "`request_id`" + ` identifies the request in the server's log. Unknown fields are rejected.

**Lists** return ` + "`{\"items\":[…],\"next_cursor\":…}`" + `; send next_cursor as ` + "`cursor`" + ` to get the next page.

**Times** are RFC 3339 in UTC. **Names** are stable; fields may be added.`

// tags group the operations, in the order of the documentation.
var tags = []*huma.Tag{
	{Name: "triggers", Description: "What to run, and when"},
	{Name: "schedules", Description: "Cron schedules of triggers, and the outcome of each due time"},
	{Name: "agents", Description: "Named agents: roles, goals, and the CLIs that run them"},
	{Name: "conversations", Description: "Messages between a person and an agent, turn by turn"},
	{Name: "messages", Description: "Messages between agents, triggers and people"},
	{Name: "webhooks", Description: "Inbound calls that fire triggers, and their results"},
	{Name: "executions", Description: "Firings of triggers, and their results"},
	{Name: "accounts", Description: "Sets of credentials for attempts, and their state"},
	{Name: "secrets", Description: "Named secrets for variables, accounts and workspaces"},
	{Name: "notifications", Description: "Channels, and the notifications that are sent to them"},
	{Name: "money", Description: "Usage and cost of executions, and budgets"},
	{Name: "logs", Description: "Output of executions, stored or live"},
	{Name: "changes", Description: "What executions changed, and their artifacts"},
	{Name: "auth", Description: "Logins, users, keys and sessions"},
	{Name: "server", Description: "The server itself"},
	{Name: "pages", Description: "Pages for browsers that work without scripts"},
}

// usageSchema describes agented.Usage inline, because only an inline schema can
// be nullable.
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

// LogPage is a page of log lines.
type LogPage struct {
	Lines     []LogLine   `json:"lines"`
	NextAfter agented.Seq `json:"next_after" doc:"Send as after to get the next lines"`
	Note      string      `json:"note,omitempty" doc:"Why there are no lines, if retention removed the log"`
}

// LogLine is a line, or a piece of one, in logs and streams.
type LogLine struct {
	Seq       agented.Seq    `json:"seq" doc:"Line number, from 1 over all attempts and streams"`
	Attempt   int            `json:"attempt"`
	Timestamp time.Time      `json:"timestamp"`
	Stream    agented.Stream `json:"stream" enum:"stdout,stderr,system"`
	Content   string         `json:"content" doc:"Without the newline; invalid UTF-8 is replaced with U+FFFD"`
	Part      agented.Part   `json:"part,omitempty" enum:"first,middle,last" doc:"Position of a piece of a split line; omitted for a whole line"`
	NoEOL     bool           `json:"no_eol,omitempty" doc:"The stream ended here without a newline"`

	Events []agentcli.Event `json:"events,omitempty" doc:"With events=true: what an agent CLI reports with this line of standard output; for a split line, with its last piece"`
}

// newDocument returns the description of the API as a whole.
func newDocument(version string) rest.Document {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	schemas.RegisterTypeAlias(reflect.TypeFor[agented.Usage](), reflect.TypeFor[usageSchema]())
	schemas.RegisterTypeAlias(reflect.TypeFor[agented.Credential](), reflect.TypeFor[credentialSchema]())
	return rest.Document{Title: "Agented", Version: version, License: "MIT", Introduction: introduction, Tags: tags, Schemas: schemas}
}

// finishDocument adds what the Go types cannot express.
func finishDocument(doc *huma.OpenAPI) error {
	for name, required := range map[string][]string{"TriggerCreate": {"name", "backend"}, "ExecutionCreate": {"backend"}} {
		schema := doc.Components.Schemas.Map()[name]
		if schema == nil {
			return fmt.Errorf("api: the document has no schema %s", name)
		}
		// Documented as required, but checked by Validate, whose errors are
		// clearer than those of the schema.
		schema.Required = required
	}
	return nil
}

// backendName is the name of a backend.
type backendName string

// Schema implements [huma.SchemaProvider].
func (backendName) Schema(huma.Registry) *huma.Schema { return oneOf(registry.Names(), "") }

// agentBackend is the name of a backend that is an agent.
type agentBackend string

// Schema implements [huma.SchemaProvider].
func (agentBackend) Schema(huma.Registry) *huma.Schema {
	return oneOf(registry.Names(), agented.BackendCommand)
}

// oneOf describes a string that is one of the names, except one of them.
func oneOf(names []string, except string) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, name := range names {
		if name != except {
			s.Enum = append(s.Enum, name)
		}
	}
	s.PrecomputeMessages()
	return s
}

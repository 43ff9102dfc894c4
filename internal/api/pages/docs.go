package pages

import (
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// docsPage is the content of the page at /docs: the OpenAPI document, rendered
// by the server, so that it needs neither scripts nor external resources.
type docsPage struct {
	Version string
	Intro   template.HTML
	Groups  []docsGroup
	Schemas []docsSchema
}

type docsGroup struct {
	Name, Text string
	Operations []docsOperation
}

type docsOperation struct {
	ID, Method, Path, Summary string
	Text                      template.HTML
	Role                      string
	Params                    []docsField
	Body                      []docsBody
	Answers                   []docsAnswer
}

type docsField struct {
	Name, In, Type string
	Required       bool
	Text           template.HTML
}

type docsBody struct {
	Media, Type string
	Required    bool
}

type docsAnswer struct{ Status, Text, Type string }

type docsSchema struct {
	Name   string
	Fields []docsField
}

// docs serves GET /docs.
func (p *Pages) docs(w http.ResponseWriter, r *http.Request) {
	p.write(w, r, http.StatusOK, "docs", documentPage(p.router.OpenAPI(), p.router.Operations()))
}

func documentPage(doc *huma.OpenAPI, operations []*huma.Operation) docsPage {
	p := docsPage{Version: doc.Info.Version, Intro: prose(doc.Info.Description)}
	for _, tag := range doc.Tags {
		g := docsGroup{Name: tag.Name, Text: tag.Description}
		for _, o := range operations {
			if o.Tags[0] == tag.Name {
				g.Operations = append(g.Operations, docsOf(o))
			}
		}
		p.Groups = append(p.Groups, g)
	}
	for name, schema := range doc.Components.Schemas.Map() {
		d := docsSchema{Name: name}
		for field, sub := range schema.Properties {
			d.Fields = append(d.Fields, docsField{
				Name: field, Type: typeName(sub), Required: slices.Contains(schema.Required, field), Text: prose(sub.Description),
			})
		}
		sort.Slice(d.Fields, func(i, j int) bool { return d.Fields[i].Name < d.Fields[j].Name })
		p.Schemas = append(p.Schemas, d)
	}
	sort.Slice(p.Schemas, func(i, j int) bool { return p.Schemas[i].Name < p.Schemas[j].Name })
	return p
}

func docsOf(o *huma.Operation) docsOperation {
	d := docsOperation{ID: o.OperationID, Method: o.Method, Path: o.Path, Summary: o.Summary, Text: prose(o.Description)}
	d.Role, _ = o.Extensions["x-role"].(string)
	for _, q := range o.Parameters {
		d.Params = append(d.Params, docsField{Name: q.Name, In: q.In, Type: typeName(q.Schema), Required: q.Required, Text: prose(q.Description)})
	}
	if o.RequestBody != nil {
		for media, content := range o.RequestBody.Content {
			d.Body = append(d.Body, docsBody{Media: media, Type: typeName(content.Schema), Required: o.RequestBody.Required})
		}
		sort.Slice(d.Body, func(i, j int) bool { return d.Body[i].Media < d.Body[j].Media })
	}
	for status, answer := range o.Responses {
		a := docsAnswer{Status: status, Text: answer.Description}
		for _, content := range answer.Content {
			a.Type = typeName(content.Schema)
		}
		d.Answers = append(d.Answers, a)
	}
	sort.Slice(d.Answers, func(i, j int) bool { return d.Answers[i].Status < d.Answers[j].Status })
	return d
}

// typeName describes a schema in a word or two. For a reference it returns the
// schema's name, which the page can link.
func typeName(s *huma.Schema) string {
	if s == nil {
		return ""
	}
	name := s.Type
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case s.Type == huma.TypeArray:
		name = "list of " + typeName(s.Items)
	case s.Type == huma.TypeObject && s.AdditionalProperties != nil:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			name = "object of " + typeName(of)
		}
	case s.Format == "date-time":
		name = "time"
	}
	if len(s.Enum) > 0 {
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprint(e)
		}
		name = strings.Join(words, " | ")
	}
	if s.Nullable {
		name += " or null"
	}
	return name
}

// prose renders the Markdown that the document uses: paragraphs, `code`,
// **strong** and *emphasis*.
func prose(text string) template.HTML {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if paragraph = strings.TrimSpace(paragraph); paragraph == "" {
			continue
		}
		b.WriteString("<p>")
		for i, part := range strings.Split(paragraph, "`") {
			part = template.HTMLEscapeString(part)
			if i%2 == 1 {
				b.WriteString("<code>" + part + "</code>")
				continue
			}
			part = pairs(part, "**", "strong")
			b.WriteString(pairs(part, "*", "em"))
		}
		b.WriteString("</p>")
	}
	return template.HTML(b.String()) // escaped above
}

// pairs replaces mark…mark with an element. An unpaired mark at the end remains
// text.
func pairs(text, mark, element string) string {
	parts := strings.Split(text, mark)
	if len(parts) < 3 || len(parts)%2 == 0 {
		return text
	}
	var b strings.Builder
	for i, part := range parts {
		if i%2 == 1 {
			part = "<" + element + ">" + part + "</" + element + ">"
		}
		b.WriteString(part)
	}
	return b.String()
}

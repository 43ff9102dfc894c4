package rest

import (
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Input is the input of an operation with a body and no parameters.
type Input[T any] struct{ Body T }

// ListOf is a page of a list.
type ListOf[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor" nullable:"true" doc:"Cursor of the next page; null on the last one"`
}

// ListOutput is the output of an operation that returns a page.
type ListOutput[T any] struct{ Body ListOf[T] }

// List builds the response of a list.
func List[T, V any](items []T, next string, view func(*T) V) *ListOutput[V] {
	out := &ListOutput[V]{Body: ListOf[V]{Items: make([]V, len(items))}}
	for i := range items {
		out.Body.Items[i] = view(&items[i])
	}
	if next != "" {
		out.Body.NextCursor = &next
	}
	return out
}

// Output is the output of an operation with a body.
type Output[T any] struct{ Body T }

// Reply returns the output with a body.
func Reply[T any](body T) *Output[T] { return &Output[T]{Body: body} }

// PageInput selects a page of a list.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
}

// Page returns the page in the form that the store takes.
func (p *PageInput) Page() store.Page { return store.Page{Limit: p.Limit, Cursor: p.Cursor} }

// InQuery moves the fields of an Invalid error to the query parameters of a
// list.
func InQuery(err error) error {
	e, ok := err.(*agented.Error)
	if !ok || len(e.Fields) == 0 {
		return err
	}
	moved := *e
	moved.Fields = nil
	for _, f := range e.Fields {
		moved.Fields = append(moved.Fields, agented.Field{Path: "query." + f.Path, Text: f.Text})
	}
	return &moved
}

// NotNil returns l, or an empty list instead of nil, so that JSON has [].
func NotNil[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// Time converts a time to the form of responses: UTC, microseconds.
func Time(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// OptionalTime returns t in the form of responses, or nil for the zero time.
func OptionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = Time(t)
	return &t
}

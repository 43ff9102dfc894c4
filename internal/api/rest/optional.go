package rest

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Optional is a field of a JSON object that distinguishes absent from null: a
// merge patch leaves an absent field unchanged and resets a null one.
type Optional[T any] struct {
	Set   bool // the field was present
	Null  bool // the field was null
	Value T
}

// UnmarshalJSON records that the field was present.
func (o *Optional[T]) UnmarshalJSON(text []byte) error {
	o.Set = true
	if bytes.Equal(text, []byte("null")) {
		o.Null = true
		return nil
	}
	return json.Unmarshal(text, &o.Value)
}

// MarshalJSON writes what UnmarshalJSON has read. An absent field is null
// unless omitzero omits it.
func (o Optional[T]) MarshalJSON() ([]byte, error) {
	if !o.Set || o.Null {
		return []byte("null"), nil
	}
	return json.Marshal(o.Value)
}

// Schema returns the schema of the value, made nullable.
func (o Optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return s
}

// Pointer returns the value, the zero value for null, or nil if the field was
// absent.
func (o Optional[T]) Pointer() *T {
	if !o.Set {
		return nil
	}
	return &o.Value
}

// Into assigns the value to its destination: unset for null, nothing if the
// field was absent.
func (o Optional[T]) Into(to *T, unset T) {
	switch {
	case !o.Set:
	case o.Null:
		*to = unset
	default:
		*to = o.Value
	}
}

package api

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// optional is a field of a JSON object that tells absent from null: a merge
// patch leaves the one alone and resets the other.
type optional[T any] struct {
	set   bool // the field was there
	null  bool // and was null
	value T
}

// UnmarshalJSON notes that the field was there.
func (o *optional[T]) UnmarshalJSON(text []byte) error {
	o.set = true
	if bytes.Equal(text, []byte("null")) {
		o.null = true
		return nil
	}
	return json.Unmarshal(text, &o.value)
}

// Schema is that of the value, which may be null.
func (o optional[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return s
}

// into writes the value to where it belongs: unset for null, nothing when the
// field was not there.
func (o optional[T]) into(to *T, unset T) {
	switch {
	case !o.set:
	case o.null:
		*to = unset
	default:
		*to = o.value
	}
}

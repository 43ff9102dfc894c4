package rest

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/agented/agented"
)

func TestOptional(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		into    int
		pointer bool
		json    string
	}{
		`{}`:         {7, false, `{}`},
		`{"n":null}`: {3, true, `{"n":null}`},
		`{"n":5}`:    {5, true, `{"n":5}`},
		`{"n":0}`:    {0, true, `{"n":0}`},
	} {
		var body struct {
			N Optional[int] `json:"n,omitzero"`
		}
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err)
		}
		n := 7
		body.N.Into(&n, 3)
		out, err := json.Marshal(body)
		if n != want.into || (body.N.Pointer() != nil) != want.pointer || string(out) != want.json || err != nil {
			t.Errorf("%s: %d, pointer %v, %s, %v", text, n, body.N.Pointer(), out, err)
		}
	}
}

func TestInQuery(t *testing.T) {
	t.Parallel()
	err := InQuery(agented.InvalidFields([]agented.Field{{Path: "cursor", Text: "is damaged"}}))
	if e, ok := errors.AsType[*agented.Error](err); !ok || e.Fields[0].Path != "query.cursor" {
		t.Errorf("%+v", err)
	}
	other := errors.New("x")
	if InQuery(other) != other {
		t.Error("another error was changed")
	}
}

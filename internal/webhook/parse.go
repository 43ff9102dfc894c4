package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/agented/agented"
)

// Bounds of a body beside its size.
const (
	MaxDepth  = 100     // lists and objects inside one another
	MaxValues = 1 << 20 // values in all: what is small on the wire may be large in memory
	maxWord   = 100     // bytes of an event's or action's name
)

// Parse reads what a call says. The body is JSON, or a form whose field
// "payload" is JSON. A call with the header X-GitHub-Event is read as GitHub's;
// the event of any other is the text at "type" or "event" of its body, and its
// body may be empty.
//
// Errors are Invalid, or TooLarge for a body past [MaxBody]; none of them
// repeats the body.
func Parse(h http.Header, body []byte) (*Event, error) {
	if len(body) > MaxBody {
		return nil, agented.Errorf(agented.TooLarge, "the body has more than %d bytes: send less", MaxBody)
	}
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, agented.Errorf(agented.Invalid, "the body has a Content-Encoding: send it as it is")
	}
	e := &Event{}
	var err error
	if e.ID, err = DeliveryID(h); err != nil {
		return nil, err
	}
	if values := h.Values("X-Github-Event"); len(values) > 0 {
		if len(values) > 1 || !validWord(values[0]) {
			return nil, agented.Errorf(agented.Invalid, "the header X-GitHub-Event is not one event: use letters, digits, _, - and dots, at most %d bytes", maxWord)
		}
		e.GitHub, e.Name = true, values[0]
	}
	if media, _, _ := mime.ParseMediaType(h.Get("Content-Type")); media == "application/x-www-form-urlencoded" {
		if body, err = formPayload(body); err != nil {
			return nil, err
		}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if e.GitHub {
			return nil, agented.Errorf(agented.Invalid, "the body is empty: GitHub sends a JSON object")
		}
		return e, nil
	}
	if e.JSON, err = decode(body); err != nil {
		return nil, err
	}
	e.Raw = body
	object, ok := e.JSON.(map[string]any)
	if e.GitHub && !ok {
		return nil, agented.Errorf(agented.Invalid, "the body is not a JSON object, as GitHub's always is")
	}
	e.Action = word(object, "action")
	if e.GitHub {
		e.readGitHub(object)
		return e, nil
	}
	for _, key := range []string{"type", "event"} {
		if e.Name == "" {
			e.Name = word(object, key)
		}
	}
	return e, nil
}

// formPayload returns the one field "payload" of a form.
func formPayload(body []byte) ([]byte, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, agented.Errorf(agented.Invalid, "the body is not a form, as its Content-Type says").Because(err)
	}
	if len(form["payload"]) != 1 {
		return nil, agented.Errorf(agented.Invalid, `the form needs one field "payload" with JSON in it, or send the JSON itself as application/json`)
	}
	return []byte(form["payload"][0]), nil
}

// decode reads one JSON value; numbers stay as they are written.
func decode(body []byte) (any, error) {
	if err := measure(body); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, agented.Errorf(agented.Invalid, "the body is not JSON: something follows its first value")
	}
	return v, nil
}

func malformed(err error) error {
	if at, ok := errors.AsType[*json.SyntaxError](err); ok {
		return agented.Errorf(agented.Invalid, "the body is not JSON: it goes wrong at byte %d", at.Offset).Because(err)
	}
	return agented.Errorf(agented.Invalid, "the body is not JSON: it ends too early or holds something else").Because(err)
}

// measure bounds what decoding would build, before anything is built. Text that
// is no JSON may be counted wrong; decoding refuses that.
func measure(body []byte) error {
	depth, values := 0, 1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			values++
			if depth++; depth > MaxDepth {
				return agented.Errorf(agented.Invalid, "the body is nested too deep: at most %d levels are read", MaxDepth)
			}
		case '}', ']':
			depth--
		case ',':
			values++
		}
		if values > MaxValues {
			return agented.Errorf(agented.TooLarge, "the body has too many values: at most %d are read", MaxValues)
		}
	}
	return nil
}

// word is the member of an object if it is the name of something, else "".
func word(object map[string]any, key string) string {
	if s, ok := object[key].(string); ok && validWord(s) {
		return s
	}
	return ""
}

func validWord(s string) bool {
	if s == "" || len(s) > maxWord {
		return false
	}
	for _, c := range []byte(s) {
		if c != '_' && c != '-' && c != '.' && c != ':' && c != '/' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

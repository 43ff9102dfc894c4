package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/agented/agented"
)

// Limits of a body in addition to its size.
const (
	MaxDepth  = 100     // nesting of lists and objects
	MaxValues = 1 << 20 // values in total: a small body can need much memory
	maxWord   = 100     // bytes of an event's or action's name
)

// Parse parses the event in a call. The body is JSON, a form, or text; see
// [readBody]. It may be compressed with gzip. A call with the header
// X-GitHub-Event is parsed as GitHub's, or as Gitea's if its headers identify Gitea.
// Events of GitLab and Bitbucket are recognised by their bodies; the event of
// any other call is in the header or field that its sender uses, or in "type"
// or "event" of its body. The body of such a call may be empty.
//
// Errors are Invalid, or TooLarge for a body larger than [MaxBody]; none of
// them repeats the body.
func Parse(h http.Header, body []byte) (*Event, error) {
	if len(body) > MaxBody {
		return nil, agented.Errorf(agented.TooLarge, "the body has more than %d bytes: send less", MaxBody)
	}
	body, err := expand(h, body)
	if err != nil {
		return nil, err
	}
	e := &Event{Sent: body}
	if e.ID, err = DeliveryID(h); err != nil {
		e.ID = "" // whether it is used depends on the verification
	}
	if err := e.readName(h); err != nil {
		return nil, err
	}
	content, err := readBody(h, body, e.GitHub)
	if err != nil {
		return nil, err
	}
	e.JSON, e.Raw, e.Form = content.value, content.raw, content.fields
	if len(e.Raw) == 0 {
		if e.GitHub {
			return nil, agented.Errorf(agented.Invalid, "the body is empty: GitHub sends a JSON object")
		}
		return e, nil
	}
	object, ok := e.JSON.(map[string]any)
	if e.GitHub && !ok {
		return nil, agented.Errorf(agented.Invalid, "the body is not a JSON object, as GitHub sends: set the content type of the webhook to application/json")
	}
	e.Action = word(object, "action")
	if e.GitHub {
		e.readGitHub(object)
		if e.Kind == KindGitea {
			e.readGitea(object)
		}
		return e, nil
	}
	e.readSender(h, object)
	return e, nil
}

// decode decodes one JSON value; numbers keep their spelling.
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
		return nil, agented.Errorf(agented.Invalid, "the body is not JSON: it continues after its first value")
	}
	return v, nil
}

func malformed(err error) error {
	if at, ok := errors.AsType[*json.SyntaxError](err); ok {
		return agented.Errorf(agented.Invalid, "the body is not JSON: syntax error at byte %d", at.Offset).Because(err)
	}
	return agented.Errorf(agented.Invalid, "the body is not JSON: it is incomplete or of another type").Because(err)
}

// measure limits what decoding would build, before building it. Counts for
// invalid JSON may be wrong; decoding rejects it.
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
				return agented.Errorf(agented.Invalid, "the body is nested too deeply: use at most %d levels", MaxDepth)
			}
		case '}', ']':
			depth--
		case ',':
			values++
		}
		if values > MaxValues {
			return agented.Errorf(agented.TooLarge, "the body has too many values: use at most %d", MaxValues)
		}
	}
	return nil
}

// word returns the member of an object if it is a name, otherwise "".
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

package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/agented/agented"
)

// ETag returns the version of an object: a digest of the values that an update can change.
// Values that their JSON leaves out, such as sealed secrets, are passed separately.
func ETag(values ...any) string {
	digest := sha256.New()
	to := json.NewEncoder(digest)
	for _, v := range values {
		if l := reflect.ValueOf(v); (l.Kind() == reflect.Slice || l.Kind() == reflect.Map) && l.Len() == 0 {
			v = nil // as read from the database
		}
		if err := to.Encode(v); err != nil {
			panic("rest: a version of a value that has no JSON: " + err.Error())
		}
	}
	return base64.RawURLEncoding.EncodeToString(digest.Sum(nil)[:15])
}

// IfMatch is the part of an update's input that names the version that it is based on.
type IfMatch struct {
	IfMatch string `header:"If-Match" maxLength:"1000" doc:"The etag of the object that the update is based on. If the object has changed since, the response is 412 and nothing is stored. Omit it to update any version"`
}

// Check returns a problem with status 412 and the current object if the update is based on
// another version. show is called only then.
func (m *IfMatch) Check(noun, etag string, show func() any) error {
	if m.IfMatch == "" {
		return nil
	}
	for tag := range strings.SplitSeq(m.IfMatch, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.Trim(tag, `"`) == etag {
			return nil
		}
	}
	return &Problem{
		Status: http.StatusPreconditionFailed, Kind: agented.Conflict, etag: etag, Current: show(),
		Detail: "the " + noun + " has been changed since it was read: read it again, or repeat the update with If-Match " + quoted(etag),
	}
}

func quoted(etag string) string { return `"` + etag + `"` }

// Tagged is the output of an operation with one object that can be updated.
type Tagged[T any] struct {
	ETag string `header:"ETag" doc:"Version of the object, for If-Match"`
	Body T
}

// Versioned returns the output with an object and its version.
func Versioned[T any](body T, etag string) *Tagged[T] {
	return &Tagged[T]{ETag: quoted(etag), Body: body}
}

package webhook

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/agented/agented"
)

// A source is the location of a value in a call: the text before and after the
// colon in "header:X-Request-UUID", "field:event.id" or "signature:t".
type source struct{ place, name string }

// The places of a source. [placeBody] has no name.
const (
	placeHeader    = "header"    // a header of the call
	placeField     = "field"     // a field of the body, as a dotted path
	placeSignature = "signature" // an element of the signature header, such as t in "t=1,v1=ab"
	placeBody      = "body"      // the body itself, by its digest
)

func parseSource(text string) source {
	place, name, _ := strings.Cut(text, ":")
	return source{place, strings.TrimSpace(name)}
}

func sources(texts ...string) []source {
	out := make([]source, len(texts))
	for i, t := range texts {
		out[i] = parseSource(t)
	}
	return out
}

// invalidReason returns why a source is invalid for the given places, or "".
func (s source) invalidReason(places ...string) string {
	known := false
	for _, p := range places {
		known = known || p == s.place
	}
	switch {
	case !known:
		forms := map[string]string{
			placeHeader: "header:NAME", placeField: "field:PATH", placeSignature: "signature:NAME", placeBody: "body",
		}
		var list []string
		for _, p := range places {
			list = append(list, forms[p])
		}
		return "must be one of " + strings.Join(list, ", ") + ", for example header:X-Request-UUID"
	case s.place == placeBody:
		if s.name != "" {
			return "must be only body, or a header or a field"
		}
	case s.place == placeHeader:
		if !validHeaderName(s.name) {
			return "has no header name after header: use letters, digits and -, at most 100 bytes"
		}
	case s.place == placeField:
		if _, wrong := splitPath(s.name); wrong != "" {
			return "has a path that " + wrong
		}
	case s.place == placeSignature:
		if !validWord(s.name) {
			return "has no element of the signature header: use for example signature:t"
		}
	}
	return ""
}

// text returns the value of a header or a field of the body, "" if there is
// none. A header that occurs twice is an Invalid error.
func (s source) text(h http.Header, body any) (string, error) {
	switch s.place {
	case placeHeader:
		values := h.Values(s.name)
		if len(values) > 1 {
			return "", agented.Errorf(agented.Invalid, "the header %s occurs more than once: send it once", http.CanonicalHeaderKey(s.name))
		}
		if len(values) == 1 {
			return values[0], nil
		}
	case placeField:
		return fieldText(body, s.name), nil
	}
	return "", nil
}

// fieldText returns the scalar at a dotted path of a body, "" if there is none.
func fieldText(body any, path string) string {
	segments, wrong := splitPath(path)
	if wrong != "" {
		return ""
	}
	v := body
	for _, key := range segments {
		switch at := v.(type) {
		case map[string]any:
			v = at[key]
		case []any:
			i, err := strconv.Atoi(key)
			if !digits(key) || err != nil || i >= len(at) {
				return ""
			}
			v = at[i]
		default:
			return ""
		}
	}
	text, _ := scalar(v)
	return text
}

package webhook

import (
	"fmt"
	"io"
	"strings"
)

// Limits of a template of the signed text.
const (
	maxTemplate     = 300 // bytes
	maxPlaceholders = 20
)

// signedNames are the placeholders of a template of the signed text.
var signedNames = []string{"timestamp", "id", "body", "url", "method", "host", "path"}

// A signedText is a template of the text that a sender signs, split into
// literal text and placeholders. A placeholder is stored as its name in braces.
type signedText []string

// plainBody is the template of senders that sign only the body.
var plainBody = signedText{"{body}"}

// parseSigned parses a template such as "v0:{timestamp}:{body}". The second
// value is the error, or "".
func parseSigned(text string) (signedText, string) {
	switch {
	case text == "":
		return plainBody, ""
	case len(text) > maxTemplate:
		return nil, fmt.Sprintf("is too long: use at most %d bytes", maxTemplate)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }):
		return nil, "has a control character: use printable characters"
	}
	var out signedText
	count := 0
	for text != "" {
		at := strings.IndexByte(text, '{')
		if at < 0 {
			out = append(out, text)
			break
		}
		end := strings.IndexByte(text[at:], '}')
		if end < 0 {
			return nil, "has a { without a }: write placeholders as {timestamp} and {body}"
		}
		name := text[at+1 : at+end]
		if !known(signedNames, name) {
			return nil, fmt.Sprintf("has the unknown placeholder {%s}: use {%s}%s", brief(name, 40), strings.Join(signedNames, "}, {"), suggest(brief(name, 40), signedNames))
		}
		if count++; count > maxPlaceholders {
			return nil, fmt.Sprintf("has too many placeholders: use at most %d", maxPlaceholders)
		}
		if at > 0 {
			out = append(out, text[:at])
		}
		out = append(out, "{"+name+"}")
		text = text[at+end+1:]
	}
	if !out.has("body") {
		return nil, "must contain {body}: otherwise the body could be changed in transit"
	}
	if strings.Count(strings.Join(out, ""), "{body}") > 1 {
		return nil, "has {body} more than once: use it once"
	}
	return out, ""
}

func known(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

func (t signedText) has(name string) bool { return known(t, "{"+name+"}") }

// signedValues are the values of a template.
type signedValues struct {
	timestamp, id, url string
	request            *Request
	form               func() string
}

// writeTo writes the signed text of a call.
func (t signedText) writeTo(w io.Writer, v signedValues) {
	for _, part := range t {
		switch part {
		case "{body}":
			_, _ = w.Write(v.request.Body)
			continue
		case "{timestamp}":
			part = v.timestamp
		case "{id}":
			part = v.id
		case "{url}":
			part = v.url
		case "{method}":
			part = v.request.method()
		case "{host}":
			part = v.request.Host
		case "{path}":
			part, _, _ = strings.Cut(v.request.Target, "?")
		case "{form}":
			part = v.form()
		}
		_, _ = io.WriteString(w, part)
	}
}

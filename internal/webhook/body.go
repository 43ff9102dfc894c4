package webhook

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf16"

	"github.com/agented/agented"
)

// Limits of a form.
const (
	maxFormFields = 1000
	maxFieldName  = 200 // bytes
)

// bodyContent is the content of a body in any format.
type bodyContent struct {
	value  any               // as JSON
	raw    []byte            // the JSON text; empty if there is none
	fields map[string]string // for a form that is not JSON: the first value of each field
}

// expand decodes the body's Content-Encoding. It supports gzip, and limits the
// expanded size to [MaxBody].
func expand(h http.Header, body []byte) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(h.Get("Content-Encoding"))) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
	default:
		return nil, agented.Errorf(agented.Invalid, "the body has an unsupported Content-Encoding: use gzip or none")
	}
	in, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, notGzip(err)
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(in, MaxBody+1))
	switch {
	case err != nil:
		return nil, notGzip(err)
	case n > MaxBody:
		return nil, agented.Errorf(agented.TooLarge, "the body has more than %d bytes when it is expanded: send less", MaxBody)
	}
	return out.Bytes(), nil
}

func notGzip(err error) error {
	return agented.Errorf(agented.Invalid, "the body is not gzip, as its Content-Encoding says: send gzip, or remove the header").Because(err)
}

// trimBOM returns the text without a byte order mark; UTF-16 is converted to
// UTF-8.
func trimBOM(body []byte) []byte {
	var high, low int
	switch {
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return body[3:]
	case bytes.HasPrefix(body, []byte("\xff\xfe")):
		high, low = 1, 0
	case bytes.HasPrefix(body, []byte("\xfe\xff")):
		high, low = 0, 1
	default:
		return body
	}
	units := make([]uint16, 0, len(body)/2)
	for i := 2; i+1 < len(body); i += 2 {
		units = append(units, uint16(body[i+high])<<8|uint16(body[i+low]))
	}
	return []byte(string(utf16.Decode(units)))
}

// readBody parses a body according to its Content-Type: JSON; a form, whose
// only field "payload" is JSON, or whose fields become an object; text, which
// becomes the member "text" of an object if it is not JSON. An unknown type is
// parsed as JSON. GitHub only sends JSON or a form with a payload.
func readBody(h http.Header, body []byte, github bool) (bodyContent, error) {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case media == "application/x-www-form-urlencoded":
		form, ok := readForm(h, body)
		if !ok {
			return bodyContent{}, agented.Errorf(agented.Invalid, "the body is not a form of at most %d fields, as its Content-Type says", maxFormFields)
		}
		return fromForm(form, github)
	case media == "multipart/form-data":
		form, err := readMultipart(h, body)
		if err != nil {
			return bodyContent{}, err
		}
		return fromForm(form, github)
	}
	body = trimBOM(body)
	if len(bytes.TrimSpace(body)) == 0 {
		return bodyContent{}, nil
	}
	value, err := decode(body)
	if err == nil {
		return bodyContent{value: value, raw: body}, nil
	}
	if github || !strings.HasPrefix(media, "text/") || agented.KindOf(err) == agented.TooLarge {
		return bodyContent{}, err
	}
	return fromValue(map[string]any{"text": strings.ToValidUTF8(string(body), "\ufffd")}, nil), nil
}

// readForm returns the fields of a form, and false if the body is not a form or
// has too many fields.
func readForm(h http.Header, body []byte) (url.Values, bool) {
	media, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	if media != "application/x-www-form-urlencoded" || bytes.Count(body, []byte("&")) >= maxFormFields {
		return nil, false
	}
	form, err := url.ParseQuery(string(trimBOM(body)))
	return form, err == nil
}

// readMultipart returns the fields of a multipart form. For a file it returns
// the file name.
func readMultipart(h http.Header, body []byte) (url.Values, error) {
	_, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	broken := func(err error) error {
		return agented.Errorf(agented.Invalid, "the body is not a multipart form, as its Content-Type says").Because(err)
	}
	if err != nil || params["boundary"] == "" {
		return nil, broken(err)
	}
	form := url.Values{}
	in := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for n := 0; ; n++ {
		part, err := in.NextPart()
		switch {
		case errors.Is(err, io.EOF) && (n > 0 || bytes.Contains(body, []byte("--"+params["boundary"]))):
			return form, nil
		case err != nil:
			return nil, broken(err)
		case n == maxFormFields:
			return nil, agented.Errorf(agented.Invalid, "the form has too many fields: use at most %d", maxFormFields)
		}
		name := part.FormName()
		if name == "" {
			continue
		}
		if file := part.FileName(); file != "" {
			form.Add(name, file)
			continue
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return nil, broken(err)
		}
		form.Add(name, string(text))
	}
}

// fromForm returns the content of a form: the JSON of its field "payload", or
// its fields as an object.
func fromForm(form url.Values, github bool) (bodyContent, error) {
	if len(form["payload"]) == 1 {
		raw := trimBOM([]byte(form["payload"][0]))
		value, err := decode(raw)
		if err == nil {
			return bodyContent{value: value, raw: raw}, nil
		}
		if start := bytes.TrimSpace(raw); github || len(start) > 0 && (start[0] == '{' || start[0] == '[') {
			return bodyContent{}, err
		}
	}
	if github {
		return bodyContent{}, agented.Errorf(agented.Invalid, `the form has no field "payload" with JSON: add it, or send the JSON itself as application/json`)
	}
	if len(form) == 0 {
		return bodyContent{}, nil
	}
	object, fields := make(map[string]any, len(form)), make(map[string]string, len(form))
	for name, values := range form {
		if len(name) > maxFieldName {
			return bodyContent{}, agented.Errorf(agented.Invalid, "the form has a field whose name is too long: use at most %d bytes", maxFieldName)
		}
		name = strings.ToValidUTF8(name, "\ufffd")
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = strings.ToValidUTF8(v, "\ufffd")
		}
		object[name] = list
		if len(list) == 1 {
			object[name] = list[0]
		}
		fields[name] = list[0].(string)
	}
	return fromValue(object, fields), nil
}

func fromValue(value map[string]any, fields map[string]string) bodyContent {
	raw, _ := json.Marshal(value) // consists of texts: always marshals
	return bodyContent{value: value, raw: raw, fields: fields}
}

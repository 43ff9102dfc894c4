package agentcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Unmarshal parses one line as a JSON object, and reports whether it is one. A field of an
// unexpected type stays empty, because the CLIs change their formats without notice.
func Unmarshal(line []byte, into any) bool {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' {
		return false
	}
	err := json.Unmarshal(line, into)
	var wrongType *json.UnmarshalTypeError
	return err == nil || errors.As(err, &wrongType)
}

// InputText returns the informative part of a tool's input, whose form differs between CLIs.
func InputText(input json.RawMessage) string {
	if len(input) > 64<<10 {
		return ""
	}
	var fields map[string]any
	if json.Unmarshal(input, &fields) != nil {
		return ""
	}
	for _, name := range []string{"command", "cmd", "file_path", "filePath", "path", "absolute_path", "dir_path", "url", "pattern", "query", "description"} {
		switch v := fields[name].(type) {
		case string:
			return v
		case []any:
			var words []string
			for _, w := range v {
				words = append(words, fmt.Sprint(w))
			}
			return strings.Join(words, " ")
		}
	}
	return ""
}

// Number is a number in the output. A value that is not a number, or not plausible as a count or
// an amount, is unknown, which differs from zero.
type Number struct {
	V     float64
	Known bool
}

// UnmarshalJSON never fails, so that one unexpected field does not lose the line.
func (n *Number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseFloat(string(b), 64)
	*n = Number{v, err == nil && v >= 0 && v < 1e15}
	return nil
}

// Plus adds m if it is known.
func (n *Number) Plus(m Number) {
	if m.Known {
		n.V, n.Known = n.V+m.V, true
	}
}

// Count returns the number as tokens; it is nil if unknown.
func (n Number) Count() *int64 {
	if !n.Known {
		return nil
	}
	v := int64(n.V)
	return &v
}

// Money returns the number as an amount; it is nil if unknown.
func (n Number) Money() *float64 {
	if !n.Known {
		return nil
	}
	return &n.V
}

// ErrorText returns the message of an error, which is a string or an object with a message in
// itself or in its data.
func ErrorText(v json.RawMessage) string {
	var text string
	if len(v) == 0 || json.Unmarshal(v, &text) == nil {
		return text
	}
	var o struct {
		Name    string `json:"name"`
		Message string `json:"message"`
		Data    struct {
			Message string `json:"message"`
		} `json:"data"`
	}
	if json.Unmarshal(v, &o) != nil {
		return ""
	}
	for _, s := range []string{o.Data.Message, o.Message, o.Name} {
		if s != "" {
			return s
		}
	}
	return ""
}

// ContentParts returns the texts of a tool's result, which is a string or a list of parts. A part
// without text is its type in brackets.
func ContentParts(v json.RawMessage) []string {
	var text string
	if json.Unmarshal(v, &text) == nil {
		return []string{text}
	}
	var list []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(v, &list) != nil {
		return nil
	}
	var out []string
	for _, p := range list {
		switch {
		case p.Type == "text":
			out = append(out, p.Text)
		case p.Type != "":
			out = append(out, "["+OneLine(Clip(p.Type, 40))+"]")
		}
	}
	return out
}

// ObjectOf returns an object with one field, for a tool whose input the CLI does not print as an
// object. A value of nil is null.
func ObjectOf(name string, value json.RawMessage) json.RawMessage {
	if len(value) == 0 {
		value = json.RawMessage("null")
	}
	text, err := json.Marshal(map[string]json.RawMessage{name: value})
	if err != nil {
		return nil
	}
	return text
}

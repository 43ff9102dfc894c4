package contract

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// Masker masks secrets. A [redact.Masker] is one.
type Masker interface{ MaskString(s string) string }

// Mask masks secrets in an output, in names and in texts. bad is set if the output cannot be kept.
func Mask(m Masker, output json.RawMessage) (masked json.RawMessage, bad string) {
	if len(output) == 0 {
		return nil, ""
	}
	if m.MaskString(string(output)) != string(output) || bytes.ContainsRune(output, '\\') {
		v, err := decode(output)
		if err != nil {
			return nil, "the output cannot be kept: " + err.Error()
		}
		if output, err = encode(maskValue(m, v)); err != nil {
			return nil, "the output cannot be kept"
		}
		if m.MaskString(string(output)) != string(output) {
			return nil, "the output contains a secret that cannot be masked"
		}
	}
	if len(output) > agented.MaxResult {
		return nil, fmt.Sprintf("the output is longer than %s", format.Bytes(agented.MaxResult))
	}
	return output, ""
}

// encode is [json.Marshal] without escapes for HTML.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func maskValue(m Masker, v any) any {
	switch v := v.(type) {
	case string:
		return m.MaskString(v)
	case []any:
		for i := range v {
			v[i] = maskValue(m, v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			out[m.MaskString(name)] = maskValue(m, x)
		}
		return out
	}
	return v
}

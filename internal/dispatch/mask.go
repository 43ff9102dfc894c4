package dispatch

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

// masker returns the masker for everything that an execution prints or sends.
func (d *Dispatcher) masker(ctx context.Context, e *agented.Execution) (*redact.Masker, error) {
	secrets, err := d.secretsOf(ctx, e)
	if err != nil {
		return nil, err
	}
	return redact.New(secrets), nil
}

// MaskOutput masks texts that a running execution sends, as its log is masked.
func (d *Dispatcher) MaskOutput(ctx context.Context, e *agented.Execution, texts ...*string) error {
	m, err := d.masker(ctx, e)
	if err != nil {
		return err
	}
	for _, t := range texts {
		*t = m.MaskString(*t)
	}
	return nil
}

// maskCut masks a text that may have been cut at "…": the beginning of a secret that
// stands before such a mark is removed.
func maskCut(m *redact.Masker, s string) string {
	s = m.MaskString(s)
	if !strings.Contains(s, "…") {
		return s
	}
	var out strings.Builder
	for part := range strings.SplitAfterSeq(s, "…") {
		head, cut := strings.CutSuffix(part, "…")
		if !cut {
			out.WriteString(part)
			continue
		}
		text := strings.TrimRight(head, "\n")
		safe, _ := m.NewStream().Mask(nil, []byte(text), false)
		out.Write(safe)
		out.WriteString(head[len(text):])
		out.WriteString("…")
	}
	return out.String()
}

// maskJSON masks the texts in a JSON value, names of members among them. A number
// that is masked becomes a text.
func maskJSON(mask func(string) string, v any) any {
	switch v := v.(type) {
	case string:
		return mask(v)
	case json.Number:
		if text := mask(v.String()); text != v.String() {
			return text
		}
	case []any:
		for i := range v {
			v[i] = maskJSON(mask, v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			out[mask(name)] = maskJSON(mask, value)
		}
		return out
	}
	return v
}

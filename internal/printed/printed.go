// Package printed reads the lines of run logs as they were printed, while that text is kept, and
// masks what is stored of it.
package printed

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/shim"
)

// Source describes the execution whose lines are read.
type Source struct {
	Bundle func(attempt int) string                      // returns the folder of an attempt
	Masker func(context.Context) (*redact.Masker, error) // returns the masker for everything that it prints
	Log    *slog.Logger
}

// Text returns the lines of a run log as they were printed, while that text is
// kept: a secret that equals a word of a CLI's protocol must not change how the
// output is read. Text that comes from such lines must be masked with Mask before it
// is stored. Close must be called at the end.
type Text struct {
	from    Source
	attempt int
	plain   *shim.Unmasked
	masker  *redact.Masker // nil until a line needs it
	failed  bool           // there is no masker
	used    bool           // a line was given as it was printed
	buf     []byte
}

// New returns the text of an execution's log.
func New(from Source) *Text { return &Text{from: from} }

// Refresh must be called after lines of an attempt were read from the log, and before
// Line is called for them.
func (t *Text) Refresh(attempt int) {
	if t.plain == nil || t.attempt != attempt {
		t.Close()
		t.attempt, t.plain = attempt, shim.NewUnmasked(t.from.Bundle(attempt))
	}
	t.plain.Refresh()
}

// Line returns the content of a line of the attempt. It is valid until the next call.
//
// The text as it was printed is given only if masking it now has the result that
// the log has. Otherwise the line belongs to a private key of several lines, or
// the secrets have changed since, and masking what was read would not be enough.
func (t *Text) Line(ctx context.Context, l *agented.LogLine) []byte {
	if t.plain == nil || t.attempt != l.Attempt {
		return l.Content
	}
	text, ok := t.plain.Line(l)
	if !ok || t.failed {
		return l.Content
	}
	if t.masker == nil {
		m, err := t.from.Masker(ctx)
		if err != nil {
			t.from.Log.Warn("read the secrets of an execution", "err", err)
			t.failed = true
			return l.Content
		}
		t.masker = m
	}
	if t.buf = t.masker.MaskLine(t.buf[:0], text); !bytes.Equal(t.buf, l.Content) {
		return l.Content
	}
	t.used = true
	return text
}

// Mask masks a text that was read from lines as they were printed.
func (t *Text) Mask(s string) string {
	if !t.used {
		return s // of masked lines
	}
	return MaskCut(t.masker, s)
}

// MaskRaw masks a JSON value that was read from lines as they were printed.
func (t *Text) MaskRaw(raw json.RawMessage) json.RawMessage {
	if !t.used {
		return raw
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&v) == nil {
		if out, err := json.Marshal(maskJSON(t.Mask, v)); err == nil {
			return out
		}
	}
	return json.RawMessage(`{"masked":true}`)
}

// Close releases the files.
func (t *Text) Close() {
	if t.plain != nil {
		t.plain.Close()
		t.plain = nil
	}
}

// MaskCut masks a text that may have been cut at "…": the beginning of a secret that
// stands before such a mark is removed.
func MaskCut(m *redact.Masker, s string) string {
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

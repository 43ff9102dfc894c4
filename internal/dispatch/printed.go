package dispatch

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/shim"
	"github.com/agented/agented/internal/store"
)

// printed returns the lines of a run log as they were printed, while that text is
// kept: a secret that equals a word of a CLI's protocol must not change how the
// output is read. Text that comes from such lines must be masked with mask before it
// is stored.
type printed struct {
	d       *Dispatcher
	e       *agented.Execution
	attempt int
	plain   *shim.Unmasked
	masker  *redact.Masker // nil until a line needs it
	failed  bool           // there is no masker
	used    bool           // a line was given as it was printed
	buf     []byte
}

// refresh must be called after lines of an attempt were read from the log, and before
// line is called for them.
func (p *printed) refresh(attempt int) {
	if p.plain == nil || p.attempt != attempt {
		p.close()
		p.attempt, p.plain = attempt, shim.NewUnmasked(p.d.o.Layout.Attempt(p.e.ID, attempt))
	}
	p.plain.Refresh()
}

// line returns the content of a line of the attempt. It is valid until the next call.
//
// The text as it was printed is given only if masking it now has the result that
// the log has. Otherwise the line belongs to a private key of several lines, or
// the secrets have changed since, and masking what was read would not be enough.
func (p *printed) line(ctx context.Context, l *agented.LogLine) []byte {
	if p.plain == nil || p.attempt != l.Attempt {
		return l.Content
	}
	text, ok := p.plain.Line(l)
	if !ok || p.failed {
		return l.Content
	}
	if p.masker == nil {
		m, err := p.d.masker(ctx, p.e)
		if err != nil {
			p.d.o.Log.Warn("read the secrets of an execution", "execution", p.e.ID, "err", err)
			p.failed = true
			return l.Content
		}
		p.masker = m
	}
	if p.buf = p.masker.MaskLine(p.buf[:0], text); !bytes.Equal(p.buf, l.Content) {
		return l.Content
	}
	p.used = true
	return text
}

// mask masks a text that was read from lines as they were printed.
func (p *printed) mask(s string) string {
	if !p.used {
		return s // of masked lines
	}
	return maskCut(p.masker, s)
}

// maskRaw masks a JSON value that was read from lines as they were printed.
func (p *printed) maskRaw(raw json.RawMessage) json.RawMessage {
	if !p.used {
		return raw
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&v) == nil {
		if out, err := json.Marshal(maskJSON(p.mask, v)); err == nil {
			return out
		}
	}
	return json.RawMessage(`{"masked":true}`)
}

func (p *printed) close() {
	if p.plain != nil {
		p.plain.Close()
		p.plain = nil
	}
}

// maskEnd masks the texts of an attempt's end that come from lines as they were
// printed.
func (p *printed) maskEnd(end *store.AttemptEnd) {
	if !p.used {
		return
	}
	a := &end.Attempt
	for _, s := range []*string{&end.Reason, &end.Error, &end.Result, &end.Limit.Evidence, &a.Reason, &a.Evidence, &a.CLIVersion} {
		*s = p.mask(*s)
	}
	if p.mask(a.SessionID) != a.SessionID {
		a.SessionID = "" // a session cannot be resumed by a mask
	}
}

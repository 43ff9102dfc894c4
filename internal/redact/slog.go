package redact

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// Handler returns a handler that masks everything it passes to next: message,
// keys and values, in groups and in attributes added with With, errors and any
// other value as it would be printed. m is read for each record, so that
// secrets that become known later are masked too; while it contains nil, only
// token shapes are masked.
func Handler(next slog.Handler, m *atomic.Pointer[Masker]) slog.Handler {
	return &handler{base: next, masker: m, fallback: &atomic.Pointer[Masker]{}, ready: &atomic.Pointer[derived]{}}
}

type handler struct {
	base     slog.Handler
	masker   *atomic.Pointer[Masker]
	fallback *atomic.Pointer[Masker] // used while there is no masker
	steps    []step                  // calls of With and WithGroup, in order
	ready    *atomic.Pointer[derived]
}

// step is one With (attrs) or one WithGroup (group).
type step struct {
	group string
	attrs []slog.Attr
}

// derived is base with all steps applied, masked by one masker.
type derived struct {
	m    *Masker
	next slog.Handler
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.base.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.with(step{attrs: attrs})
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(step{group: name})
}

func (h *handler) with(s step) *handler {
	c := *h
	c.steps = append(h.steps[:len(h.steps):len(h.steps)], s)
	c.ready = &atomic.Pointer[derived]{}
	return &c
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	m := h.current()
	out := slog.NewRecord(r.Time, r.Level, m.MaskString(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(m.maskAttr(a))
		return true
	})
	return h.derive(m).Handle(ctx, out)
}

func (h *handler) current() *Masker {
	if m := h.masker.Load(); m != nil {
		return m
	}
	if m := h.fallback.Load(); m != nil {
		return m
	}
	h.fallback.CompareAndSwap(nil, New(nil))
	return h.fallback.Load()
}

// derive applies the steps again if the masker has changed.
func (h *handler) derive(m *Masker) slog.Handler {
	if d := h.ready.Load(); d != nil && d.m == m {
		return d.next
	}
	next := h.base
	for _, s := range h.steps {
		if s.group != "" {
			next = next.WithGroup(m.MaskString(s.group))
			continue
		}
		attrs := make([]slog.Attr, len(s.attrs))
		for i, a := range s.attrs {
			attrs[i] = m.maskAttr(a)
		}
		next = next.WithAttrs(attrs)
	}
	h.ready.Store(&derived{m: m, next: next})
	return next
}

func (m *Masker) maskAttr(a slog.Attr) slog.Attr {
	return slog.Attr{Key: m.MaskString(a.Key), Value: m.maskValue(a.Value)}
}

// maskValue returns v, or a masked string if it contains a secret.
func (m *Masker) maskValue(v slog.Value) slog.Value {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		group := v.Group()
		attrs := make([]slog.Attr, len(group))
		for i, a := range group {
			attrs[i] = m.maskAttr(a)
		}
		return slog.GroupValue(attrs...)
	case slog.KindAny:
		return m.maskAny(v)
	default:
		s := v.String()
		if masked := m.MaskString(s); masked != s {
			return slog.StringValue(masked)
		}
		return v
	}
}

// maskAny examines a value in every form in which a handler may print it.
func (m *Masker) maskAny(v slog.Value) slog.Value {
	x := v.Any()
	if b, ok := x.([]byte); ok { // the text handler prints bytes as text
		if masked := m.MaskLine(nil, b); string(masked) != string(b) {
			return slog.StringValue(string(masked))
		}
	}
	if s, ok := x.(*slog.Source); ok && s != nil {
		return v
	}
	text := fmt.Sprintf("%+v", x)
	if masked := m.MaskString(text); masked != text {
		return slog.StringValue(masked)
	}
	// Pointers are printed as addresses in that text, and a value may print
	// differently in a text or a JSON handler.
	if t, ok := marshalText(x); ok {
		if masked := m.MaskLine(nil, t); string(masked) != string(t) {
			return slog.StringValue(string(masked))
		}
	}
	if doc, ok := marshal(x); ok {
		if masked := m.MaskLine(nil, doc); string(masked) != string(doc) {
			return slog.StringValue(string(masked))
		}
	}
	return v
}

// marshal is json.Marshal for arbitrary values: one that panics is left to the
// handler, which can print that.
func marshal(x any) (doc []byte, ok bool) {
	defer func() {
		if recover() != nil {
			doc, ok = nil, false
		}
	}()
	doc, err := json.Marshal(x)
	return doc, err == nil
}

func marshalText(x any) (text []byte, ok bool) {
	t, is := x.(encoding.TextMarshaler)
	if !is {
		return nil, false
	}
	defer func() {
		if recover() != nil {
			text, ok = nil, false
		}
	}()
	text, err := t.MarshalText()
	return text, err == nil
}

package config

import "log/slog"

const mask = "********"

// Secret is a setting that never shows, however it is printed, logged or
// encoded: only Reveal gives the text. The zero Secret is not set.
type Secret struct {
	// A pointer to a string prints as an address where fmt cannot call the
	// methods below, as in unexported fields.
	text *string
}

// NewSecret wraps a text; an empty one is not set.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, empty if not set.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet reports whether there is a text.
func (s Secret) IsSet() bool { return s.text != nil }

// String gives a mask of fixed length, or nothing if not set.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return mask
}

// GoString gives the mask to %#v.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// LogValue gives the mask to slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText gives the mask to every encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

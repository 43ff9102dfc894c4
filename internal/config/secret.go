package config

import "log/slog"

const mask = "********"

// Secret is a setting that is never shown, however it is printed, logged or
// encoded: only Reveal returns the text. The zero Secret is not set.
type Secret struct {
	// A pointer to a string, because fmt prints it as an address where it
	// cannot call the methods below, as in unexported fields.
	text *string
}

// NewSecret wraps a text; an empty text is not set.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text, or "" if not set.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet reports whether the secret is set.
func (s Secret) IsSet() bool { return s.text != nil }

// String returns a mask of fixed length, or "" if not set.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return mask
}

// GoString returns the mask for %#v.
func (s Secret) GoString() string { return "config.Secret(" + s.String() + ")" }

// LogValue returns the mask for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns the mask for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Package secret manages the server's persistent key and everything derived
// from it: derived keys, sealed values, session signatures, API keys, password
// hashes.
package secret

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
)

// MinLength is the number of bytes below which a chosen SECRET_KEY is reported
// as weak. It is used anyway: rejecting it would lock an installation out of
// everything the key has sealed.
const MinLength = 16

// Key is the server's SECRET_KEY. However it is printed, logged or encoded,
// only its fingerprint is shown. The zero Key is empty and must not be used.
type Key struct {
	// A pointer to a string: inside an unexported field fmt cannot call the
	// methods below and follows a pointer to a struct, but prints this one as
	// an address.
	text     *string
	source   string
	warnings []string
}

func newKey(text, source string) Key {
	k := Key{text: &text, source: source}
	if len(text) < MinLength {
		k.warnings = append(k.warnings, fmt.Sprintf(
			"SECRET_KEY has fewer than %d characters and can be guessed; set a longer one, for example the output of `openssl rand -hex 32`",
			MinLength))
	}
	return k
}

// Source returns where the key came from: "environment", a .env file with its
// line, or the path of its file.
func (k Key) Source() string { return k.source }

// Warnings returns sentences for the log at start, without secrets.
func (k Key) Warnings() []string { return k.warnings }

// Fingerprint identifies a key without revealing it: twelve hexadecimal digits
// of a hash that is used for nothing else.
func (k Key) Fingerprint() string {
	if k.text == nil {
		return "none"
	}
	sum := sha256.Sum256([]byte("agented secret key fingerprint\x00" + *k.text))
	return hex.EncodeToString(sum[:6])
}

// Reveal returns the key itself. It is only for the masker.
func (k Key) Reveal() string {
	if k.text == nil {
		return ""
	}
	return *k.text
}

// String returns the fingerprint.
func (k Key) String() string { return "secret key " + k.Fingerprint() }

// GoString returns the fingerprint for %#v.
func (k Key) GoString() string { return "secret.Key(" + k.Fingerprint() + ")" }

// LogValue returns the fingerprint for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.Fingerprint()) }

// MarshalText returns the fingerprint for text encoders.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.Fingerprint()), nil }

// MarshalJSON returns the fingerprint as a string.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.Fingerprint()) }

// Derive returns 32 bytes for one purpose. Different purposes yield independent
// keys. A released purpose is never renamed: everything sealed or signed under
// it would be lost.
func (k Key) Derive(purpose string) []byte {
	if k.text == nil || purpose == "" {
		panic("secret: Derive needs a loaded key and a purpose")
	}
	out, err := hkdf.Key(sha256.New, []byte(*k.text), []byte("agented"), "agented v1 "+purpose, 32)
	if err != nil {
		panic("secret: " + err.Error()) // only for an invalid length
	}
	return out
}

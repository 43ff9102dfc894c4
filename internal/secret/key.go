// Package secret holds the server's persistent key and what is made from it:
// derived keys, sealed values, session signatures, API keys, password hashes.
package secret

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
)

// MinLength is the number of bytes below which a SECRET_KEY that somebody chose
// is reported as weak. It is used all the same: refusing it would lock an
// installation out of what the key once sealed.
const MinLength = 16

// Key is the server's SECRET_KEY. However it is printed, logged or encoded, only
// its fingerprint shows. The zero Key holds nothing and must not be used.
type Key struct {
	// A pointer to the text and to nothing more: inside an unexported field fmt
	// cannot call the methods below, and follows a pointer to a struct, but
	// prints this one as an address.
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

// Source says where the key came from: "environment", a .env file with its line,
// or the path of the file that holds it.
func (k Key) Source() string { return k.source }

// Warnings are sentences for the start log, without anything secret.
func (k Key) Warnings() []string { return k.warnings }

// Fingerprint tells keys apart without giving them away: twelve hexadecimal
// digits of a hash that nothing else uses.
func (k Key) Fingerprint() string {
	if k.text == nil {
		return "none"
	}
	sum := sha256.Sum256([]byte("agented secret key fingerprint\x00" + *k.text))
	return hex.EncodeToString(sum[:6])
}

// Reveal returns the key itself. It is for the masker, which has to know what to
// hide, and for nothing else.
func (k Key) Reveal() string {
	if k.text == nil {
		return ""
	}
	return *k.text
}

// String gives the fingerprint.
func (k Key) String() string { return "secret key " + k.Fingerprint() }

// GoString gives the fingerprint to %#v.
func (k Key) GoString() string { return "secret.Key(" + k.Fingerprint() + ")" }

// LogValue gives the fingerprint to slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.Fingerprint()) }

// MarshalText gives the fingerprint to any encoder of text.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.Fingerprint()), nil }

// MarshalJSON gives the fingerprint as a string.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.Fingerprint()) }

// Derive returns 32 bytes for one purpose. Different purposes give unrelated
// bytes, so that no part of the server can do another's work by accident. A
// purpose, once released, is never renamed: what it sealed or signed would be
// lost.
func (k Key) Derive(purpose string) []byte {
	if k.text == nil || purpose == "" {
		panic("secret: Derive needs a loaded key and a purpose")
	}
	out, err := hkdf.Key(sha256.New, []byte(*k.text), []byte("agented"), "agented v1 "+purpose, 32)
	if err != nil {
		panic("secret: " + err.Error()) // only for a length that is not the one above
	}
	return out
}

package secret

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

const (
	apiKeyMark     = "agk_"
	apiKeyLength   = 43 // characters of base 62, slightly more than 256 bits
	prefixLength   = len(apiKeyMark) + 6
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenBytes     = 32
	sessionPurpose = "session"
)

// NewAPIKey generates an API key. plain is shown once and not stored; prefix
// identifies the key in lists; hash is stored. Its fixed prefix lets secret
// scanners detect a leaked key.
func NewAPIKey() (plain, prefix, hash string) {
	var b strings.Builder
	b.WriteString(apiKeyMark)
	var r [64]byte
	for b.Len() < len(apiKeyMark)+apiKeyLength {
		rand.Read(r[:])
		for _, c := range r {
			// 248 is the largest multiple of 62 in a byte, so that all
			// characters are equally likely.
			if c < 248 && b.Len() < len(apiKeyMark)+apiKeyLength {
				b.WriteByte(base62[c%62])
			}
		}
	}
	plain = b.String()
	return plain, APIKeyPrefix(plain), HashToken(plain)
}

// APIKeyPrefix returns the part of a key that may be shown: its fixed prefix
// and six characters, or "" for a key that is not from NewAPIKey.
func APIKeyPrefix(plain string) string {
	if !strings.HasPrefix(plain, apiKeyMark) || len(plain) != len(apiKeyMark)+apiKeyLength {
		return ""
	}
	return plain[:prefixLength]
}

// NewToken generates a token of 256 bits that is safe in URLs, for example for
// the setup link. hash is stored.
func NewToken() (plain, hash string) {
	var r [tokenBytes]byte
	rand.Read(r[:])
	plain = base64.RawURLEncoding.EncodeToString(r[:])
	return plain, HashToken(plain)
}

// HashToken returns the stored form of an API key or token: its SHA-256 in
// hexadecimal. Random values of 256 bits need no slow hash.
func HashToken(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return hex.EncodeToString(sum[:])
}

// Equal compares two secrets in constant time, including their lengths.
func Equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// NewSession generates the value of a session cookie: a random id and its
// signature. hash is stored, and returned by Session for the cookie.
func (k Key) NewSession() (cookie, hash string) {
	id, hash := NewToken()
	return id + "." + k.sessionSignature(id), hash
}

// Session verifies the signature of a session cookie and returns the hash under
// which the session is stored. A forged cookie never reaches the database.
func (k Key) Session(cookie string) (hash string, ok bool) {
	id, signature, ok := strings.Cut(cookie, ".")
	if !ok || len(id) != base64.RawURLEncoding.EncodedLen(tokenBytes) || !Equal(signature, k.sessionSignature(id)) {
		return "", false
	}
	return HashToken(id), true
}

func (k Key) sessionSignature(id string) string {
	return base64.RawURLEncoding.EncodeToString(k.Sign(sessionPurpose, []byte(id)))
}

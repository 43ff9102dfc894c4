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
	apiKeyLength   = 43 // characters of base 62, just above 256 bits
	prefixLength   = len(apiKeyMark) + 6
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	tokenBytes     = 32
	sessionPurpose = "session"
)

// NewAPIKey makes an API key. plain is shown once and not kept; prefix tells keys
// apart in lists; hash is what is stored. The mark at its beginning lets secret
// scanners find one that got away.
func NewAPIKey() (plain, prefix, hash string) {
	var b strings.Builder
	b.WriteString(apiKeyMark)
	var r [64]byte
	for b.Len() < len(apiKeyMark)+apiKeyLength {
		rand.Read(r[:])
		for _, c := range r {
			// 248 is the largest multiple of 62 in a byte: no character is
			// likelier than another.
			if c < 248 && b.Len() < len(apiKeyMark)+apiKeyLength {
				b.WriteByte(base62[c%62])
			}
		}
	}
	plain = b.String()
	return plain, APIKeyPrefix(plain), HashToken(plain)
}

// APIKeyPrefix returns the part of a key that may be shown: its mark and six
// characters. Of a key that NewAPIKey did not make it shows nothing.
func APIKeyPrefix(plain string) string {
	if !strings.HasPrefix(plain, apiKeyMark) || len(plain) != len(apiKeyMark)+apiKeyLength {
		return ""
	}
	return plain[:prefixLength]
}

// NewToken makes a token of 256 bits that fits into a URL, for example for the
// setup link. hash is what is stored.
func NewToken() (plain, hash string) {
	var r [tokenBytes]byte
	rand.Read(r[:])
	plain = base64.RawURLEncoding.EncodeToString(r[:])
	return plain, HashToken(plain)
}

// HashToken returns what is stored of an API key or token: its SHA-256 in
// hexadecimal. Random values of 256 bits need no slow hash.
func HashToken(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return hex.EncodeToString(sum[:])
}

// Equal compares two secrets in a time that depends on neither, not even on
// their lengths.
func Equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// NewSession makes the value of a session cookie: a random id and its signature.
// hash is what is stored, and what Session returns for the cookie later.
func (k Key) NewSession() (cookie, hash string) {
	id, hash := NewToken()
	return id + "." + k.sessionSignature(id), hash
}

// Session checks the signature of a session cookie and returns the hash under
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

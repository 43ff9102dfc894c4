package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Tolerance is how far the time of a Standard Webhooks call may lie from ours,
// in either direction.
const Tolerance = 5 * time.Minute

// maxSignatures bounds what one call may ask to be compared. A sender has one
// signature for each secret that is in use while it changes.
const maxSignatures = 20

// NoGitHubSecret is the error of a call to the GitHub endpoint when no secret
// is configured: Unavailable, with the mend.
func NoGitHubSecret() error {
	return agented.Errorf(agented.Unavailable, "GitHub webhooks are not set up: set GITHUB_WEBHOOK_SECRET, or a secret on the trigger; unsigned calls are never accepted")
}

// GitHub verifies X-Hub-Signature-256 over the raw body. The older SHA-1 header
// is not looked at. An empty secret is [NoGitHubSecret], whatever was sent.
func GitHub(secret string, h http.Header, body []byte) error {
	if secret == "" {
		burn(body)
		return NoGitHubSecret()
	}
	return HMAC(secret, "X-Hub-Signature-256", "sha256=", EncodingHex, h, body)
}

// HMAC verifies an HMAC-SHA256 of the raw body that is in the named header
// ([DefaultHMACHeader] when empty), after the prefix. With an empty prefix the
// signature may be bare or follow "sha256=". Encoding is hex (also when empty)
// or base64. An empty secret is never accepted.
func HMAC(secret, header, prefix, encoding string, h http.Header, body []byte) error {
	want := sum([]byte(secret), body)
	if secret == "" {
		return refuse("no secret is configured for this endpoint")
	}
	if header == "" {
		header = DefaultHMACHeader
	}
	given, err := single(h, header)
	if err != nil {
		return err
	}
	text := strings.TrimSpace(given)
	switch {
	case prefix != "":
		var ok bool
		if text, ok = strings.CutPrefix(text, strings.TrimSpace(prefix)); !ok {
			return refuse("the signature in the header %s does not start with the prefix that was set", header)
		}
		text = strings.TrimSpace(text)
	default:
		text = strings.TrimPrefix(text, "sha256=")
	}
	var got []byte
	var ok bool
	if encoding == EncodingBase64 {
		got, ok = decodeBase64(text)
	} else {
		got, err = hex.DecodeString(text)
		ok = err == nil
	}
	if !ok || len(got) != sha256.Size {
		return refuse("the signature in the header %s is not an HMAC-SHA256 in the encoding that was set", header)
	}
	if !hmac.Equal(got, want) {
		return refuse("the signature in the header %s does not fit the body: the secrets differ, or the body was changed on its way", header)
	}
	return nil
}

// Standard verifies a call signed as standardwebhooks.com says: webhook-id,
// webhook-timestamp (Unix seconds, within [Tolerance] of now) and
// webhook-signature, of which any one v1 signature has to fit. The secret is
// base64 text, with or without whsec_ before it.
func Standard(secret string, h http.Header, body []byte, now time.Time) error {
	id, idErr := single(h, "Webhook-Id")
	stamp, stampErr := single(h, "Webhook-Timestamp")
	signatures, signErr := single(h, "Webhook-Signature")
	key, keyOK := standardKey(secret)

	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	mac.Write([]byte{'.'})
	mac.Write([]byte(stamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	want := mac.Sum(nil)

	for _, err := range []error{idErr, stampErr, signErr} {
		if err != nil {
			return err
		}
	}
	if !keyOK {
		return refuse("the secret of this endpoint is not a Standard Webhooks secret (whsec_ and base64 text)")
	}
	if !validID(id) {
		return refuse("the header Webhook-Id is not an id: printable ASCII without spaces, at most %d bytes", MaxID)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || len(stamp) > 12 {
		return refuse("the header Webhook-Timestamp is not a time in Unix seconds")
	}
	// Whole seconds, since that is all the sender has.
	switch age := now.Unix() - seconds; {
	case age > int64(Tolerance/time.Second):
		return refuse("the call is too old: its Webhook-Timestamp lies %d s in the past, at most %d are accepted; it may be a replay, or a clock is wrong", age, int64(Tolerance/time.Second))
	case age < -int64(Tolerance/time.Second):
		return refuse("the call comes from the future: its Webhook-Timestamp lies %d s ahead, at most %d are accepted; a clock is wrong", -age, int64(Tolerance/time.Second))
	}
	fits, v1, n := 0, 0, 0
	for part := range strings.FieldsSeq(signatures) {
		if n++; n > maxSignatures {
			break
		}
		version, text, _ := strings.Cut(part, ",")
		if version != "v1" {
			continue
		}
		v1++
		if got, ok := decodeBase64(text); ok {
			fits |= subtle.ConstantTimeCompare(got, want)
		}
	}
	switch {
	case v1 == 0:
		return refuse("the header Webhook-Signature holds no v1 signature")
	case fits != 1:
		return refuse("no signature in the header Webhook-Signature fits: the secrets differ, or the call was changed on its way")
	}
	return nil
}

// Bearer verifies that the caller knows the secret itself: as
// "Authorization: Bearer SECRET" when header is empty, else in the named header
// after the prefix. An empty secret is never accepted.
func Bearer(secret, header, prefix string, h http.Header) error {
	if secret == "" {
		return refuse("no secret is configured for this endpoint")
	}
	name := header
	if name == "" {
		name = "Authorization"
	}
	given, err := single(h, name)
	if err != nil {
		return err
	}
	token := given
	switch {
	case header == "":
		scheme, rest, _ := strings.Cut(given, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return refuse("the header Authorization is not a bearer token")
		}
		token = strings.TrimSpace(rest)
	case prefix != "":
		var ok bool
		if token, ok = strings.CutPrefix(given, prefix); !ok {
			return refuse("the token in the header %s does not start with the prefix that was set", name)
		}
	}
	// Digests of one length, so that the secret's own length is not told either.
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(secret))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return refuse("the token in the header %s is not the secret of this endpoint", name)
	}
	return nil
}

// Decoy refuses a call to an endpoint that does not exist with the error, and
// for the price, of a wrong secret.
func Decoy(r Request) error {
	burn(r.Body)
	return refuse("there is no such endpoint, or it takes no webhooks")
}

// burn spends the time of a verification.
func burn(body []byte) { sum([]byte("there is nothing to compare this with"), body) }

func sum(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return mac.Sum(nil)
}

// single returns the one value of a header. Two values are refused: whoever
// reads the first and whoever reads the last would see different calls.
func single(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", refuse("the header %s is missing", name)
	case len(values) > 1:
		return "", refuse("the header %s comes more than once", name)
	case len(values[0]) > 8<<10:
		return "", refuse("the header %s is too long", name)
	default:
		return values[0], nil
	}
}

func standardKey(secret string) ([]byte, bool) {
	key, ok := decodeBase64(strings.TrimPrefix(secret, "whsec_"))
	return key, ok && len(key) > 0
}

// decodeBase64 takes both alphabets, with and without padding.
func decodeBase64(s string) ([]byte, bool) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	out, err := base64.RawStdEncoding.DecodeString(s)
	return out, err == nil
}

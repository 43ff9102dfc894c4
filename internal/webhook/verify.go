package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Tolerance is the largest difference between the time of a Standard Webhooks
// call and the server's, in either direction.
const Tolerance = 5 * time.Minute

// maxSignatures limits the signatures of one call that are compared. A sender
// has one signature for each secret during a rotation.
const maxSignatures = 20

// NoGitHubSecret returns the error for a call to the GitHub endpoint if no
// secret is configured: Unavailable, with the fix.
func NoGitHubSecret() error {
	return agented.Errorf(agented.Unavailable, "GitHub webhooks are not set up: set GITHUB_WEBHOOK_SECRET, or a secret on the trigger; unsigned calls are never accepted")
}

// GitHub verifies X-Hub-Signature-256 over the raw body. The older SHA-1 header
// is ignored. For an empty secret it returns [NoGitHubSecret], whatever was
// sent.
func GitHub(secret string, h http.Header, body []byte) error {
	if secret == "" {
		burn(body)
		return NoGitHubSecret()
	}
	_, err := Auth{Kind: KindGitHub}.verifyProof(SplitSecrets(secret), Request{Header: h, Body: body}, time.Time{})
	return err
}

// errNoSecret returns an error if the endpoint has no secret, otherwise nil.
func errNoSecret(secrets []string) error {
	if len(secrets) == 0 {
		return refuse("no secret is configured for this endpoint")
	}
	return nil
}

// standardHeaders are the header prefixes of Standard Webhooks: that of the
// specification, and that of the service from which it originated.
var standardHeaders = []string{"Webhook-", "Svix-"}

// Standard verifies a call that is signed according to standardwebhooks.com:
// webhook-id, webhook-timestamp (Unix seconds, within [Tolerance] of now) and
// webhook-signature, of which any v1 signature must match. The secret is base64
// text, with or without the prefix whsec_, or an Ed25519 public key after
// whpk_, for which a v1a signature must match. The headers may also start with
// svix-.
func Standard(secret string, h http.Header, body []byte, now time.Time) error {
	_, err := standard(SplitSecrets(secret), h, body, now)
	return err
}

// standard verifies a call with the first complete set of headers; other
// headers are ignored.
func standard(secrets []string, h http.Header, body []byte, now time.Time) (Proof, error) {
	prefix := standardHeaders[0]
	for _, p := range standardHeaders {
		if len(h.Values(p+"Id")) > 0 && len(h.Values(p+"Timestamp")) > 0 && len(h.Values(p+"Signature")) > 0 {
			prefix = p
			break
		}
	}
	first := errNoSecret(secrets)
	for _, secret := range secrets {
		id, err := standardOf(prefix, secret, h, body, now)
		if err == nil {
			return Proof{id: id}, nil
		}
		if first == nil {
			first = err
		}
	}
	return Proof{}, first
}

func standardOf(prefix, secret string, h http.Header, body []byte, now time.Time) (string, error) {
	id, idErr := single(h, prefix+"Id")
	stamp, stampErr := single(h, prefix+"Timestamp")
	signatures, signErr := single(h, prefix+"Signature")
	public := strings.HasPrefix(secret, "whpk_")
	key, keyOK := standardKey(secret)

	mac := hmac.New(sha256.New, key)
	text := signedText{"{id}", ".", "{timestamp}", ".", "{body}"}
	values := signedValues{id: id, timestamp: stamp, request: &Request{Body: body}}
	text.writeTo(mac, values)
	want := mac.Sum(nil)

	for _, err := range []error{idErr, stampErr, signErr} {
		if err != nil {
			return "", err
		}
	}
	if !keyOK && !public {
		return "", refuse("the secret of this endpoint is not a Standard Webhooks secret (whsec_ and base64 text)")
	}
	if !validID(id) {
		return "", refuse("the header %sId is not an id: printable ASCII without spaces, at most %d bytes", prefix, MaxID)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || len(stamp) > 12 {
		return "", refuse("the header %sTimestamp is not a time in Unix seconds", prefix)
	}
	// Whole seconds, the precision of the sender.
	switch age := now.Unix() - seconds; {
	case age > int64(Tolerance/time.Second):
		return "", refuse("the call is too old: its %sTimestamp is %d s in the past, at most %d are accepted; it may be a replay, or a clock is wrong", prefix, age, int64(Tolerance/time.Second))
	case age < -int64(Tolerance/time.Second):
		return "", refuse("the call is from the future: its %sTimestamp is %d s ahead, at most %d are accepted; a clock is wrong", prefix, -age, int64(Tolerance/time.Second))
	}
	version := "v1"
	if public {
		version = "v1a"
	}
	fits, of, n := 0, 0, 0
	for part := range strings.FieldsSeq(signatures) {
		if n++; n > maxSignatures {
			break
		}
		v, b64, _ := strings.Cut(part, ",")
		if v != version {
			continue
		}
		of++
		got, ok := decodeBase64(b64)
		switch {
		case !ok:
		case public:
			s := scheme{algorithm: AlgorithmEd25519, signed: text}
			fits |= s.compare(secret, values, [][]byte{got})
		default:
			fits |= subtle.ConstantTimeCompare(got, want)
		}
	}
	switch {
	case of == 0:
		return "", refuse("the header %sSignature contains no %s signature", prefix, version)
	case fits != 1:
		return "", refuse("no signature in the header %sSignature matches: the secrets differ, or the call was changed in transit", prefix)
	}
	return id, nil
}

// gitLab verifies X-Gitlab-Token or, if the secret is a signing token
// (whsec_…), the signature of Standard Webhooks. See docs.gitlab.com,
// "Webhooks".
func gitLab(secrets []string, r Request, now time.Time) (Proof, error) {
	burn(r.Body)
	first := errNoSecret(secrets)
	for _, secret := range secrets {
		var p Proof
		var err error
		if strings.HasPrefix(secret, "whsec_") {
			p, err = standard([]string{secret}, r.Header, r.Body, now)
		} else {
			err = Bearer(secret, "X-Gitlab-Token", "", r.Header)
		}
		if err == nil {
			return p, nil
		}
		if first == nil {
			first = err
		}
	}
	return Proof{}, first
}

// verifyToken checks that the caller knows a secret: in a header or, if the
// webhook names no header and the call has no Authorization, in the URL as
// ?token=SECRET or as the last segment of the path.
func (a Auth) verifyToken(secrets []string, r Request) error {
	token, inAddress, err := r.addressToken()
	if a.Header != "" || len(r.Header.Values("Authorization")) > 0 {
		inAddress, err = false, nil
	}
	if err != nil {
		return err
	}
	first := errNoSecret(secrets)
	for _, secret := range secrets {
		var err error
		switch {
		case !inAddress:
			err = Bearer(secret, a.Header, a.Prefix, r.Header)
		case !sameText(token, secret):
			err = refuse("the token in the address is not the secret of this endpoint")
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// addressToken returns the secret in the URL of the call, if any.
func (r Request) addressToken() (token string, is bool, err error) {
	_, query, _ := strings.Cut(r.Target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return r.Token, r.Token != "", nil
	}
	given := values["token"]
	switch {
	case len(given)+min(len(r.Token), 1) > 1:
		return "", false, refuse("the address contains more than one token")
	case len(given) == 1:
		return given[0], true, nil
	}
	return r.Token, r.Token != "", nil
}

// Bearer verifies that the caller knows the secret: as "Authorization: Bearer
// SECRET" if header is empty, or as the password of Basic authentication (or as
// USER:PASSWORD), otherwise in the named header after the prefix. An empty
// secret is never accepted.
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
		token = strings.TrimSpace(rest)
		switch {
		case strings.EqualFold(scheme, "Basic"):
			pair, ok := decodeBase64(token)
			user, password, colon := strings.Cut(string(pair), ":")
			if !ok || !colon {
				return refuse("the header Authorization is not a user and a password")
			}
			if token = password; sameText(string(pair), secret) || password == "" && sameText(user, secret) {
				return nil
			}
		case !strings.EqualFold(scheme, "Bearer"):
			return refuse("the header Authorization is not a bearer token")
		}
	case prefix != "":
		var ok bool
		if token, ok = strings.CutPrefix(given, prefix); !ok {
			return refuse("the token in the header %s does not start with the configured prefix", name)
		}
	}
	if !sameText(token, secret) {
		return refuse("the token in the header %s is not the secret of this endpoint", name)
	}
	return nil
}

// sameText compares in constant time: it compares digests, so that the length
// of the secret is not revealed either.
func sameText(token, secret string) bool {
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// Decoy rejects a call to an unknown endpoint with the error and the running
// time of a wrong secret.
func Decoy(r Request) error {
	burn(r.Body)
	return refuse("there is no such endpoint, or it accepts no webhooks")
}

// burn spends the time of a verification.
func burn(body []byte) { sum([]byte("there is nothing to compare this with"), body) }

func sum(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	return mac.Sum(nil)
}

// single returns the only value of a header. Two values are rejected, since
// programs differ in which one they use.
func single(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", refuse("the header %s is missing", name)
	case len(values) > 1:
		return "", refuse("the header %s occurs more than once", name)
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

// decodeBase64 accepts both alphabets, with and without padding.
func decodeBase64(s string) ([]byte, bool) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	out, err := base64.RawStdEncoding.DecodeString(s)
	return out, err == nil
}

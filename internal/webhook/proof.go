package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// maxEd25519Body is the largest body with an Ed25519 signature, in bytes: the
// signed text needs a second copy in memory.
const maxEd25519Body = 1 << 20

// A Proof is the result of verifying an authentic call.
type Proof struct {
	id     string // delivery id covered by the signature; empty if there is none
	digest string // of the signed text if it has a time but no id: a replay has the same digest
}

// verify verifies a call with the secrets, any of which may have signed it.
// Every error costs at least one HMAC over the body.
func (s scheme) verify(secrets []string, r Request, now time.Time) (Proof, error) {
	header := s.headers[0]
	for _, name := range s.headers {
		if len(r.Header.Values(name)) > 0 {
			header = name
			break
		}
	}
	value, err := single(r.Header, header)
	v := signedValues{request: &r, form: func() string { return formText(r) }}
	if err == nil && s.signed.has("timestamp") {
		v.timestamp, err = s.signedTime(r.Header, value)
	}
	if err == nil && s.signed.has("id") {
		if v.id, err = single(r.Header, s.id.name); err == nil && !validID(v.id) {
			err = refuse("the header %s is not an id: printable ASCII without spaces, at most %d bytes", s.id.name, MaxID)
		}
	}
	var given [][]byte
	if err == nil {
		given, err = s.decodeSignatures(header, value)
	}
	if err == nil && s.form {
		err = formCovered(r)
	}
	if err != nil {
		burn(r.Body)
		return Proof{}, err
	}
	fits := 0
	for _, v.url = range s.addresses(r) {
		for _, secret := range secrets {
			fits |= s.compare(secret, v, given)
		}
	}
	if err := errNoSecret(secrets); err != nil {
		return Proof{}, err
	}
	if fits != 1 {
		if s.algorithm == AlgorithmEd25519 && len(r.Body) > maxEd25519Body {
			return Proof{}, refuse("the body is too large for an Ed25519 signature: at most %d bytes are verified", maxEd25519Body)
		}
		return Proof{}, refuse("the signature in the header %s does not match the body: the secrets differ, or the body was changed in transit", header)
	}
	if s.timestamp.place == placeField {
		if v.timestamp, err = s.bodyTime(r); err != nil {
			return Proof{}, err
		}
	}
	if v.timestamp != "" {
		if err := s.checkTime(v.timestamp, now); err != nil {
			return Proof{}, err
		}
	}
	p := Proof{id: v.id}
	if p.id == "" && s.signed.has("timestamp") {
		h := sha256.New()
		v.url = ""
		s.signed.writeTo(h, v)
		p.digest = hex.EncodeToString(h.Sum(nil))
	}
	return p, nil
}

// decodeSignatures decodes the signatures in the header's value.
func (s scheme) decodeSignatures(header, value string) ([][]byte, error) {
	size := newHash(s.algorithm)().Size()
	if s.algorithm == AlgorithmEd25519 {
		size = ed25519.SignatureSize
	}
	texts := signatureTexts(value, s.prefix, s.algorithm+"=")
	var out [][]byte
	for _, text := range texts {
		if b, ok := decodeSignature(text, s.encoding); ok && len(b) == size {
			out = append(out, b)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(texts) == 0 && s.prefix != "":
		return nil, refuse("the signature in the header %s does not start with the configured prefix", header)
	case s.algorithm == AlgorithmEd25519:
		return nil, refuse("the signature in the header %s is not an Ed25519 signature in the configured encoding", header)
	}
	return nil, refuse("the signature in the header %s is not an HMAC-%s in the configured encoding", header, strings.ToUpper(s.algorithm))
}

// compare returns 1 if one of the given signatures is that of the secret,
// otherwise 0.
func (s scheme) compare(secret string, v signedValues, given [][]byte) int {
	fits := 0
	if s.algorithm == AlgorithmEd25519 {
		key, ok := publicKey(secret)
		if !ok || len(v.request.Body) > maxEd25519Body {
			return 0
		}
		var text strings.Builder
		s.signed.writeTo(&text, v)
		for _, g := range given {
			if ed25519.Verify(key, []byte(text.String()), g) {
				fits = 1
			}
		}
		return fits
	}
	want := s.mac(secret, v)
	for _, g := range given {
		fits |= subtle.ConstantTimeCompare(g, want)
	}
	return fits
}

func (s scheme) mac(secret string, v signedValues) []byte {
	mac := hmac.New(newHash(s.algorithm), []byte(secret))
	s.signed.writeTo(mac, v)
	return mac.Sum(nil)
}

// addresses returns the URLs by which the sender may know the endpoint. All are
// tried, since none of them can be forged.
func (s scheme) addresses(r Request) []string {
	if !s.signed.has("url") {
		return []string{""}
	}
	out := []string{"https://" + r.Host + r.Target, "http://" + r.Host + r.Target}
	if r.URL != "" {
		out = []string{r.URL}
		if _, query, is := strings.Cut(r.Target, "?"); is && !strings.Contains(r.URL, "?") {
			out = append(out, r.URL+"?"+query)
		}
	}
	return out
}

// signedTime returns the timestamp as sent.
func (s scheme) signedTime(h http.Header, signatures string) (string, error) {
	switch s.timestamp.place {
	case placeHeader:
		return single(h, s.timestamp.name)
	case placeSignature:
		text, ok := signatureElement(signatures, s.timestamp.name)
		if !ok {
			return "", refuse("the signature header does not contain exactly one element %s= with the time", s.timestamp.name)
		}
		return text, nil
	}
	return "", refuse("the webhook does not configure where the signed time is: set timestamp")
}

// bodyTime returns the timestamp in a field of a signed body.
func (s scheme) bodyTime(r Request) (string, error) {
	body, _ := decode(trimBOM(r.Body))
	text := fieldText(body, s.timestamp.name)
	if text == "" && !s.lenient {
		return "", refuse("the body has no time at %s", s.timestamp.name)
	}
	return text, nil
}

// checkTime compares a signed timestamp with the clock, in whole seconds, which is
// the precision of most senders.
func (s scheme) checkTime(text string, now time.Time) error {
	seconds, ok := unixSeconds(text)
	limit := int64(s.tolerance / time.Second)
	switch age := now.Unix() - seconds; {
	case !ok:
		return refuse("the time of the call is neither Unix seconds or milliseconds nor RFC 3339")
	case age > limit:
		return refuse("the call is too old: its time is %d s in the past, at most %d are accepted; it may be a replay, or a clock is wrong", age, limit)
	case age < -limit:
		return refuse("the call is from the future: its time is %d s ahead, at most %d are accepted; a clock is wrong", -age, limit)
	}
	return nil
}

// unixSeconds parses a time in RFC 3339, or in Unix seconds, milliseconds,
// microseconds or nanoseconds, which it distinguishes by size.
func unixSeconds(text string) (int64, bool) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.Unix(), true
	}
	whole, fraction, _ := strings.Cut(text, ".")
	if len(whole) > 19 || fraction != "" && !digits(fraction) {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	for n >= 1e11 {
		n /= 1000
	}
	return n, true
}

// publicKey parses an Ed25519 public key in hex or base64, with or without
// whpk_.
func publicKey(text string) (ed25519.PublicKey, bool) {
	text = strings.TrimPrefix(text, "whpk_")
	if b, err := hex.DecodeString(text); err == nil && len(b) == ed25519.PublicKeySize {
		return b, true
	}
	b, ok := decodeBase64(text)
	return b, ok && len(b) == ed25519.PublicKeySize
}

// formText returns the fields of a form in the order of their names, each name
// followed by its values.
func formText(r Request) string {
	form, ok := readForm(r.Header, r.Body)
	if !ok {
		return ""
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(form)) {
		values := slices.Clone(form[name])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			b.WriteString(name + v)
		}
	}
	return b.String()
}

// formCovered returns an error if the signed text covers the fields of a form,
// but the body is not a form and its digest is not in the URL.
func formCovered(r Request) error {
	if _, is := readForm(r.Header, r.Body); is || len(r.Body) == 0 {
		return nil
	}
	_, query, _ := strings.Cut(r.Target, "?")
	values, err := url.ParseQuery(query)
	want := sha256.Sum256(r.Body)
	if err == nil && len(values["bodySHA256"]) == 1 {
		got, err := hex.DecodeString(values["bodySHA256"][0])
		if err == nil && subtle.ConstantTimeCompare(got, want[:]) == 1 {
			return nil
		}
	}
	return refuse("the body is not a form, and its digest is not in the address as bodySHA256")
}

// DeliveryKey returns the sender's id of an authentic call, prefixed with its
// origin, for example "github:72d3162e-…", or "" if it has none. Two calls to
// one endpoint with the same key are the same delivery.
//
// If the signature covers an id or a time, only that is used for the key: an
// unsigned header cannot turn a captured call into another delivery.
func (a Auth) DeliveryKey(p Proof, h http.Header, e *Event) (string, error) {
	if p.id != "" {
		return a.idWord() + ":" + p.id, nil
	}
	s := a.scheme()
	for _, from := range s.ids {
		if from.place == placeBody {
			return "body:" + digestText(string(e.Sent)), nil
		}
		id, err := from.text(h, e.JSON)
		switch {
		case err != nil:
			return "", err
		case id == "":
		case from.place == placeField:
			if !validID(id) {
				id = digestText(id)
			}
			return s.word + ":" + id, nil
		case !validID(id):
			return "", invalidID(from.name)
		default:
			return wordOf(from, s.word) + ":" + id, nil
		}
	}
	if p.digest != "" {
		return "signed:" + p.digest, nil
	}
	if a.DeliveryID != "" || s.signsMore() || slices.ContainsFunc(s.ids, func(from source) bool { return from.place == placeField }) {
		return "", nil
	}
	if a.Kind != KindHMAC && a.Kind != KindBearer && a.Kind != KindUnsigned && a.Kind != KindGitLab {
		return "", nil
	}
	return DeliveryKey(h)
}

// SignsID reports whether the signature covers the delivery key.
func (a Auth) SignsID(p Proof) bool { return p.id != "" || p.digest != "" }

// idWord returns the prefix of signed ids. All names of Standard Webhooks have
// the same prefix, because the same call may be sent with either header.
func (a Auth) idWord() string {
	if a.Kind == KindHMAC {
		return "id"
	}
	return "standard"
}

// wordOf returns the prefix of an id in a header: that of the header if it has
// one, so that a key does not change when a webhook gets another kind.
func wordOf(from source, word string) string {
	for _, c := range commonIDs {
		if strings.EqualFold(c.name, from.name) {
			return c.word
		}
	}
	return word
}

func digestText(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func invalidID(header string) error {
	return agented.Errorf(agented.Invalid, "the header %s is not an id: use printable ASCII without spaces, at most %d bytes", http.CanonicalHeaderKey(header), MaxID)
}

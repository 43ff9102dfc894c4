package webhook

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/agented/agented"
)

// MaxToleranceSeconds is the largest tolerance of a signed time.
const MaxToleranceSeconds = 86400

// validateForm validates where and how the call contains the proof.
func (a Auth) validateForm(no func(path, format string, args ...any)) {
	named := a.Kind == KindHMAC || a.Kind == KindBearer
	if a.Header != "" {
		switch {
		case !named:
			no("header", "applies to kind hmac and bearer only: remove it")
		case !validHeaderName(a.Header):
			no("header", "is not a header name: use letters, digits and -, at most 100 bytes")
		case a.Kind == KindHMAC && a.Prefix == "" && http.CanonicalHeaderKey(a.Header) == "Authorization":
			no("header", "is for tokens, not for signatures: set another header, or the prefix before the signature")
		}
	}
	if a.Prefix != "" {
		switch {
		case !named:
			no("prefix", "applies to kind hmac and bearer only: remove it")
		case a.Kind == KindBearer && a.Header == "":
			no("prefix", `is always "Bearer " in Authorization: remove it, or set a header`)
		case len(a.Prefix) > 50 || strings.ContainsFunc(a.Prefix, func(r rune) bool { return r < ' ' || r > '~' }):
			no("prefix", "must be at most 50 printable ASCII characters")
		}
	}
	switch {
	case a.Encoding == "":
	case a.Kind != KindHMAC:
		no("encoding", "applies to kind hmac only: remove it")
	case a.Encoding != EncodingHex && a.Encoding != EncodingBase64:
		no("encoding", "must be hex or base64")
	}
	switch {
	case a.Algorithm == "":
	case a.Kind != KindHMAC:
		no("algorithm", "applies to kind hmac only: remove it")
	case !slices.Contains(algorithms, a.Algorithm):
		no("algorithm", "must be one of %s%s", join(algorithms), suggest(brief(a.Algorithm, 40), algorithms))
	}
}

// validateSigned validates what is signed, and the id of a delivery.
func (a Auth) validateSigned(no func(path, format string, args ...any)) {
	signed, wrong := parseSigned(a.Signed)
	switch {
	case a.Signed == "":
	case a.Kind != KindHMAC:
		no("signed", "applies to kind hmac only: remove it, or set kind to hmac")
		return
	case wrong != "":
		no("signed", "%s", wrong)
		return
	}
	at := parseSource(a.Timestamp)
	switch {
	case a.Timestamp == "":
		if signed.has("timestamp") {
			no("timestamp", "is required if {timestamp} is signed: set the location of the time, for example header:X-Timestamp or signature:t")
		}
	case a.Kind != KindHMAC:
		no("timestamp", "applies to kind hmac only: remove it")
	default:
		switch wrong := at.invalidReason(placeHeader, placeSignature, placeField); {
		case wrong != "":
			no("timestamp", "%s", wrong)
		case at.place == placeField && signed.has("timestamp"):
			no("timestamp", "must be a header or an element of the signature header if {timestamp} is signed: a field of the body is signed with the body")
		case at.place != placeField && !signed.has("timestamp"):
			no("timestamp", "is not covered by the signature: add {timestamp} to signed, as the sender does")
		}
	}
	timed := a.Timestamp != "" || presets[a.Kind].timestamp.place != "" || a.Kind == KindStandard || a.Kind == KindSvix || a.Kind == KindGitLab ||
		presets[signatureHeaders[http.CanonicalHeaderKey(a.Header)]].timestamp.place != ""
	switch {
	case a.ToleranceSeconds == 0:
	case !timed:
		no("tolerance_seconds", "applies only if a time is signed: set timestamp, or remove it")
	case a.ToleranceSeconds < 0 || a.ToleranceSeconds > MaxToleranceSeconds:
		no("tolerance_seconds", "must be from 1 to %d", MaxToleranceSeconds)
	}
	a.validateDeliveryID(signed, no)
	if a.URL != "" {
		u, err := url.Parse(a.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(a.URL) > 1000 {
			no("url", "must be the full URL that the sender calls, for example https://hooks.example.org/hooks/TRIGGER")
		}
	}
}

func (a Auth) validateDeliveryID(signed signedText, no func(path, format string, args ...any)) {
	id := parseSource(a.DeliveryID)
	p := presets[a.Kind]
	switch wrong := id.invalidReason(placeHeader, placeField, placeBody); {
	case a.DeliveryID == "":
		if signed.has("id") {
			no("delivery_id", "is required if {id} is signed: set its header, for example header:X-Request-Id")
		}
	case wrong != "":
		no("delivery_id", "%s", wrong)
	case a.Kind == KindStandard || a.Kind == KindSvix:
		no("delivery_id", "is always the signed id with kind %s: remove it", a.Kind)
	case signed.has("id") && id.place != placeHeader:
		no("delivery_id", "must be header:NAME if {id} is signed")
	case id.place == placeHeader && (p.signed.has("timestamp") || slices.ContainsFunc(p.ids, func(s source) bool { return s.place == placeField })):
		no("delivery_id", "must be a field of the body with kind %s: its signature does not cover headers", a.Kind)
	}
}

// ValidateSecret returns the errors of the secret for this kind, with the path
// "secret". It never repeats the secret.
func (a Auth) ValidateSecret(secret string) []agented.Field {
	no := func(text string) []agented.Field { return []agented.Field{{Path: "secret", Text: text}} }
	switch {
	case a.Kind == KindUnsigned && secret != "":
		return no("does not apply to kind unsigned: remove it, or choose another kind")
	case a.Kind == KindUnsigned:
		return nil
	case strings.TrimSpace(secret) == "":
		return no("is required: with an empty secret anyone could call")
	case strings.TrimSpace(secret) != secret:
		return no("starts or ends with white space: trim it, also in the sender's settings")
	case len(secret) > 1000:
		return no("is too long: use at most 1000 bytes")
	case strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return no("has a control character: use printable characters")
	}
	if fault := agented.PlaceholderFault(secret); fault != "" {
		return no(fault + ": use the secret that the sender shows, or the output of `openssl rand -hex 32` on both sides")
	}
	switch {
	case a.Kind == KindStandard || a.Kind == KindSvix:
		if _, ok := publicKey(secret); ok && strings.HasPrefix(secret, "whpk_") {
			return nil
		}
		if _, ok := standardKey(secret); !ok {
			return no("is not a Standard Webhooks secret: it must be whsec_ and base64 text, as the sender shows it")
		}
	case a.Kind == KindDiscord || a.Algorithm == AlgorithmEd25519:
		if _, ok := publicKey(secret); !ok {
			return no("is not an Ed25519 public key: enter the sender's public key, 64 hexadecimal digits or base64")
		}
	case a.Kind == KindGitLab && strings.HasPrefix(secret, "whsec_"):
		if _, ok := standardKey(secret); !ok {
			return no("is not a signing token: it must be whsec_ and base64 text, as GitLab shows it")
		}
	}
	return nil
}

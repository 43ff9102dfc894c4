package webhook

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Kind says how a sender proves that a call is genuine. The values are part of
// the API.
type Kind string

// The kinds.
const (
	KindGitHub   Kind = "github"   // X-Hub-Signature-256
	KindHMAC     Kind = "hmac"     // HMAC-SHA256 of the body in a header
	KindStandard Kind = "standard" // Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature
	KindBearer   Kind = "bearer"   // the secret itself in a header
	KindUnsigned Kind = "unsigned" // no proof; only from this machine
)

// Kinds lists the kinds in the order that people see.
var Kinds = []Kind{KindGitHub, KindHMAC, KindStandard, KindBearer, KindUnsigned}

// How a signature is written.
const (
	EncodingHex    = "hex"
	EncodingBase64 = "base64"
)

// DefaultHMACHeader is the header that kind hmac reads when none is named.
const DefaultHMACHeader = "X-Webhook-Signature-256"

// Auth says how calls to one endpoint are verified. The secret is not part of
// it, so that it can be shown and stored as it is.
type Auth struct {
	Kind     Kind     `json:"kind"`
	Header   string   `json:"header,omitempty"`   // hmac: default X-Webhook-Signature-256; bearer: default Authorization
	Prefix   string   `json:"prefix,omitempty"`   // hmac: before the signature; empty takes it bare or after "sha256=". bearer: before the secret in a named header
	Encoding string   `json:"encoding,omitempty"` // hmac: hex (default) or base64
	Allow    []string `json:"allow,omitempty"`    // addresses or prefixes that may call; empty is any
	Unsigned bool     `json:"unsigned,omitempty"` // kind unsigned: must be true, as a second word on it
}

// Request is what a verification looks at.
type Request struct {
	Header http.Header
	Body   []byte     // the raw bytes, as they came
	Remote netip.Addr // who calls, behind trusted proxies; the zero Addr is in no allow-list
}

// refusedText is all that a refused caller learns. It is the same for a wrong
// secret and for an endpoint that does not exist.
const refusedText = "the call is not authenticated: check the address, the secret and how the call is signed"

// refusal is why a verification failed, for the ledger and the log.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error {
	return agented.Errorf(agented.Unauthenticated, refusedText).Because(refusal(fmt.Sprintf(format, args...)))
}

// RefusalReason returns the sentence that says why a verification failed: what
// the ledger keeps, and what the caller must not be told. It holds no secret
// and no text that the caller sent. For other errors it is their message.
func RefusalReason(err error) string {
	e := err
	for e != nil {
		if r, ok := e.(refusal); ok {
			return string(r)
		}
		u, ok := e.(interface{ Unwrap() error })
		if !ok {
			break
		}
		e = u.Unwrap()
	}
	return agented.Message(err)
}

// Verify reports whether the call is genuine: nil, or an Unauthenticated error
// whose message is always the same and whose reason [RefusalReason] gives.
//
// A call that is refused costs one HMAC over its body, whatever the kind and
// whatever is wrong, so that the time does not tell a wrong secret from an
// endpoint that does not exist (see [Decoy]).
func (a Auth) Verify(secret string, r Request, now time.Time) error {
	// The address is judged after the signature has been computed, for that
	// same time; its reason comes first, since it is the plainer one.
	signed := a.verifyProof(secret, r, now)
	if err := a.verifyAddress(r.Remote); err != nil {
		return err
	}
	return signed
}

func (a Auth) verifyProof(secret string, r Request, now time.Time) error {
	if a.Kind != KindUnsigned && secret == "" {
		burn(r.Body)
		return refuse("no secret is configured for this endpoint")
	}
	switch a.Kind {
	case KindGitHub:
		return GitHub(secret, r.Header, r.Body)
	case KindHMAC:
		return HMAC(secret, a.Header, a.Prefix, a.Encoding, r.Header, r.Body)
	case KindStandard:
		return Standard(secret, r.Header, r.Body, now)
	case KindBearer:
		burn(r.Body)
		return Bearer(secret, a.Header, a.Prefix, r.Header)
	case KindUnsigned:
		burn(r.Body)
		return a.verifyUnsigned(r)
	}
	burn(r.Body)
	return refuse("the endpoint has no known way to verify a call")
}

// forwarded are headers that a proxy adds: with one of them the neighbour's
// address says nothing about who calls.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via", "Cf-Connecting-Ip", "True-Client-Ip"}

// fromBrowser are headers that a web page cannot suppress: a page that somebody
// on this machine looks at must not fire triggers.
var fromBrowser = []string{"Origin", "Sec-Fetch-Site"}

func (a Auth) verifyUnsigned(r Request) error {
	if !a.Unsigned {
		return refuse("unsigned calls were not asked for in so many words")
	}
	if !r.Remote.Unmap().IsLoopback() {
		return refuse("an unsigned call came from outside this machine")
	}
	for _, name := range forwarded {
		if len(r.Header.Values(name)) > 0 {
			return refuse("an unsigned call came through a proxy (it has the header %s)", name)
		}
	}
	for _, name := range fromBrowser {
		if len(r.Header.Values(name)) > 0 {
			return refuse("an unsigned call came from a web page (it has the header %s)", name)
		}
	}
	return nil
}

func (a Auth) verifyAddress(remote netip.Addr) error {
	if len(a.Allow) == 0 {
		return nil
	}
	remote = remote.Unmap().WithZone("")
	for _, text := range a.Allow {
		if p, ok := parsePrefix(text); ok && p.Contains(remote) {
			return nil
		}
	}
	return refuse("the caller's address is not in the allow-list")
}

// parsePrefix reads an address or a prefix; an IPv4 one written as IPv6 counts
// as IPv4.
func parsePrefix(text string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// Validate returns every setting that cannot stand, each with the mend.
func (a Auth) Validate() []agented.Field {
	var bad []agented.Field
	no := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case a.Kind == "":
		no("kind", "is required: use one of %s", join(Kinds))
	case !slices.Contains(Kinds, a.Kind):
		no("kind", "is not known: use one of %s%s", join(Kinds), suggest(string(a.Kind), texts(Kinds)))
	}
	named := a.Kind == KindHMAC || a.Kind == KindBearer
	if a.Header != "" {
		switch {
		case !named:
			no("header", "applies to kind hmac and bearer only: remove it")
		case !validHeaderName(a.Header):
			no("header", "is not a header name: use letters, digits and -, at most 100 bytes")
		case a.Kind == KindHMAC && http.CanonicalHeaderKey(a.Header) == "Authorization":
			no("header", "is for tokens, not for signatures: name another header")
		}
	}
	if a.Prefix != "" {
		switch {
		case !named:
			no("prefix", "applies to kind hmac and bearer only: remove it")
		case a.Kind == KindBearer && a.Header == "":
			no("prefix", `is always "Bearer " in Authorization: remove it, or name a header`)
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
	if len(a.Allow) > 200 {
		no("allow", "has too many entries: use at most 200")
	}
	for i, text := range a.Allow {
		if _, ok := parsePrefix(text); !ok {
			no(fmt.Sprintf("allow.%d", i), "is not an address or prefix: write it as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")
		}
	}
	switch {
	case a.Kind == KindUnsigned && !a.Unsigned:
		no("unsigned", "must be true with kind unsigned: anybody on this machine can then fire the trigger")
	case a.Kind != KindUnsigned && a.Unsigned:
		no("unsigned", `applies to kind unsigned only: remove it, or set kind to "unsigned"`)
	}
	return bad
}

// ValidateSecret returns what is wrong with the secret for this kind, at the
// path "secret". It never repeats the secret.
func (a Auth) ValidateSecret(secret string) []agented.Field {
	no := func(text string) []agented.Field { return []agented.Field{{Path: "secret", Text: text}} }
	switch {
	case a.Kind == KindUnsigned && secret != "":
		return no("does not apply to kind unsigned: remove it, or choose another kind")
	case a.Kind == KindUnsigned:
		return nil
	case strings.TrimSpace(secret) == "":
		return no("is required: an empty secret would let anybody in")
	case strings.TrimSpace(secret) != secret:
		return no("starts or ends with white space: trim it, also where the sender keeps it")
	case len(secret) > 1000:
		return no("is too long: use at most 1000 bytes")
	case strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return no("has a control character: use printable characters")
	}
	if a.Kind == KindStandard {
		if _, ok := standardKey(secret); !ok {
			return no("is not a Standard Webhooks secret: it must be whsec_ and base64 text, as the sender shows it")
		}
	}
	return nil
}

func validHeaderName(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

func join[T ~string](list []T) string { return strings.Join(texts(list), ", ") }

// suggest returns `; did you mean "x"?` for the nearest known word, or "".
func suggest(word string, known []string) string {
	if best := agented.Nearest(word, known); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

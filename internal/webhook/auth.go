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

// Kind is how a sender proves that a call is authentic. The values are part of
// the API.
type Kind string

// The kinds.
const (
	KindGitHub    Kind = "github"    // X-Hub-Signature-256
	KindHMAC      Kind = "hmac"      // a signature in a header, by default HMAC-SHA256 of the body
	KindStandard  Kind = "standard"  // Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature
	KindBearer    Kind = "bearer"    // the secret itself in a header or in the URL
	KindUnsigned  Kind = "unsigned"  // no proof; only from this machine
	KindGitLab    Kind = "gitlab"    // X-Gitlab-Token, or a signing token for Standard Webhooks
	KindGitea     Kind = "gitea"     // Gitea, Forgejo, Gogs
	KindBitbucket Kind = "bitbucket" // Bitbucket Cloud and Data Center
	KindSlack     Kind = "slack"     // events, commands and interactions of a Slack app
	KindStripe    Kind = "stripe"    // Stripe-Signature
	KindSvix      Kind = "svix"      // Standard Webhooks with the headers svix-id, svix-timestamp, svix-signature
	KindPagerDuty Kind = "pagerduty" // webhooks version 3
	KindLinear    Kind = "linear"    // Linear-Signature
	KindJira      Kind = "jira"      // Jira Cloud
	KindSentry    Kind = "sentry"    // Sentry-Hook-Signature
	KindShopify   Kind = "shopify"   // X-Shopify-Hmac-Sha256
	KindDiscord   Kind = "discord"   // Ed25519 with the application's public key
	KindTwilio    Kind = "twilio"    // X-Twilio-Signature
)

// Kinds lists the kinds in display order.
var Kinds = []Kind{
	KindGitHub, KindGitLab, KindGitea, KindBitbucket, KindSlack, KindDiscord, KindStripe, KindSvix, KindPagerDuty, KindLinear, KindJira, KindSentry,
	KindShopify, KindTwilio, KindStandard, KindHMAC, KindBearer, KindUnsigned,
}

// The encodings of a signature.
const (
	EncodingHex    = "hex"
	EncodingBase64 = "base64"
)

// DefaultHMACHeader is the default header of kind hmac.
const DefaultHMACHeader = "X-Webhook-Signature-256"

// Auth is how calls to one endpoint are verified. It does not contain the
// secret, so that it can be shown and stored unencrypted.
type Auth struct {
	Kind             Kind     `json:"kind" doc:"The sender, or the type of proof: github, gitlab, gitea, bitbucket, slack, discord, stripe, svix, pagerduty, linear, jira, sentry, shopify, twilio, standard, hmac, bearer, unsigned"`
	Header           string   `json:"header,omitempty" doc:"hmac: header with the signature, default X-Webhook-Signature-256. bearer: header with the secret, default Authorization or ?token= in the address"`
	Prefix           string   `json:"prefix,omitempty" doc:"hmac: text before each signature in the header, for example v1=; empty: none, or the algorithm as in sha256=. bearer: text before the secret in a named header"`
	Encoding         string   `json:"encoding,omitempty" doc:"hmac: hex (default) or base64"`
	Algorithm        string   `json:"algorithm,omitempty" doc:"hmac: sha256 (default), sha1, sha512, or ed25519 with the sender's public key as secret"`
	Signed           string   `json:"signed,omitempty" doc:"hmac: template of the signed text, default {body}; may contain {timestamp}, {id}, {url}, {method}, {host}, {path}, for example v0:{timestamp}:{body}"`
	Timestamp        string   `json:"timestamp,omitempty" doc:"hmac: location of the signed time: header:NAME, signature:NAME for an element of the signature header, or field:PATH of the body"`
	ToleranceSeconds int      `json:"tolerance_seconds,omitempty" doc:"Largest difference between a signed time and the server's, default 300, at most 86400"`
	DeliveryID       string   `json:"delivery_id,omitempty" doc:"Id of a delivery, so that it fires once: header:NAME, field:PATH of the body, or body for a digest of the body. Default: depends on the kind"`
	URL              string   `json:"url,omitempty" doc:"The address that the sender uses, if it is signed and a proxy changes it"`
	Allow            []string `json:"allow,omitempty" doc:"Addresses or networks that may call; empty: any"`
	Unsigned         bool     `json:"unsigned,omitempty" doc:"For kind unsigned: must be true to confirm it"`
}

// Request is the input of a verification.
type Request struct {
	Header http.Header
	Body   []byte     // the raw bytes as received
	Remote netip.Addr // the client, as reported by trusted proxies; the zero Addr is in no allow-list
	Method string     // empty means POST
	Host   string     // value of the Host header
	Target string     // path and query as received
	Token  string     // last segment of a path that ends with a secret
	URL    string     // replaces the URL derived from Host and Target; see Auth
}

func (r Request) method() string {
	if r.Method == "" {
		return http.MethodPost
	}
	return r.Method
}

// refusedText is the complete error for a rejected caller. It is the same for a
// wrong secret and for an unknown endpoint.
const refusedText = "the call is not authenticated: check the address, the secret and how the call is signed"

// refusal is why a verification failed, for the stored delivery and the log.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error {
	return agented.Errorf(agented.Unauthenticated, refusedText).Because(refusal(fmt.Sprintf(format, args...)))
}

// RefusalReason returns why a verification failed, as one sentence for the
// stored delivery, which the caller must not see. It contains no secret and no
// text from the caller. For other errors it returns their message.
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

// SplitSecrets returns the secrets in a text with one per line. A call signed
// with any of them is authentic, so that secrets can be rotated.
func SplitSecrets(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return s == "" })
}

// JoinSecrets returns the text of several secrets, newest first. Empty ones are
// omitted.
func JoinSecrets(secrets ...string) string {
	return strings.Join(SplitSecrets(strings.Join(secrets, "\n")), "\n")
}

// Verify returns nil if the call is authentic, otherwise an Unauthenticated
// error with a constant message, whose reason [RefusalReason] returns. The
// secret may be several; see [SplitSecrets].
//
// Rejecting a call costs one HMAC over its body per secret, whatever the kind
// and the reason, so that timing does not distinguish a wrong secret from an
// unknown endpoint (see [Decoy]).
func (a Auth) Verify(secret string, r Request, now time.Time) error {
	_, err := a.Check(secret, r, now)
	return err
}

// Check is [Auth.Verify] and returns the result of the verification.
func (a Auth) Check(secret string, r Request, now time.Time) (Proof, error) {
	// The address is checked after the signature has been computed, for
	// constant time; its reason takes precedence because it is clearer.
	p, signed := a.verifyProof(SplitSecrets(secret), r, now)
	if err := a.verifyAddress(r.Remote); err != nil {
		return Proof{}, err
	}
	return p, signed
}

func (a Auth) verifyProof(secrets []string, r Request, now time.Time) (Proof, error) {
	if a.Kind != KindUnsigned && len(secrets) == 0 {
		burn(r.Body)
		return Proof{}, refuse("no secret is configured for this endpoint")
	}
	if r.URL == "" {
		r.URL = a.URL
	}
	switch a.Kind {
	case KindStandard, KindSvix:
		return standard(secrets, r.Header, r.Body, now)
	case KindGitLab:
		return gitLab(secrets, r, now)
	case KindBearer:
		burn(r.Body)
		return Proof{}, a.verifyToken(secrets, r)
	case KindUnsigned:
		burn(r.Body)
		return Proof{}, a.verifyUnsigned(r)
	case KindHMAC:
	default:
		if _, preset := presets[a.Kind]; !preset {
			burn(r.Body)
			return Proof{}, refuse("the endpoint has no supported way to verify a call")
		}
	}
	return a.scheme().verify(secrets, r, now)
}

// forwarded are headers added by proxies: with one of them, the peer's address
// is not the client's.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via", "Cf-Connecting-Ip", "True-Client-Ip"}

// fromBrowser are headers that a web page cannot suppress: a page opened on
// this machine must not fire triggers.
var fromBrowser = []string{"Origin", "Sec-Fetch-Site"}

func (a Auth) verifyUnsigned(r Request) error {
	if !a.Unsigned {
		return refuse("unsigned calls are not enabled: set unsigned to true")
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

// parsePrefix parses an address or a prefix; an IPv4-mapped IPv6 address counts
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

// Validate returns every invalid setting with its fix.
func (a Auth) Validate() []agented.Field {
	var bad []agented.Field
	no := func(path, format string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case a.Kind == "":
		no("kind", "is required: use one of %s", join(Kinds))
	case !slices.Contains(Kinds, a.Kind):
		no("kind", "is unknown: use one of %s%s", join(Kinds), suggest(string(a.Kind), texts(Kinds)))
	}
	a.validateForm(no)
	a.validateSigned(no)
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
		no("unsigned", "must be true with kind unsigned: any process on this machine can then fire the trigger")
	case a.Kind != KindUnsigned && a.Unsigned:
		no("unsigned", `applies to kind unsigned only: remove it, or set kind to "unsigned"`)
	}
	return bad
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

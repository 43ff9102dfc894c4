package webhook

import (
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what some senders use, and is not broken
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"net/http"
	"slices"
	"time"
)

// The algorithms of signatures.
const (
	AlgorithmSHA1    = "sha1"    // HMAC-SHA1, for senders that support nothing better
	AlgorithmSHA256  = "sha256"  // HMAC-SHA256
	AlgorithmSHA512  = "sha512"  // HMAC-SHA512
	AlgorithmEd25519 = "ed25519" // the secret is the sender's public key
)

var algorithms = []string{AlgorithmSHA256, AlgorithmSHA1, AlgorithmSHA512, AlgorithmEd25519}

// newHash returns the hash of an HMAC algorithm.
func newHash(algorithm string) func() hash.Hash {
	switch algorithm {
	case AlgorithmSHA1:
		return sha1.New
	case AlgorithmSHA512:
		return sha512.New
	}
	return sha256.New
}

// A scheme is how a sender signs its calls and identifies its deliveries.
type scheme struct {
	headers   []string // the first of these in a call contains the signatures
	prefix    string   // text before each signature
	encoding  string
	algorithm string
	signed    signedText
	timestamp source // location of the time in the signed text or the signed body
	lenient   bool   // a timestamp in the body is optional
	tolerance time.Duration
	id        source   // location of {id}
	ids       []source // possible locations of the delivery id, most trusted first
	word      string   // prefix of this sender's ids in a key
	form      bool     // the signed text covers the fields of a form; other bodies by their digest in the URL
}

// presets are the schemes of known senders, with the public documentation that
// each follows.
var presets = map[Kind]scheme{
	// docs.github.com, "Validating webhook deliveries".
	KindGitHub: {
		headers: []string{"X-Hub-Signature-256"}, prefix: "sha256=",
		ids: sources("header:X-GitHub-Delivery", "header:Webhook-Id", "header:Idempotency-Key"), word: "github",
	},
	// docs.gitea.com, "Webhooks"; forgejo.org, "Webhooks". The older Gogs header has the same form.
	KindGitea: {
		headers: []string{"X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature", "X-Gogs-Signature"},
		ids:     sources("header:X-Gitea-Delivery", "header:X-Forgejo-Delivery", "header:X-Gogs-Delivery", "header:X-GitHub-Delivery"), word: "gitea",
	},
	// support.atlassian.com, "Manage webhooks" (Cloud) and "Event payload" (Data Center, which has X-Request-Id).
	KindBitbucket: {
		headers: []string{"X-Hub-Signature"}, prefix: "sha256=",
		ids: sources("header:X-Request-UUID", "header:X-Request-Id"), word: "bitbucket",
	},
	// docs.slack.dev, "Verifying requests from Slack". Events have an event_id, commands and interactions a trigger_id.
	KindSlack: {
		headers: []string{"X-Slack-Signature"}, prefix: "v0=", signed: signedText{"v0:", "{timestamp}", ":", "{body}"},
		timestamp: source{placeHeader, "X-Slack-Request-Timestamp"},
		ids:       sources("field:event_id", "field:trigger_id"), word: "slack",
	},
	// docs.stripe.com, "Resolve webhook signature verification errors", section on manual verification.
	KindStripe: {
		headers: []string{"Stripe-Signature"}, prefix: "v1=", signed: signedText{"{timestamp}", ".", "{body}"},
		timestamp: source{placeSignature, "t"},
		ids:       sources("field:id"), word: "stripe",
	},
	// developer.pagerduty.com, "Verifying signatures".
	KindPagerDuty: {
		headers: []string{"X-PagerDuty-Signature"}, prefix: "v1=",
		ids: sources("field:event.id"), word: "pagerduty",
	},
	// linear.app/developers, "Webhooks". Its time is that of sending, in milliseconds.
	KindLinear: {
		headers: []string{"Linear-Signature"}, timestamp: source{placeField, "webhookTimestamp"}, lenient: true,
		ids: sources("header:Linear-Delivery"), word: "linear",
	},
	// developer.atlassian.com, "Webhooks" of the Jira Cloud platform.
	KindJira: {
		headers: []string{"X-Hub-Signature"}, prefix: "sha256=",
		ids: sources("header:X-Atlassian-Webhook-Identifier"), word: "jira",
	},
	// docs.sentry.io, "Webhooks" of the integration platform.
	KindSentry: {
		headers: []string{"Sentry-Hook-Signature"},
		ids:     sources("header:Request-ID"), word: "sentry",
	},
	// shopify.dev, "Deliver webhooks through HTTPS".
	KindShopify: {
		headers: []string{"X-Shopify-Hmac-Sha256"}, encoding: EncodingBase64,
		ids: sources("header:X-Shopify-Webhook-Id"), word: "shopify",
	},
	// docs.discord.com, "Interactions" and "Webhook Events": Ed25519 with the application's public key.
	KindDiscord: {
		headers: []string{"X-Signature-Ed25519"}, algorithm: AlgorithmEd25519, signed: signedText{"{timestamp}", "{body}"},
		timestamp: source{placeHeader, "X-Signature-Timestamp"},
		ids:       sources("field:id"), word: "discord",
	},
	// twilio.com/docs, "Security": the address and the fields of the form, or bodySHA256 in the address.
	KindTwilio: {
		headers: []string{"X-Twilio-Signature"}, encoding: EncodingBase64, algorithm: AlgorithmSHA1, signed: signedText{"{url}", "{form}"}, form: true,
		ids: sources("header:I-Twilio-Idempotency-Token"), word: "twilio",
	},
}

// signatureHeaders are headers that identify a sender: a webhook of kind hmac
// that reads one has that sender's scheme, except for its own settings.
var signatureHeaders = map[string]Kind{
	"X-Slack-Signature": KindSlack, "Stripe-Signature": KindStripe, "X-Pagerduty-Signature": KindPagerDuty,
	"Linear-Signature": KindLinear, "Sentry-Hook-Signature": KindSentry, "X-Shopify-Hmac-Sha256": KindShopify,
	"X-Gitea-Signature": KindGitea, "X-Forgejo-Signature": KindGitea, "X-Gogs-Signature": KindGitea,
}

// commonIDs are the locations where unknown senders may put the id of a
// delivery, each with its prefix in a key.
var commonIDs = []struct {
	source
	word string
}{
	{source{placeHeader, "X-Github-Delivery"}, "github"},
	{source{placeHeader, "Webhook-Id"}, "standard"},
	{source{placeHeader, "Idempotency-Key"}, "key"},
	{source{placeHeader, "X-Gitea-Delivery"}, "gitea"},
	{source{placeHeader, "X-Forgejo-Delivery"}, "gitea"},
	{source{placeHeader, "X-Gogs-Delivery"}, "gitea"},
	{source{placeHeader, "X-Request-Uuid"}, "bitbucket"},
	{source{placeHeader, "X-Atlassian-Webhook-Identifier"}, "jira"},
	{source{placeHeader, "Linear-Delivery"}, "linear"},
	{source{placeHeader, "X-Shopify-Webhook-Id"}, "shopify"},
	{source{placeHeader, "Svix-Id"}, "svix"},
	{source{placeHeader, "I-Twilio-Idempotency-Token"}, "twilio"},
}

// scheme returns how calls are signed. For the kinds standard, svix, gitlab,
// bearer and unsigned, only the locations of the delivery id are used.
func (a Auth) scheme() scheme {
	s, preset := presets[a.Kind]
	if a.Kind == KindHMAC {
		s = scheme{headers: []string{a.Header}, prefix: a.Prefix, encoding: a.Encoding, algorithm: a.Algorithm, timestamp: parseSource(a.Timestamp)}
		if a.Header == "" {
			s.headers = []string{DefaultHMACHeader}
		}
		s.signed, _ = parseSigned(a.Signed)
		if a.Signed == "" && a.Timestamp == "" {
			s = s.withSender(signatureHeaders[http.CanonicalHeaderKey(s.headers[0])])
		}
	}
	s = s.withDefaults()
	if a.ToleranceSeconds > 0 {
		s.tolerance = time.Duration(a.ToleranceSeconds) * time.Second
	}
	if a.DeliveryID != "" {
		s.id, s.ids = parseSource(a.DeliveryID), sources(a.DeliveryID)
		if !preset {
			s.word = "id"
		}
	}
	return s
}

// withSender extends the scheme of kind hmac with that of the sender to which its
// header belongs: the whole scheme if it signs more than the body, otherwise
// only the locations of the delivery id.
func (s scheme) withSender(kind Kind) scheme {
	p, ok := presets[kind]
	switch {
	case !ok:
	case p.signed != nil:
		return p
	default:
		s.ids, s.word = p.ids, p.word
	}
	return s
}

func (s scheme) withDefaults() scheme {
	if s.signed == nil {
		s.signed = plainBody
	}
	if s.algorithm == "" {
		s.algorithm = AlgorithmSHA256
	}
	if s.tolerance == 0 {
		s.tolerance = Tolerance
	}
	return s
}

// signsMore reports whether the signed text distinguishes two calls with equal
// bodies, by their times or ids.
func (s scheme) signsMore() bool {
	return slices.Contains(s.signed, "{timestamp}") || slices.Contains(s.signed, "{id}")
}

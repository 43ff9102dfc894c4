package webhook_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/webhook"
)

// mac returns the HMAC of a text, implemented independently of the package.
func mac(newHash func() hash.Hash, secret, text string) []byte {
	m := hmac.New(newHash, []byte(secret))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hex256(secret, text string) string { return hex.EncodeToString(mac(sha256.New, secret, text)) }

// Examples that senders publish in their documentation.
func TestPreset_documented_examples(t *testing.T) {
	t.Parallel()
	slackBody := "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	for _, c := range []struct {
		name    string
		kind    webhook.Kind
		secret  string
		now     int64
		request webhook.Request
	}{
		{"github", webhook.KindGitHub, docSecret, 0, webhook.Request{Header: header("X-Hub-Signature-256", docSignature), Body: []byte(docBody)}},
		{"bitbucket", webhook.KindBitbucket, docSecret, 0, webhook.Request{
			Header: header("X-Hub-Signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"), Body: []byte("Hello World!"),
		}},
		{"jira", webhook.KindJira, docSecret, 0, webhook.Request{
			Header: header("X-Hub-Signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"), Body: []byte("Hello World!"),
		}},
		{"slack", webhook.KindSlack, "8f742231b10e8888abcd99yyyzzz85a5", 1531420618, webhook.Request{
			Header: header("X-Slack-Request-Timestamp", "1531420618", "X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
			Body:   []byte(slackBody),
		}},
		{"standard", webhook.KindStandard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330, webhook.Request{
			Header: header("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Webhook-Timestamp", "1614265330", "Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
			Body:   []byte(`{"test": 2432232314}`),
		}},
		{"svix", webhook.KindSvix, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330, webhook.Request{
			Header: header("Svix-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "Svix-Timestamp", "1614265330", "Svix-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
			Body:   []byte(`{"test": 2432232314}`),
		}},
		{"twilio", webhook.KindTwilio, "12345", 0, webhook.Request{
			Header: header("Content-Type", "application/x-www-form-urlencoded", "X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
			Host:   "mycompany.com", Target: "/myapp.php?foo=1&bar=2",
			Body: []byte("CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"),
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			auth := webhook.Auth{Kind: c.kind}
			if err := auth.Verify(c.secret, c.request, time.Unix(c.now, 0)); err != nil {
				t.Fatal(webhook.RefusalReason(err))
			}
			c.request.Body = append([]byte{'x'}, c.request.Body...)
			if auth.Verify(c.secret, c.request, time.Unix(c.now, 0)) == nil {
				t.Error("a changed body is accepted")
			}
		})
	}
}

// call is one signed call of a sender.
type call struct {
	kind   webhook.Kind
	secret string
	header http.Header
	body   string
}

func senderCalls(now time.Time) map[string]call {
	const secret, body = "S3cret-for-webhooks", `{"id":"evt_1","event_id":"Ev1","event":{"id":"E1"}}`
	stamp := fmt.Sprint(now.Unix())
	public, private, _ := ed25519.GenerateKey(strings.NewReader(strings.Repeat("k", 64)))
	linear := fmt.Sprintf(`{"action":"create","type":"Issue","webhookTimestamp":%d}`, now.UnixMilli())
	raw := "0123456789abcdef0123456789abcdef"
	return map[string]call{
		"gitlab token": {webhook.KindGitLab, secret, header("X-Gitlab-Token", secret), body},
		"gitlab signing token": {webhook.KindGitLab, "whsec_" + base64.StdEncoding.EncodeToString([]byte(raw)), header("Webhook-Id", "m1", "Webhook-Timestamp", stamp,
			"Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(sha256.New, raw, "m1."+stamp+"."+body))), body},
		"gitea":     {webhook.KindGitea, secret, header("X-Gitea-Signature", hex256(secret, body)), body},
		"forgejo":   {webhook.KindGitea, secret, header("X-Forgejo-Signature", hex256(secret, body)), body},
		"bitbucket": {webhook.KindBitbucket, secret, header("X-Hub-Signature", "sha256="+hex256(secret, body)), body},
		"slack":     {webhook.KindSlack, secret, header("X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", "v0="+hex256(secret, "v0:"+stamp+":"+body)), body},
		"stripe":    {webhook.KindStripe, secret, header("Stripe-Signature", "t="+stamp+",v1="+hex256("old", stamp+"."+body)+",v1="+hex256(secret, stamp+"."+body)+",v0=ab"), body},
		"pagerduty": {webhook.KindPagerDuty, secret, header("X-PagerDuty-Signature", "v1="+hex256("old", body)+",v1="+hex256(secret, body)), body},
		"linear":    {webhook.KindLinear, secret, header("Linear-Signature", hex256(secret, linear)), linear},
		"jira":      {webhook.KindJira, secret, header("X-Hub-Signature", "sha256="+hex256(secret, body)), body},
		"sentry":    {webhook.KindSentry, secret, header("Sentry-Hook-Signature", hex256(secret, body)), body},
		"shopify":   {webhook.KindShopify, secret, header("X-Shopify-Hmac-Sha256", base64.StdEncoding.EncodeToString(mac(sha256.New, secret, body))), body},
		"discord": {webhook.KindDiscord, hex.EncodeToString(public), header("X-Signature-Timestamp", stamp,
			"X-Signature-Ed25519", hex.EncodeToString(ed25519.Sign(private, []byte(stamp+body)))), body},
		"standard with a public key": {webhook.KindStandard, "whpk_" + base64.StdEncoding.EncodeToString(public), header("Webhook-Id", "m1", "Webhook-Timestamp", stamp,
			"Webhook-Signature", "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("m1."+stamp+"."+body)))), body},
	}
}

func TestPreset_verifies_its_sender(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	for name, c := range senderCalls(now) {
		t.Run(name, func(t *testing.T) {
			auth := webhook.Auth{Kind: c.kind}
			r := webhook.Request{Header: c.header, Body: []byte(c.body)}
			if err := auth.Verify(c.secret, r, now); err != nil {
				t.Fatal(webhook.RefusalReason(err))
			}
			if bad := append(auth.Validate(), auth.ValidateSecret(c.secret)...); len(bad) > 0 {
				t.Error(bad)
			}
			if auth.Verify("another secret", r, now) == nil {
				t.Error("another secret is accepted")
			}
			if err := auth.Verify(webhook.JoinSecrets("another secret", c.secret), r, now); err != nil {
				t.Error("the second of two secrets is refused:", webhook.RefusalReason(err))
			}
			if timed := c.header.Get("Webhook-Timestamp") != "" || c.kind == webhook.KindSlack || c.kind == webhook.KindStripe || c.kind == webhook.KindLinear || c.kind == webhook.KindDiscord; timed {
				for _, shift := range []time.Duration{301 * time.Second, -301 * time.Second} {
					if auth.Verify(c.secret, r, now.Add(shift)) == nil {
						t.Errorf("a call from %v away is accepted", shift)
					}
				}
			}
			if c.kind != webhook.KindGitLab {
				r.Body = []byte(strings.Replace(c.body, "e", "E", 1))
				if auth.Verify(c.secret, r, now) == nil {
					t.Error("a changed body is accepted")
				}
			}
		})
	}
}

// The general scheme can be configured for other senders.
func TestHMAC_signed_text(t *testing.T) {
	t.Parallel()
	const secret, body = "key", `{"sent":"2027-01-15T08:00:00Z","x":1}`
	now := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	stamp, millis := fmt.Sprint(now.Unix()), fmt.Sprint(now.UnixMilli())
	r := webhook.Request{Host: "h.example", Target: "/hooks/trg-1?a=b", Body: []byte(body)}
	for _, c := range []struct {
		name   string
		auth   webhook.Auth
		header http.Header
	}{
		{"sha1", webhook.Auth{Header: "X-Vercel-Signature", Algorithm: "sha1"}, header("X-Vercel-Signature", hex.EncodeToString(mac(sha1.New, secret, body)))},
		{"sha1 after its name", webhook.Auth{Header: "X-Hub-Signature", Algorithm: "sha1"}, header("X-Hub-Signature", "sha1="+hex.EncodeToString(mac(sha1.New, secret, body)))},
		{"sha512", webhook.Auth{Algorithm: "sha512", Encoding: "base64"}, header(webhook.DefaultHMACHeader, base64.StdEncoding.EncodeToString(mac(sha512.New, secret, body)))},
		{
			"timestamp and id",
			webhook.Auth{Signed: "{id}|{timestamp}|{body}", Timestamp: "header:X-Time", DeliveryID: "header:X-Id"},
			header("X-Time", stamp, "X-Id", "i1", webhook.DefaultHMACHeader, hex256(secret, "i1|"+stamp+"|"+body)),
		},
		{"milliseconds", webhook.Auth{Signed: "{timestamp}{body}", Timestamp: "header:X-Time"}, header("X-Time", millis, webhook.DefaultHMACHeader, hex256(secret, millis+body))},
		{"element", webhook.Auth{Header: "X-Sig", Prefix: "s=", Signed: "{timestamp}.{body}", Timestamp: "signature:ts"}, header("X-Sig", "ts="+stamp+"; s="+hex256(secret, stamp+"."+body))},
		{"field", webhook.Auth{Timestamp: "field:sent"}, header(webhook.DefaultHMACHeader, hex256(secret, body))},
		{"method and address", webhook.Auth{Signed: "{method}{url}{body}"}, header(webhook.DefaultHMACHeader, hex256(secret, "POSThttps://h.example/hooks/trg-1?a=b"+body))},
		{"plain http", webhook.Auth{Signed: "{body}{url}"}, header(webhook.DefaultHMACHeader, hex256(secret, body+"http://h.example/hooks/trg-1?a=b"))},
		{"address of a proxy", webhook.Auth{Signed: "{url}{body}", URL: "https://out.example/x"}, header(webhook.DefaultHMACHeader, hex256(secret, "https://out.example/x"+body))},
		{"host and path", webhook.Auth{Signed: "{host}\n{path}\n{body}"}, header(webhook.DefaultHMACHeader, hex256(secret, "h.example\n/hooks/trg-1\n"+body))},
		{"several by spaces", webhook.Auth{Header: "X-Sig"}, header("X-Sig", hex256("old", body)+" "+hex256(secret, body))},
		{"several by commas", webhook.Auth{Header: "X-Sig", Prefix: "v1="}, header("X-Sig", "v1="+hex256("old", body)+", v1="+hex256(secret, body))},
		{"several behind a prefix with a comma", webhook.Auth{Header: "X-Sig", Prefix: "v1,"}, header("X-Sig", "v1,"+hex256("old", body)+" v1,"+hex256(secret, body))},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.auth.Kind = webhook.KindHMAC
			if bad := c.auth.Validate(); len(bad) > 0 {
				t.Fatal(bad)
			}
			r := r
			r.Header = c.header
			if err := c.auth.Verify(secret, r, now); err != nil {
				t.Fatal(webhook.RefusalReason(err))
			}
			if c.auth.Timestamp != "" && c.auth.Verify(secret, r, now.Add(time.Hour)) == nil {
				t.Error("an old call is accepted")
			}
			c.auth.ToleranceSeconds = 7200
			if err := c.auth.Verify(secret, r, now.Add(time.Hour)); c.auth.Timestamp != "" && err != nil {
				t.Error("the tolerance does not count:", webhook.RefusalReason(err))
			}
			r.Body = []byte(body + " ")
			if c.auth.Verify(secret, r, now) == nil {
				t.Error("a changed body is accepted")
			}
		})
	}
}

func TestAuthValidate_scheme(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		auth       webhook.Auth
	}{
		{"body is not signed", "signed", webhook.Auth{Signed: "{timestamp}", Timestamp: "header:X-T"}},
		{"unknown placeholder", "signed", webhook.Auth{Signed: "{tiemstamp}.{body}"}},
		{"open brace", "signed", webhook.Auth{Signed: "{body}{"}},
		{"time without a place", "timestamp", webhook.Auth{Signed: "{timestamp}.{body}"}},
		{"time that is not signed", "timestamp", webhook.Auth{Timestamp: "header:X-T"}},
		{"time without a form", "timestamp", webhook.Auth{Timestamp: "X-T", Signed: "{timestamp}.{body}"}},
		{"id without a header", "delivery_id", webhook.Auth{Signed: "{id}.{body}"}},
		{"id in the body", "delivery_id", webhook.Auth{Signed: "{id}.{body}", DeliveryID: "field:id"}},
		{"id of nothing", "delivery_id", webhook.Auth{DeliveryID: "X-Id"}},
		{"algorithm", "algorithm", webhook.Auth{Algorithm: "md5"}},
		{"tolerance without a time", "tolerance_seconds", webhook.Auth{ToleranceSeconds: 10}},
		{"tolerance too long", "tolerance_seconds", webhook.Auth{Signed: "{timestamp}{body}", Timestamp: "header:X-T", ToleranceSeconds: 100000}},
		{"address", "url", webhook.Auth{URL: "hooks.example"}},
		{"unsigned id of slack", "delivery_id", webhook.Auth{Kind: webhook.KindSlack, DeliveryID: "header:X-Id"}},
		{"unsigned id of standard", "delivery_id", webhook.Auth{Kind: webhook.KindStandard, DeliveryID: "header:X-Id"}},
		{"template of a preset", "signed", webhook.Auth{Kind: webhook.KindStripe, Signed: "{body}"}},
		{"algorithm of a preset", "algorithm", webhook.Auth{Kind: webhook.KindGitHub, Algorithm: "sha1"}},
	} {
		if c.auth.Kind == "" {
			c.auth.Kind = webhook.KindHMAC
		}
		bad := c.auth.Validate()
		if len(bad) != 1 || bad[0].Path != c.path {
			t.Errorf("%s: %v, want one about %s", c.name, bad, c.path)
		}
	}
}

// key returns the key of a verified call.
func key(t *testing.T, auth webhook.Auth, secret string, now time.Time, h http.Header, body string) string {
	t.Helper()
	p, err := auth.Check(secret, webhook.Request{Header: h, Body: []byte(body)}, now)
	if err != nil {
		t.Fatal(webhook.RefusalReason(err))
	}
	e, err := webhook.Parse(h, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	k, err := auth.DeliveryKey(p, h, e)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A captured call that is sent again with additional headers is the same
// delivery if the signature covers an id or a time.
func TestDeliveryKey_follows_the_signature(t *testing.T) {
	t.Parallel()
	now := time.Unix(1800000000, 0)
	for name, c := range senderCalls(now) {
		auth := webhook.Auth{Kind: c.kind}
		first := key(t, auth, c.secret, now, c.header, c.body)
		again := c.header.Clone()
		for _, other := range []string{"X-GitHub-Delivery", "Idempotency-Key", "X-Gitea-Delivery", "X-Request-UUID", "Linear-Delivery"} {
			if again.Get(other) == "" {
				again.Set(other, "forged")
			}
		}
		if again.Get("Webhook-Id") == "" {
			again.Set("Webhook-Id", "forged")
		}
		second := key(t, auth, c.secret, now, again, c.body)
		switch c.kind {
		case webhook.KindSlack, webhook.KindStripe, webhook.KindPagerDuty, webhook.KindDiscord, webhook.KindStandard:
			if first == "" || first != second {
				t.Errorf("%s: %q became %q", name, first, second)
			}
		default:
			if first != "" && first != second {
				t.Errorf("%s: %q became %q", name, first, second)
			}
		}
	}
	stamp := fmt.Sprint(now.Unix())
	timed := webhook.Auth{Kind: webhook.KindHMAC, Signed: "{timestamp}.{body}", Timestamp: "header:X-Time"}
	h := header("X-Time", stamp, webhook.DefaultHMACHeader, hex256("k", stamp+`.{"a":1}`))
	first := key(t, timed, "k", now, h, `{"a":1}`)
	h.Set("Idempotency-Key", "forged")
	if again := key(t, timed, "k", now, h, `{"a":1}`); first == "" || again != first {
		t.Errorf("a signed time: %q became %q", first, again)
	}
	svix := header("Svix-Id", "m1", "Svix-Timestamp", stamp, "Svix-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac(sha256.New, "key", "m1."+stamp+".{}")))
	whsec := "whsec_" + base64.StdEncoding.EncodeToString([]byte("key"))
	a := key(t, webhook.Auth{Kind: webhook.KindSvix}, whsec, now, svix, "{}")
	renamed := header("Webhook-Id", "m1", "Webhook-Timestamp", stamp, "Webhook-Signature", svix.Get("Svix-Signature"))
	if b := key(t, webhook.Auth{Kind: webhook.KindSvix}, whsec, now, renamed, "{}"); a != b {
		t.Errorf("under other header names %q became %q", a, b)
	}
}

func TestDeliveryKey_sources(t *testing.T) {
	t.Parallel()
	const secret, body = "key", `{"event":{"id":"e1","n":7},"deliveries":[{"id":"d1"}]}`
	sig := hex256(secret, body)
	for _, c := range []struct {
		name   string
		auth   webhook.Auth
		header []string
		want   string
	}{
		{"header", webhook.Auth{DeliveryID: "header:X-My-Id"}, []string{"X-My-Id", "a", "Idempotency-Key", "b"}, "id:a"},
		{"field", webhook.Auth{DeliveryID: "field:event.id"}, []string{"Idempotency-Key", "b"}, "id:e1"},
		{"number", webhook.Auth{DeliveryID: "field:event.n"}, nil, "id:7"},
		{"member of a list", webhook.Auth{DeliveryID: "field:deliveries[0].id"}, nil, "id:d1"},
		{"missing", webhook.Auth{DeliveryID: "field:no.such"}, []string{"Idempotency-Key", "b"}, ""},
		{"body", webhook.Auth{DeliveryID: "body"}, []string{"Idempotency-Key", "b"}, "body:" + digest(body)},
		{"bitbucket", webhook.Auth{}, []string{"X-Request-UUID", "u"}, "bitbucket:u"},
		{"gitea", webhook.Auth{}, []string{"X-Gitea-Delivery", "u"}, "gitea:u"},
		{"jira", webhook.Auth{}, []string{"X-Atlassian-Webhook-Identifier", "u"}, "jira:u"},
		{"key before others", webhook.Auth{}, []string{"X-Request-UUID", "u", "Idempotency-Key", "b"}, "key:b"},
		{"none", webhook.Auth{}, nil, ""},
	} {
		c.auth.Kind, c.auth.Header = webhook.KindHMAC, "X-Sig"
		if got := key(t, c.auth, secret, time.Time{}, header(append(c.header, "X-Sig", sig)...), body); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	github := webhook.Auth{Kind: webhook.KindGitHub, DeliveryID: "body"}
	if got := key(t, github, secret, time.Time{}, header("X-Hub-Signature-256", "sha256="+sig, "X-GitHub-Delivery", "x"), body); got != "body:"+digest(body) {
		t.Errorf("github by the body: %q", got)
	}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestBearer_in_address_or_basic(t *testing.T) {
	t.Parallel()
	auth := webhook.Auth{Kind: webhook.KindBearer}
	basic := func(pair string) http.Header {
		return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	}
	for _, c := range []struct {
		name string
		auth webhook.Auth
		r    webhook.Request
		ok   bool
	}{
		{"query", auth, webhook.Request{Target: "/hooks/t?token=s%26cret"}, true},
		{"path", auth, webhook.Request{Target: "/hooks/t/s&cret", Token: "s&cret"}, true},
		{"wrong", auth, webhook.Request{Target: "/hooks/t?token=other"}, false},
		{"empty", auth, webhook.Request{Target: "/hooks/t?token="}, false},
		{"twice", auth, webhook.Request{Target: "/hooks/t?token=s%26cret&token=s%26cret"}, false},
		{"header counts alone", auth, webhook.Request{Target: "/hooks/t?token=s%26cret", Header: header("Authorization", "Bearer no")}, false},
		{"named header counts alone", webhook.Auth{Kind: webhook.KindBearer, Header: "X-T"}, webhook.Request{Target: "/hooks/t?token=s%26cret"}, false},
		{"password", auth, webhook.Request{Header: basic("me:s&cret")}, true},
		{"user alone", auth, webhook.Request{Header: basic("s&cret:")}, true},
		{"wrong password", auth, webhook.Request{Header: basic("s&cret:other")}, false},
		{"no pair", auth, webhook.Request{Header: basic("s&cret")}, false},
	} {
		if c.r.Header == nil {
			c.r.Header = http.Header{}
		}
		if err := c.auth.Verify("s&cret", c.r, time.Time{}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	pair := webhook.Request{Header: basic("me:pw")}
	if err := auth.Verify("me:pw", pair, time.Time{}); err != nil {
		t.Error("user and password as the secret:", err)
	}
}

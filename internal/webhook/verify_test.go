package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// The example in GitHub's documentation.
const (
	docSecret    = "It's a Secret to Everybody"
	docBody      = "Hello, World!"
	docSignature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
)

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// sign returns the HMAC-SHA256 as hex, implemented independently of the
// package.
func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func TestGitHub_documented_signature(t *testing.T) {
	t.Parallel()
	if err := webhook.GitHub(docSecret, header("X-Hub-Signature-256", docSignature), []byte(docBody)); err != nil {
		t.Fatal(webhook.RefusalReason(err))
	}
}

func TestGitHub_rejects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, secret, body string
		header             http.Header
		reason             string
	}{
		{"no header", docSecret, docBody, header(), "is missing"},
		{"only sha1", docSecret, docBody, header("X-Hub-Signature", "sha1=01"), "is missing"},
		{"other secret", "x", docBody, header("X-Hub-Signature-256", docSignature), "does not match"},
		{"other body", docSecret, docBody + " ", header("X-Hub-Signature-256", docSignature), "does not match"},
		{"no prefix", docSecret, docBody, header("X-Hub-Signature-256", docSignature[7:]), "prefix"},
		{"half a signature", docSecret, docBody, header("X-Hub-Signature-256", docSignature[:39]), "not an HMAC"},
		{"no hex", docSecret, docBody, header("X-Hub-Signature-256", "sha256=zz"), "not an HMAC"},
		{"two", docSecret, docBody, header("X-Hub-Signature-256", docSignature, "X-Hub-Signature-256", docSignature), "more than once"},
		{"empty signature", docSecret, docBody, header("X-Hub-Signature-256", "sha256="), "not an HMAC"},
	} {
		err := webhook.GitHub(c.secret, c.header, []byte(c.body))
		if !errors.Is(err, agented.Unauthenticated) || !strings.Contains(webhook.RefusalReason(err), c.reason) {
			t.Errorf("%s: %v (%s)", c.name, err, webhook.RefusalReason(err))
		}
	}
}

func TestVerify_empty_secret(t *testing.T) {
	t.Parallel()
	body := []byte("{}")
	h := header("X-Hub-Signature-256", "sha256="+sign("", body), webhook.DefaultHMACHeader, sign("", body), "Authorization", "Bearer ", "X-Token", "",
		"Webhook-Id", "a", "Webhook-Timestamp", "1000", "Webhook-Signature", "v1,"+standardSignature(nil, "a", "1000", body))
	if err := webhook.GitHub("", h, body); !errors.Is(err, agented.Unavailable) {
		t.Errorf("GitHub: %v", err)
	}
	for _, kind := range []webhook.Kind{webhook.KindGitHub, webhook.KindHMAC, webhook.KindStandard, webhook.KindBearer} {
		err := webhook.Auth{Kind: kind}.Verify("", webhook.Request{Header: h, Body: body}, time.Unix(1000, 0))
		if !errors.Is(err, agented.Unauthenticated) {
			t.Errorf("%s: %v", kind, err)
		}
		if fields := (webhook.Auth{Kind: kind}).ValidateSecret(" "); len(fields) != 1 {
			t.Errorf("%s: a blank secret may be set: %v", kind, fields)
		}
	}
	if err := webhook.Standard("whsec_", h, body, time.Unix(1000, 0)); err == nil {
		t.Error("Standard accepts a secret of nothing")
	}
}

func TestHMAC_settings(t *testing.T) {
	t.Parallel()
	body := []byte(`{"a":1}`)
	raw, _ := hex.DecodeString(sign("key", body))
	for _, c := range []struct {
		name   string
		auth   webhook.Auth
		header http.Header
		ok     bool
	}{
		{"bare", webhook.Auth{}, header("X-Webhook-Signature-256", sign("key", body)), true},
		{"capitals", webhook.Auth{}, header("X-Webhook-Signature-256", strings.ToUpper(sign("key", body))), true},
		{"usual prefix", webhook.Auth{}, header("X-Webhook-Signature-256", "sha256="+sign("key", body)), true},
		{"sha1", webhook.Auth{}, header("X-Webhook-Signature-256", "sha1="+sign("key", body)), false},
		{"own header", webhook.Auth{Header: "X-Sig", Prefix: "v0="}, header("x-sig", "v0="+sign("key", body)), true},
		{"own prefix is needed", webhook.Auth{Header: "X-Sig", Prefix: "v0="}, header("x-sig", sign("key", body)), false},
		{"base64", webhook.Auth{Encoding: "base64"}, header("X-Webhook-Signature-256", base64.StdEncoding.EncodeToString(raw)), true},
		{"base64 for addresses", webhook.Auth{Encoding: "base64"}, header("X-Webhook-Signature-256", base64.RawURLEncoding.EncodeToString(raw)), true},
		{"hex for base64", webhook.Auth{Encoding: "base64"}, header("X-Webhook-Signature-256", sign("key", body)), false},
		{"base64 for hex", webhook.Auth{}, header("X-Webhook-Signature-256", base64.StdEncoding.EncodeToString(raw)), false},
	} {
		c.auth.Kind = webhook.KindHMAC
		if bad := c.auth.Validate(); bad != nil {
			t.Errorf("%s: %v", c.name, bad)
		}
		if err := c.auth.Verify("key", webhook.Request{Header: c.header, Body: body}, time.Time{}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, webhook.RefusalReason(err))
		}
	}
}

func standardSignature(key []byte, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestStandard_time(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef0123456789abcdef")
	secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
	body := []byte(`{"type":"invoice.paid"}`)
	const at = 1_700_000_000
	good := "v1," + standardSignature(key, "msg_1", fmt.Sprint(at), body)
	other := "v1," + standardSignature([]byte("x"), "msg_1", fmt.Sprint(at), body)
	for _, c := range []struct {
		name, id, stamp, signature string
		now                        int64
		reason                     string // "" is accepted
	}{
		{"fits", "msg_1", "1700000000", good, at, ""},
		{"five minutes late", "msg_1", "1700000000", good, at + 300, ""},
		{"a second later", "msg_1", "1700000000", good, at + 301, "too old"},
		{"five minutes early", "msg_1", "1700000000", good, at - 300, ""},
		{"a second earlier", "msg_1", "1700000000", good, at - 301, "from the future"},
		{"second of several", "msg_1", "1700000000", other + " v1a,xyz " + good, at, ""},
		{"none fits", "msg_1", "1700000000", other + " " + other, at, "no signature"},
		{"only others", "msg_1", "1700000000", "v1a," + good[3:], at, "no v1 signature"},
		{"other id", "msg_2", "1700000000", good, at, "no signature"},
		{"other time", "msg_1", "1700000001", good, at, "no signature"},
		{"no id", "", "1700000000", good, at, "Webhook-Id is missing"},
		{"no time", "msg_1", "", good, at, "Webhook-Timestamp is missing"},
		{"no signature", "msg_1", "1700000000", "", at, "Webhook-Signature is missing"},
		{"time in words", "msg_1", "now", good, at, "not a time"},
		{"endless time", "msg_1", "9223372036854775807", good, at, "not a time"},
		{"id with a space", "msg 1", "1700000000", good, at, "not an id"},
		{"far too many", "msg_1", "1700000000", strings.Repeat(other+" ", 50) + good, at, "no signature"},
	} {
		h := header("Webhook-Id", c.id, "Webhook-Timestamp", c.stamp, "Webhook-Signature", c.signature)
		auth := webhook.Auth{Kind: webhook.KindStandard}
		err := auth.Verify(secret, webhook.Request{Header: h, Body: body}, time.Unix(c.now, 999_000_000))
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%s: refused: %s", c.name, webhook.RefusalReason(err))
		case c.reason != "" && (!errors.Is(err, agented.Unauthenticated) || !strings.Contains(webhook.RefusalReason(err), c.reason)):
			t.Errorf("%s: got %q, want %q", c.name, webhook.RefusalReason(err), c.reason)
		}
	}
}

// vector is a call that the reference library signed.
type vector struct {
	Secret    string `json:"secret"`
	ID        string `json:"id"`
	Timestamp int64  `json:"timestamp"`
	Body      string `json:"body"`
	Signature string `json:"signature"`
}

func TestStandard_reference_library(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/standardwebhooks.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(raw, &vectors); err != nil || len(vectors) < 5 {
		t.Fatal(err, len(vectors))
	}
	for _, v := range vectors {
		h := header("webhook-id", v.ID, "webhook-timestamp", fmt.Sprint(v.Timestamp), "webhook-signature", v.Signature)
		if err := webhook.Standard(v.Secret, h, []byte(v.Body), time.Unix(v.Timestamp, 0)); err != nil {
			t.Errorf("%s: %s", v.ID, webhook.RefusalReason(err))
		}
		if err := webhook.Standard("whsec_MDEyMzQ1Njc4OQ==", h, []byte(v.Body), time.Unix(v.Timestamp, 0)); err == nil {
			t.Errorf("%s: accepted with another secret", v.ID)
		}
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		auth   webhook.Auth
		header http.Header
		ok     bool
	}{
		{"usual", webhook.Auth{}, header("Authorization", "Bearer tok"), true},
		{"small letters", webhook.Auth{}, header("Authorization", "bearer tok"), true},
		{"basic", webhook.Auth{}, header("Authorization", "Basic tok"), false},
		{"bare", webhook.Auth{}, header("Authorization", "tok"), false},
		{"longer", webhook.Auth{}, header("Authorization", "Bearer token"), false},
		{"shorter", webhook.Auth{}, header("Authorization", "Bearer to"), false},
		{"none", webhook.Auth{}, header(), false},
		{"named", webhook.Auth{Header: "X-Gitlab-Token"}, header("X-Gitlab-Token", "tok"), true},
		{"named, in the wrong place", webhook.Auth{Header: "X-Gitlab-Token"}, header("Authorization", "Bearer tok"), false},
		{"prefix", webhook.Auth{Header: "X-Key", Prefix: "key="}, header("X-Key", "key=tok"), true},
		{"twice", webhook.Auth{}, header("Authorization", "Bearer tok", "Authorization", "Bearer tok"), false},
	} {
		c.auth.Kind = webhook.KindBearer
		if err := c.auth.Verify("tok", webhook.Request{Header: c.header}, time.Time{}); (err == nil) != c.ok {
			t.Errorf("%s: %s", c.name, webhook.RefusalReason(err))
		}
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, remote string
		asked        bool
		header       http.Header
		ok           bool
	}{
		{"loopback", "127.0.0.1", true, nil, true},
		{"loopback of IPv6", "::1", true, nil, true},
		{"loopback written as IPv6", "::ffff:127.0.0.1", true, nil, true},
		{"not asked for", "127.0.0.1", false, nil, false},
		{"neighbour", "192.168.0.7", true, nil, false},
		{"nobody", "", true, nil, false},
		{"through a proxy here", "127.0.0.1", true, header("X-Forwarded-For", "203.0.113.9"), false},
		{"a web page here", "127.0.0.1", true, header("Origin", "https://evil.example"), false},
	} {
		remote, _ := netip.ParseAddr(c.remote)
		auth := webhook.Auth{Kind: webhook.KindUnsigned, Unsigned: c.asked}
		if err := auth.Verify("", webhook.Request{Header: c.header, Remote: remote}, time.Time{}); (err == nil) != c.ok {
			t.Errorf("%s: %s", c.name, webhook.RefusalReason(err))
		}
	}
}

func TestVerify_allow_list(t *testing.T) {
	t.Parallel()
	auth := webhook.Auth{Kind: webhook.KindBearer, Allow: []string{"192.0.2.0/24", "2001:db8::1", "::ffff:198.51.100.0/120"}}
	if bad := auth.Validate(); bad != nil {
		t.Fatal(bad)
	}
	for remote, ok := range map[string]bool{
		"192.0.2.200": true, "::ffff:192.0.2.1": true, "192.0.3.1": false, "2001:db8::1": true, "2001:db8::2": false,
		"198.51.100.9": true, "198.51.101.9": false, "": false,
	} {
		addr, _ := netip.ParseAddr(remote)
		for _, token := range []string{"tok", "no"} {
			err := auth.Verify("tok", webhook.Request{Header: header("Authorization", "Bearer "+token), Remote: addr}, time.Time{})
			if (err == nil) != (ok && token == "tok") {
				t.Errorf("%q with %q: %v", remote, token, err)
			}
		}
	}
}

func TestVerify_constant_error(t *testing.T) {
	t.Parallel()
	r := webhook.Request{Header: header("Authorization", "Bearer tok-guess", "X-Hub-Signature-256", docSignature), Body: []byte("x")}
	unknown := webhook.Decoy(r)
	for _, auth := range []webhook.Auth{
		{Kind: webhook.KindGitHub},
		{Kind: webhook.KindHMAC},
		{Kind: webhook.KindStandard},
		{Kind: webhook.KindBearer},
		{Kind: webhook.KindUnsigned},
		{Kind: "nonsense"},
		{Kind: webhook.KindBearer, Allow: []string{"192.0.2.1"}},
	} {
		err := auth.Verify("very-secret", r, time.Unix(0, 0))
		if agented.Message(err) != agented.Message(unknown) || agented.KindOf(err) != agented.KindOf(unknown) {
			t.Errorf("%v: %v differs from %v", auth, agented.Message(err), agented.Message(unknown))
		}
		if strings.Contains(err.Error(), "very-secret") || strings.Contains(err.Error(), "tok-guess") {
			t.Errorf("%v: a secret is in %v", auth, err)
		}
		if webhook.RefusalReason(err) == agented.Message(err) {
			t.Errorf("%v: no reason", auth)
		}
	}
}

func TestAuthValidate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		auth webhook.Auth
		want []string
	}{
		{"nothing", webhook.Auth{}, []string{"kind"}},
		{"typo", webhook.Auth{Kind: "hmca"}, []string{"kind"}},
		{"github", webhook.Auth{Kind: "github"}, nil},
		{"github with all", webhook.Auth{Kind: "github", Header: "X", Prefix: "p", Encoding: "hex", Unsigned: true}, []string{"header", "prefix", "encoding", "unsigned"}},
		{"odd header", webhook.Auth{Kind: "hmac", Header: "X: y"}, []string{"header"}},
		{"odd encoding", webhook.Auth{Kind: "hmac", Encoding: "rot13"}, []string{"encoding"}},
		{"prefix of the usual header", webhook.Auth{Kind: "bearer", Prefix: "x"}, []string{"prefix"}},
		{"addresses", webhook.Auth{Kind: "bearer", Allow: []string{"10.0.0.0/8", "10.0.0.0/99", "example.org", "fe80::1%eth0", "::ffff:0.0.0.0/8"}}, []string{"allow.1", "allow.2", "allow.3", "allow.4"}},
		{"unsigned", webhook.Auth{Kind: "unsigned"}, []string{"unsigned"}},
		{"unsigned, asked for", webhook.Auth{Kind: "unsigned", Unsigned: true}, nil},
	} {
		var got []string
		for _, f := range c.auth.Validate() {
			got = append(got, f.Path)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
	if got := (webhook.Auth{Kind: "hmca"}).Validate(); !strings.Contains(got[0].Text, `did you mean "hmac"?`) {
		t.Error(got)
	}
}

func TestValidateSecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   webhook.Kind
		secret string
		ok     bool
	}{
		{"github", "x", true},
		{"github", "", false},
		{"github", "x\n", false},
		{"hmac", strings.Repeat("x", 1001), false},
		{"standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true},
		{"standard", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true},
		{"standard", "whsec_not base64!", false},
		{"unsigned", "", true},
		{"unsigned", "x", false},
	} {
		bad := webhook.Auth{Kind: c.kind}.ValidateSecret(c.secret)
		if (len(bad) == 0) != c.ok {
			t.Errorf("%s %q: %v", c.kind, c.secret, bad)
		}
	}
}

func TestDeliveryKey(t *testing.T) {
	t.Parallel()
	key := func(pairs ...string) string {
		k, err := webhook.DeliveryKey(header(pairs...))
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
		return k
	}
	same := key("X-GitHub-Delivery", "a")
	if same == "" || key("x-github-delivery", "a", "X-GitHub-Event", "push") != same {
		t.Error("the same delivery has two keys")
	}
	for _, other := range []string{
		key("X-GitHub-Delivery", "b"),
		key("webhook-id", "a"), key("Idempotency-Key", "a"), key(),
	} {
		if other == same {
			t.Errorf("two deliveries share %q", same)
		}
	}
	if same != "github:a" {
		t.Errorf("the key is %q", same)
	}
	if key() != "" {
		t.Error("without an id there is a key")
	}
	for _, bad := range []http.Header{
		header("Idempotency-Key", "a b"), header("Webhook-Id", strings.Repeat("x", 201)), header("Webhook-Id", "a", "Webhook-Id", "b"), header("Webhook-Id", "é"),
	} {
		if _, err := webhook.DeliveryKey(bad); !errors.Is(err, agented.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestLedgerHeaders(t *testing.T) {
	t.Parallel()
	got := webhook.LedgerHeaders(header("Authorization", "Bearer x", "Cookie", "c", "X-Hub-Signature-256", "s", "X-Own-Token", "t",
		"User-Agent", "GitHub-Hookshot/\x1b[31m1", "X-GitHub-Event", "push", "Webhook-Signature", "v1,x"))
	if diff := cmp.Diff(map[string]string{"User-Agent": "GitHub-Hookshot/1", "X-Github-Event": "push"}, got); diff != "" {
		t.Error(diff)
	}
}

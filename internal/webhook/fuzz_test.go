package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

func FuzzGitHubSignature(f *testing.F) {
	f.Add(docSecret, docSignature, []byte(docBody))
	f.Add("", "sha256=", []byte{})
	f.Add("x", "sha256=zz", []byte("{}"))
	f.Fuzz(func(t *testing.T, secret, signature string, body []byte) {
		err := webhook.GitHub(secret, header("X-Hub-Signature-256", signature), body)
		right := secret != "" && strings.EqualFold(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(signature), "sha256=")), sign(secret, body)) &&
			strings.HasPrefix(strings.TrimSpace(signature), "sha256=")
		if (err == nil) != right {
			t.Fatalf("%v, want %v", webhook.RefusalReason(err), right)
		}
		if secret == "" {
			return
		}
		if err := webhook.GitHub(secret, header("X-Hub-Signature-256", "sha256="+sign(secret, body)), body); err != nil {
			t.Fatal(webhook.RefusalReason(err))
		}
		if err := webhook.GitHub(secret+"x", header("X-Hub-Signature-256", "sha256="+sign(secret, body)), body); err == nil {
			t.Fatal("accepted with another secret")
		}
	})
}

func FuzzStandardSignature(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_1", "1700000000", "v1,abc v1a,x", []byte("{}"), int64(1_700_000_000))
	f.Add("", "", "", "", []byte{}, int64(0))
	f.Add("whsec_AA==", "a b", "-1", "v1,", []byte("x"), int64(-1<<62))
	f.Fuzz(func(t *testing.T, secret, id, stamp, signature string, body []byte, now int64) {
		h := header("Webhook-Id", id, "Webhook-Timestamp", stamp, "Webhook-Signature", signature)
		if err := webhook.Standard(secret, h, body, time.Unix(now, 0)); err == nil {
			t.Fatal("accepted without a signature of ours") // guessing an HMAC-SHA256 is practically impossible
		} else if !errors.Is(err, agented.Unauthenticated) {
			t.Fatal(err)
		}
		key := []byte("a key of ours")
		now %= 1 << 36
		h = header("Webhook-Id", "m", "Webhook-Timestamp", fmt.Sprint(now), "Webhook-Signature", "v1,"+standardSignature(key, "m", fmt.Sprint(now), body))
		if err := webhook.Standard("whsec_YSBrZXkgb2Ygb3Vycw==", h, body, time.Unix(now, 0)); err != nil {
			t.Fatal(webhook.RefusalReason(err))
		}
	})
}

func FuzzAuth(f *testing.F) {
	f.Add("hmac", "X-Sig", "v0=", "hex", "10.0.0.0/8", true, "secret", "v0=00", "10.1.2.3", []byte("{}"))
	f.Add("unsigned", "", "", "", "", true, "", "", "127.0.0.1", []byte("{}"))
	f.Add("bearer", "", "", "", "::/0", false, "x", "Bearer x", "::1", []byte("{}"))
	f.Fuzz(func(t *testing.T, kind, name, prefix, encoding, allow string, unsigned bool, secret, value, remote string, body []byte) {
		auth := webhook.Auth{Kind: webhook.Kind(kind), Header: name, Prefix: prefix, Encoding: encoding, Unsigned: unsigned}
		if allow != "" {
			auth.Allow = []string{allow}
		}
		for _, bad := range append(auth.Validate(), auth.ValidateSecret(secret)...) {
			if bad.Path == "" || bad.Text == "" {
				t.Fatal(bad)
			}
		}
		addr, _ := netip.ParseAddr(remote)
		h := header(name, value, "Authorization", value, webhook.DefaultHMACHeader, value)
		err := auth.Verify(secret, webhook.Request{Header: h, Body: body, Remote: addr}, time.Unix(0, 0))
		if err == nil && kind != "bearer" && kind != "hmac" && (kind != "unsigned" || !addr.Unmap().IsLoopback()) {
			t.Fatal("accepted")
		}
		if err == nil && secret == "" && kind != "unsigned" {
			t.Fatal("accepted without a secret")
		}
		if err != nil && agented.Message(err) != agented.Message(webhook.Decoy(webhook.Request{})) {
			t.Fatal(err)
		}
	})
}

func FuzzParseAndMatch(f *testing.F) {
	const match = `{"events":["p*"],"repositories":["o*/**"],"branches":["m?in"],"authors":["!x"],"labels":["bug"],"paths":["**/*.go"],"command":"/review",
		"conditions":{"all":[{"field":"a.*.b","op":"regex","value":"^x+$"},{"any":[{"field":"n","op":"equals","value":1},{"field":"l","op":"contains","value":"x"}]}]}}`
	f.Add("pull_request", "application/json", []byte(pullRequest), []byte(match))
	f.Add("issue_comment", "application/json", []byte(issueComment), []byte(`{"command":"/review"}`))
	f.Add("push", "application/x-www-form-urlencoded", []byte("payload=%7B%7D"), []byte(`{"paths":["!a","b/**","\\"]}`))
	f.Add("push", "", []byte(push), []byte(`{"actions":["x"]}`))
	f.Add("", "", []byte(`{"type":"a","a":[{"b":"xx"}],"n":1e999}`), []byte(`{"conditions":{"all":[{"field":"*.*.*","op":"regex","value":"(a*)*$"},{"field":"n","op":"equals","value":1e999}]}}`))
	f.Add("release", "text/plain", []byte(`{"release":null}`), []byte(`{"conditions":{"any":[{}]}}`))
	f.Add("workflow_run", "", []byte(`{"workflow_run":{"pull_requests":[null,{}]},"sender":{"type":"Bot"}}`), []byte(`{"allow_bots":true,"skip_drafts":true,"associations":["NONE"]}`))
	f.Fuzz(func(t *testing.T, event, contentType string, body, rules []byte) {
		h := header("Content-Type", contentType)
		if event != "" {
			h.Set("X-GitHub-Event", event)
		}
		e, err := webhook.Parse(h, body)
		if err != nil {
			if k := agented.KindOf(err); k != agented.Invalid && k != agented.TooLarge {
				t.Fatal(err)
			}
			return
		}
		if len(e.Raw) > 0 && !json.Valid(e.Raw) {
			t.Fatal("a body that is no JSON is taken")
		}
		var m webhook.Match
		_ = json.Unmarshal(rules, &m) // the readable part of it
		for _, kind := range []webhook.Kind{webhook.KindGitHub, webhook.KindHMAC} {
			for _, bad := range m.Validate(kind) {
				if bad.Path == "" || bad.Text == "" {
					t.Fatal(bad)
				}
			}
		}
		v := webhook.Evaluate(m, e, []string{"mona"})
		if v.Fires == (v.Reason != "") || v.Fires == (v.Rule != "") || len(v.Reason) > 500 || !utf8.ValidString(v.Reason) || strings.ContainsFunc(v.Reason, unseen) || strings.Contains(v.Reason, "\n") {
			t.Fatalf("%+v", v)
		}
		if again := webhook.Evaluate(m, e, []string{"mona"}); again != v {
			t.Fatalf("%+v, then %+v", v, again)
		}
		if len(e.Subject()) > 700 {
			t.Fatal(len(e.Subject()))
		}
		if fenced, err := webhook.Fence(e.Values(), boundary); err == nil {
			for name, value := range fenced {
				checkFenced(t, name, value)
			}
		}
	})
}

func FuzzFence(f *testing.F) {
	f.Add("title", "plain")
	f.Add("number", "7")
	f.Add("body", "\x1b[31m\u202e\U000e0041x\u200b\xff\x1b]\x1b\\")
	f.Add("url", "https://github.com/a/b")
	f.Add("body", "<<<"+boundary)
	f.Add("labels", "a, b\x1b[")
	f.Fuzz(func(t *testing.T, name, text string) {
		got, err := webhook.Fence(map[string]string{name: text}, boundary)
		if err != nil {
			whole := strings.ToLower(webhook.Clean(text) + " " + name)
			bare := strings.Map(func(r rune) rune {
				if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
					return r
				}
				return -1
			}, whole)
			if !strings.Contains(bare, strings.ToLower(boundary)) {
				t.Fatal(err)
			}
			return
		}
		if len(got) != 1 {
			t.Fatal(got)
		}
		checkFenced(t, name, got[name])
		if clean := webhook.Clean(text); clean != webhook.Clean(clean) {
			t.Fatalf("cleaning twice is not cleaning once: %q, %q", clean, webhook.Clean(clean))
		}
	})
}

// checkFenced verifies the guarantees for a fenced value.
func checkFenced(t *testing.T, name, value string) {
	t.Helper()
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unseen) {
		t.Fatalf("%q: %q holds a character that is not seen", name, value)
	}
	if len(value) > webhook.MaxValue+500 {
		t.Fatalf("%q: %d bytes", name, len(value))
	}
	switch n := strings.Count(strings.ToLower(value), strings.ToLower(boundary)); {
	case n == 2 && strings.HasPrefix(value, "\n<<<"+boundary+" ") && strings.HasSuffix(value, ">>>\n"):
	case n == 0 && len(value) <= 300 && !strings.Contains(value, "\n"):
	default:
		t.Fatalf("%q: the boundary is there %d times: %q", name, n, value)
	}
}

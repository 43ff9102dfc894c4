package api_test

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/hooks"
)

func webhookOf(auth, secret string) string {
	return `{"source":"webhook","auth":` + auth + `,"secret":"` + secret + `"}`
}

// Calls in the forms and at the addresses that senders use.
func TestHook_forms_of_calls(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	id := g.trigger(`{"name":"forms","backend":"claude","prompt":"Run {vars.command}","max_concurrent":0,"webhooks":[` + webhookOf(`{"kind":"bearer"}`, otherSecret) + `]}`)
	bearer := with("Authorization", "Bearer "+otherSecret)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(`{"x":1}`))
	_ = z.Close()
	for _, c := range []struct {
		name, path, body string
		changes          []change
	}{
		{"slash", "/hooks/" + id + "/", `{}`, []change{bearer}},
		{"token in the query", "/hooks/" + id + "?token=" + otherSecret, `{}`, nil},
		{"token in the path", "/hooks/" + id + "/" + otherSecret, `{}`, nil},
		{"gzip", "/hooks/" + id, packed.String(), []change{bearer, with("Content-Encoding", "gzip")}},
		{"BOM", "/hooks/" + id, "\xef\xbb\xbf{}", []change{bearer}},
		{"text", "/hooks/" + id, "hello", []change{bearer, with("Content-Type", "text/plain")}},
		{"form", "/hooks/" + id, "command=%2Fdeploy&text=now", []change{bearer, with("Content-Type", "application/x-www-form-urlencoded")}},
	} {
		v := g.send(g.client(), "POST", c.path, c.body, c.changes...).want(202).received()
		if v.Verdict != agented.VerdictAccepted || len(v.ExecutionIDs) != 1 {
			t.Errorf("%s: %+v", c.name, v)
			continue
		}
		d := g.delivery(v.DeliveryID)
		if d.Body == nil || d.BodyEncoding != "text" {
			t.Errorf("%s: the stored body cannot be read: %+v", c.name, d)
		}
		g.do(agented.RoleOperator, "POST", "/api/v1/deliveries/"+string(v.DeliveryID)+"/replay", "").want(202)
		var e api.ExecutionView
		g.admin("GET", "/api/v1/executions/"+string(v.ExecutionIDs[0]), "").want(200).json(&e)
		if c.name == "form" && (e.Prompt == nil || !strings.Contains(*e.Prompt, "/deploy")) {
			t.Errorf("the fields of a form do not reach the prompt")
		}
	}
	g.send(g.client(), "POST", "/hooks/"+id+"/wrong", `{}`).problem(401)
	g.send(g.client(), "POST", "/hooks/"+id+"?token=wrong", `{}`).problem(401)
	a := g.send(g.client(), "POST", "/hooks/"+id, `{"type":"url_verification","challenge":"c1"}`, bearer).want(200)
	if !strings.Contains(a.body, `"challenge":"c1"`) {
		t.Errorf("the challenge is answered with %s", a.body)
	}
	g.send(g.client(), "POST", "/hooks/"+id, `{"type":"url_verification","challenge":"c1"}`).problem(401)
	ping := `{"zen":"x"}`
	g.send(g.client(), "POST", "/hooks/github/", ping, with("X-GitHub-Event", "ping"), with("X-Hub-Signature-256", "sha256="+hexMAC(hookSecret, ping))).want(200)
}

// An unsigned id does not turn a captured call into another delivery.
func TestHook_replay_with_further_headers(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	raw := []byte("0123456789abcdef01234567")
	whsec := "whsec_" + base64.StdEncoding.EncodeToString(raw)
	stamp := fmt.Sprint(time.Now().Unix())
	body := `{"id":"evt_1"}`
	m := hmac.New(sha256.New, raw)
	fmt.Fprintf(m, "m1.%s.%s", stamp, body)
	standard := "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
	for _, c := range []struct {
		name, auth, secret string
		signed             []change
	}{
		{"standard", `{"kind":"standard"}`, whsec, []change{with("Webhook-Id", "m1"), with("Webhook-Timestamp", stamp), with("Webhook-Signature", standard)}},
		{"svix under standard", `{"kind":"standard"}`, whsec, []change{with("Svix-Id", "m1"), with("Svix-Timestamp", stamp), with("Svix-Signature", standard)}},
		{"stripe", `{"kind":"stripe"}`, otherSecret, []change{with("Stripe-Signature", "t="+stamp+",v1="+hexMAC(otherSecret, stamp+"."+body))}},
		{
			"slack by its header", `{"kind":"hmac","header":"X-Slack-Signature","prefix":"v0="}`, otherSecret,
			[]change{with("X-Slack-Request-Timestamp", stamp), with("X-Slack-Signature", "v0="+hexMAC(otherSecret, "v0:"+stamp+":"+body))},
		},
		{"pagerduty by its header", `{"kind":"hmac","header":"X-PagerDuty-Signature","prefix":"v1="}`, otherSecret, []change{with("X-PagerDuty-Signature", "v1="+hexMAC("old", body)+",v1="+hexMAC(otherSecret, body))}},
		{"body", `{"kind":"hmac","delivery_id":"body"}`, otherSecret, []change{with("X-Webhook-Signature-256", hexMAC(otherSecret, body))}},
	} {
		id := g.trigger(hookTrigger(c.name, webhookOf(c.auth, c.secret)))
		text := body
		if c.name == "pagerduty by its header" { // its id is in the event
			text = `{"event":{"id":"e1"}}`
			c.signed = []change{with("X-PagerDuty-Signature", "v1="+hexMAC("old", text)+",v1="+hexMAC(otherSecret, text))}
		}
		first := g.send(g.client(), "POST", "/hooks/"+id, text, c.signed...).want(202).received()
		if first.Verdict != agented.VerdictAccepted {
			t.Errorf("%s: %+v", c.name, first)
		}
		for _, forged := range []string{"aaa", "bbb"} {
			again := g.send(g.client(), "POST", "/hooks/"+id, text, append(c.signed, with("X-GitHub-Delivery", forged), with("Idempotency-Key", forged))...).want(202).received()
			if !again.Duplicate || again.DeliveryID != first.DeliveryID {
				t.Errorf("%s: sent again with another id: %+v", c.name, again)
			}
		}
	}
}

// During a secret rotation, both secrets are accepted.
func TestHook_two_secrets(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hookTrigger("rotated", webhookOf(`{"kind":"hmac"}`, otherSecret)))
	call := func(secret string) answer {
		return g.send(g.client(), "POST", "/hooks/"+id, `{}`, with("X-Webhook-Signature-256", hexMAC(secret, `{}`)))
	}
	change := func(fields string) api.TriggerView {
		var v api.TriggerView
		g.admin("PATCH", "/api/v1/triggers/"+id, `{"webhooks":[{"source":"webhook","auth":{"kind":"hmac"}`+fields+`}]}`).want(200).json(&v)
		return v
	}
	v := change(`,"secret":"the-new-secret-of-it","previous_secret":"***"`)
	if v.Webhooks[0].Secret != "***" || v.Webhooks[0].Previous != "***" {
		t.Errorf("%+v", v.Webhooks[0])
	}
	call("the-new-secret-of-it").want(202)
	call(otherSecret).want(202)
	change(`,"secret":"***","previous_secret":"***"`)
	call(otherSecret).want(202)
	change(``)
	call(otherSecret).want(202)
	if v = change(`,"previous_secret":""`); v.Webhooks[0].Previous != "" {
		t.Errorf("%+v", v.Webhooks[0])
	}
	call("the-new-secret-of-it").want(202)
	call(otherSecret).problem(401)
	g.admin("PATCH", "/api/v1/triggers/"+id, `{"webhooks":[{"source":"webhook","auth":{"kind":"hmac"},"previous_secret":" x"}]}`).problem(422)
}

// A preset of a forge provides its events and fields.
func TestHook_gitlab(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hookTrigger("merges", `{"source":"webhook","auth":{"kind":"gitlab"},"secret":"`+otherSecret+`","match":{"events":["merge_request.opened"]}}`))
	body := `{"object_kind":"merge_request","user":{"id":1,"username":"mona"},"project":{"path_with_namespace":"o/r"},"object_attributes":{"iid":7,"author_id":1,"title":"T","url":"https://gitlab.example/o/r/-/merge_requests/7","source_branch":"fix","target_branch":"main","source_project_id":1,"target_project_id":1,"action":"open"}}`
	v := g.send(g.client(), "POST", "/hooks/"+id, body, with("X-Gitlab-Token", otherSecret), with("X-Gitlab-Event", "Merge Request Hook"), with("Idempotency-Key", "k1")).want(202).received()
	var e api.ExecutionView
	g.admin("GET", "/api/v1/executions/"+string(v.ExecutionIDs[0]), "").want(200).json(&e)
	if e.Prompt == nil || !strings.Contains(*e.Prompt, "https://gitlab.example/o/r/-/merge_requests/7") {
		t.Error("the address of the merge request is not in the prompt")
	}
	if d := g.delivery(v.DeliveryID); d.Event != "merge_request" || d.Action != "opened" {
		t.Errorf("%s.%s", d.Event, d.Action)
	}
	var m hooks.Matches
	g.admin("POST", "/api/v1/webhooks/match", `{"body":`+body+`}`).want(200).json(&m)
	if m.Event != "merge_request" || m.Subject != "o/r#7" || len(m.Items) != 1 || !m.Items[0].Fires {
		t.Errorf("%+v", m)
	}
}

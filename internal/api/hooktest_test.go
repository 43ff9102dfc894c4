package api_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/testrun"
)

func TestWebhookTest_fires_one_trigger(t *testing.T) {
	t.Parallel()
	g := start(t, settings{env: []string{"GITHUB_WEBHOOK_SECRET=" + hookSecret}})
	one := func(id string) api.TriggerView {
		var v api.TriggerView
		g.admin("GET", "/api/v1/triggers/"+id, "").want(200).json(&v)
		return v
	}
	reviews := g.trigger(hookTrigger("review", `{"source":"github","match":{"events":["pull_request.opened"],"repositories":["o/r"]}}`))
	g.trigger(hookTrigger("another", `{"source":"github","match":{"events":["pull_request"]}}`))
	alerts := g.trigger(hookTrigger("alerts", `{"source":"webhook","auth":{"kind":"hmac","allow":["192.0.2.0/24"]},"secret":"`+otherSecret+`","match":{"conditions":{"all":[{"field":"level","op":"equals","value":"error"}]}}}`))
	send := func(role agented.Role, trigger, body string) answer {
		return g.do(role, "POST", "/api/v1/triggers/"+trigger+"/webhooks/"+one(trigger).Webhooks[0].ID+"/test", body)
	}

	got := send(agented.RoleOperator, reviews, "").want(202).received()
	if got.Verdict != agented.VerdictAccepted || len(got.ExecutionIDs) != 1 {
		t.Fatalf("%+v", got)
	}
	d := g.delivery(got.DeliveryID)
	if !d.Test || d.Actor == "" || d.Event != "pull_request" || d.Action != "opened" || len(d.Triggers) != 1 || string(d.Triggers[0].TriggerID) != reviews {
		t.Errorf("%+v", d)
	}
	// A second test is another delivery, not a repetition.
	if again := send(agented.RoleOperator, reviews, `{}`).want(202).received(); again.Duplicate || again.DeliveryID == got.DeliveryID {
		t.Errorf("%+v", again)
	}
	// The rules are evaluated, and the reason is returned.
	no := send(agented.RoleOperator, reviews, `{"event":"push"}`).want(202).received()
	if no.Verdict != agented.VerdictIgnored || !strings.Contains(no.Reason, `the event is "push`) {
		t.Errorf("%+v", no)
	}
	if v := send(agented.RoleOperator, alerts, `{"body":{"level":"info"}}`).want(202).received(); v.Verdict != agented.VerdictIgnored {
		t.Errorf("%+v", v)
	}
	if v := send(agented.RoleOperator, alerts, `{"body":{"level":"error"}}`).want(202).received(); v.Verdict != agented.VerdictAccepted {
		t.Errorf("%+v", v)
	}
	send(agented.RoleViewer, alerts, "").problem(403)
	g.do(agented.RoleOperator, "POST", "/api/v1/triggers/"+alerts+"/webhooks/whk-x/test", "").problem(404)
	if last := one(alerts).LastExecution; last == nil || last.Source != agented.SourceWebhook {
		t.Errorf("%+v", last)
	}
	var list rest.ListOf[api.TriggerView]
	g.admin("GET", "/api/v1/triggers", "").want(200).json(&list)
	for _, v := range list.Items {
		if (v.LastExecution != nil) != (v.Name != "another") {
			t.Errorf("%s: %+v", v.Name, v.LastExecution)
		}
	}
}

func TestWebhookTest_without_secret(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	id := g.trigger(hookTrigger("review", `{"source":"github"}`))
	var v api.TriggerView
	g.admin("GET", "/api/v1/triggers/"+id, "").want(200).json(&v)
	a := g.do(agented.RoleOperator, "POST", "/api/v1/triggers/"+id+"/webhooks/"+v.Webhooks[0].ID+"/test", "")
	got := a.want(202).received()
	if got.Verdict != agented.VerdictRejected || !strings.Contains(got.Reason, "GITHUB_WEBHOOK_SECRET") || len(got.ExecutionIDs) != 0 {
		t.Fatalf("%+v", got)
	}
	if d := g.delivery(got.DeliveryID); d.Verdict != agented.VerdictRejected || !d.Test {
		t.Errorf("%+v", d)
	}
}

func TestEventsStream_changes(t *testing.T) {
	t.Parallel()
	g := start(t, settings{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events := func(query string) <-chan string {
		r, err := http.NewRequestWithContext(ctx, "GET", g.http.URL+"/api/v1/events/stream"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-API-Key", g.key(agented.RoleViewer))
		answer, err := g.client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		out := make(chan string, 100)
		go func() {
			defer close(out)
			for s := bufio.NewScanner(answer.Body); s.Scan(); {
				if name, ok := strings.CutPrefix(s.Text(), "event: "); ok {
					out <- name
				}
			}
		}()
		if first := testrun.Receive(t, out, "the first event"); first != "position" {
			t.Fatalf("it begins with %q", first)
		}
		return out
	}
	told, plain := events("?changes=true"), events("")
	id := g.trigger(`{"name":"t","backend":"command","command":["true"]}`)
	if got := testrun.Receive(t, told, "the event"); got != "trigger" {
		t.Fatalf("told of %q", got)
	}
	// A rejected call is reported too.
	g.send(g.client(), "POST", "/hooks/"+id, "{}").want(401)
	if got := testrun.Receive(t, told, "the event"); got != "delivery" {
		t.Fatalf("told of %q", got)
	}
	g.api.TicksChanged()
	if got := testrun.Receive(t, told, "the event"); got != "tick" {
		t.Fatalf("told of %q", got)
	}
	g.do(agented.RoleOperator, "POST", "/api/v1/triggers/"+id+"/run", "").want(202)
	if got := testrun.Receive(t, plain, "the event"); got != "execution" {
		t.Fatalf("who did not ask is told of %q", got)
	}
}

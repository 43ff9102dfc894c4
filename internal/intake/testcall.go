package intake

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// TestCall is the optional content of a test call of a webhook.
type TestCall struct {
	Event string // for GitHub; empty: the first event that the webhook matches, otherwise push
	Body  []byte // JSON; empty: a small sample
}

// HasBody reports whether the body is not the sample.
func (t TestCall) HasBody() bool { return len(t.Body) > 0 && string(t.Body) != "null" }

// Test is a prepared test call.
type Test struct {
	in   *Intake
	call *call
}

// NewTest prepares a call to one webhook of a trigger as its sender would make
// it: signed with its secret.
func (in *Intake) NewTest(ctx context.Context, trigger agented.TriggerID, hook string, want TestCall, actor string) (*Test, error) {
	current, err := in.current()
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(current.trigger[trigger], func(r *rule) bool { return r.webhook.ID == hook })
	if at < 0 {
		return nil, agented.Errorf(agented.NotFound, "no webhook of this trigger has this id, or its secret cannot be read: save the trigger first")
	}
	return &Test{in, in.testCall(ctx, current.trigger[trigger][at], want, actor)}, nil
}

// Delivery returns the id under which the call will be stored.
func (t *Test) Delivery() agented.DeliveryID { return t.call.delivery.ID }

// Run verifies the call, evaluates the rules of its webhook, stores it, and
// fires. Only the network is skipped, and an allowed address is assumed. A
// rejection is a result with the reason, which external callers do not see.
func (t *Test) Run(ctx context.Context) (store.DeliveryResult, error) {
	got, _, reason, err := t.in.admit(ctx, t.call)
	if err == nil || reason == "" {
		return got, err
	}
	d := t.call.delivery
	d.Verdict, d.Reason = agented.VerdictRejected, reason
	t.in.o.Count(agented.VerdictRejected)
	if err := t.in.o.DB.RejectDelivery(ctx, d); err != nil {
		return got, err
	}
	t.in.o.Changed()
	return store.DeliveryResult{Delivery: d}, nil
}

// testCall builds the call.
func (in *Intake) testCall(ctx context.Context, r *rule, want TestCall, actor string) *call {
	now := in.o.Now()
	github := r.auth.Kind == webhook.KindGitHub
	body, event := webhook.Sample(r.match, github, want.Event)
	if want.HasBody() {
		body = want.Body
	}
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Agented-Test"}}
	if github {
		event, _, _ = strings.Cut(event, ".")
		h.Set("X-GitHub-Event", event)
	}
	if r.auth.Kind == webhook.KindTwilio && len(want.Body) == 0 {
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		body = []byte("Body=A+test+from+Agented")
	}
	secret := r.secret
	if secret == "" && r.webhook.Source == agented.SourceGitHub {
		secret = in.o.Config().GitHubWebhookSecret.Reveal()
	}
	key := agented.NewID("test", now)
	r.auth.Sign(secret, key, h, body, now)
	endpoint := string(r.trigger.ID)
	if r.webhook.Source == agented.SourceGitHub {
		endpoint = agented.EndpointGitHub
	}
	c := &call{
		r: (&http.Request{Method: http.MethodPost, Header: h}).WithContext(ctx), endpoint: endpoint, body: body, now: now, only: r.webhook.ID,
		remote: allowedAddress(r.auth.Allow),
	}
	c.delivery = agented.Delivery{
		ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: endpoint, ReceivedAt: now, Address: "this server",
		Headers: webhook.LedgerHeaders(h), Event: format.Clip(event, maxRecorded), Size: int64(len(body)), Actor: actor,
	}
	return c
}

// allowedAddress returns an address from which calls are allowed.
func allowedAddress(allow []string) netip.Addr {
	for _, text := range allow {
		if p, err := netip.ParsePrefix(text); err == nil {
			return p.Addr()
		}
		if a, err := netip.ParseAddr(text); err == nil {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// WorksInCheckout reports whether a trigger works in a checkout of a repository,
// because of its own settings or those of its agent.
func (in *Intake) WorksInCheckout(ctx context.Context, t *agented.Trigger) (bool, error) {
	if t.Spec.Workspace != nil || t.Spec.Agent == "" {
		return t.Spec.Workspace != nil, nil
	}
	a, err := in.o.DB.Agent(ctx, t.Spec.Agent)
	if err != nil {
		if agented.KindOf(err) == agented.NotFound {
			return false, nil // it cannot fire
		}
		return false, err
	}
	return a.Spec.Workspace != nil, nil
}

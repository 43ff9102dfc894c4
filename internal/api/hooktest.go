package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// HookTest is what a test call of a webhook shall say; all of it is optional.
type HookTest struct {
	Event string          `json:"event,omitempty" maxLength:"100" doc:"Source github: the event, with or without an action, for example pull_request.opened. Default: the first that the webhook takes, else push"`
	Body  json.RawMessage `json:"body,omitempty" doc:"The body, as JSON. Default: a small sample"`
}

type hookTestInput struct {
	ID      string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	Webhook string `path:"webhook" maxLength:"100" doc:"The webhook's id, whk-…"`
	Body    *HookTest
}

// testWebhook sends a call to one webhook as its sender would: signed with its
// secret, verified, judged by its rules, stored, and fired. Only the network is
// left out, and the address that the allow-list wants is taken as given.
func (s *Server) testWebhook(ctx context.Context, in *hookTestInput) (*output[Received], error) {
	id, err := triggerID(in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := s.o.DB.Trigger(ctx, id); err != nil {
		return nil, err
	}
	rules, err := s.hooks.current()
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(rules.trigger[id], func(r *hookRule) bool { return r.webhook.ID == in.Webhook })
	if at < 0 {
		return nil, agented.Errorf(agented.NotFound, "no webhook of this trigger has this id, or its secret cannot be read: save the trigger first")
	}
	rule := rules.trigger[id][at]
	want := HookTest{}
	if in.Body != nil {
		want = *in.Body
	}
	c := s.testCall(ctx, rule, want)
	got, _, reason, err := s.admitCall(ctx, c)
	if err != nil {
		if reason == "" {
			return nil, err
		}
		// What a stranger is told in a word is the answer here.
		c.delivery.Reason = reason
		s.m.deliveries.WithLabelValues(string(agented.VerdictRejected)).Inc()
		if err := s.o.DB.RejectDelivery(ctx, c.delivery); err != nil {
			return nil, err
		}
		s.changes.tell(changedDeliveries)
		return &output[Received]{Received{DeliveryID: c.delivery.ID, Verdict: agented.VerdictRejected, Reason: s.mask(reason), ExecutionIDs: []agented.ExecutionID{}}}, nil
	}
	return &output[Received]{Received{
		DeliveryID: got.Delivery.ID, Verdict: verdictOf(got), Duplicate: got.Duplicate,
		Reason: s.mask(got.Delivery.Reason), ExecutionIDs: got.Delivery.Executions(),
	}}, nil
}

// testCall makes the call.
func (s *Server) testCall(ctx context.Context, rule *hookRule, want HookTest) *inboundCall {
	now := s.now()
	github := rule.auth.Kind == webhook.KindGitHub
	body, event := webhook.Sample(rule.match, github, want.Event)
	if len(want.Body) > 0 && string(want.Body) != "null" {
		body = want.Body
	}
	h := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Agented-Test"}}
	if github {
		event, _, _ = strings.Cut(event, ".")
		h.Set("X-GitHub-Event", event)
	}
	secret := rule.secret
	if secret == "" && rule.webhook.Source == agented.SourceGitHub {
		secret = s.live.Load().config.GitHubWebhookSecret.Reveal()
	}
	key := agented.NewID("test", now)
	rule.auth.Sign(secret, key, h, body, now)
	endpoint := string(rule.trigger.ID)
	if rule.webhook.Source == agented.SourceGitHub {
		endpoint = agented.EndpointGitHub
	}
	c := &inboundCall{
		r: (&http.Request{Method: http.MethodPost, Header: h}).WithContext(ctx), endpoint: endpoint, body: body, now: now, only: rule.webhook.ID,
		remote: address{ip: allowedAddress(rule.auth.Allow), local: true},
	}
	c.delivery = agented.Delivery{
		ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: endpoint, ReceivedAt: now, Address: "this server",
		Headers: webhook.LedgerHeaders(h), Event: clip(event, 100), Size: int64(len(body)), Actor: principal(ctx).Name,
	}
	return c
}

// allowedAddress is one from which a call may come.
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

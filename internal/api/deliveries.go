package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// hookRoutes are the ways in for calls from outside, and what became of them.
func (s *Server) hookRoutes() []route {
	const anyone, viewer, operator = agented.RoleNone, agented.RoleViewer, agented.RoleOperator
	fixed := func(name string) func(*Server) http.HandlerFunc {
		return func(s *Server) http.HandlerFunc { return s.receive(func(*http.Request) string { return name }) }
	}
	answers := map[string]*huma.Response{
		"202": {Description: "Stored, with what it fired", Content: map[string]*huma.MediaType{"application/json": {Schema: s.schemaOf(Received{})}}},
	}
	pong := map[string]*huma.Response{
		"200": {Description: "A ping", Content: map[string]*huma.MediaType{"application/json": {Schema: s.schemaOf(Pong{})}}}, "202": answers["202"],
	}
	body := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}}
	failures := []int{http.StatusUnauthorized, http.StatusTooManyRequests}
	return []route{
		raw("POST /hooks/github", anyone, fixed(agented.EndpointGitHub), about{
			id: "receive-github", tag: "webhooks", summary: "Receive an event of GitHub", maxBody: noBound, body: body, answers: pong, errors: failures,
			text: "Verified by X-Hub-Signature-256, with the secret of a trigger or GITHUB_WEBHOOK_SECRET. Answers once the delivery and its executions are stored. The same X-GitHub-Delivery is answered with the first one's ids.",
		}),
		raw("POST /api/webhooks/github", anyone, fixed(agented.EndpointGitHub), about{
			id: "receive-github-old", tag: "webhooks", summary: "Receive an event of GitHub (old address)", maxBody: noBound, body: body, answers: pong, errors: failures,
			text: "The same as /hooks/github.",
		}),
		raw("POST /api/webhooks/github/{$}", anyone, fixed(agented.EndpointGitHub), about{
			id: "receive-github-older", tag: "webhooks", summary: "Receive an event of GitHub (old address with a slash)", maxBody: noBound, body: body, answers: pong, errors: failures,
			text: "The same as /hooks/github.",
		}),
		raw("POST /hooks/{trigger}", anyone, func(s *Server) http.HandlerFunc {
			return s.receive(func(r *http.Request) string { return r.PathValue("trigger") })
		}, about{
			id: "receive-webhook", tag: "webhooks", summary: "Receive a call for a trigger", maxBody: noBound, body: body, answers: pong, errors: failures,
			params: []*huma.Param{inPath("trigger", "The trigger's id, trg-…")},
			text:   "Verified as the trigger's webhook says. A trigger that does not exist is answered like a wrong secret. The same webhook-id or Idempotency-Key is answered with the first one's ids.",
		}),
		raw("POST /{$}", anyone, fixed(agented.EndpointAny), about{
			id: "receive-any", tag: "webhooks", summary: "Receive a call for whoever's secret verifies (old address)", maxBody: noBound, body: body, answers: answers, errors: failures,
			text: "Fires the triggers whose webhook verifies the call. Better is each trigger's own address.",
		}),

		op("GET /api/v1/deliveries", viewer, s.listDeliveries, about{
			id: "list-deliveries", tag: "webhooks", summary: "List deliveries",
			text: "Every call from outside and what became of it, the newest first.",
		}),
		op("GET /api/v1/deliveries/{id}", viewer, s.getDelivery, about{
			id: "get-delivery", tag: "webhooks", summary: "Show a delivery", errors: []int{http.StatusNotFound},
			text: "With its body, as long as that is kept, and for each trigger the first condition that said no.",
		}),
		op("POST /api/v1/deliveries/{id}/replay", operator, s.replayDelivery, about{
			id: "replay-delivery", tag: "webhooks", summary: "Replay a delivery", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Asks the rules of today about the body of then, and fires what they say. A conflict when the body is not kept.",
		}),
		op("POST /api/v1/triggers/{id}/webhooks/{webhook}/test", operator, s.testWebhook, about{
			id: "test-webhook", tag: "webhooks", summary: "Send a test to a webhook", status: http.StatusAccepted, maxBody: webhook.MaxBody + 1<<20, errors: []int{http.StatusNotFound},
			text: "Makes a call as the webhook's sender would, signed with its secret, and takes it as one from outside: it is verified, judged by the rules of this webhook, stored as a delivery that is marked as a test, and fires. The body may be left out.",
		}),
		op("POST /api/v1/webhooks/match", viewer, s.matchWebhooks, about{
			id: "match-webhooks", tag: "webhooks", summary: "Which triggers would this fire", status: http.StatusOK, maxBody: webhook.MaxBody + 1<<20,
			text: "Asks the rules of all triggers about an event, without verifying and without firing.",
		}),
	}
}

// DeliveryView is a delivery as the API shows it.
type DeliveryView struct {
	ID           agented.DeliveryID    `json:"id" example:"dlv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Endpoint     string                `json:"endpoint" doc:"github, any, or the id of the trigger whose address was called"`
	ReceivedAt   time.Time             `json:"received_at"`
	Address      string                `json:"address" doc:"Of the caller"`
	Event        string                `json:"event"`
	Action       string                `json:"action"`
	Key          string                `json:"key" doc:"What makes it the same delivery when it comes again; empty: nothing does"`
	Size         int64                 `json:"size" doc:"Bytes of the body"`
	Verdict      agented.Verdict       `json:"verdict" enum:"accepted,ignored,duplicate,rejected"`
	Reason       string                `json:"reason"`
	DuplicateOf  agented.DeliveryID    `json:"duplicate_of,omitempty" doc:"The first one, when this is a repetition"`
	ReplayOf     agented.DeliveryID    `json:"replay_of,omitempty" doc:"The one that was replayed"`
	Test         bool                  `json:"test,omitempty" doc:"Somebody sent it to try a webhook"`
	Actor        string                `json:"actor,omitempty" doc:"Who replayed it, or sent the test"`
	ExecutionIDs []agented.ExecutionID `json:"execution_ids"`
	Triggers     []DeliveryTriggerView `json:"triggers" doc:"What it meant for each trigger that it could have fired"`
	Headers      map[string]string     `json:"headers,omitempty" doc:"Those that hold no secret; left out of lists"`
	BodyKept     bool                  `json:"body_kept" doc:"Whether the body can still be read and replayed"`
	Body         *string               `json:"body,omitempty" doc:"The body, or its beginning; left out of lists and when it is not kept"`
	BodyEncoding string                `json:"body_encoding,omitempty" enum:"text,base64" doc:"How body is written"`
	BodyCut      bool                  `json:"body_cut,omitempty" doc:"Body is only the first 256 KiB"`
}

// DeliveryTriggerView is what a delivery meant for one trigger.
type DeliveryTriggerView struct {
	TriggerID   agented.TriggerID   `json:"trigger_id"`
	TriggerName string              `json:"trigger_name"`
	WebhookID   string              `json:"webhook_id"`
	Fired       bool                `json:"fired"`
	Rule        string              `json:"rule,omitempty" doc:"The condition or guard that said no"`
	Reason      string              `json:"reason,omitempty" doc:"The same in words"`
	ExecutionID agented.ExecutionID `json:"execution_id,omitempty"`
}

// maxShownBody bounds the body in an answer.
const maxShownBody = 256 << 10

func (s *Server) showDelivery(d *agented.Delivery) DeliveryView {
	v := DeliveryView{
		ID: d.ID, Endpoint: d.Endpoint, ReceivedAt: shown(d.ReceivedAt), Address: d.Address, Event: d.Event, Action: d.Action,
		Key: d.Key, Size: d.Size, Verdict: d.Verdict, Reason: s.mask(d.Reason),
		DuplicateOf: d.DuplicateOf, ReplayOf: d.ReplayOf, Test: d.Test(), Actor: d.Actor, ExecutionIDs: d.Executions(),
		Triggers: []DeliveryTriggerView{}, BodyKept: d.BodyKept,
	}
	for _, t := range d.Triggers {
		v.Triggers = append(v.Triggers, DeliveryTriggerView{t.Trigger, t.TriggerName, t.Webhook, t.Fired, t.Rule, s.mask(t.Reason), t.Execution})
	}
	return v
}

type deliveryListInput struct {
	Limit    int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor   string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	Verdict  string    `query:"verdict" enum:"accepted,ignored,duplicate,rejected" doc:"Only those with this verdict"`
	Endpoint string    `query:"endpoint" maxLength:"100" doc:"Only those at this endpoint: github, any, or a trigger's id"`
	Trigger  string    `query:"trigger_id" maxLength:"100" doc:"Only those that could have fired this trigger"`
	Event    string    `query:"event" maxLength:"100" doc:"Only this event, for example push"`
	After    time.Time `query:"received_after" doc:"Only those received at this time or later"`
	Before   time.Time `query:"received_before" doc:"Only those received before this time"`
}

func (s *Server) listDeliveries(ctx context.Context, in *deliveryListInput) (*listOutput[DeliveryView], error) {
	items, next, err := s.o.DB.Deliveries(ctx, store.DeliveryFilter{
		Verdict: agented.Verdict(in.Verdict), Endpoint: in.Endpoint, Trigger: agented.TriggerID(in.Trigger), Event: in.Event,
		After: in.After, Before: in.Before,
	}, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, s.showDelivery), nil
}

type deliveryPath struct {
	ID string `path:"id" maxLength:"100" doc:"The delivery's id, dlv-…"`
}

func (s *Server) delivery(ctx context.Context, id string) (*agented.Delivery, error) {
	if !agented.ValidID("dlv", id) {
		return nil, agented.Errorf(agented.NotFound, "no delivery has this id")
	}
	return s.o.DB.Delivery(ctx, agented.DeliveryID(id))
}

func (s *Server) getDelivery(ctx context.Context, in *deliveryPath) (*output[DeliveryView], error) {
	d, err := s.delivery(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := s.showDelivery(d)
	v.Headers = d.Headers
	body, err := s.o.DB.DeliveryBody(ctx, d.ID)
	switch {
	case err != nil && agented.KindOf(err) == agented.NotFound:
		return &output[DeliveryView]{v}, nil
	case err != nil:
		return nil, err
	}
	text := ""
	if v.BodyEncoding = "text"; utf8.Valid(body) {
		text = s.mask(string(body)) // before it is cut: half a secret is not found
		if v.BodyCut = len(text) > maxShownBody; v.BodyCut {
			text = strings.ToValidUTF8(text[:maxShownBody], "")
		}
	} else {
		v.BodyEncoding = "base64"
		if v.BodyCut = len(body) > maxShownBody; v.BodyCut {
			body = body[:maxShownBody]
		}
		text = base64.StdEncoding.EncodeToString(body)
	}
	v.Body = &text
	return &output[DeliveryView]{v}, nil
}

func (s *Server) replayDelivery(ctx context.Context, in *deliveryPath) (*output[Received], error) {
	d, err := s.delivery(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	body, err := s.o.DB.DeliveryBody(ctx, d.ID)
	if err != nil {
		if agented.KindOf(err) == agented.NotFound {
			err = agented.Errorf(agented.Conflict, "%s", agented.Message(err))
		}
		return nil, err
	}
	header := http.Header{}
	for name, value := range d.Headers {
		header.Set(name, value)
	}
	event, err := webhook.Parse(header, body)
	if err != nil {
		return nil, err
	}
	for range 5 {
		rules, err := s.hooks.current()
		if err != nil {
			return nil, err
		}
		now := s.now()
		again := agented.Delivery{
			ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: d.Endpoint, ReceivedAt: now, Address: d.Address,
			Headers: d.Headers, Event: event.Name, Action: event.Action, Size: d.Size, ServerProof: d.ServerProof,
			ReplayOf: d.ID, Actor: principal(ctx).Name,
		}
		got, err := s.o.Dispatch.Deliver(ctx, dispatch.Inbound{
			Delivery: again, Body: body, Event: event, Rules: rules.version, Hits: hits(s.judge(replayed(d, rules), event)),
		})
		if err != nil {
			return nil, err
		}
		if got.Stale {
			continue
		}
		s.m.deliveries.WithLabelValues(string(got.Delivery.Verdict)).Inc()
		s.changes.tell(changedDeliveries)
		s.logDelivered(ctx, got)
		return &output[Received]{Received{
			DeliveryID: got.Delivery.ID, Verdict: got.Delivery.Verdict, Reason: s.mask(got.Delivery.Reason), ExecutionIDs: got.Delivery.Executions(),
		}}, nil
	}
	return nil, agented.Errorf(agented.Unavailable, "the triggers are being changed all the time: try again")
}

// replayed lists the rules that a replay asks: those of the triggers for which
// the call was genuine, and those that its proof would satisfy today.
func replayed(d *agented.Delivery, rules *hookRules) []*hookRule {
	were := map[agented.TriggerID]bool{}
	for _, t := range d.Triggers {
		were[t.Trigger] = true
	}
	var out []*hookRule
	for _, r := range rules.all {
		own := d.Endpoint == string(r.trigger.ID)
		github := d.Endpoint == agented.EndpointGitHub && r.webhook.Source == agented.SourceGitHub
		signed := d.Endpoint == agented.EndpointAny && r.webhook.Source == agented.SourceWebhook
		if own || github && (were[r.trigger.ID] || d.ServerProof && r.secret == "") || signed && were[r.trigger.ID] {
			out = append(out, r)
		}
	}
	return out
}

// MatchInput is an event to ask the rules about.
type MatchInput struct {
	Event     string            `json:"event,omitempty" maxLength:"100" doc:"GitHub's name of the event, for example pull_request. Left out: the body is a call that is not GitHub's"`
	TriggerID agented.TriggerID `json:"trigger_id,omitempty" doc:"Only this trigger"`
	Body      json.RawMessage   `json:"body" doc:"The body of the call, as JSON"`
}

// WebhookMatch is what the webhooks of one trigger say.
type WebhookMatch struct {
	TriggerID   agented.TriggerID `json:"trigger_id"`
	TriggerName string            `json:"trigger_name"`
	WebhookID   string            `json:"webhook_id"`
	Fires       bool              `json:"fires"`
	Rule        string            `json:"rule,omitempty" doc:"The condition or guard that said no"`
	Reason      string            `json:"reason,omitempty" doc:"The same in words"`
}

// Matches is what the rules say about an event.
type Matches struct {
	Event   string         `json:"event"`
	Action  string         `json:"action"`
	Subject string         `json:"subject" doc:"What it is about, for supersede; empty: nothing that others could be about"`
	Items   []WebhookMatch `json:"items"`
}

func (s *Server) matchWebhooks(ctx context.Context, in *createInput[MatchInput]) (*output[Matches], error) {
	header := http.Header{"Content-Type": {"application/json"}}
	if in.Body.Event != "" {
		header.Set("X-Github-Event", in.Body.Event)
	}
	event, err := webhook.Parse(header, in.Body.Body)
	if err != nil {
		return nil, err
	}
	rules, err := s.hooks.current()
	if err != nil {
		return nil, err
	}
	if in.Body.TriggerID != "" {
		if _, err := s.trigger(ctx, string(in.Body.TriggerID)); err != nil {
			return nil, err
		}
	}
	var asked []*hookRule
	for _, r := range rules.all {
		if (in.Body.TriggerID == "" || r.trigger.ID == in.Body.TriggerID) && (r.webhook.Source == agented.SourceGitHub) == event.GitHub {
			asked = append(asked, r)
		}
	}
	out := Matches{Event: event.Name, Action: event.Action, Subject: event.Subject(), Items: []WebhookMatch{}}
	for _, j := range s.judge(asked, event) {
		out.Items = append(out.Items, WebhookMatch{
			j.rule.trigger.ID, j.rule.trigger.Name, j.rule.webhook.ID, j.verdict.Fires, j.verdict.Rule, s.mask(j.verdict.Reason),
		})
	}
	return &output[Matches]{out}, nil
}

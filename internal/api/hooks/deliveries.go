package hooks

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
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Routes returns the routes of inbound webhooks and their deliveries.
func (h *Hooks) Routes() []rest.Route {
	const anyone, viewer, operator = agented.RoleNone, agented.RoleViewer, agented.RoleOperator
	fixed := func(name string) http.HandlerFunc { return h.receive(func(*http.Request) string { return name }) }
	named := h.receive(func(r *http.Request) string { return r.PathValue("trigger") })
	answers := map[string]*huma.Response{
		"202": {Description: "The delivery is stored with the executions that it fired", Content: map[string]*huma.MediaType{"application/json": {Schema: h.o.Router.SchemaOf(Received{})}}},
	}
	pong := map[string]*huma.Response{
		"200": {Description: "A ping", Content: map[string]*huma.MediaType{"application/json": {Schema: h.o.Router.SchemaOf(Pong{})}}}, "202": answers["202"],
	}
	body := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{}}}}
	failures := []int{http.StatusUnauthorized, http.StatusTooManyRequests}
	return []rest.Route{
		rest.Raw("POST /hooks/github", anyone, fixed(agented.EndpointGitHub), rest.About{
			ID: "receive-github", Tag: "webhooks", Summary: "Receive a GitHub event", MaxBody: noBound, Body: body, Answers: pong, Errors: failures,
			Text: "Verified by X-Hub-Signature-256, with the secret of a trigger or GITHUB_WEBHOOK_SECRET. Responds once the delivery and its executions are stored. A repeated X-GitHub-Delivery returns the ids of the first delivery.",
		}),
		rest.Raw("POST /api/webhooks/github", anyone, fixed(agented.EndpointGitHub), rest.About{
			ID: "receive-github-at-old-address", Tag: "webhooks", Summary: "Receive a GitHub event (old address)", MaxBody: noBound, Body: body, Answers: pong, Errors: failures,
			Text: "Same as /hooks/github.",
		}),
		// Paths with a trailing slash, for senders that add one, are not
		// documented.
		rest.Raw("POST /api/webhooks/github/{$}", anyone, fixed(agented.EndpointGitHub), rest.About{MaxBody: noBound}),
		rest.Raw("POST /hooks/{trigger}", anyone, named, rest.About{
			ID: "receive-webhook", Tag: "webhooks", Summary: "Receive a webhook call for a trigger", MaxBody: noBound, Body: body, Answers: pong, Errors: failures,
			Params: []*huma.Param{rest.PathParam("trigger", "The trigger's id, trg-…")},
			Text:   "Verified according to the trigger's webhook. An unknown trigger returns the same response as a wrong secret. A repeated delivery, identified by its delivery id, returns the ids of the first one. Slack and Discord receive the responses that they require.",
		}),
		rest.Raw("POST /hooks/github/{$}", anyone, fixed(agented.EndpointGitHub), rest.About{MaxBody: noBound}),
		rest.Raw("POST /hooks/{trigger}/{$}", anyone, named, rest.About{MaxBody: noBound}),
		rest.Raw("POST /hooks/{trigger}/{token}", anyone, named, rest.About{
			ID: "receive-webhook-token", Tag: "webhooks", Summary: "Receive a webhook call for a trigger (secret in the address)", MaxBody: noBound, Body: body, Answers: pong, Errors: failures,
			Params: []*huma.Param{rest.PathParam("trigger", "The trigger's id, trg-…"), rest.PathParam("token", "The secret of a bearer webhook, for senders that can only configure an address")},
			Text:   "Same as /hooks/{trigger}?token=SECRET.",
		}),
		rest.Raw("POST /{$}", anyone, fixed(agented.EndpointAny), rest.About{
			ID: "receive-webhook-by-secret", Tag: "webhooks", Summary: "Receive a webhook call by secret (old address)", MaxBody: noBound, Body: body, Answers: answers, Errors: failures,
			Text: "Fires the triggers whose webhook secret verifies the call. Prefer each trigger's own address.",
		}),

		rest.Op("GET /api/v1/deliveries", viewer, h.listDeliveries, rest.About{
			ID: "list-deliveries", Tag: "webhooks", Summary: "List deliveries",
			Text: "Lists all inbound calls and their results, newest first.",
		}),
		rest.Op("GET /api/v1/deliveries/{id}", viewer, h.getDelivery, rest.About{
			ID: "get-delivery", Tag: "webhooks", Summary: "Show a delivery", Errors: []int{http.StatusNotFound},
			Text: "Includes the body while it is stored, and for each trigger the first condition that did not match.",
		}),
		rest.Op("GET /api/v1/pull-sources", viewer, h.listPullSources, rest.About{
			ID: "list-pull-sources", Tag: "webhooks", Summary: "List the webhooks whose missed deliveries are fetched", Status: http.StatusOK,
			Text: "With a credential for GitHub's API, the server fetches deliveries that did not reach it. Lists how far it is for each webhook, and the rate limits of the credentials.",
		}),
		rest.Op("POST /api/v1/deliveries/{id}/replay", operator, h.replayDelivery, rest.About{
			ID: "replay-delivery", Tag: "webhooks", Summary: "Replay a delivery", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Evaluates the stored body against the current webhook rules and fires the triggers that match. The actor of the executions is the caller. Returns 409 if the body is no longer stored. Only an admin may replay a test to a trigger with a workspace.",
		}),
		rest.Op("POST /api/v1/triggers/{id}/webhooks/{webhook}/test", operator, h.testWebhook, rest.About{
			ID: "test-webhook", Tag: "webhooks", Summary: "Test a webhook", Status: http.StatusAccepted, MaxBody: webhook.MaxBody + 1<<20, Errors: []int{http.StatusNotFound},
			Text: "Makes a call as the webhook's sender would, signed with its secret, and processes it like an external call: it is verified, evaluated against the rules of this webhook, stored as a delivery that is marked as a test, and fires. The actor of the executions is the caller. The body is optional; only an admin may set it for a trigger with a workspace, since it names the commit that is checked out.",
		}).Reaching(rest.OwnTrigger),
		rest.Op("POST /api/v1/webhooks/match", viewer, h.matchWebhooks, rest.About{
			ID: "match-webhooks", Tag: "webhooks", Summary: "Match an event against webhook rules", Status: http.StatusOK, Errors: []int{http.StatusNotFound}, MaxBody: webhook.MaxBody + 1<<20,
			Text: "Evaluates an event against the rules of all triggers, without verifying or firing.",
		}),
	}
}

// DeliveryView is a delivery in responses.
type DeliveryView struct {
	ID            agented.DeliveryID      `json:"id" example:"dlv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Endpoint      string                  `json:"endpoint" doc:"github, any, or the id of the trigger whose address was called"`
	ReceivedAt    time.Time               `json:"received_at"`
	Address       string                  `json:"address" doc:"Address of the caller"`
	Event         string                  `json:"event"`
	Action        string                  `json:"action"`
	Key           string                  `json:"key" doc:"Identifies repeated deliveries; empty: repetitions cannot be detected"`
	Size          int64                   `json:"size" doc:"Size of the body in bytes"`
	Verdict       agented.DeliveryVerdict `json:"verdict" enum:"accepted,ignored,duplicate,rejected"`
	Reason        string                  `json:"reason"`
	DuplicateOf   agented.DeliveryID      `json:"duplicate_of,omitempty" doc:"The first delivery, if this is a repetition"`
	ReplayOf      agented.DeliveryID      `json:"replay_of,omitempty" doc:"The delivery that was replayed"`
	Test          bool                    `json:"test,omitempty" doc:"A user sent it to test a webhook"`
	Source        string                  `json:"source" enum:"call,pulled" doc:"call: received; pulled: fetched from GitHub's list of deliveries"`
	Actor         string                  `json:"actor,omitempty" doc:"Who replayed it, or sent the test"`
	ExecutionIDs  []agented.ExecutionID   `json:"execution_ids"`
	Triggers      []DeliveryTriggerView   `json:"triggers" doc:"The result for each trigger that it could have fired"`
	Headers       map[string]string       `json:"headers,omitempty" doc:"Headers that contain no secret; omitted in lists"`
	BodyStored    bool                    `json:"body_stored" doc:"The body is stored and can be replayed"`
	Body          *string                 `json:"body,omitempty" doc:"The body, or its beginning; omitted in lists and when it is not stored"`
	BodyEncoding  string                  `json:"body_encoding,omitempty" enum:"text,base64" doc:"Encoding of body"`
	BodyTruncated bool                    `json:"body_truncated,omitempty" doc:"body contains only the first 256 KiB"`
}

// DeliveryTriggerView is the result of a delivery for one trigger.
type DeliveryTriggerView struct {
	TriggerID   agented.TriggerID   `json:"trigger_id"`
	TriggerName string              `json:"trigger_name"`
	WebhookID   string              `json:"webhook_id"`
	Fired       bool                `json:"fired"`
	Rule        string              `json:"rule,omitempty" doc:"The condition or guard that did not match"`
	Reason      string              `json:"reason,omitempty" doc:"rule as a sentence"`
	ExecutionID agented.ExecutionID `json:"execution_id,omitempty"`
}

// maxShownBody limits the body in a response, in bytes.
const maxShownBody = 256 << 10

func (h *Hooks) showDelivery(d *agented.Delivery) DeliveryView {
	v := DeliveryView{
		ID: d.ID, Endpoint: d.Endpoint, ReceivedAt: rest.Time(d.ReceivedAt), Address: d.Address, Event: d.Event, Action: d.Action,
		Key: d.Key, Size: d.Size, Verdict: d.Verdict, Reason: h.o.Mask(d.Reason),
		DuplicateOf: d.DuplicateOf, ReplayOf: d.ReplayOf, Test: d.Test(), Source: "call", Actor: d.Actor, ExecutionIDs: d.Executions(),
		Triggers: []DeliveryTriggerView{}, BodyStored: d.BodyKept,
	}
	if d.Pulled {
		v.Source = "pulled"
	}
	for _, t := range d.Triggers {
		v.Triggers = append(v.Triggers, DeliveryTriggerView{t.Trigger, t.TriggerName, t.Webhook, t.Fired, t.Rule, h.o.Mask(t.Reason), t.Execution})
	}
	return v
}

type deliveryListInput struct {
	Limit    int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor   string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	Verdict  string    `query:"verdict" enum:"accepted,ignored,duplicate,rejected" doc:"Only those with this verdict"`
	Endpoint string    `query:"endpoint" maxLength:"100" doc:"Only those at this endpoint: github, any, or a trigger's id"`
	Trigger  string    `query:"trigger_id" maxLength:"100" doc:"Only those that could have fired this trigger"`
	Event    string    `query:"event" maxLength:"100" doc:"Only this event, for example push"`
	After    time.Time `query:"received_after" doc:"Only those received at this time or later"`
	Before   time.Time `query:"received_before" doc:"Only those received before this time"`
}

func (h *Hooks) listDeliveries(ctx context.Context, in *deliveryListInput) (*rest.ListOutput[DeliveryView], error) {
	items, next, err := h.o.DB.Deliveries(ctx, store.DeliveryFilter{
		Verdict: agented.DeliveryVerdict(in.Verdict), Endpoint: in.Endpoint, Trigger: agented.TriggerID(in.Trigger), Event: in.Event,
		After: in.After, Before: in.Before,
	}, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, h.showDelivery), nil
}

type deliveryPath struct {
	ID string `path:"id" maxLength:"100" doc:"The delivery's id, dlv-…"`
}

func (h *Hooks) delivery(ctx context.Context, id string) (*agented.Delivery, error) {
	if !agented.ValidID("dlv", id) {
		return nil, agented.Errorf(agented.NotFound, "no delivery has this id")
	}
	return h.o.DB.Delivery(ctx, agented.DeliveryID(id))
}

func (h *Hooks) getDelivery(ctx context.Context, in *deliveryPath) (*rest.Output[DeliveryView], error) {
	d, err := h.delivery(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	v := h.showDelivery(d)
	v.Headers = d.Headers
	body, err := h.o.DB.DeliveryBody(ctx, d.ID)
	switch {
	case err != nil && agented.KindOf(err) == agented.NotFound:
		return rest.Reply(v), nil
	case err != nil:
		return nil, err
	}
	text := ""
	if v.BodyEncoding = "text"; utf8.Valid(body) {
		text = h.o.Mask(string(body)) // before truncation: the masker does not recognise half a secret
		if v.BodyTruncated = len(text) > maxShownBody; v.BodyTruncated {
			text = strings.ToValidUTF8(text[:maxShownBody], "")
		}
	} else {
		v.BodyEncoding = "base64"
		if v.BodyTruncated = len(body) > maxShownBody; v.BodyTruncated {
			body = body[:maxShownBody]
		}
		text = base64.StdEncoding.EncodeToString(body)
	}
	v.Body = &text
	return rest.Reply(v), nil
}

func (h *Hooks) replayDelivery(ctx context.Context, in *deliveryPath) (*rest.Output[Received], error) {
	d, err := h.delivery(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	got, err := h.o.Intake.Replay(ctx, d, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	h.o.Note(ctx, "delivery.replay", in.ID, string(got.Delivery.ID))
	return h.received(got), nil
}

// MatchInput is an event to evaluate.
type MatchInput struct {
	Event     string            `json:"event,omitempty" maxLength:"100" doc:"GitHub's name of the event, for example pull_request. Omitted: the body is not from GitHub"`
	Headers   map[string]string `json:"headers,omitempty" maxProperties:"50" doc:"Headers that identify the call, such as X-Gitea-Event, X-Event-Key and Content-Type"`
	TriggerID agented.TriggerID `json:"trigger_id,omitempty" doc:"Only this trigger"`
	Body      json.RawMessage   `json:"body" doc:"The body of the call, as JSON. With another Content-Type in headers, a string is the text of the body"`
}

// WebhookMatch is the result for the webhooks of one trigger.
type WebhookMatch struct {
	TriggerID   agented.TriggerID `json:"trigger_id"`
	TriggerName string            `json:"trigger_name"`
	WebhookID   string            `json:"webhook_id"`
	Fires       bool              `json:"fires"`
	Rule        string            `json:"rule,omitempty" doc:"The condition or guard that did not match"`
	Reason      string            `json:"reason,omitempty" doc:"rule as a sentence"`
}

// Matches is the result of the rules for an event.
type Matches struct {
	Event   string         `json:"event"`
	Action  string         `json:"action"`
	Subject string         `json:"subject" doc:"What the event is about, for supersede; empty: nothing that other events could share"`
	Items   []WebhookMatch `json:"items"`
}

// call returns the headers and the body of the event's call.
func (in *MatchInput) call() (http.Header, []byte) {
	header, body := http.Header{"Content-Type": {"application/json"}}, []byte(in.Body)
	for name, value := range in.Headers {
		header.Set(name, value)
	}
	header.Del("Content-Encoding") // the body is already decompressed
	switch {
	case in.Event == "":
	case strings.Contains(in.Event, ":"):
		header.Set("X-Event-Key", in.Event)
	default:
		header.Set("X-Github-Event", in.Event)
	}
	var text string
	if media := header.Get("Content-Type"); !strings.HasPrefix(media, "application/json") && json.Unmarshal(body, &text) == nil {
		body = []byte(text)
	}
	return header, body
}

func (h *Hooks) matchWebhooks(ctx context.Context, in *rest.Input[MatchInput]) (*rest.Output[Matches], error) {
	header, body := in.Body.call()
	event, err := webhook.Parse(header, body)
	if err != nil {
		return nil, err
	}
	if in.Body.TriggerID != "" {
		if _, err := h.o.Trigger(ctx, string(in.Body.TriggerID)); err != nil {
			return nil, err
		}
	}
	matches, err := h.o.Intake.Match(event, in.Body.TriggerID)
	if err != nil {
		return nil, err
	}
	out := Matches{Event: event.Name, Action: event.Action, Subject: event.Subject(), Items: []WebhookMatch{}}
	for _, m := range matches {
		out.Items = append(out.Items, WebhookMatch{
			m.Trigger.ID, m.Trigger.Name, m.Webhook, m.Result.Fires, m.Result.Rule, h.o.Mask(m.Result.Reason),
		})
	}
	return rest.Reply(out), nil
}

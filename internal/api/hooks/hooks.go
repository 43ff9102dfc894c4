// Package hooks has the handlers of inbound webhooks: it answers their senders,
// shows deliveries, and converts the webhooks of triggers.
package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/intake"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Options configures Hooks. All fields are required.
type Options struct {
	DB     *store.DB
	Intake *intake.Intake
	Sealer auth.Sealer
	Router *rest.Router
	Now    func() time.Time
	Mask   func(string) string // masks known secrets
	// Note adds an audit entry for an action of the caller.
	Note func(ctx context.Context, action, subject, detail string)
	// Pulls returns what is fetched from GitHub, nil if nothing is.
	Pulls func() *Pulls
	// Trigger returns the trigger with an id from a request.
	Trigger func(ctx context.Context, id string) (*agented.Trigger, error)
}

// Hooks handles the requests about webhooks and deliveries.
type Hooks struct{ o Options }

// New returns the handlers.
func New(o Options) *Hooks { return &Hooks{o} }

// Received is the response to a webhook call.
type Received struct {
	DeliveryID   agented.DeliveryID      `json:"delivery_id" example:"dlv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Verdict      agented.DeliveryVerdict `json:"verdict" enum:"accepted,ignored,duplicate"`
	Duplicate    bool                    `json:"duplicate,omitempty" doc:"The delivery was received before; the ids are those of the first one"`
	Reason       string                  `json:"reason,omitempty" doc:"Why no execution was fired"`
	ExecutionIDs []agented.ExecutionID   `json:"execution_ids"`
}

// Pong is the response to GitHub's ping event.
type Pong struct {
	Pong       bool               `json:"pong"`
	DeliveryID agented.DeliveryID `json:"delivery_id"`
}

// receive returns the handler of one endpoint. The endpoint selects the rules,
// and whether the server's own secret applies.
func (h *Hooks) receive(endpoint func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		got, event, err := h.o.Intake.Receive(w, r, rest.Address(r), endpoint(r))
		if err == nil {
			err = answerCall(w, got, event)
		}
		if bad, is := errors.AsType[*intake.ContentError](err); is {
			err = &rest.Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: agented.Message(bad)}
		}
		if err != nil {
			rest.Fail(w, r, err)
		}
	}
}

// answerCall responds to a webhook call in the form that its sender requires.
func answerCall(w http.ResponseWriter, got store.DeliveryResult, event *webhook.Event) error {
	if a, is := event.Challenge(); is {
		return answerSender(w, a)
	}
	if event.Ping() {
		return answerJSON(w, http.StatusOK, Pong{true, got.Delivery.ID})
	}
	if a, is := event.Reply(replyText(got)); is {
		return answerSender(w, a)
	}
	out := Received{DeliveryID: got.Delivery.ID, Verdict: got.Verdict(), Duplicate: got.Duplicate, ExecutionIDs: got.Delivery.Executions()}
	if out.Verdict == agented.VerdictIgnored {
		// The sender is verified, but names and rules of triggers are not for
		// every holder of a secret.
		out.Reason = "no rule matched; the stored delivery has the condition that failed"
	}
	return answerJSON(w, http.StatusAccepted, out)
}

func answerJSON(w http.ResponseWriter, status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// answerSender responds in the form that the sender requires.
func answerSender(w http.ResponseWriter, a webhook.Answer) error {
	if a.Body == nil {
		w.WriteHeader(a.Status)
		return nil
	}
	return answerJSON(w, a.Status, a.Body)
}

// replyText is the text that the sender's own user interface, such as Slack,
// shows to the user who caused the call.
func replyText(got store.DeliveryResult) string {
	var ids []string
	for _, id := range got.Delivery.Executions() {
		ids = append(ids, string(id))
	}
	switch {
	case len(ids) > 0:
		return "Accepted: " + strings.Join(ids, ", ")
	case got.Duplicate:
		return "This was received before."
	}
	return "No trigger matches this. See delivery " + string(got.Delivery.ID) + " for the reason."
}

// noBound leaves the limit of a body to the handler, which returns a specific
// error.
const noBound = math.MaxInt64

// HookTest is the optional content of a test call of a webhook.
type HookTest struct {
	Event string          `json:"event,omitempty" maxLength:"100" doc:"For source github: the event, with or without an action, for example pull_request.opened. Default: the first event that the webhook matches, otherwise push"`
	Body  json.RawMessage `json:"body,omitempty" doc:"The body, as JSON. Default: a small sample"`
}

type hookTestInput struct {
	ID      string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	Webhook string `path:"webhook" maxLength:"100" doc:"The webhook's id, whk-…"`
	Body    *HookTest
}

// testWebhook sends a call to one webhook as its sender would. Only the network
// is skipped.
func (h *Hooks) testWebhook(ctx context.Context, in *hookTestInput) (*rest.Output[Received], error) {
	t, err := h.o.Trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	want := intake.TestCall{}
	if in.Body != nil {
		want = intake.TestCall{Event: in.Body.Event, Body: in.Body.Body}
	}
	test, err := h.o.Intake.NewTest(ctx, t.ID, in.Webhook, want, rest.Principal(ctx).Name)
	if err != nil {
		return nil, err
	}
	if want.HasBody() && !rest.Principal(ctx).May(agented.RoleAdmin) {
		works, err := h.o.Intake.WorksInCheckout(ctx, t)
		if err != nil {
			return nil, err
		}
		if works {
			return nil, agented.Errorf(agented.Denied,
				"body: only an admin may set it for a trigger with a workspace, since it names the commit whose code runs; omit it to send the sample")
		}
	}
	h.o.Note(ctx, "webhook.test", in.ID, t.Name+": "+string(test.Delivery()))
	got, err := test.Run(ctx)
	if err != nil {
		return nil, err
	}
	return h.received(got), nil
}

// received converts a result for a caller who may see its reason.
func (h *Hooks) received(got store.DeliveryResult) *rest.Output[Received] {
	return rest.Reply(Received{
		DeliveryID: got.Delivery.ID, Verdict: got.Verdict(), Duplicate: got.Duplicate,
		Reason: h.o.Mask(got.Delivery.Reason), ExecutionIDs: got.Delivery.Executions(),
	})
}

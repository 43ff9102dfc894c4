package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Inbound is a verified webhook delivery with the results of the webhook rules.
type Inbound struct {
	Delivery agented.Delivery // with ID, Endpoint, Key and the request's metadata
	Body     []byte
	Event    *webhook.Event
	Rules    string // store.HookVersion of the evaluated rules
	Hits     []Hit  // one per trigger that the delivery could fire
}

// Hit is the result of the webhook rules for one trigger.
type Hit struct {
	Trigger *agented.Trigger
	Webhook agented.Webhook // the webhook that fires, or the first that did not match
	Verdict webhook.MatchResult
}

// Deliver stores a delivery together with the executions that it fires, in one transaction, and
// starts them. If the result is Stale, the rules have changed, nothing was stored, and the rules
// must be evaluated again.
func (d *Dispatcher) Deliver(ctx context.Context, in Inbound) (store.DeliveryResult, error) {
	now := d.now()
	a := store.DeliveryAdmission{Delivery: in.Delivery, Body: in.Body, Rules: in.Rules}
	subject := ""
	if in.Event != nil {
		subject = in.Event.Subject()
		a.CausedBy, a.Repository, a.Limits = d.causedBy(in.Event), in.Event.Repository, d.chainLimits()
	}
	for _, h := range in.Hits {
		f := store.DeliveryFiring{DeliveryTrigger: agented.DeliveryTrigger{
			Trigger: h.Trigger.ID, TriggerName: h.Trigger.Name, Webhook: h.Webhook.ID, Rule: h.Verdict.Rule, Reason: h.Verdict.Reason,
		}}
		if h.Verdict.Fires {
			e, err := d.fromEvent(in, h)
			if err != nil {
				// An error of one trigger must not keep the others from firing.
				if agented.KindOf(err) == agented.Internal {
					return store.DeliveryResult{}, err
				}
				f.Rule, f.Reason = "prompt", agented.Message(err)
				f.Admission = RefusedFiring(e, err)
			} else {
				f.Admission = &store.Admission{
					Execution: e, MaxConcurrent: e.Snapshot.MaxConcurrent, Overlap: e.Snapshot.Overlap,
					Subject:   subject,
					Supersede: h.Webhook.Supersede && in.Delivery.ReplayOf == "", // a replay is not newer
				}
			}
		}
		a.Triggers = append(a.Triggers, f)
	}
	got, err := d.o.DB.AdmitDelivery(ctx, a, now)
	if err != nil || got.Duplicate || got.Stale {
		return got, err
	}
	if d.o.BodyStored != nil {
		d.o.BodyStored(len(in.Body))
	}
	for _, id := range got.Replaced {
		d.Stop(id)
	}
	if got.Delivery.Verdict == agented.VerdictAccepted {
		d.Wake()
	}
	return got, nil
}

// fromEvent builds the execution that a delivery fires. The sender's text is used in the prompt
// only, and it is fenced.
func (d *Dispatcher) fromEvent(in Inbound, h Hit) (*agented.Execution, error) {
	raw := in.Event.Values()
	raw["arguments"] = h.Verdict.Arguments
	values, err := fence(raw)
	if err != nil {
		return nil, err
	}
	actor := "webhook"
	if h.Webhook.Source == agented.SourceGitHub {
		actor = strings.TrimSpace("github " + printable(in.Event.Sender))
	}
	if by := in.Delivery.Actor; by != "" {
		actor = by // the user who sent the test or the replay, instead of the sender named in its body
	}
	e, err := d.Admissible(Firing{
		Trigger: h.Trigger, Source: h.Webhook.Source, Actor: actor, Message: values["message"], Values: values, Raw: raw,
		PublishTo: publishTo(h.Webhook.Source, in.Event),
	}, d.now())
	if e != nil {
		e.Cause = &agented.Origin{Kind: h.Webhook.Source, Delivery: in.Delivery.ID}
	}
	return e, err
}

// fence converts the values of an event to the form that a prompt may contain.
func fence(raw map[string]string) (map[string]string, error) {
	for try := 0; ; try++ {
		values, err := webhook.Fence(raw, webhook.NewBoundary())
		if err == nil || !errors.Is(err, agented.Conflict) || try == 3 {
			if err != nil {
				err = fmt.Errorf("fence: %w", err)
			}
			return values, err
		}
	}
}

// printable shortens an external name for display.
func printable(name string) string {
	name = strings.Join(strings.Fields(webhook.Clean(name)), " ")
	if r := []rune(name); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return name
}

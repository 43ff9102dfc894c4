package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Inbound is a genuine call from outside and what the rules said about it.
type Inbound struct {
	Delivery agented.Delivery // ID, Endpoint, Key and what is known of the call
	Body     []byte
	Event    *webhook.Event
	Rules    string // store.HookVersion of the rules that were asked
	Hits     []Hit  // one for each trigger that the call could fire
}

// Hit is what the rules said about one trigger.
type Hit struct {
	Trigger *agented.Trigger
	Webhook agented.Webhook // the one that fires, or the one that said no first
	Verdict webhook.Verdict
}

// Deliver stores a call with the executions that it fires, in one transaction,
// and starts them. A result that is Stale has stored nothing: the rules have
// changed, and have to be asked again.
func (d *Dispatcher) Deliver(ctx context.Context, in Inbound) (store.DeliveryResult, error) {
	now := d.now()
	a := store.DeliveryAdmission{Delivery: in.Delivery, Body: in.Body, Rules: in.Rules}
	subject := ""
	if in.Event != nil {
		subject = in.Event.Subject()
	}
	for _, h := range in.Hits {
		f := store.DeliveryFiring{DeliveryTrigger: agented.DeliveryTrigger{
			Trigger: h.Trigger.ID, TriggerName: h.Trigger.Name, Webhook: h.Webhook.ID, Rule: h.Verdict.Rule, Reason: h.Verdict.Reason,
		}}
		if h.Verdict.Fires {
			e, err := d.fromEvent(in, h)
			if err != nil {
				// One trigger that cannot take it must not keep the others from it.
				if agented.KindOf(err) == agented.Internal {
					return store.DeliveryResult{}, err
				}
				f.Rule, f.Reason = "prompt", agented.Message(err)
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
	d.kept(len(in.Body))
	for _, id := range got.Replaced {
		d.stop(id)
	}
	if got.Delivery.Verdict == agented.VerdictAccepted {
		d.Wake()
	}
	return got, nil
}

// fromEvent makes the execution that a call fires. What the caller wrote goes
// into the prompt and nowhere else, fenced.
func (d *Dispatcher) fromEvent(in Inbound, h Hit) (*agented.Execution, error) {
	values, err := fence(in.Event, h.Verdict)
	if err != nil {
		return nil, err
	}
	actor := "webhook"
	if h.Webhook.Source == agented.SourceGitHub {
		actor = strings.TrimSpace("github " + printable(in.Event.Sender))
	}
	e, err := d.admissible(Firing{Trigger: h.Trigger, Source: h.Webhook.Source, Actor: actor, Message: values["message"], Values: values}, d.now())
	if err != nil {
		return nil, err
	}
	e.Cause = &agented.Origin{Kind: h.Webhook.Source, Delivery: in.Delivery.ID}
	return e, nil
}

// fence returns the values of an event in the form in which a prompt may have
// them.
func fence(e *webhook.Event, v webhook.Verdict) (map[string]string, error) {
	raw := e.Values()
	raw["arguments"] = v.Arguments
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

// printable is a short name from outside for people to read.
func printable(name string) string {
	name = strings.Join(strings.Fields(webhook.Clean(name)), " ")
	if r := []rune(name); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return name
}

// Limits of what deliveries keep.
const (
	bodiesFor   = 30 * 24 * time.Hour // for which bodies are kept
	bodiesBytes = 1 << 30             // of all bodies, as they are stored
	refusedRows = 10000               // refused calls, and repetitions, that are kept, each
	pruneAfter  = 64 << 20            // bytes of bodies that come before it is looked again
)

// kept notes that a body was stored, and has the pruning look when there were
// many.
func (d *Dispatcher) kept(bytes int) {
	if d.bodies.Add(int64(bytes)) > pruneAfter {
		select {
		case d.prune <- struct{}{}:
		default:
		}
	}
}

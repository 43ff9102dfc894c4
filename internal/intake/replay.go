package intake

import (
	"context"
	"net/http"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Replay evaluates the stored body of a delivery against the current rules and
// fires the triggers that match. It returns Conflict if the body is no longer
// stored.
func (in *Intake) Replay(ctx context.Context, d *agented.Delivery, by agented.Principal) (store.DeliveryResult, error) {
	var none store.DeliveryResult
	body, err := in.o.DB.DeliveryBody(ctx, d.ID)
	if err != nil {
		if agented.KindOf(err) == agented.NotFound {
			err = agented.Errorf(agented.Conflict, "%s", agented.Message(err))
		}
		return none, err
	}
	header := http.Header{}
	for name, value := range d.Headers {
		header.Set(name, value)
	}
	event, err := webhook.Parse(header, body)
	if err != nil {
		return none, err
	}
	for try := 0; ; try++ {
		if try == staleTries {
			release := in.o.DB.HoldRules()
			defer release()
		}
		current, err := in.current()
		if err != nil {
			return none, err
		}
		now := in.o.Now()
		again := agented.Delivery{
			ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: d.Endpoint, ReceivedAt: now, Address: d.Address,
			Headers: d.Headers, Event: event.Name, Action: event.Action, Size: d.Size, ServerProof: d.ServerProof,
			ReplayOf: d.ID, Actor: by.Name,
		}
		list := in.evaluate(replayed(d, current), event)
		if err := in.mayReplay(ctx, d, list, by); err != nil {
			return none, err
		}
		got, err := in.o.Deliver(ctx, dispatch.Inbound{
			Delivery: again, Body: body, Event: event, Rules: current.version, Hits: hits(list),
		})
		if err != nil {
			return none, err
		}
		if got.Stale && try < staleTries {
			continue
		}
		if got.Stale {
			return none, errStaleRules
		}
		in.o.Count(got.Verdict())
		in.o.Changed()
		in.o.Delivered(ctx, got)
		return got, nil
	}
}

// mayReplay rejects an operator's replay of a test that would check out code,
// because no sender vouches for the commit that its body names.
func (in *Intake) mayReplay(ctx context.Context, d *agented.Delivery, list []ruleResult, by agented.Principal) error {
	if by.May(agented.RoleAdmin) {
		return nil
	}
	test, err := in.startedAsTest(ctx, d)
	if err != nil || !test {
		return err
	}
	for _, j := range list {
		if !j.verdict.Fires {
			continue
		}
		works, err := in.WorksInCheckout(ctx, j.rule.trigger)
		if err != nil {
			return err
		}
		if works {
			return agented.Errorf(agented.Denied,
				"only an admin may replay a test to a trigger with a workspace, since its body names the commit whose code runs")
		}
	}
	return nil
}

// startedAsTest reports whether the first delivery of a chain of replays was a
// test, or is no longer stored.
func (in *Intake) startedAsTest(ctx context.Context, d *agented.Delivery) (bool, error) {
	for range 100 {
		if d.ReplayOf == "" {
			return d.Test(), nil
		}
		before, err := in.o.DB.Delivery(ctx, d.ReplayOf)
		if agented.KindOf(err) == agented.NotFound {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		d = before
	}
	return true, nil
}

// replayed returns the rules that a replay evaluates: those of the triggers for
// which the call was verified, and those that its proof would satisfy today.
func replayed(d *agented.Delivery, current *rules) []*rule {
	were := map[agented.TriggerID]bool{}
	for _, t := range d.Triggers {
		were[t.Trigger] = true
	}
	var out []*rule
	for _, r := range current.all {
		own := d.Endpoint == string(r.trigger.ID)
		github := d.Endpoint == agented.EndpointGitHub && r.webhook.Source == agented.SourceGitHub
		signed := d.Endpoint == agented.EndpointAny && r.webhook.Source == agented.SourceWebhook
		if own || github && (were[r.trigger.ID] || d.ServerProof && r.secret == "") || signed && were[r.trigger.ID] {
			out = append(out, r)
		}
	}
	return out
}

// Match is the result of the rules of a trigger for an event.
type Match struct {
	Trigger *agented.Trigger
	Webhook string // id
	Result  webhook.MatchResult
}

// Match evaluates an event against the rules of a trigger, or of all triggers if
// trigger is empty, without verifying or firing.
func (in *Intake) Match(event *webhook.Event, trigger agented.TriggerID) ([]Match, error) {
	current, err := in.current()
	if err != nil {
		return nil, err
	}
	var asked []*rule
	for _, r := range current.all {
		if (trigger == "" || r.trigger.ID == trigger) && acceptsEvent(r, event) {
			asked = append(asked, r)
		}
	}
	var out []Match
	for _, j := range in.evaluate(asked, event) {
		out = append(out, Match{j.rule.trigger, j.rule.webhook.ID, j.verdict})
	}
	return out, nil
}

// acceptsEvent reports whether calls like the event can reach the webhook.
func acceptsEvent(r *rule, e *webhook.Event) bool {
	if r.webhook.Source == agented.SourceGitHub || r.auth.Kind == webhook.KindGitHub || r.auth.Kind == webhook.KindGitea {
		return e.GitHub
	}
	return !e.GitHub
}

package intake

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Hook is a webhook of GitHub whose deliveries the server fetches itself.
type Hook struct {
	// Endpoint is the address of the webhook: agented.EndpointGitHub, or a
	// trigger's id.
	Endpoint string
	// Repository is the repository of the webhook, OWNER/NAME; empty for that of
	// an organization or an App.
	Repository string
	// App marks the webhook of an App. Accounts that installed it cause its
	// deliveries, so that a trigger with a secret of its own accepts none.
	App bool
}

// createdMargin is how much earlier than its creation a trigger accepts pulled
// deliveries, for clocks that differ.
const createdMargin = time.Minute

// rules returns the rules that deliveries of the hook at a time may satisfy.
// GitHub's API vouches for them in place of a signature. A trigger fires for no
// delivery from before it was created.
func (h Hook) rules(current *rules, at time.Time) []*rule {
	list := current.github
	if h.Endpoint != agented.EndpointGitHub {
		list = current.trigger[agented.TriggerID(h.Endpoint)]
	}
	var out []*rule
	for _, r := range list {
		if r.webhook.Source == agented.SourceGitHub && (!h.App || r.secret == "") && !r.trigger.CreatedAt.After(at.Add(createdMargin)) {
			out = append(out, r)
		}
	}
	return out
}

// Filter selects deliveries of a hook that some rule could match, by what
// GitHub's list of deliveries contains.
type Filter struct {
	hook  Hook
	rules []*rule // of enabled triggers
}

// Filter returns the filter of a hook.
func (in *Intake) Filter(h Hook) (*Filter, error) {
	current, err := in.current()
	if err != nil {
		return nil, err
	}
	f := &Filter{hook: h}
	for _, r := range h.rules(current, in.o.Now().Add(time.Hour)) {
		if r.trigger.Enabled && r.webhook.Enabled {
			f.rules = append(f.rules, r)
		}
	}
	return f, nil
}

// Since returns the creation of the oldest trigger that deliveries could fire,
// false if there is none.
func (f *Filter) Since() (at time.Time, any bool) {
	for _, r := range f.rules {
		if at.IsZero() || r.trigger.CreatedAt.Before(at) {
			at = r.trigger.CreatedAt
		}
	}
	return at.Add(-createdMargin), len(f.rules) > 0
}

// Wants reports whether a delivery could fire a trigger.
func (f *Filter) Wants(event, action string, at time.Time) bool {
	return slices.ContainsFunc(f.rules, func(r *rule) bool {
		return !r.trigger.CreatedAt.After(at.Add(createdMargin)) && r.match.MayMatch(event, action, f.hook.Repository)
	})
}

// Repositories returns the repositories that rules of enabled triggers name
// without a pattern.
func (in *Intake) Repositories() ([]string, error) {
	current, err := in.current()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range current.github {
		if r.trigger.Enabled && r.webhook.Enabled {
			for _, name := range r.match.Repositories {
				if !strings.ContainsAny(name, "*?!") && strings.Count(name, "/") == 1 {
					out = append(out, strings.ToLower(name))
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Pulled is a delivery that the server fetched.
type Pulled struct {
	Hook Hook
	GUID string
	At   time.Time // when GitHub delivered it first
	From string    // host of the API
	// Header and Body are what GitHub sent. An empty body is one that GitHub no
	// longer has; Problem states why.
	Header  http.Header
	Body    []byte
	Event   string
	Action  string
	Problem string
}

// PulledKey returns the key of a delivery with a GUID in the ledger.
func PulledKey(guid string) string { return "github:" + guid }

// Pull stores a fetched delivery with the executions that it fires, as if it had
// been received: a delivery that was received before fires nothing. One that
// cannot be read is stored as rejected.
func (in *Intake) Pull(ctx context.Context, p Pulled) (store.DeliveryResult, error) {
	now := in.o.Now()
	d := agented.Delivery{
		ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: p.Hook.Endpoint, ReceivedAt: now, Address: format.Clip(p.From, maxRecorded),
		Headers: webhook.LedgerHeaders(p.Header), Event: format.Clip(webhook.Clean(p.Event), maxRecorded), Action: format.Clip(webhook.Clean(p.Action), maxRecorded),
		Size: int64(len(p.Body)), Pulled: true, ServerProof: true,
	}
	if p.Problem != "" {
		return in.rejectPulled(ctx, d, p.Problem)
	}
	event, err := webhook.Parse(p.Header, p.Body)
	if err != nil {
		return in.rejectPulled(ctx, d, agented.Message(err))
	}
	d.Event, d.Action = event.Name, event.Action
	d.Key, err = webhook.Auth{Kind: webhook.KindGitHub}.DeliveryKey(webhook.Proof{}, p.Header, event)
	if err != nil || d.Key != PulledKey(p.GUID) || event.Name != p.Event {
		return in.rejectPulled(ctx, d, "GitHub's API returned another delivery than the one in its list")
	}
	for try := 0; ; try++ {
		if try == staleTries {
			release := in.o.DB.HoldRules()
			defer release()
		}
		current, err := in.current()
		if err != nil {
			return store.DeliveryResult{}, err
		}
		got, err := in.o.Deliver(ctx, dispatch.Inbound{
			Delivery: d, Body: event.Sent, Event: event, Rules: current.version, Hits: hits(in.evaluate(p.Hook.rules(current, p.At), event)),
		})
		if err != nil {
			return got, err
		}
		if got.Stale && try < staleTries {
			continue
		}
		if got.Stale {
			return got, errStaleRules
		}
		in.o.Count(got.Verdict())
		in.o.Changed()
		in.o.Delivered(ctx, got)
		return got, nil
	}
}

// rejectPulled stores a delivery that cannot be read.
func (in *Intake) rejectPulled(ctx context.Context, d agented.Delivery, reason string) (store.DeliveryResult, error) {
	d.Verdict, d.Reason = agented.VerdictRejected, reason
	in.o.Count(agented.VerdictRejected)
	if err := in.o.DB.RejectDelivery(ctx, d); err != nil {
		return store.DeliveryResult{}, err
	}
	in.o.Changed()
	in.o.Log.Warn("a delivery of GitHub's could not be fetched", "delivery", d.ID, "event", d.Event, "reason", reason)
	return store.DeliveryResult{Delivery: d}, nil
}

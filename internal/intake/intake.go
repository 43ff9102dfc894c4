// Package intake receives inbound webhook calls. It verifies each call over its
// raw bytes, evaluates the webhook rules of the triggers, and stores the
// delivery together with the executions that it fires. Rejected calls are stored
// within limits, and the memory for bodies of unverified calls is limited.
package intake

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/config"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/ratelimit"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// Rate limits of rejected calls per address, and of those that are stored.
// Verified calls are not counted.
const (
	refusedBurst, refusedEvery = 60, time.Second
	storedBurst, storedEvery   = 20, 6 * time.Second
	storedAll, storedAllEvery  = 120, time.Second
)

// Options configures an Intake. Fields are required unless stated otherwise.
type Options struct {
	DB     *store.DB
	Sealer auth.Sealer
	Log    *slog.Logger
	Now    func() time.Time
	// Config returns the current settings: the server's own webhook secret and
	// GitHub logins.
	Config func() *config.Config
	// Deliver stores a delivery with the executions that it fires.
	Deliver func(context.Context, dispatch.Inbound) (store.DeliveryResult, error)
	// SecretsChanged is called when Secrets may have changed; may be nil.
	SecretsChanged func()
	// Count counts a call by its verdict.
	Count func(agented.DeliveryVerdict)
	// Changed is called when a delivery was stored, and Delivered in addition if
	// it was not rejected.
	Changed   func()
	Delivered func(context.Context, store.DeliveryResult)
}

// Intake receives webhook calls.
type Intake struct {
	o Options

	mu      sync.Mutex // serialises loading
	rules   atomic.Pointer[rules]
	bodies  *bodyBudget
	refused *ratelimit.Limiter
	dropped atomic.Int64 // rejections that were not stored since the last stored one
}

// New returns an Intake that has not loaded the rules yet.
func New(o Options) *Intake {
	return &Intake{o: o, bodies: newBodyBudget(bodyMemory, bodyNetwork), refused: ratelimit.New()}
}

// Secrets returns the webhook secrets that have been loaded, for masking.
func (in *Intake) Secrets() []string {
	if r := in.rules.Load(); r != nil {
		return r.secrets
	}
	return nil
}

// Load loads all webhooks, so that their secrets are masked before the first
// call arrives.
func (in *Intake) Load() error {
	_, err := in.current()
	return err
}

// BodiesInUse returns the bytes of bodies that are held in memory, and the
// number of networks that they come from.
func (in *Intake) BodiesInUse() (bytes int64, networks int) { return in.bodies.inUse() }

// ContentError is an error about the content of a call. Senders expect status
// 400 for it.
type ContentError struct{ Err error }

func (e *ContentError) Error() string { return e.Err.Error() }

// Unwrap returns the error without its status.
func (e *ContentError) Unwrap() error { return e.Err }

// content marks an Invalid error as a ContentError.
func content(err error) error {
	if agented.KindOf(err) == agented.Invalid {
		return &ContentError{err}
	}
	return err
}

// call is one webhook call that is being processed.
type call struct {
	r        *http.Request
	remote   netip.Addr // invalid for a unix socket
	endpoint string
	body     []byte
	now      time.Time
	delivery agented.Delivery
	only     string // for a test: id of the only webhook to evaluate
	proofs   map[string]verification
}

// Receive processes a call that an address sent to an endpoint: a trigger's id,
// agented.EndpointGitHub or agented.EndpointAny. The endpoint selects the rules,
// and whether the server's own secret applies. An invalid address stands for a
// unix socket.
func (in *Intake) Receive(w http.ResponseWriter, r *http.Request, remote netip.Addr, endpoint string) (store.DeliveryResult, *webhook.Event, error) {
	now := in.o.Now()
	c := &call{r: r, remote: remote, endpoint: endpoint, now: now}
	address := "unix"
	if remote.IsValid() {
		address = remote.String()
	}
	c.delivery = agented.Delivery{
		ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: format.Clip(endpoint, maxRecorded), ReceivedAt: now,
		Address: address, Headers: webhook.LedgerHeaders(r.Header), Event: c.eventName(),
	}
	body, release, err := in.read(w, r, ratelimit.Network(remote))
	defer release()
	if err != nil {
		return store.DeliveryResult{}, nil, in.reject(c, err, agented.Message(err))
	}
	c.body, c.delivery.Size = body, int64(len(body))
	got, event, reason, err := in.admit(r.Context(), c)
	if err != nil && reason != "" {
		err = in.reject(c, err, reason)
	}
	return got, event, err
}

// eventName returns the event name from the headers, before the body is parsed.
func (c *call) eventName() string {
	for _, name := range []string{"X-Github-Event", "X-Gitea-Event", "X-Gitlab-Event", "X-Event-Key"} {
		if v := c.r.Header.Values(name); len(v) == 1 {
			return format.Clip(webhook.Clean(v[0]), maxRecorded)
		}
	}
	return ""
}

// maxRecorded is the maximum size of a header or a path in a record of a delivery, in bytes.
const maxRecorded = 100

// admit verifies a call, evaluates the rules, and stores it with the
// executions that it fires. An error with a reason is a rejection that the
// caller must store.
func (in *Intake) admit(ctx context.Context, c *call) (got store.DeliveryResult, event *webhook.Event, reason string, err error) {
	for try := 0; ; try++ { // repeated if a trigger was changed meanwhile
		if try == staleTries {
			release := in.o.DB.HoldRules()
			defer release()
		}
		current, err := in.current()
		if err != nil {
			return got, nil, "", err
		}
		asked, err := in.verify(c, current)
		if err != nil {
			return got, nil, webhook.RefusalReason(err), err
		}
		event, err := in.parse(ctx, c)
		if err != nil {
			return got, nil, agented.Message(err), content(err)
		}
		if c.delivery.Key, err = c.key(asked, event); err != nil {
			return got, nil, agented.Message(err), content(err)
		}
		c.delivery.Event, c.delivery.Action = event.Name, event.Action
		// The client may disconnect; a verified call is stored anyway.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		got, err = in.o.Deliver(within, dispatch.Inbound{
			Delivery: c.delivery, Body: event.Sent, Event: event, Rules: current.version, Hits: hits(in.evaluate(asked, event)),
		})
		cancel()
		if err != nil {
			return got, nil, "", err
		}
		if got.Stale && try < staleTries {
			continue
		}
		if got.Stale {
			return got, nil, "", errStaleRules
		}
		in.o.Count(got.Verdict())
		in.o.Changed()
		in.o.Delivered(ctx, got)
		return got, event, "", nil
	}
}

// staleTries is how often a call is evaluated again because a trigger was
// changed meanwhile. After that, changes of triggers wait for the call.
const staleTries = 2

// errStaleRules cannot occur while rules are held.
var errStaleRules = agented.Errorf(agented.Unavailable, "the triggers are being changed: send it again")

func hits(list []ruleResult) []dispatch.Hit {
	out := make([]dispatch.Hit, len(list))
	for i, j := range list {
		out[i] = dispatch.Hit{Trigger: j.rule.trigger, Webhook: j.rule.webhook, Verdict: j.verdict}
	}
	return out
}

// reject counts and stores a rejection, within limits, and returns the
// error for the caller. An address with too many rejections is rate-limited.
func (in *Intake) reject(c *call, err error, reason string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	in.o.Count(agented.VerdictRejected)
	who := ratelimit.Network(c.remote)
	if ok, _ := in.refused.Allow("store "+who, storedBurst, storedEvery, c.now); ok {
		ok, _ = in.refused.Allow("store", storedAll, storedAllEvery, c.now)
		if ok {
			c.delivery.Reason = reason
			if n := in.dropped.Swap(0); n > 0 {
				c.delivery.Reason += " (" + strconv.FormatInt(n, 10) + " more rejections before this one were counted but not stored)"
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), 10*time.Second)
			defer cancel()
			if err := in.o.DB.RejectDelivery(ctx, c.delivery); err != nil {
				in.o.Log.Warn("could not store a rejected webhook call", "err", err)
			}
			in.o.Changed()
			in.o.Log.Info("webhook call rejected", "delivery", c.delivery.ID, "endpoint", c.delivery.Endpoint, "address", c.delivery.Address, "reason", reason)
		} else {
			in.dropped.Add(1)
		}
	} else {
		in.dropped.Add(1)
	}
	if kind := agented.KindOf(err); kind != agented.Unauthenticated {
		return err
	}
	if ok, wait := in.refused.Allow("refuse "+who, refusedBurst, refusedEvery, c.now); !ok {
		return &agented.Error{
			Kind: agented.RateLimited, RetryAfter: wait,
			Text: "too many calls from this address were rejected: check the secret, then try again",
		}
	}
	return agented.Errorf(agented.Unauthenticated, "%s", agented.Message(err))
}

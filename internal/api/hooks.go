package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

const (
	hookReadTime = 60 * time.Second // for the body of a call
	hookFree     = 1 << 20          // bytes of a body that need no leave
	hookStep     = 1 << 20          // what is taken at once beyond them
	hookMemory   = 8 * webhook.MaxBody
	hookWait     = 10 * time.Second // for leave

	// What may be refused from one address before it is told to slow down, and
	// what of it is stored. Genuine calls are not counted.
	refusedBurst, refusedEvery = 60, time.Second
	storedBurst, storedEvery   = 20, 6 * time.Second
	storedAll, storedAllEvery  = 120, time.Second
)

// hooks is what receiving calls needs beside the server.
type hooks struct {
	s   *Server
	ctx context.Context // of loads, which serve all requests

	mu      sync.Mutex // guards loading
	rules   atomic.Pointer[hookRules]
	memory  *semaphore.Weighted
	refused *limiter
	dropped atomic.Int64 // refusals that were not stored since the last that was
}

func newHooks(s *Server) *hooks {
	return &hooks{s: s, ctx: context.Background(), memory: semaphore.NewWeighted(hookMemory), refused: newLimiter()}
}

// current returns the rules of this moment. They are read again when a trigger
// has changed.
func (h *hooks) current() (*hookRules, error) {
	version := h.s.o.DB.HookVersion()
	if r := h.rules.Load(); r != nil && r.version == version {
		return r, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rules.Load(); r != nil && r.version == version {
		return r, nil
	}
	r, err := h.load()
	if err != nil {
		return nil, err
	}
	h.rules.Store(r)
	if h.s.o.SecretsChanged != nil {
		h.s.o.SecretsChanged()
	}
	return r, nil
}

// WebhookSecrets lists the secrets of webhooks that the server has read, for
// masking.
func (s *Server) WebhookSecrets() []string {
	if r := s.hooks.rules.Load(); r != nil {
		return r.secrets
	}
	return nil
}

// LoadWebhooks reads all webhooks, so that their secrets are known before the
// first call comes.
func (s *Server) LoadWebhooks() error {
	_, err := s.hooks.current()
	return err
}

// Received is the answer to a call from outside.
type Received struct {
	DeliveryID   agented.DeliveryID    `json:"delivery_id" example:"dlv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Verdict      agented.Verdict       `json:"verdict" enum:"accepted,ignored,duplicate"`
	Duplicate    bool                  `json:"duplicate,omitempty" doc:"The delivery came before; the ids are the first one's"`
	Reason       string                `json:"reason,omitempty" doc:"Why nothing was fired"`
	ExecutionIDs []agented.ExecutionID `json:"execution_ids"`
}

// Pong is the answer to GitHub's question whether anybody is there.
type Pong struct {
	Pong       bool               `json:"pong"`
	DeliveryID agented.DeliveryID `json:"delivery_id"`
}

// receive is the handler of one endpoint. which names the rules that may be
// asked, and whether the server's own secret counts there.
func (s *Server) receive(endpoint func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.takeCall(w, r, endpoint(r)); err != nil {
			s.fail(w, r, err)
		}
	}
}

// inboundCall is one request on its way through the verdicts.
type inboundCall struct {
	r        *http.Request
	remote   address
	endpoint string
	body     []byte
	now      time.Time
	delivery agented.Delivery
	only     string // a test's: the one webhook that is asked
}

func (s *Server) takeCall(w http.ResponseWriter, r *http.Request, endpoint string) error {
	now := s.now()
	c := &inboundCall{r: r, remote: peer(r), endpoint: endpoint, now: now}
	c.delivery = agented.Delivery{
		ID: agented.DeliveryID(agented.NewID("dlv", now)), Endpoint: clip(endpoint, 100), ReceivedAt: now,
		Address: c.remote.String(), Headers: webhook.LedgerHeaders(r.Header), Event: c.eventName(),
	}
	body, release, err := s.hooks.read(w, r)
	defer release()
	if err != nil {
		return s.rejectCall(c, err, agented.Message(err))
	}
	c.body, c.delivery.Size = body, int64(len(body))

	got, event, reason, err := s.admitCall(r.Context(), c)
	if err != nil {
		if reason != "" {
			return s.rejectCall(c, err, reason)
		}
		return err
	}
	if event.Ping() {
		return answerJSON(w, http.StatusOK, Pong{true, got.Delivery.ID})
	}
	verdict := verdictOf(got)
	return answerJSON(w, http.StatusAccepted, Received{
		DeliveryID: got.Delivery.ID, Verdict: verdict, Duplicate: got.Duplicate,
		Reason: ignoredOnly(verdict, got.Delivery.Reason), ExecutionIDs: got.Delivery.Executions(),
	})
}

// admitCall verifies a call, asks the rules, and stores it with what it fires.
// An error with a reason is a refusal, which the caller of this has to store.
func (s *Server) admitCall(ctx context.Context, c *inboundCall) (got store.DeliveryResult, event *webhook.Event, reason string, err error) {
	for range 5 { // again when a trigger was changed meanwhile
		rules, err := s.hooks.current()
		if err != nil {
			return got, nil, "", err
		}
		asked, err := s.verifyCall(c, rules)
		if err != nil {
			return got, nil, webhook.RefusalReason(err), err
		}
		event, err := webhook.Parse(c.r.Header, c.body)
		if err != nil {
			return got, nil, agented.Message(err), badCall(err)
		}
		if c.delivery.Key, err = webhook.DeliveryKey(c.r.Header); err != nil {
			return got, nil, agented.Message(err), badCall(err)
		}
		c.delivery.Event, c.delivery.Action = event.Name, event.Action
		// The asker may go away; what is genuine is stored all the same.
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		got, err = s.o.Dispatch.Deliver(within, dispatch.Inbound{
			Delivery: c.delivery, Body: c.body, Event: event, Rules: rules.version, Hits: hits(s.judge(asked, event)),
		})
		cancel()
		if err != nil {
			return got, nil, "", err
		}
		if got.Stale {
			continue
		}
		s.m.deliveries.WithLabelValues(string(verdictOf(got))).Inc()
		s.changes.tell(changedDeliveries)
		s.logDelivered(ctx, got)
		return got, event, "", nil
	}
	return got, nil, "", agented.Errorf(agented.Unavailable, "the triggers are being changed all the time: send it again")
}

func verdictOf(got store.DeliveryResult) agented.Verdict {
	if got.Duplicate {
		return agented.VerdictDuplicate
	}
	return got.Delivery.Verdict
}

// ignoredOnly is the reason as the caller may know it. The caller is genuine,
// but the names and rules of triggers are not for everybody who holds a secret.
func ignoredOnly(v agented.Verdict, _ string) string {
	if v != agented.VerdictIgnored {
		return ""
	}
	return "no rule matched; the delivery's row says which condition said no"
}

func hits(list []judged) []dispatch.Hit {
	out := make([]dispatch.Hit, len(list))
	for i, j := range list {
		out[i] = dispatch.Hit{Trigger: j.rule.trigger, Webhook: j.rule.webhook, Verdict: j.verdict}
	}
	return out
}

func (c *inboundCall) eventName() string {
	if v := c.r.Header.Values("X-Github-Event"); len(v) == 1 {
		return clip(webhook.Clean(v[0]), 100)
	}
	return ""
}

// verifyCall returns the rules that the call is genuine for. The error is why
// there are none.
func (s *Server) verifyCall(c *inboundCall, rules *hookRules) ([]*hookRule, error) {
	req := webhook.Request{Header: c.r.Header, Body: c.body, Remote: c.remote.ip}
	server := s.live.Load().config.GitHubWebhookSecret.Reveal()
	var list []*hookRule
	switch c.endpoint {
	case agented.EndpointGitHub:
		if server == "" && !rules.own {
			return nil, webhook.NoGitHubSecret()
		}
		list = rules.github
	case agented.EndpointAny:
		if len(rules.generic) == 0 {
			return nil, agented.Errorf(agented.Unavailable, "no trigger takes webhooks: give one a webhook with a secret, or send GitHub's events to /hooks/github")
		}
		list = rules.generic
	default:
		list = rules.trigger[agented.TriggerID(c.endpoint)]
		if len(list) == 0 {
			return nil, webhook.Decoy(req)
		}
	}
	if c.only != "" {
		list = slices.DeleteFunc(slices.Clone(list), func(r *hookRule) bool { return r.webhook.ID != c.only })
	}
	proofs := map[string]error{}
	c.delivery.ServerProof = false
	var genuine []*hookRule
	var first error
	for _, r := range list {
		key := r.proof()
		err, known := proofs[key]
		if !known {
			secret := r.secret
			if secret == "" && r.webhook.Source == agented.SourceGitHub {
				secret = server
			}
			err = r.auth.Verify(secret, req, c.now)
			proofs[key] = err
		}
		if err == nil {
			genuine = append(genuine, r)
			if r.secret == "" && r.webhook.Source == agented.SourceGitHub {
				c.delivery.ServerProof = true
			}
		} else if first == nil {
			first = err
		}
	}
	if len(genuine) > 0 {
		return genuine, nil
	}
	if c.endpoint == agented.EndpointGitHub && server != "" && c.only == "" {
		// Nobody has to have a trigger for GitHub's ping to be answered.
		err := webhook.GitHub(server, c.r.Header, c.body)
		if err == nil && (first == nil || !refusedAddress(list)) {
			c.delivery.ServerProof = true
			return nil, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// refusedAddress reports whether some rule names the addresses that may call: a
// call that fits the server's secret then still has to come from one of them.
func refusedAddress(list []*hookRule) bool {
	for _, r := range list {
		if len(r.auth.Allow) > 0 {
			return true
		}
	}
	return false
}

// badCall is an error about what a call holds, with the status that senders
// know.
func badCall(err error) error {
	if agented.KindOf(err) == agented.Invalid {
		return &Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: agented.Message(err)}
	}
	return err
}

// rejectCall counts and stores a refusal, within limits, and returns what the
// caller is told. Whoever is refused all the time is told to slow down.
func (s *Server) rejectCall(c *inboundCall, err error, reason string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	s.m.deliveries.WithLabelValues(string(agented.VerdictRejected)).Inc()
	who := networkOf(c.remote.ip)
	h := s.hooks
	if ok, _ := h.refused.allow("store "+who, storedBurst, storedEvery, c.now); ok {
		ok, _ = h.refused.allow("store", storedAll, storedAllEvery, c.now)
		if ok {
			c.delivery.Reason = reason
			if n := h.dropped.Swap(0); n > 0 {
				c.delivery.Reason += " (" + strconv.FormatInt(n, 10) + " more refusals before this one were counted and not kept)"
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), 10*time.Second)
			defer cancel()
			if err := s.o.DB.RejectDelivery(ctx, c.delivery); err != nil {
				s.o.Log.Warn("a refused webhook could not be stored", "err", err)
			}
			s.changes.tell(changedDeliveries)
			s.o.Log.Info("webhook refused", "delivery", c.delivery.ID, "endpoint", c.delivery.Endpoint, "address", c.delivery.Address, "reason", reason)
		} else {
			h.dropped.Add(1)
		}
	} else {
		h.dropped.Add(1)
	}
	if kind := agented.KindOf(err); kind != agented.Unauthenticated {
		return err
	}
	if ok, wait := h.refused.allow("refuse "+who, refusedBurst, refusedEvery, c.now); !ok {
		return &Problem{
			Status: http.StatusTooManyRequests, Kind: agented.RateLimited, retryAfter: int(wait/time.Second) + 1,
			Detail: "too many calls from this address were refused: check the secret, then try again",
		}
	}
	return &Problem{Status: http.StatusUnauthorized, Kind: agented.Unauthenticated, Detail: agented.Message(err)}
}

// networkOf is what a limit counts: an address, of IPv6 the network that one
// customer has.
func networkOf(ip netip.Addr) string {
	if ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// read returns the body of a call. Large ones need leave for each piece, so that
// not all memory goes to callers who may turn out to be nobody.
func (h *hooks) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	var taken int64
	release = func() { h.memory.Release(taken) }
	tooLarge := agented.Errorf(agented.TooLarge, "the body is too large: the limit is %d bytes", webhook.MaxBody)
	if r.ContentLength > webhook.MaxBody {
		w.Header().Set("Connection", "close")
		return nil, release, tooLarge
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(hookReadTime))
	in := http.MaxBytesReader(w, r.Body, webhook.MaxBody)
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, hookFree)) + bytes.MinRead)
	}
	for step := int64(hookFree); ; step = hookStep {
		n, err := io.CopyN(&b, in, step)
		var large *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return b.Bytes(), release, nil
		case errors.As(err, &large):
			return nil, release, tooLarge
		case err != nil:
			return nil, release, &Problem{Status: http.StatusBadRequest, Kind: agented.Invalid, Detail: "the body ended before it was complete"}
		case n < step:
			return b.Bytes(), release, nil
		}
		ctx, cancel := context.WithTimeout(r.Context(), hookWait)
		err = h.memory.Acquire(ctx, 2*hookStep) // a buffer grows to twice its size
		cancel()
		if err != nil {
			return nil, release, agented.Errorf(agented.Unavailable, "too many large calls at once: try again")
		}
		taken += 2 * hookStep
	}
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

// noBound leaves the bound of a body to the handler, which knows what to say.
const noBound = math.MaxInt64

package intake

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/webhook"
)

// verification is the result of verifying a call against one proof.
type verification struct {
	proof webhook.Proof
	err   error
}

// request returns the call in the form that verification takes.
func (c *call) request() webhook.Request {
	return webhook.Request{
		Header: c.r.Header, Body: c.body, Remote: c.remote, Method: c.r.Method, Host: c.r.Host, Target: c.r.RequestURI, Token: c.r.PathValue("token"),
	}
}

// key returns the id under which the delivery is stored once. If several
// webhooks verify the call, the first one that configures a delivery id
// decides, then the first one whose signature covers the id, then the first
// one.
func (c *call) key(genuine []*rule, event *webhook.Event) (string, error) {
	best, rank := webhook.Auth{Kind: webhook.KindGitHub}, -1
	var proof webhook.Proof
	for _, r := range genuine {
		p := c.proofs[r.proof()].proof
		at := 0
		switch {
		case r.auth.DeliveryID != "":
			at = 2
		case r.auth.SignsID(p):
			at = 1
		}
		if at > rank {
			best, proof, rank = r.auth, p, at
		}
	}
	return best.DeliveryKey(proof, c.r.Header, event)
}

// expandWait is how long a call with a compressed body waits for its turn.
const expandWait = 10 * time.Second

// expanding limits the calls whose compressed and expanded bodies are both in
// memory.
var expanding = semaphore.NewWeighted(4)

// parse reads the event of a verified call.
func (in *Intake) parse(ctx context.Context, c *call) (*webhook.Event, error) {
	if c.r.Header.Get("Content-Encoding") != "" {
		ctx, cancel := context.WithTimeout(ctx, expandWait)
		defer cancel()
		if err := expanding.Acquire(ctx, 1); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "too many concurrent calls with compressed bodies: try again")
		}
		defer expanding.Release(1)
	}
	return webhook.Parse(c.r.Header, c.body)
}

// verify returns the rules that verify the call, or an error why none does.
func (in *Intake) verify(c *call, current *rules) ([]*rule, error) {
	req := c.request()
	server := in.o.Config().GitHubWebhookSecret.Reveal()
	var list []*rule
	switch c.endpoint {
	case agented.EndpointGitHub:
		if server == "" && !current.own {
			return nil, webhook.NoGitHubSecret()
		}
		list = current.github
	case agented.EndpointAny:
		if len(current.generic) == 0 {
			return nil, agented.Errorf(agented.Unavailable, "no trigger has a webhook: add a webhook with a secret to a trigger, or send GitHub's events to /hooks/github")
		}
		list = current.generic
	default:
		list = current.trigger[agented.TriggerID(c.endpoint)]
		if len(list) == 0 {
			return nil, webhook.Decoy(req)
		}
	}
	if c.only != "" {
		list = slices.DeleteFunc(slices.Clone(list), func(r *rule) bool { return r.webhook.ID != c.only })
	}
	c.proofs = map[string]verification{}
	c.delivery.ServerProof = false
	var genuine []*rule
	var first error
	for _, r := range list {
		key := r.proof()
		p, known := c.proofs[key]
		if !known {
			secret := r.secret
			if secret == "" && r.webhook.Source == agented.SourceGitHub {
				secret = server
			}
			if c.only == "" || !r.auth.OnlyVerifies(secret) { // a test cannot sign if the sender's private key is elsewhere
				p.proof, p.err = r.auth.Check(secret, req, c.now)
			}
			c.proofs[key] = p
		}
		err := p.err
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
		// GitHub's ping is answered even if no trigger has a GitHub webhook.
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

// refusedAddress reports whether a rule restricts the caller's addresses. A
// call that is verified by the server's secret must then come from one of them
// too.
func refusedAddress(list []*rule) bool {
	for _, r := range list {
		if len(r.auth.Allow) > 0 {
			return true
		}
	}
	return false
}

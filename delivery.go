package agented

import (
	"encoding/json"
	"time"
)

// Endpoints of deliveries that do not belong to one trigger.
const (
	EndpointGitHub = "github" // one or more secrets for all triggers
	EndpointAny    = "any"    // POST /: the triggers whose secret verifies the signature
)

// Delivery is one inbound webhook call and its result. Its id sorts by time of
// receipt.
type Delivery struct {
	ID          DeliveryID
	Endpoint    string // EndpointGitHub, EndpointAny, or a trigger's id
	Key         string // the sender's id of the call, with its kind; empty if it sent none
	ReceivedAt  time.Time
	Address     string            // address of the caller
	Headers     map[string]string // headers that contain no secret
	Event       string
	Action      string
	Size        int64 // bytes of the body as received
	Verdict     DeliveryVerdict
	Reason      string     // one sentence; empty for accepted
	ServerProof bool       // verified with the server's own secret, not with a trigger's
	DuplicateOf DeliveryID // for a duplicate: the first delivery
	ReplayOf    DeliveryID // for a replay: the delivery that was evaluated again
	Actor       string     // who replayed it, or sent it as a test
	BodyKept    bool       // the body is still stored
	Pulled      bool       // the server fetched it from GitHub's list of deliveries
	Triggers    []DeliveryTrigger
}

// DeliveryTrigger is the result of a delivery for one trigger.
type DeliveryTrigger struct {
	Trigger     TriggerID
	TriggerName string
	Webhook     string // id of the rule that decided
	Fired       bool
	Rule        string // the condition or guard that did not match; empty if it fired
	Reason      string // Rule as a sentence
	Execution   ExecutionID
}

// Test reports whether a user sent the delivery to test a webhook.
func (d *Delivery) Test() bool { return d.Actor != "" && d.ReplayOf == "" }

// Executions lists the executions that the delivery fired.
func (d *Delivery) Executions() []ExecutionID {
	out := []ExecutionID{}
	for _, t := range d.Triggers {
		if t.Execution != "" {
			out = append(out, t.Execution)
		}
	}
	return out
}

// DeliveryVerdict is the result of an inbound call. The values are stored and part of
// the API.
type DeliveryVerdict string

// The verdicts.
const (
	VerdictAccepted  DeliveryVerdict = "accepted"  // it fired an execution
	VerdictIgnored   DeliveryVerdict = "ignored"   // authentic, but no rule matched
	VerdictDuplicate DeliveryVerdict = "duplicate" // a delivery with the same id was received earlier
	VerdictRejected  DeliveryVerdict = "rejected"  // not authentic, or not readable
)

// Webhook is one rule by which external calls fire a trigger. internal/webhook
// defines the grammar of Auth and Match.
type Webhook struct {
	ID        string          `json:"id"`     // "whk-…"
	Source    Source          `json:"source"` // github or webhook
	Enabled   bool            `json:"enabled"`
	Auth      json.RawMessage `json:"auth,omitempty"`  // for webhook: how a call proves that it is authentic
	Match     json.RawMessage `json:"match,omitempty"` // which calls fire
	Supersede bool            `json:"supersede"`       // a newer push to the same pull request or branch replaces pending and running executions
	Secret    string          `json:"-"`               // write-only; sealed at rest; empty for github: GITHUB_WEBHOOK_SECRET
}

// PullStatus is the state of fetching the missed deliveries of a webhook.
type PullStatus struct {
	Name        string    // app, owner/name, or the name of an organization
	Hook        int64     // id of the webhook; 0 for that of an App, or before it is known
	Position    time.Time // deliveries before this time of GitHub's clock are handled
	LastSuccess time.Time // when all deliveries were last handled; zero: never
	Waiting     int       // deliveries that are listed and not yet fetched
	OldestWait  time.Time // when the oldest of them was delivered; zero if there is none
	Pulled      int64     // deliveries that were stored
	Lost        int64     // deliveries whose body was no longer available
	Problem     string    // of the last try; empty if it succeeded
	RetryAt     time.Time // end of GitHub's rate limit; zero if there is none
}

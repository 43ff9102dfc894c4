package agented

import "time"

// Endpoints of deliveries that are not a trigger's own.
const (
	EndpointGitHub = "github" // one secret, or several, for all triggers
	EndpointAny    = "any"    // POST /: the triggers whose secret verifies
)

// Delivery is one call from outside and what became of it. Its id sorts by the
// time of receipt.
type Delivery struct {
	ID          DeliveryID
	Endpoint    string // EndpointGitHub, EndpointAny, or a trigger's id
	Key         string // the sender's id for it, with its kind; empty when it gave none
	ReceivedAt  time.Time
	Address     string            // of the caller
	Headers     map[string]string // those that hold no secret
	Event       string
	Action      string
	Size        int64 // bytes of the body as it came
	Verdict     Verdict
	Reason      string     // one sentence; empty for accepted
	ServerProof bool       // it was signed with the server's own secret, not with a trigger's
	DuplicateOf DeliveryID // the first one, for a duplicate
	ReplayOf    DeliveryID // the one that somebody asked to evaluate again
	Actor       string     // who asked for that, or sent it as a test
	BodyKept    bool       // the body can still be read
	Triggers    []DeliveryTrigger
}

// DeliveryTrigger is what a delivery meant for one trigger.
type DeliveryTrigger struct {
	Trigger     TriggerID
	TriggerName string
	Webhook     string // id of the rule that decided
	Fired       bool
	Rule        string // the condition or guard that said no; empty if it fired
	Reason      string // the same in words
	Execution   ExecutionID
}

// Test reports whether somebody sent it from here to try a webhook.
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

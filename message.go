package agented

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// BusMessage is what agents, triggers and people send each other. It is stored
// before anybody is told, and never changes; how far it has come is with each
// inbox.
type BusMessage struct {
	ID        MessageID
	Key       string // the sender's own id of it: the same key is the same message; empty: none
	Type      MessageType
	Priority  Priority
	From      Address
	To        Address
	Subject   string
	Body      string
	ReplyTo   MessageID
	ExpiresAt time.Time // zero: never
	Chain     Chain
	CreatedAt time.Time
}

// MessageType says what a message is for. The values are part of the API.
type MessageType string

// MessageTypes lists the types of a message.
var MessageTypes = []MessageType{"message", "request", "response", "status", "alert", "artifact"}

// Priority is how urgent a message is. The values are part of the API.
type Priority string

// The priorities.
const (
	PriorityLow    Priority = "low"
	PriorityNormal Priority = "normal"
	PriorityHigh   Priority = "high"
)

// Priorities lists the priorities, the lowest first.
var Priorities = []Priority{PriorityLow, PriorityNormal, PriorityHigh}

// InboxState is how far a message has come in one inbox. The values are stored
// and part of the API.
type InboxState string

// The states of a message in an inbox.
const (
	InboxPending   InboxState = "pending"   // stored
	InboxDelivered InboxState = "delivered" // handed to a follower, a reader or an execution
	InboxRead      InboxState = "read"      // acknowledged
	InboxExpired   InboxState = "expired"   // its time to live ran out before it was read
)

// InboxItem is a message in one inbox. Seq grows in each inbox by one from 1:
// the order in which its messages were stored, and the id in its stream.
type InboxItem struct {
	Owner       Address
	Seq         int64
	State       InboxState
	DeliveredAt time.Time
	ReadAt      time.Time
	Message     BusMessage
}

// AddressKind says what an address names.
type AddressKind string

// The kinds of address. Groups and topics are lists of inboxes: an admin fills
// a group, whoever wants to subscribes to a topic.
const (
	ToAgent   AddressKind = "agent"
	ToUser    AddressKind = "user"
	ToGroup   AddressKind = "group"
	ToTopic   AddressKind = "topic"
	ToTrigger AddressKind = "trigger" // as a sender only
)

// Address is who sends or receives: "agent:reviewer", "topic:builds". In the
// store the names of agents, users and triggers are their ids.
type Address struct {
	Kind AddressKind
	Name string
}

// String is the address as people write it.
func (a Address) String() string {
	if a.Kind == "" {
		return ""
	}
	return string(a.Kind) + ":" + a.Name
}

// ParseAddress reads "kind:name"; a name alone is an agent's. Errors are
// sentences for people.
func ParseAddress(s string) (Address, error) {
	kind, name, found := strings.Cut(s, ":")
	if !found {
		kind, name = string(ToAgent), s
	}
	a := Address{AddressKind(strings.ToLower(kind)), name}
	if !slices.Contains([]AddressKind{ToAgent, ToUser, ToGroup, ToTopic, ToTrigger}, a.Kind) {
		return Address{}, Errorf(Invalid, "address %q: %q is not agent, user, group or topic", clip(s), clip(kind))
	}
	if a.Kind == ToUser || a.Kind == ToTrigger {
		if name == "" || len(name) > MaxName || hasControl(name) || !utf8.ValidString(name) {
			return Address{}, Errorf(Invalid, "address %q: the name is empty, too long or not printable", clip(s))
		}
		return a, nil
	}
	if wrong := checkHandle(name); wrong != "" {
		return Address{}, Errorf(Invalid, "address %q: the name %s", clip(s), wrong)
	}
	return a, nil
}

// Bounds of a BusMessage.
const (
	MaxSubject    = 500       // bytes
	MaxBody       = 256 << 10 // bytes
	MaxMessageKey = 200       // bytes
	MaxTTL        = 366 * 24 * time.Hour
)

// Validate returns every field of the message that cannot stand, each with the
// mend.
func (m *BusMessage) Validate() []Field {
	var bad []Field
	refuse := func(path, format string, args ...any) { bad = append(bad, Field{path, fmt.Sprintf(format, args...)}) }
	if !slices.Contains(MessageTypes, m.Type) {
		refuse("type", "must be message, request, response, status, alert or artifact")
	}
	if !slices.Contains(Priorities, m.Priority) {
		refuse("priority", "must be low, normal or high")
	}
	switch m.To.Kind {
	case ToAgent, ToUser, ToGroup, ToTopic:
	case ToTrigger:
		refuse("to", "must be an agent, a user, a group or a topic: a trigger has no inbox")
	default:
		refuse("to", "is required: name an agent, group:NAME or topic:NAME")
	}
	if len(m.Subject) > MaxSubject || hasControl(m.Subject) || !utf8.ValidString(m.Subject) {
		refuse("subject", "must be one printable line of at most %d bytes", MaxSubject)
	}
	switch {
	case m.Body == "" && m.Subject == "":
		refuse("body", "is required: say something")
	case len(m.Body) > MaxBody:
		refuse("body", "is too long: use at most %d bytes, and put the rest into a file", MaxBody)
	case strings.ContainsRune(m.Body, 0):
		refuse("body", "has a NUL byte: remove it")
	case !utf8.ValidString(m.Body):
		refuse("body", "is not text in UTF-8: put it into a file")
	}
	if len(m.Key) > MaxMessageKey || hasControl(m.Key) || !utf8.ValidString(m.Key) {
		refuse("key", "must be printable and at most %d bytes", MaxMessageKey)
	}
	return bad
}

// MessageRule fires a trigger for messages that reach an inbox or a topic.
type MessageRule struct {
	To      Address       `json:"-"`               // agent, group or topic
	Types   []MessageType `json:"types,omitempty"` // empty: all
	Enabled bool          `json:"enabled"`
}

// Chain is what something was caused by. What a person, a schedule or a call
// from outside began has depth 0 and a chain of its own.
type Chain struct {
	ID     string `json:"id"`               // the id of what began it
	Depth  int    `json:"depth"`            // causes between it and this
	Parent string `json:"parent,omitempty"` // id of the execution, message or delivery that caused it
}

// Next is the chain of what id, which stands at c, causes. A zero chain is one
// that id began.
func (c Chain) Next(id string) Chain {
	if c.ID == "" {
		return Chain{ID: id, Depth: 1, Parent: id}
	}
	return Chain{ID: c.ID, Depth: c.Depth + 1, Parent: id}
}

// ChainLimits bounds what one cause may set going, so that agents which answer
// each other come to an end.
type ChainLimits struct {
	Depth   int     // causes in a row
	Fanout  int     // messages and executions that one execution or message may cause
	Total   int     // messages and executions in one chain
	CostUSD float64 // known cost of the executions in one chain; 0 is no limit
}

// DefaultChainLimits are the limits of a server that sets none.
var DefaultChainLimits = ChainLimits{Depth: 30, Fanout: 50, Total: 500}

// ChainUse is how much of its limits a chain has used.
type ChainUse struct {
	Children int // of the parent, so far
	Total    int
	CostUSD  float64
}

// Refuse says why nothing more may follow, "" if it may.
func (l ChainLimits) Refuse(c Chain, used ChainUse) string {
	switch {
	case l.Depth > 0 && c.Depth > l.Depth:
		return fmt.Sprintf("the chain that %s began is %d causes deep, which is the limit: perhaps agents answer each other without end", c.ID, l.Depth)
	case l.Fanout > 0 && used.Children >= l.Fanout:
		return fmt.Sprintf("%s has caused %d messages and executions, which is the limit for one", c.Parent, used.Children)
	case l.Total > 0 && used.Total >= l.Total:
		return fmt.Sprintf("the chain that %s began holds %d messages and executions, which is the limit", c.ID, used.Total)
	case l.CostUSD > 0 && used.CostUSD >= l.CostUSD:
		return fmt.Sprintf("the chain that %s began has cost $%.2f, and its limit is $%.2f", c.ID, used.CostUSD, l.CostUSD)
	}
	return ""
}

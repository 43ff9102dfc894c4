package agented

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// BusMessage is a message between agents, triggers and users. It is stored
// before any recipient is notified, and never changes; its delivery state is
// kept per inbox.
type BusMessage struct {
	ID        MessageID
	Key       string // the sender's idempotency key; empty: none
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

// MessageType is the purpose of a message. The values are part of the API.
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

// Priorities lists the priorities in ascending order.
var Priorities = []Priority{PriorityLow, PriorityNormal, PriorityHigh}

// InboxState is the delivery state of a message in one inbox. The values are
// stored and part of the API.
type InboxState string

// The states of a message in an inbox.
const (
	InboxPending   InboxState = "pending"   // stored
	InboxDelivered InboxState = "delivered" // delivered to a subscriber, a reader or an execution
	InboxRead      InboxState = "read"      // acknowledged
	InboxExpired   InboxState = "expired"   // its time to live ended before it was read
)

// InboxItem is a message in one inbox. Seq counts from 1 without gaps in each
// inbox: the order in which its messages were stored, and the id in its stream.
type InboxItem struct {
	Owner       Address
	Seq         int64
	State       InboxState
	DeliveredAt time.Time
	ReadAt      time.Time
	Message     BusMessage
}

// AddressKind is the kind of recipient or sender that an address names.
type AddressKind string

// The kinds of address. Groups and topics are lists of inboxes: an admin
// manages the members of a group; any agent or user can subscribe to a topic.
const (
	ToAgent   AddressKind = "agent"
	ToUser    AddressKind = "user"
	ToGroup   AddressKind = "group"
	ToTopic   AddressKind = "topic"
	ToTrigger AddressKind = "trigger" // only as a sender
)

// Address is a sender or recipient: "agent:reviewer", "topic:builds". The store
// uses the ids of agents, users and triggers instead of their names.
type Address struct {
	Kind AddressKind
	Name string
}

// String returns the address as "kind:name".
func (a Address) String() string {
	if a.Kind == "" {
		return ""
	}
	return string(a.Kind) + ":" + a.Name
}

// ParseAddress parses "kind:name"; a name without a kind is an agent's. Errors
// are sentences for people.
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
	if wrong := handleError(name); wrong != "" {
		return Address{}, Errorf(Invalid, "address %q: the name %s", clip(s), wrong)
	}
	return a, nil
}

// Limits of a BusMessage.
const (
	MaxSubject    = 500       // bytes
	MaxBody       = 256 << 10 // bytes
	MaxMessageKey = 200       // bytes
)

// Validate returns every invalid field of the message with its fix.
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
		refuse("to", "is required: set an agent, group:NAME or topic:NAME")
	}
	if len(m.Subject) > MaxSubject || hasControl(m.Subject) || !utf8.ValidString(m.Subject) {
		refuse("subject", "must be one printable line of at most %d bytes", MaxSubject)
	}
	switch {
	case m.Body == "" && m.Subject == "":
		refuse("body", "is required: write a text")
	case len(m.Body) > MaxBody:
		refuse("body", "is too long: use at most %d bytes, and put the rest into a file", MaxBody)
	case strings.ContainsRune(m.Body, 0):
		refuse("body", "has a NUL byte: remove it")
	case !utf8.ValidString(m.Body):
		refuse("body", "is not UTF-8 text: put it into a file")
	}
	if len(m.Key) > MaxMessageKey || hasControl(m.Key) || !utf8.ValidString(m.Key) {
		refuse("key", "must be printable and at most %d bytes", MaxMessageKey)
	}
	return bad
}

// MessageRule fires a trigger for messages to an inbox or a topic.
type MessageRule struct {
	To      Address       `json:"-"`               // agent, group or topic
	Types   []MessageType `json:"types,omitempty"` // empty: all
	Enabled bool          `json:"enabled"`
}

// Chain links an object to the objects that caused it. Whatever a person, a
// schedule or an external call starts has depth 0 and a chain of its own.
type Chain struct {
	ID     string `json:"id"`               // the id of the object that began the chain
	Depth  int    `json:"depth"`            // number of causes between it and this object
	Parent string `json:"parent,omitempty"` // id of the execution, message or delivery that caused it
}

// Next returns the chain for an object caused by id, whose own chain is c. A
// zero c means that id began the chain.
func (c Chain) Next(id string) Chain {
	if c.ID == "" {
		return Chain{ID: id, Depth: 1, Parent: id}
	}
	return Chain{ID: c.ID, Depth: c.Depth + 1, Parent: id}
}

// ChainLimits limits the consequences of one cause, so that agents that reply
// to each other stop eventually.
type ChainLimits struct {
	Depth   int     // length of a chain of causes
	Fanout  int     // messages and executions caused directly by one execution or message
	Total   int     // messages and executions in one chain
	CostUSD float64 // known cost of the executions in one chain; 0 means no limit
}

// DefaultChainLimits are the limits of a server that configures none.
var DefaultChainLimits = ChainLimits{Depth: 30, Fanout: 50, Total: 500}

// ChainUse is the part of the limits that a chain has used.
type ChainUse struct {
	Children int // of the parent so far
	Total    int
	CostUSD  float64
}

// Refuse returns why the chain cannot continue, or "" if it can.
func (l ChainLimits) Refuse(c Chain, used ChainUse) string {
	switch {
	case l.Depth > 0 && c.Depth > l.Depth:
		return fmt.Sprintf("the chain that %s began is %d causes deep, which is the limit: agents may be replying to each other in a loop", c.ID, l.Depth)
	case l.Fanout > 0 && used.Children >= l.Fanout:
		return fmt.Sprintf("%s has caused %d messages and executions, which is the limit for one", c.Parent, used.Children)
	case l.Total > 0 && used.Total >= l.Total:
		return fmt.Sprintf("the chain that %s began has %d messages and executions, which is the limit", c.ID, used.Total)
	case l.CostUSD > 0 && used.CostUSD >= l.CostUSD:
		return fmt.Sprintf("the chain that %s began has cost $%.2f, and its limit is $%.2f", c.ID, used.CostUSD, l.CostUSD)
	}
	return ""
}

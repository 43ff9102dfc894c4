// Package messages has the handlers of the message bus: messages between agents,
// triggers and people, their inboxes, groups, topics and chains of causes.
package messages

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/store"
)

// Messenger sends messages between agents, triggers and people.
type Messenger interface {
	Send(ctx context.Context, m agented.BusMessage) (store.MessageResult, error)
	MaskOutput(ctx context.Context, e *agented.Execution, texts ...*string) error
}

// Options are what the handlers work with. All fields are required.
type Options struct {
	DB        *store.DB
	Messenger Messenger
	Streams   *sse.Streams
	Now       func() time.Time
	Mask      func(string) string // masks known secrets
	// Note adds an audit entry for an action of the caller.
	Note func(ctx context.Context, action, subject, detail string)
}

// Routes returns the routes of messages, inboxes, groups and topics, and chains.
func Routes(o Options) []rest.Route {
	return slices.Concat(
		(&messages{db: o.DB, messenger: o.Messenger, feeds: o.Streams.Feeds, now: o.Now, mask: o.Mask, note: o.Note}).routes(),
		(&inboxes{db: o.DB, streams: o.Streams, now: o.Now, mask: o.Mask}).routes(),
		(&members{db: o.DB, changes: o.Streams.Changes}).routes(),
		(&chains{db: o.DB, mask: o.Mask}).routes(),
	)
}

// messages handles the requests about messages.
type messages struct {
	db        *store.DB
	messenger Messenger
	feeds     *sse.Feeds
	now       func() time.Time
	mask      func(string) string
	note      func(ctx context.Context, action, subject, detail string)
}

// routes returns the routes of messages.
func (h *messages) routes() []rest.Route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	return []rest.Route{
		rest.Op("POST /api/v1/messages", operator, h.send, rest.About{
			ID: "send-message", Tag: "messages", Summary: "Send a message", Status: http.StatusCreated, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Sends a message to an agent, a user, a group or a topic. Responds once it is stored in every inbox that it reaches, with the executions that it fires. Sending the same `key` again as the same sender returns the first message. Returns 409 if the chain of causes has reached a limit, and names the limit.",
		}).ForAgents(),
		rest.Op("GET /api/v1/messages/{id}", viewer, h.get, rest.About{
			ID: "get-message", Tag: "messages", Summary: "Show a message", Errors: []int{http.StatusNotFound}, Text: "Returns one message by its id.",
		}),
	}
}

// MessageView is a message in responses.
type MessageView struct {
	ID        agented.MessageID   `json:"id" example:"msg-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Type      agented.MessageType `json:"type" enum:"message,request,response,status,alert,artifact"`
	Priority  agented.Priority    `json:"priority" enum:"low,normal,high"`
	From      string              `json:"from" doc:"Address of the sender"`
	To        string              `json:"to" doc:"Address that it was sent to"`
	Subject   string              `json:"subject"`
	Body      string              `json:"body"`
	ReplyTo   agented.MessageID   `json:"reply_to" doc:"Id of the message that it replies to; empty: none"`
	ExpiresAt *time.Time          `json:"expires_at" nullable:"true"`
	Chain     agented.Chain       `json:"chain" doc:"Chain of causes"`
	CreatedAt time.Time           `json:"created_at"`
}

func showMessage(mask func(string) string, m *agented.BusMessage) MessageView {
	return MessageView{
		ID: m.ID, Type: m.Type, Priority: m.Priority, From: m.From.String(), To: m.To.String(),
		Subject: mask(m.Subject), Body: mask(m.Body), ReplyTo: m.ReplyTo, ExpiresAt: rest.OptionalTime(m.ExpiresAt), Chain: m.Chain, CreatedAt: rest.Time(m.CreatedAt),
	}
}

// MessageInput is a message in requests.
type MessageInput struct {
	To         string              `json:"to" maxLength:"300" doc:"agent:NAME or only NAME, user:NAME, group:NAME, topic:NAME"`
	Type       agented.MessageType `json:"type,omitempty" doc:"message (default), request, response, status, alert or artifact"`
	Priority   agented.Priority    `json:"priority,omitempty" doc:"low, normal (default) or high"`
	Subject    string              `json:"subject,omitempty" doc:"One line, at most 500 bytes"`
	Body       string              `json:"body,omitempty" doc:"At most 256 KiB"`
	ReplyTo    agented.MessageID   `json:"reply_to,omitempty" maxLength:"100" doc:"Id of the message that this one replies to"`
	TTLSeconds int64               `json:"ttl_seconds,omitempty" minimum:"0" maximum:"31622400" doc:"Time to live; 0 means without limit"`
	Key        string              `json:"key,omitempty" doc:"Idempotency key of the sender, at most 200 bytes: sending it again returns the same message"`
}

// SentMessage is the response to a sent message.
type SentMessage struct {
	Message    MessageView           `json:"message"`
	Recipients []string              `json:"recipients" doc:"Addresses of the inboxes that received it; empty for a repetition"`
	Executions []agented.ExecutionID `json:"execution_ids" doc:"Executions that it fired"`
	Repeated   bool                  `json:"repeated" doc:"The key was already used: this is the first message"`
}

// sender returns the address that the caller sends from.
func sender(p agented.Principal) agented.Address {
	switch {
	case p.Agent != "":
		return agented.Address{Kind: agented.ToAgent, Name: string(p.Agent)}
	case p.Trigger != "":
		return agented.Address{Kind: agented.ToTrigger, Name: string(p.Trigger)}
	case p.Execution != "":
		return agented.Address{Kind: agented.ToTrigger, Name: string(p.Execution)}
	case p.User != "":
		return agented.Address{Kind: agented.ToUser, Name: string(p.User)}
	}
	return agented.Address{Kind: agented.ToUser, Name: p.Name}
}

func (h *messages) send(ctx context.Context, in *struct{ Body MessageInput }) (*rest.Output[SentMessage], error) {
	who := rest.Principal(ctx)
	to, err := agented.ParseAddress(in.Body.To)
	if err != nil {
		return nil, agented.InvalidFields([]agented.Field{{Path: "to", Text: agented.Message(err)}})
	}
	m := agented.BusMessage{
		Key: in.Body.Key, Type: in.Body.Type, Priority: in.Body.Priority, From: sender(who), To: to,
		Subject: in.Body.Subject, Body: in.Body.Body, ReplyTo: in.Body.ReplyTo,
	}
	if m.Type == "" {
		m.Type = "message"
	}
	if m.Priority == "" {
		m.Priority = agented.PriorityNormal
	}
	if in.Body.TTLSeconds > 0 {
		m.ExpiresAt = h.now().Add(time.Duration(in.Body.TTLSeconds) * time.Second)
	}
	bad := m.Validate()
	if m.ReplyTo != "" {
		if !agented.ValidID("msg", string(m.ReplyTo)) {
			bad = append(bad, agented.Field{Path: "reply_to", Text: "is not the id of a message (msg-…)"})
		} else if before, err := h.db.Message(ctx, m.ReplyTo); err != nil {
			return nil, err
		} else if who.Execution == "" {
			m.Chain = before.Chain.Next(string(before.ID))
		}
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	if who.Execution != "" {
		e, err := h.db.Execution(ctx, who.Execution)
		if err != nil {
			return nil, err
		}
		m.Chain = e.Chain.Next(string(e.ID))
		if err := h.messenger.MaskOutput(ctx, e, &m.Subject, &m.Body); err != nil {
			return nil, err
		}
	}
	got, err := h.messenger.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	if !got.Repeated {
		h.note(ctx, "message.send", string(got.Message.ID), "to "+got.Message.To.String())
	}
	out := SentMessage{Message: showMessage(h.mask, &got.Message), Recipients: []string{}, Executions: rest.NotNil(got.Fired), Repeated: got.Repeated}
	for _, owner := range got.Owners {
		out.Recipients = append(out.Recipients, owner.String())
		h.feeds.Notify(owner.String())
	}
	return rest.Reply(out), nil
}

type messagePath struct {
	ID string `path:"id" maxLength:"100" doc:"The message's id, msg-…"`
}

func (h *messages) get(ctx context.Context, in *messagePath) (*rest.Output[MessageView], error) {
	m, err := h.db.Message(ctx, agented.MessageID(in.ID))
	if err != nil {
		return nil, err
	}
	return rest.Reply(showMessage(h.mask, m)), nil
}

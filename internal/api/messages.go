package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

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

// messageRoutes returns the routes of the message bus.
func (s *Server) messageRoutes() []rest.Route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	stream := func(pattern, id, summary string, params ...*huma.Param) rest.Route {
		return rest.Raw(pattern, viewer, s.streamInbox, rest.About{
			ID: id, Tag: "messages", Summary: summary,
			Text:    "Server-sent events: `message`, whose id is its number in the inbox. Last-Event-ID or `after` resumes after that message; without either, the stream begins with the first unread message. Sent messages count as delivered. `expired`, without an id, reports that a message that was sent earlier has expired: `{\"seq\":3}`.",
			Params:  append(params, rest.QueryParam("after", "integer", "Number of the last message received; 0 for all. Last-Event-ID takes precedence"), rest.LastEventID()),
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream")},
			Errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).Streams().ForAgents()
	}
	return []rest.Route{
		rest.Op("POST /api/v1/messages", operator, s.sendMessage, rest.About{
			ID: "send-message", Tag: "messages", Summary: "Send a message", Status: http.StatusCreated, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Sends a message to an agent, a user, a group or a topic. Responds once it is stored in every inbox that it reaches, with the executions that it fires. Sending the same `key` again as the same sender returns the first message. Returns 409 if the chain of causes has reached a limit, and names the limit.",
		}).ForAgents(),
		rest.Op("GET /api/v1/messages/{id}", viewer, s.getMessage, rest.About{
			ID: "get-message", Tag: "messages", Summary: "Show a message", Errors: []int{http.StatusNotFound}, Text: "Returns one message by its id.",
		}),
		rest.Op("GET /api/v1/agents/{id}/inbox", viewer, s.listInbox, rest.About{
			ID: "list-agent-inbox", Tag: "messages", Summary: "Read an agent's inbox", Errors: []int{http.StatusNotFound},
			Text: "Returns messages in order of arrival. For the next page, send `next_after` as `after`; an empty list means that there are no more messages yet.",
		}).ForAgents(),
		stream("GET /api/v1/agents/{id}/inbox/stream", "stream-agent-inbox", "Stream an agent's inbox", rest.PathParam("id", "The agent's id, agt-…, or its name")),
		rest.Op("POST /api/v1/agents/{id}/inbox/{seq}/ack", operator, s.acknowledge, rest.About{
			ID: "acknowledge-message", Tag: "messages", Summary: "Acknowledge a message", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Marks the message as read. Repeating it is not an error. Returns 409 for an expired message.",
		}).ForAgents(),
		rest.Op("GET /api/v1/inbox", viewer, s.listOwnInbox, rest.About{
			ID: "list-own-inbox", Tag: "messages", Summary: "Read your own inbox", Errors: []int{http.StatusConflict}, Text: "The inbox of the user who is logged in.",
		}),
		stream("GET /api/v1/inbox/stream", "stream-inbox", "Stream your own inbox"),
		rest.Op("POST /api/v1/inbox/{seq}/ack", viewer, s.acknowledgeOwn, rest.About{
			ID: "acknowledge-own-message", Tag: "messages", Summary: "Acknowledge a message to you", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict}, Text: "Marks the message as read.",
		}),
		rest.Op("GET /api/v1/members", viewer, s.listMembers, rest.About{
			ID: "list-members", Tag: "messages", Summary: "List groups and topics", Text: "Lists every membership of every group and topic.",
		}),
		rest.Op("POST /api/v1/members", operator, s.join, rest.About{
			ID: "add-list-member", Tag: "messages", Summary: "Add an inbox to a list", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Only an admin can change a group. An operator can subscribe any inbox to a topic, and an execution its own agent. Repeating it is not an error.",
		}).ForAgents(),
		rest.Op("DELETE /api/v1/members", operator, s.leave, rest.About{
			ID: "remove-list-member", Tag: "messages", Summary: "Remove an inbox from a list", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound}, Text: "Requires the same permissions as adding one. Returns 404 if the inbox is not a member.",
		}).ForAgents(),
		rest.Op("GET /api/v1/chains/{id}", viewer, s.getChain, rest.About{
			ID: "get-chain", Tag: "messages", Summary: "Show a chain of causes", Errors: []int{http.StatusNotFound},
			Text: "Returns all messages and executions that one cause led to, by time, each with its own cause. Takes the id of any of them.",
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

func (s *Server) showMessage(m *agented.BusMessage) MessageView {
	return MessageView{
		ID: m.ID, Type: m.Type, Priority: m.Priority, From: m.From.String(), To: m.To.String(),
		Subject: s.mask(m.Subject), Body: s.mask(m.Body), ReplyTo: m.ReplyTo, ExpiresAt: orNull(m.ExpiresAt), Chain: m.Chain, CreatedAt: rest.Time(m.CreatedAt),
	}
}

// orNull returns a time for responses, or nil for the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = rest.Time(t)
	return &t
}

// InboxItemView is a message in an inbox.
type InboxItemView struct {
	Seq         int64              `json:"seq" doc:"Number in the inbox, from 1"`
	State       agented.InboxState `json:"state" enum:"pending,delivered,read,expired"`
	DeliveredAt *time.Time         `json:"delivered_at" nullable:"true"`
	ReadAt      *time.Time         `json:"read_at" nullable:"true"`
	Message     MessageView        `json:"message"`
}

func (s *Server) showItem(i *agented.InboxItem) InboxItemView {
	return InboxItemView{Seq: i.Seq, State: i.State, DeliveredAt: orNull(i.DeliveredAt), ReadAt: orNull(i.ReadAt), Message: s.showMessage(&i.Message)}
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

func (s *Server) sendMessage(ctx context.Context, in *struct{ Body MessageInput }) (*rest.Output[SentMessage], error) {
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
		m.ExpiresAt = s.now().Add(time.Duration(in.Body.TTLSeconds) * time.Second)
	}
	bad := m.Validate()
	if m.ReplyTo != "" {
		if !agented.ValidID("msg", string(m.ReplyTo)) {
			bad = append(bad, agented.Field{Path: "reply_to", Text: "is not the id of a message (msg-…)"})
		} else if before, err := s.o.DB.Message(ctx, m.ReplyTo); err != nil {
			return nil, err
		} else if who.Execution == "" {
			m.Chain = before.Chain.Next(string(before.ID))
		}
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	if who.Execution != "" {
		e, err := s.o.DB.Execution(ctx, who.Execution)
		if err != nil {
			return nil, err
		}
		m.Chain = e.Chain.Next(string(e.ID))
		if err := s.messenger.MaskOutput(ctx, e, &m.Subject, &m.Body); err != nil {
			return nil, err
		}
	}
	got, err := s.messenger.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	if !got.Repeated {
		s.noteAction(ctx, "message.send", string(got.Message.ID), "to "+got.Message.To.String())
	}
	out := SentMessage{Message: s.showMessage(&got.Message), Recipients: []string{}, Executions: rest.NotNil(got.Fired), Repeated: got.Repeated}
	for _, owner := range got.Owners {
		out.Recipients = append(out.Recipients, owner.String())
		s.streams.Feeds.Notify(owner.String())
	}
	return rest.Reply(out), nil
}

type messagePath struct {
	ID string `path:"id" maxLength:"100" doc:"The message's id, msg-…"`
}

func (s *Server) getMessage(ctx context.Context, in *messagePath) (*rest.Output[MessageView], error) {
	m, err := s.o.DB.Message(ctx, agented.MessageID(in.ID))
	if err != nil {
		return nil, err
	}
	return rest.Reply(s.showMessage(m)), nil
}

// inboxOf returns the address of an agent's inbox, if the caller may read it.
func (s *Server) inboxOf(ctx context.Context, idOrName string) (agented.Address, error) {
	who := rest.Principal(ctx)
	if who.Execution != "" && idOrName == "me" {
		idOrName = string(who.Agent)
	}
	a, err := s.o.DB.Agent(ctx, idOrName)
	if err != nil {
		return agented.Address{}, err
	}
	if who.Execution != "" && a.ID != who.Agent {
		return agented.Address{}, agented.Errorf(agented.Denied, "the token of an execution can only read the inbox of its own agent: use an API key")
	}
	return agented.Address{Kind: agented.ToAgent, Name: string(a.ID)}, nil
}

// ownInbox returns the inbox address of the logged-in user.
func ownInbox(ctx context.Context) (agented.Address, error) {
	who := rest.Principal(ctx)
	if who.User == "" {
		return agented.Address{}, agented.Errorf(agented.Conflict, "%s is not a user and has no inbox: log in as a user", who.Name)
	}
	return agented.Address{Kind: agented.ToUser, Name: string(who.User)}, nil
}

// InboxPage is a page of an inbox.
type InboxPage struct {
	Items     []InboxItemView `json:"items"`
	NextAfter int64           `json:"next_after" doc:"Number of the last message of the page; send it as after to get the next page"`
}

// InboxQuery selects a page of an inbox.
type InboxQuery struct {
	After int64                `query:"after" minimum:"0" doc:"Number of the last message received; 0 for all"`
	Limit int                  `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	State []agented.InboxState `query:"state" doc:"Only these states, separated by commas: pending, delivered, read, expired"`
}

type agentInboxInput struct {
	ID string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	InboxQuery
}

func (s *Server) listInbox(ctx context.Context, in *agentInboxInput) (*rest.Output[InboxPage], error) {
	owner, err := s.inboxOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.inboxPage(ctx, owner, &in.InboxQuery)
}

func (s *Server) listOwnInbox(ctx context.Context, in *InboxQuery) (*rest.Output[InboxPage], error) {
	owner, err := ownInbox(ctx)
	if err != nil {
		return nil, err
	}
	return s.inboxPage(ctx, owner, in)
}

func (s *Server) inboxPage(ctx context.Context, owner agented.Address, in *InboxQuery) (*rest.Output[InboxPage], error) {
	items, err := s.o.DB.Inbox(ctx, owner, in.After, in.Limit, store.InboxFilter{States: in.State})
	if err != nil {
		return nil, err
	}
	out := InboxPage{Items: []InboxItemView{}, NextAfter: in.After}
	for i := range items {
		out.Items = append(out.Items, s.showItem(&items[i]))
		out.NextAfter = items[i].Seq
	}
	if rest.Principal(ctx).Execution != "" && len(items) > 0 {
		// The caller with an execution's token is the agent itself.
		if err := s.o.DB.Delivered(ctx, owner, out.NextAfter, s.now()); err != nil {
			return nil, err
		}
	}
	return rest.Reply(out), nil
}

type acknowledgeInput struct {
	ID  string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	Seq int64  `path:"seq" minimum:"1" doc:"The message's number in the inbox"`
}

func (s *Server) acknowledge(ctx context.Context, in *acknowledgeInput) (*struct{}, error) {
	owner, err := s.inboxOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, s.o.DB.Acknowledge(ctx, owner, in.Seq, s.now())
}

type acknowledgeOwnInput struct {
	Seq int64 `path:"seq" minimum:"1" doc:"The message's number in the inbox"`
}

func (s *Server) acknowledgeOwn(ctx context.Context, in *acknowledgeOwnInput) (*struct{}, error) {
	owner, err := ownInbox(ctx)
	if err != nil {
		return nil, err
	}
	return nil, s.o.DB.Acknowledge(ctx, owner, in.Seq, s.now())
}

// streamInbox streams the inbox of an agent, or the caller's own.
func (s *Server) streamInbox(w http.ResponseWriter, r *http.Request) {
	var owner agented.Address
	var err error
	if id := r.PathValue("id"); id != "" {
		owner, err = s.inboxOf(r.Context(), id)
	} else {
		owner, err = ownInbox(r.Context())
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	after, named, err := sse.Position(r)
	if err == nil && !named {
		// Messages can be read in any order, so start before the first unread
		// one.
		var first []agented.InboxItem
		first, err = s.o.DB.Inbox(r.Context(), owner, 0, 1, store.InboxFilter{States: []agented.InboxState{agented.InboxPending, agented.InboxDelivered}})
		if len(first) > 0 {
			after = first[0].Seq - 1
		} else if err == nil {
			after, err = s.o.DB.LastInboxSeq(r.Context(), owner)
		}
	}
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	// Only a reader who may acknowledge messages marks them delivered. A viewer
	// does not.
	who := rest.Principal(r.Context())
	takes := who.Execution != "" || owner.Name == string(who.User) || who.May(agented.RoleOperator)
	s.streams.ServeFeed(w, r, owner.String(), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		items, err := s.o.DB.Inbox(ctx, owner, after, sse.FeedBatch, store.InboxFilter{})
		if err != nil {
			return dst, after, err
		}
		pending := false
		for i := range items {
			data, err := json.Marshal(s.showItem(&items[i]))
			if err != nil {
				return dst, after, err
			}
			dst = sse.AppendEvent(dst, items[i].Seq, "message", data)
			after = items[i].Seq
			pending = pending || items[i].State == agented.InboxPending
		}
		if pending && takes {
			// Recorded before it is sent: delivery is at least once, and a
			// client that loses the connection resumes from its position.
			err = s.o.DB.Delivered(ctx, owner, after, s.now())
		}
		return dst, after, err
	})
}

// MemberView is the membership of one inbox in one list.
type MemberView struct {
	List   string `json:"list" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" doc:"Address of an agent or a user, with its id"`
	Name   string `json:"name" doc:"Name of the agent or user; empty if it was deleted"`
}

func (s *Server) listMembers(ctx context.Context, _ *struct{}) (*rest.Output[rest.ListOf[MemberView]], error) {
	members, err := s.o.DB.Members(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.o.DB.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := rest.ListOf[MemberView]{Items: []MemberView{}}
	for _, m := range members {
		out.Items = append(out.Items, MemberView{List: m.List.String(), Member: m.Owner.String(), Name: names[m.Owner]})
	}
	return rest.Reply(out), nil
}

// MemberInput is a membership in requests.
type MemberInput struct {
	List   string `json:"list" maxLength:"100" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" maxLength:"300" doc:"agent:NAME or user:NAME"`
}

func (s *Server) join(ctx context.Context, in *struct{ Body MemberInput }) (*struct{}, error) {
	l, owner, err := s.membership(ctx, in.Body.List, in.Body.Member)
	if err != nil {
		return nil, err
	}
	defer s.streams.Changes.Notify(sse.ChangedMembers)
	return nil, s.o.DB.Join(ctx, l, owner, rest.Principal(ctx).Name)
}

type leaveInput struct {
	List   string `query:"list" required:"true" maxLength:"100" doc:"group:NAME or topic:NAME"`
	Member string `query:"member" required:"true" maxLength:"300" doc:"agent:NAME or user:NAME"`
}

func (s *Server) leave(ctx context.Context, in *leaveInput) (*struct{}, error) {
	l, owner, err := s.membership(ctx, in.List, in.Member)
	if err != nil {
		return nil, err
	}
	defer s.streams.Changes.Notify(sse.ChangedMembers)
	return nil, s.o.DB.Leave(ctx, l, owner, rest.Principal(ctx).Name)
}

// membership parses a list and a member, and rejects callers who may not change
// it.
func (s *Server) membership(ctx context.Context, listText, memberText string) (l, owner agented.Address, err error) {
	who := rest.Principal(ctx)
	if l, err = agented.ParseAddress(listText); err != nil || l.Kind != agented.ToGroup && l.Kind != agented.ToTopic {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "list", Text: "must be group:NAME or topic:NAME"}})
	}
	member, err := agented.ParseAddress(memberText)
	if err != nil || member.Kind != agented.ToAgent && member.Kind != agented.ToUser {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "member", Text: "must be agent:NAME or user:NAME"}})
	}
	if l.Kind == agented.ToGroup && !who.May(agented.RoleAdmin) {
		return l, owner, agented.Errorf(agented.Denied, "only an admin can change a group: ask an admin")
	}
	owners, err := s.o.DB.Recipients(ctx, member)
	if err != nil {
		return l, owner, err
	}
	if who.Execution != "" && owners[0] != (agented.Address{Kind: agented.ToAgent, Name: string(who.Agent)}) {
		return l, owner, agented.Errorf(agented.Denied, "the token of an execution can only subscribe its own agent: use an API key")
	}
	return l, owners[0], nil
}

// ChainView is a chain of causes.
type ChainView struct {
	ID        string      `json:"id" doc:"Id of the object that began the chain"`
	CostUSD   *float64    `json:"cost_usd" nullable:"true" doc:"Known cost of its executions; null if unknown"`
	Links     []ChainLink `json:"links" doc:"Messages and executions by time"`
	Truncated bool        `json:"truncated" doc:"The list is truncated"`
}

// ChainLink is one message or execution of a chain.
type ChainLink struct {
	Kind      string        `json:"kind" enum:"message,execution"`
	ID        string        `json:"id"`
	Parent    string        `json:"parent" doc:"Id of its cause; empty for the first"`
	Depth     int           `json:"depth"`
	Title     string        `json:"title" doc:"Sender and subject of a message, or name of an execution"`
	Status    agented.State `json:"status,omitempty" doc:"Status of an execution"`
	CreatedAt time.Time     `json:"created_at"`
}

func (s *Server) getChain(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"100" doc:"Id of any message or execution of the chain"`
},
) (*rest.Output[ChainView], error) {
	c, err := s.o.DB.Chain(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	names, err := s.o.DB.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := ChainView{ID: c.ID, CostUSD: c.CostUSD, Truncated: c.Truncated, Links: []ChainLink{}}
	for _, l := range c.Links {
		title := l.Title
		if l.Kind == "message" {
			title = addressName(names, l.From) + " → " + addressName(names, l.To)
			if l.Title != "" {
				title += ": " + s.mask(l.Title)
			}
		}
		out.Links = append(out.Links, ChainLink{Kind: l.Kind, ID: l.ID, Parent: l.Parent, Depth: l.Depth, Title: title, Status: l.State, CreatedAt: rest.Time(l.CreatedAt)})
	}
	return rest.Reply(out), nil
}

// addressName returns an address with names instead of ids.
func addressName(names map[agented.Address]string, a agented.Address) string {
	if n := names[a]; n != "" {
		return n
	}
	return a.String()
}

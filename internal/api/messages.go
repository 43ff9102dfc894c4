package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// messageRoutes are the ways to the message bus.
func (s *Server) messageRoutes() []route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	stream := func(pattern, id, summary string, params ...*huma.Param) route {
		return raw(pattern, viewer, func(s *Server) http.HandlerFunc { return s.streamInbox }, about{
			id: id, tag: "messages", summary: summary,
			text:    "Server-sent events: `message`, whose id is its number in the inbox. Last-Event-ID or `after` resumes exactly there; without either it begins with what nobody has read. What is sent here counts as delivered. `expired`, without an id, says that a message that was sent before has expired: `{\"seq\":3}`.",
			params:  append(params, inURL("after", "integer", "Number of the last message that is known; 0 for all. Last-Event-ID wins"), lastEventID()),
			answers: map[string]*huma.Response{"200": describe("The events", "text/event-stream")},
			errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).streams().forAgents()
	}
	return []route{
		op("POST /api/v1/messages", operator, s.sendMessage, about{
			id: "send-message", tag: "messages", summary: "Send a message", status: http.StatusCreated, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "To an agent, a user, a group or a topic. Answers once it is stored, in every inbox that it reaches, with the executions that it fires. The same `key` of the same sender is the same message. A chain of causes at its limit is a conflict that says which.",
		}).forAgents(),
		op("GET /api/v1/messages/{id}", viewer, s.getMessage, about{
			id: "get-message", tag: "messages", summary: "Show a message", errors: []int{http.StatusNotFound}, text: "By its id.",
		}),
		op("GET /api/v1/agents/{id}/inbox", viewer, s.listInbox, about{
			id: "list-agent-inbox", tag: "messages", summary: "Read an agent's inbox", errors: []int{http.StatusNotFound},
			text: "In the order in which messages came. Ask again with `after` set to `next_after` for those behind; an empty list means that there are no more yet.",
		}).forAgents(),
		stream("GET /api/v1/agents/{id}/inbox/stream", "stream-agent-inbox", "Follow an agent's inbox", inPath("id", "The agent's id, agt-…, or its name")),
		op("POST /api/v1/agents/{id}/inbox/{seq}/ack", operator, s.acknowledge, about{
			id: "acknowledge-message", tag: "messages", summary: "Acknowledge a message", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Notes that it was read; once more is no error. One that has expired is a conflict.",
		}).forAgents(),
		op("GET /api/v1/inbox", viewer, s.listOwnInbox, about{
			id: "list-inbox", tag: "messages", summary: "Read your own inbox", errors: []int{http.StatusConflict}, text: "Of the user who is logged in.",
		}),
		stream("GET /api/v1/inbox/stream", "stream-inbox", "Follow your own inbox"),
		op("POST /api/v1/inbox/{seq}/ack", viewer, s.acknowledgeOwn, about{
			id: "acknowledge-own-message", tag: "messages", summary: "Acknowledge a message to you", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict}, text: "Notes that it was read.",
		}),
		op("GET /api/v1/members", viewer, s.listMembers, about{
			id: "list-members", tag: "messages", summary: "List groups and topics", text: "Every inbox on every list.",
		}),
		op("POST /api/v1/members", operator, s.join, about{
			id: "join", tag: "messages", summary: "Put an inbox on a list", status: http.StatusNoContent, errors: []int{http.StatusNotFound},
			text: "A group's list is an admin's; a topic may be subscribed to by an operator, and by an execution for its own agent. Once more is no error.",
		}).forAgents(),
		op("DELETE /api/v1/members", operator, s.leave, about{
			id: "leave", tag: "messages", summary: "Take an inbox off a list", status: http.StatusNoContent, errors: []int{http.StatusNotFound}, text: "Likewise.",
		}).forAgents(),
		op("GET /api/v1/chains/{id}", viewer, s.getChain, about{
			id: "get-chain", tag: "messages", summary: "Show a chain of causes", errors: []int{http.StatusNotFound},
			text: "The messages and executions that one cause set going, in the order of their times, each with what caused it. The id is that of any of them.",
		}),
	}
}

// MessageView is a message as the API shows it.
type MessageView struct {
	ID        agented.MessageID   `json:"id" example:"msg-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	Type      agented.MessageType `json:"type" enum:"message,request,response,status,alert,artifact"`
	Priority  agented.Priority    `json:"priority" enum:"low,normal,high"`
	From      string              `json:"from" doc:"Address of the sender"`
	To        string              `json:"to" doc:"Address as it was sent to"`
	Subject   string              `json:"subject"`
	Body      string              `json:"body"`
	ReplyTo   agented.MessageID   `json:"reply_to" doc:"Empty: no reply"`
	ExpiresAt *time.Time          `json:"expires_at" nullable:"true"`
	Chain     agented.Chain       `json:"chain" doc:"What it was caused by"`
	CreatedAt time.Time           `json:"created_at"`
}

func (s *Server) showMessage(m *agented.BusMessage) MessageView {
	return MessageView{
		ID: m.ID, Type: m.Type, Priority: m.Priority, From: m.From.String(), To: m.To.String(),
		Subject: s.mask(m.Subject), Body: s.mask(m.Body), ReplyTo: m.ReplyTo, ExpiresAt: orNull(m.ExpiresAt), Chain: m.Chain, CreatedAt: shown(m.CreatedAt),
	}
}

// orNull is the time as answers show it, nil for none.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = shown(t)
	return &t
}

// InboxItemView is a message in an inbox.
type InboxItemView struct {
	Seq         int64              `json:"seq" doc:"Its number in the inbox, from 1"`
	State       agented.InboxState `json:"state" enum:"pending,delivered,read,expired"`
	DeliveredAt *time.Time         `json:"delivered_at" nullable:"true"`
	ReadAt      *time.Time         `json:"read_at" nullable:"true"`
	Message     MessageView        `json:"message"`
}

func (s *Server) showItem(i *agented.InboxItem) InboxItemView {
	return InboxItemView{Seq: i.Seq, State: i.State, DeliveredAt: orNull(i.DeliveredAt), ReadAt: orNull(i.ReadAt), Message: s.showMessage(&i.Message)}
}

// MessageInput is a message to be sent.
type MessageInput struct {
	To         string              `json:"to" maxLength:"300" doc:"agent:NAME or a name alone, user:NAME, group:NAME, topic:NAME"`
	Type       agented.MessageType `json:"type,omitempty" doc:"message (default), request, response, status, alert or artifact"`
	Priority   agented.Priority    `json:"priority,omitempty" doc:"low, normal (default) or high"`
	Subject    string              `json:"subject,omitempty" doc:"One line, at most 500 bytes"`
	Body       string              `json:"body,omitempty" doc:"At most 256 KiB"`
	ReplyTo    agented.MessageID   `json:"reply_to,omitempty" maxLength:"100" doc:"Id of the message that this answers"`
	TTLSeconds int64               `json:"ttl_seconds,omitempty" minimum:"0" maximum:"31622400" doc:"Time to live; 0 is for ever"`
	Key        string              `json:"key,omitempty" doc:"Your own id of it, at most 200 bytes: sent again, it is the same message"`
}

// SentMessage is the answer to a message.
type SentMessage struct {
	Message    MessageView           `json:"message"`
	Recipients []string              `json:"recipients" doc:"Addresses whose inboxes it is in; empty for a repetition"`
	Executions []agented.ExecutionID `json:"execution_ids" doc:"What it fired"`
	Repeated   bool                  `json:"repeated" doc:"The key was seen before: this is the first message"`
}

// sender is the address under which somebody sends.
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

func (s *Server) sendMessage(ctx context.Context, in *struct{ Body MessageInput }) (*output[SentMessage], error) {
	who := principal(ctx)
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
			bad = append(bad, agented.Field{Path: "reply_to", Text: "is not the id of a message: msg-…"})
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
	}
	got, err := s.o.Dispatch.Send(ctx, m)
	if err != nil {
		return nil, err
	}
	out := SentMessage{Message: s.showMessage(&got.Message), Recipients: []string{}, Executions: list(got.Fired), Repeated: got.Repeated}
	for _, owner := range got.Owners {
		out.Recipients = append(out.Recipients, owner.String())
		s.feeds.tell(owner.String())
	}
	return &output[SentMessage]{out}, nil
}

type messagePath struct {
	ID string `path:"id" maxLength:"100" doc:"The message's id, msg-…"`
}

func (s *Server) getMessage(ctx context.Context, in *messagePath) (*output[MessageView], error) {
	m, err := s.o.DB.Message(ctx, agented.MessageID(in.ID))
	if err != nil {
		return nil, err
	}
	return &output[MessageView]{s.showMessage(m)}, nil
}

// inboxOf is the inbox of an agent, if the asker may have it.
func (s *Server) inboxOf(ctx context.Context, idOrName string) (agented.Address, error) {
	who := principal(ctx)
	if who.Execution != "" && idOrName == "me" {
		idOrName = string(who.Agent)
	}
	a, err := s.o.DB.Agent(ctx, idOrName)
	if err != nil {
		return agented.Address{}, err
	}
	if who.Execution != "" && a.ID != who.Agent {
		return agented.Address{}, agented.Errorf(agented.Denied, "the token of an execution reads the inbox of its own agent only")
	}
	return agented.Address{Kind: agented.ToAgent, Name: string(a.ID)}, nil
}

// ownInbox is the inbox of who is logged in.
func ownInbox(ctx context.Context) (agented.Address, error) {
	who := principal(ctx)
	if who.User == "" {
		return agented.Address{}, agented.Errorf(agented.Conflict, "%s is no user, and has no inbox: log in as one", who.Name)
	}
	return agented.Address{Kind: agented.ToUser, Name: string(who.User)}, nil
}

// InboxPage is a part of an inbox.
type InboxPage struct {
	Items     []InboxItemView `json:"items"`
	NextAfter int64           `json:"next_after" doc:"Number of the last message of the page; after for the next one"`
}

// InboxQuery asks for a part of an inbox.
type InboxQuery struct {
	After int64                `query:"after" minimum:"0" doc:"Number of the last message that is known; 0 for all"`
	Limit int                  `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Messages at most"`
	State []agented.InboxState `query:"state" doc:"Only these, separated by commas: pending, delivered, read, expired"`
}

type agentInboxInput struct {
	ID string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	InboxQuery
}

func (s *Server) listInbox(ctx context.Context, in *agentInboxInput) (*output[InboxPage], error) {
	owner, err := s.inboxOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.inboxPage(ctx, owner, &in.InboxQuery)
}

func (s *Server) listOwnInbox(ctx context.Context, in *InboxQuery) (*output[InboxPage], error) {
	owner, err := ownInbox(ctx)
	if err != nil {
		return nil, err
	}
	return s.inboxPage(ctx, owner, in)
}

func (s *Server) inboxPage(ctx context.Context, owner agented.Address, in *InboxQuery) (*output[InboxPage], error) {
	items, err := s.o.DB.Inbox(ctx, owner, in.After, in.Limit, store.InboxFilter{States: in.State})
	if err != nil {
		return nil, err
	}
	out := InboxPage{Items: []InboxItemView{}, NextAfter: in.After}
	for i := range items {
		out.Items = append(out.Items, s.showItem(&items[i]))
		out.NextAfter = items[i].Seq
	}
	if principal(ctx).Execution != "" && len(items) > 0 {
		// Who reads with an execution's token is the agent itself.
		if err := s.o.DB.Delivered(ctx, owner, out.NextAfter, s.now()); err != nil {
			return nil, err
		}
	}
	return &output[InboxPage]{out}, nil
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

// streamInbox follows the inbox of an agent, or without one the asker's own.
func (s *Server) streamInbox(w http.ResponseWriter, r *http.Request) {
	var owner agented.Address
	var err error
	if id := r.PathValue("id"); id != "" {
		owner, err = s.inboxOf(r.Context(), id)
	} else {
		owner, err = ownInbox(r.Context())
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, named, err := position(r)
	if err == nil && !named {
		// Messages are read in any order, so it begins before the first that is not.
		var first []agented.InboxItem
		first, err = s.o.DB.Inbox(r.Context(), owner, 0, 1, store.InboxFilter{States: []agented.InboxState{agented.InboxPending, agented.InboxDelivered}})
		if len(first) > 0 {
			after = first[0].Seq - 1
		} else if err == nil {
			after, err = s.o.DB.LastInboxSeq(r.Context(), owner)
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.feed(w, r, owner.String(), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		items, err := s.o.DB.Inbox(ctx, owner, after, feedBatch, store.InboxFilter{})
		if err != nil {
			return dst, after, err
		}
		pending := false
		for i := range items {
			data, err := json.Marshal(s.showItem(&items[i]))
			if err != nil {
				return dst, after, err
			}
			dst = appendEvent(dst, items[i].Seq, "message", data)
			after = items[i].Seq
			pending = pending || items[i].State == agented.InboxPending
		}
		if pending {
			// Noted before it is sent: at least once, and a follower that is cut
			// off asks again from where it was.
			err = s.o.DB.Delivered(ctx, owner, after, s.now())
		}
		return dst, after, err
	})
}

// MemberView is one inbox on one list.
type MemberView struct {
	List   string `json:"list" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" doc:"Address of an agent or a user, with its id"`
	Name   string `json:"name" doc:"Name of the agent or user; empty when it is no more"`
}

func (s *Server) listMembers(ctx context.Context, _ *struct{}) (*output[ListOf[MemberView]], error) {
	members, err := s.o.DB.Members(ctx)
	if err != nil {
		return nil, err
	}
	names, err := s.o.DB.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := ListOf[MemberView]{Items: []MemberView{}}
	for _, m := range members {
		out.Items = append(out.Items, MemberView{List: m.List.String(), Member: m.Owner.String(), Name: names[m.Owner]})
	}
	return &output[ListOf[MemberView]]{out}, nil
}

// MemberInput names an inbox and a list.
type MemberInput struct {
	List   string `json:"list" maxLength:"100" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" maxLength:"300" doc:"agent:NAME or user:NAME"`
}

func (s *Server) join(ctx context.Context, in *struct{ Body MemberInput }) (*struct{}, error) {
	l, owner, err := s.membership(ctx, in.Body.List, in.Body.Member)
	if err != nil {
		return nil, err
	}
	defer s.changes.tell(changedMembers)
	return nil, s.o.DB.Join(ctx, l, owner, principal(ctx).Name)
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
	defer s.changes.tell(changedMembers)
	return nil, s.o.DB.Leave(ctx, l, owner, principal(ctx).Name)
}

// membership reads a list and a member, and refuses who may not change it.
func (s *Server) membership(ctx context.Context, listText, memberText string) (l, owner agented.Address, err error) {
	who := principal(ctx)
	if l, err = agented.ParseAddress(listText); err != nil || l.Kind != agented.ToGroup && l.Kind != agented.ToTopic {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "list", Text: "must be group:NAME or topic:NAME"}})
	}
	member, err := agented.ParseAddress(memberText)
	if err != nil || member.Kind != agented.ToAgent && member.Kind != agented.ToUser {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "member", Text: "must be agent:NAME or user:NAME"}})
	}
	if l.Kind == agented.ToGroup && !who.May(agented.RoleAdmin) {
		return l, owner, agented.Errorf(agented.Denied, "who is in a group is an admin's to say")
	}
	owners, err := s.o.DB.Recipients(ctx, member)
	if err != nil {
		return l, owner, err
	}
	if who.Execution != "" && owners[0] != (agented.Address{Kind: agented.ToAgent, Name: string(who.Agent)}) {
		return l, owner, agented.Errorf(agented.Denied, "the token of an execution subscribes its own agent only")
	}
	return l, owners[0], nil
}

// ChainView is what one cause set going.
type ChainView struct {
	ID      string      `json:"id" doc:"Id of what began it"`
	CostUSD *float64    `json:"cost_usd" nullable:"true" doc:"Known cost of its executions; null when none is known"`
	Links   []ChainLink `json:"links" doc:"In the order of their times"`
	Cut     bool        `json:"cut" doc:"There are more than are shown"`
}

// ChainLink is one message or execution of a chain.
type ChainLink struct {
	Kind      string        `json:"kind" enum:"message,execution"`
	ID        string        `json:"id"`
	Parent    string        `json:"parent" doc:"Id of what caused it; empty for the first"`
	Depth     int           `json:"depth"`
	Title     string        `json:"title" doc:"Sender and subject of a message, name of an execution"`
	Status    agented.State `json:"status,omitempty" doc:"Of an execution"`
	CreatedAt time.Time     `json:"created_at"`
}

func (s *Server) getChain(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"100" doc:"Id of any message or execution of the chain"`
},
) (*output[ChainView], error) {
	c, err := s.o.DB.Chain(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	names, err := s.o.DB.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := ChainView{ID: c.ID, CostUSD: c.CostUSD, Cut: c.Cut, Links: []ChainLink{}}
	for _, l := range c.Links {
		title := l.Title
		if l.Kind == "message" {
			title = addressName(names, l.From) + " → " + addressName(names, l.To)
			if l.Title != "" {
				title += ": " + s.mask(l.Title)
			}
		}
		out.Links = append(out.Links, ChainLink{Kind: l.Kind, ID: l.ID, Parent: l.Parent, Depth: l.Depth, Title: title, Status: l.State, CreatedAt: shown(l.CreatedAt)})
	}
	return &output[ChainView]{out}, nil
}

// addressName is how people read an address.
func addressName(names map[agented.Address]string, a agented.Address) string {
	if n := names[a]; n != "" {
		return n
	}
	return a.String()
}

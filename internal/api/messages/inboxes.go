package messages

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

// inboxes handles the requests about inboxes.
type inboxes struct {
	db      *store.DB
	streams *sse.Streams
	now     func() time.Time
	mask    func(string) string
}

// routes returns the routes of inboxes.
func (h *inboxes) routes() []rest.Route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	stream := func(pattern, id, summary string, params ...*huma.Param) rest.Route {
		return rest.Raw(pattern, viewer, h.stream, rest.About{
			ID: id, Tag: "messages", Summary: summary,
			Text:    "Server-sent events: `message`, whose id is its number in the inbox. Last-Event-ID or `after` resumes after that message; without either, the stream begins with the first unread message. Sent messages count as delivered. `expired`, without an id, reports that a message that was sent earlier has expired: `{\"seq\":3}`.",
			Params:  append(params, rest.QueryParam("after", "integer", "Number of the last message received; 0 for all. Last-Event-ID takes precedence"), rest.LastEventID()),
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream")},
			Errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).Streams().ForAgents()
	}
	return []rest.Route{
		rest.Op("GET /api/v1/agents/{id}/inbox", viewer, h.list, rest.About{
			ID: "list-agent-inbox", Tag: "messages", Summary: "Read an agent's inbox", Errors: []int{http.StatusNotFound},
			Text: "Returns messages in order of arrival. For the next page, send `next_after` as `after`; an empty list means that there are no more messages yet.",
		}).ForAgents(),
		stream("GET /api/v1/agents/{id}/inbox/stream", "stream-agent-inbox", "Stream an agent's inbox", rest.PathParam("id", "The agent's id, agt-…, or its name")),
		rest.Op("POST /api/v1/agents/{id}/inbox/{seq}/ack", operator, h.acknowledge, rest.About{
			ID: "acknowledge-message", Tag: "messages", Summary: "Acknowledge a message", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Marks the message as read. Repeating it is not an error. Returns 409 for an expired message.",
		}).ForAgents(),
		rest.Op("GET /api/v1/inbox", viewer, h.listOwn, rest.About{
			ID: "list-own-inbox", Tag: "messages", Summary: "Read your own inbox", Errors: []int{http.StatusConflict}, Text: "The inbox of the user who is logged in.",
		}),
		stream("GET /api/v1/inbox/stream", "stream-inbox", "Stream your own inbox"),
		rest.Op("POST /api/v1/inbox/{seq}/ack", viewer, h.acknowledgeOwn, rest.About{
			ID: "acknowledge-own-message", Tag: "messages", Summary: "Acknowledge a message to you", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict}, Text: "Marks the message as read.",
		}),
	}
}

// InboxItemView is a message in an inbox.
type InboxItemView struct {
	Seq         int64              `json:"seq" doc:"Number in the inbox, from 1"`
	State       agented.InboxState `json:"state" enum:"pending,delivered,read,expired"`
	DeliveredAt *time.Time         `json:"delivered_at" nullable:"true"`
	ReadAt      *time.Time         `json:"read_at" nullable:"true"`
	Message     MessageView        `json:"message"`
}

func (h *inboxes) show(i *agented.InboxItem) InboxItemView {
	return InboxItemView{Seq: i.Seq, State: i.State, DeliveredAt: rest.OptionalTime(i.DeliveredAt), ReadAt: rest.OptionalTime(i.ReadAt), Message: showMessage(h.mask, &i.Message)}
}

// of returns the address of an agent's inbox, if the caller may read it.
func (h *inboxes) of(ctx context.Context, idOrName string) (agented.Address, error) {
	who := rest.Principal(ctx)
	if who.Execution != "" && idOrName == "me" {
		idOrName = string(who.Agent)
	}
	a, err := h.db.Agent(ctx, idOrName)
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

func (h *inboxes) list(ctx context.Context, in *agentInboxInput) (*rest.Output[InboxPage], error) {
	owner, err := h.of(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return h.page(ctx, owner, &in.InboxQuery)
}

func (h *inboxes) listOwn(ctx context.Context, in *InboxQuery) (*rest.Output[InboxPage], error) {
	owner, err := ownInbox(ctx)
	if err != nil {
		return nil, err
	}
	return h.page(ctx, owner, in)
}

func (h *inboxes) page(ctx context.Context, owner agented.Address, in *InboxQuery) (*rest.Output[InboxPage], error) {
	items, err := h.db.Inbox(ctx, owner, in.After, in.Limit, store.InboxFilter{States: in.State})
	if err != nil {
		return nil, err
	}
	out := InboxPage{Items: []InboxItemView{}, NextAfter: in.After}
	for i := range items {
		out.Items = append(out.Items, h.show(&items[i]))
		out.NextAfter = items[i].Seq
	}
	if rest.Principal(ctx).Execution != "" && len(items) > 0 {
		// The caller with an execution's token is the agent itself.
		if err := h.db.Delivered(ctx, owner, out.NextAfter, h.now()); err != nil {
			return nil, err
		}
	}
	return rest.Reply(out), nil
}

type acknowledgeInput struct {
	ID  string `path:"id" maxLength:"100" doc:"The agent's id, agt-…, or its name"`
	Seq int64  `path:"seq" minimum:"1" doc:"The message's number in the inbox"`
}

func (h *inboxes) acknowledge(ctx context.Context, in *acknowledgeInput) (*struct{}, error) {
	owner, err := h.of(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, h.db.Acknowledge(ctx, owner, in.Seq, h.now())
}

type acknowledgeOwnInput struct {
	Seq int64 `path:"seq" minimum:"1" doc:"The message's number in the inbox"`
}

func (h *inboxes) acknowledgeOwn(ctx context.Context, in *acknowledgeOwnInput) (*struct{}, error) {
	owner, err := ownInbox(ctx)
	if err != nil {
		return nil, err
	}
	return nil, h.db.Acknowledge(ctx, owner, in.Seq, h.now())
}

// stream streams the inbox of an agent, or the caller's own.
func (h *inboxes) stream(w http.ResponseWriter, r *http.Request) {
	var owner agented.Address
	var err error
	if id := r.PathValue("id"); id != "" {
		owner, err = h.of(r.Context(), id)
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
		first, err = h.db.Inbox(r.Context(), owner, 0, 1, store.InboxFilter{States: []agented.InboxState{agented.InboxPending, agented.InboxDelivered}})
		if len(first) > 0 {
			after = first[0].Seq - 1
		} else if err == nil {
			after, err = h.db.LastInboxSeq(r.Context(), owner)
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
	h.streams.ServeFeed(w, r, owner.String(), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		items, err := h.db.Inbox(ctx, owner, after, sse.FeedBatch, store.InboxFilter{})
		if err != nil {
			return dst, after, err
		}
		pending := false
		for i := range items {
			data, err := json.Marshal(h.show(&items[i]))
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
			err = h.db.Delivered(ctx, owner, after, h.now())
		}
		return dst, after, err
	})
}

package conversations

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

// events handles the requests about the events of a conversation.
type events struct {
	db      *store.DB
	streams *sse.Streams
	mask    func(string) string
}

// routes returns the routes of events.
func (h *events) routes() []rest.Route {
	const viewer = agented.RoleViewer
	return []rest.Route{
		rest.Op("GET /api/v1/conversations/{id}/events", viewer, h.list, rest.About{
			ID: "list-conversation-events", Tag: "conversations", Summary: "List events of a conversation", Errors: []int{http.StatusNotFound},
			Text: "Returns the events of the stream, in order. For the next page, send `next_after` as `after`; an empty list means that there are no more events yet.",
		}),
		rest.Raw("GET /api/v1/conversations/{id}/stream", viewer, h.stream, rest.About{
			ID: "stream-conversation", Tag: "conversations", Summary: "Stream a conversation",
			Text:    "Server-sent events with increasing ids: `message`, `content_delta`, `tool_call`, `finish`, `status_change`, `error`. Last-Event-ID or `after` resumes after that event. If pieces of answers after that position have been removed, the stream begins with `full_sync`, which contains the remaining events up to its id and replaces the client's state.",
			Params:  []*huma.Param{idParam(), rest.QueryParam("after", "integer", "Id of the last event received; 0 for all. Last-Event-ID takes precedence"), rest.LastEventID()},
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream")},
			Errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).Streams(),
	}
}

// ConversationEventView is one event of a conversation.
type ConversationEventView struct {
	ID    int64                         `json:"id"`
	Event agented.ConversationEventKind `json:"event" enum:"message,content_delta,tool_call,finish,status_change,error"`
	Data  json.RawMessage               `json:"data" doc:"Object whose fields depend on the event"`
	At    time.Time                     `json:"timestamp"`
}

// ConversationEventPage is a page of events.
type ConversationEventPage struct {
	Events               []ConversationEventView `json:"events"`
	NextAfter            int64                   `json:"next_after"`
	DeltasRemovedThrough int64                   `json:"deltas_removed_through" doc:"Pieces of answers up to this id have been removed; their complete messages remain"`
}

func (h *events) list(ctx context.Context, in *struct {
	ID    string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	After int64  `query:"after" minimum:"0" doc:"Id of the last event received; 0 for all"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Page size"`
},
) (*rest.Output[ConversationEventPage], error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	events, gone, err := h.db.ConversationEvents(ctx, id, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	out := ConversationEventPage{Events: []ConversationEventView{}, NextAfter: in.After, DeltasRemovedThrough: gone}
	for i := range events {
		out.Events = append(out.Events, h.show(&events[i]))
		out.NextAfter = events[i].Seq
	}
	return rest.Reply(out), nil
}

func (h *events) show(e *agented.ConversationEvent) ConversationEventView {
	return ConversationEventView{ID: e.Seq, Event: e.Kind, Data: h.maskedJSON(e.Data), At: rest.Time(e.At)}
}

// maskedJSON masks secrets in an object. It returns null if masking makes the
// JSON invalid.
func (h *events) maskedJSON(data []byte) json.RawMessage {
	text := h.mask(string(data))
	if !json.Valid([]byte(text)) {
		return json.RawMessage(`{"masked":true}`)
	}
	return json.RawMessage(text)
}

// maxSync limits the events of one full_sync.
const maxSync = 5000

func (h *events) stream(w http.ResponseWriter, r *http.Request) {
	id, err := conversationID(r.PathValue("id"))
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	after, _, err := sse.Position(r)
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	h.streams.ServeFeed(w, r, string(id), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		events, gone, err := h.db.ConversationEvents(ctx, id, after, sse.FeedBatch)
		if err != nil {
			return dst, after, err
		}
		if after < gone {
			return h.fullSync(ctx, dst, id, gone)
		}
		for i := range events {
			v := h.show(&events[i])
			dst = sse.AppendEvent(dst, v.ID, string(v.Event), withTime(v))
			after = v.ID
		}
		return dst, after, nil
	})
}

// withTime adds the time of an event to its object.
func withTime(v ConversationEventView) []byte {
	stamp, err := json.Marshal(v.At)
	if err != nil || len(v.Data) < 2 || v.Data[0] != '{' {
		return v.Data
	}
	out := append([]byte(`{"timestamp":`), stamp...)
	if string(v.Data) == "{}" {
		return append(out, '}')
	}
	return append(append(out, ','), v.Data[1:]...)
}

// fullSync appends an event that contains all remaining events up to gone.
func (h *events) fullSync(ctx context.Context, dst []byte, id agented.ConversationID, gone int64) ([]byte, int64, error) {
	all := []ConversationEventView{}
	for after := int64(0); after < gone; {
		events, _, err := h.db.ConversationEvents(ctx, id, after, 1000)
		if err != nil {
			return dst, gone, err
		}
		if len(events) == 0 {
			break
		}
		for i := range events {
			if after = events[i].Seq; after <= gone {
				all = append(all, h.show(&events[i]))
			}
		}
	}
	truncated := len(all) > maxSync
	if truncated {
		all = all[len(all)-maxSync:]
	}
	data, err := json.Marshal(map[string]any{"events": all, "truncated": truncated})
	if err != nil {
		return dst, gone, err
	}
	return sse.AppendEvent(dst, gone, string(agented.EventFullSync), data), gone, nil
}

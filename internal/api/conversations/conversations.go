// Package conversations has the handlers of conversations between a person and
// an agent, of the files of their messages, and of their events.
package conversations

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/store"
)

// Turns runs the turns of conversations.
type Turns interface {
	Say(ctx context.Context, p *store.PostMessage) (repeated bool, err error)
	Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error)
	Close(ctx context.Context, id agented.ConversationID, by agented.Principal) error
}

// Options are what the handlers work with. All fields are required.
type Options struct {
	DB      *store.DB
	Turns   Turns
	AgentID func(idOrName string) agented.AgentID // empty if there is no such agent
	Streams *sse.Streams
	Layout  agented.Layout
	Log     *slog.Logger
	Now     func() time.Time
	Mask    func(string) string // masks known secrets
	// Note adds an audit entry for an action of the caller.
	Note func(ctx context.Context, action, subject, detail string)
}

// Routes returns the routes of conversations, their files and their events.
func Routes(o Options) []rest.Route {
	return slices.Concat(
		(&conversations{
			db: o.DB, turns: o.Turns, agentID: o.AgentID, changes: o.Streams.Changes, layout: o.Layout, log: o.Log, now: o.Now, mask: o.Mask, note: o.Note,
		}).routes(),
		(&files{db: o.DB, layout: o.Layout}).routes(),
		(&events{db: o.DB, streams: o.Streams, mask: o.Mask}).routes(),
	)
}

// conversations handles the requests about conversations.
type conversations struct {
	db      *store.DB
	turns   Turns
	agentID func(idOrName string) agented.AgentID
	changes *sse.Changes
	layout  agented.Layout
	log     *slog.Logger
	now     func() time.Time
	mask    func(string) string
	note    func(ctx context.Context, action, subject, detail string)
}

// routes returns the routes of conversations.
func (h *conversations) routes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/conversations", viewer, h.list, rest.About{
			ID: "list-conversations", Tag: "conversations", Summary: "List conversations", Text: "Lists conversations by latest activity, newest first.",
		}),
		rest.Op("POST /api/v1/conversations", operator, h.create, rest.About{
			ID: "create-conversation", Tag: "conversations", Summary: "Start a conversation", Status: http.StatusCreated, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Starts a conversation with an agent. `message` is the first message; its turn starts immediately.",
		}),
		rest.Op("GET /api/v1/conversations/{id}", viewer, h.get, rest.About{
			ID: "get-conversation", Tag: "conversations", Summary: "Show a conversation", Errors: []int{http.StatusNotFound},
			Text: "Returns the state of one conversation. Its messages are in its events.",
		}),
		rest.Op("DELETE /api/v1/conversations/{id}", admin, h.remove, rest.About{
			ID: "delete-conversation", Tag: "conversations", Summary: "Delete a conversation", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Deletes the conversation and its files. The executions of its turns remain.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/messages", operator, h.post, rest.About{
			ID: "send-conversation-message", Tag: "conversations", Summary: "Send a message to a conversation", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Returns once the message is stored. Each message gets its own turn, one after another. A message reopens a closed conversation in the same session.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/interrupt", operator, h.interrupt, rest.About{
			ID: "interrupt-conversation", Tag: "conversations", Summary: "Interrupt the current turn", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Stops the current turn and discards queued messages. With `text`, that message is sent instead, and its turn starts when the current one has ended.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/close", operator, h.close, rest.About{
			ID: "close-conversation", Tag: "conversations", Summary: "Close a conversation", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "A new message reopens it.",
		}),
	}
}

// ConversationView is a conversation in responses.
type ConversationView struct {
	ID        agented.ConversationID    `json:"id" example:"conv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	AgentID   agented.AgentID           `json:"agent_id"`
	AgentName string                    `json:"agent_name" doc:"Name of the agent when the conversation started"`
	Title     string                    `json:"title"`
	Status    agented.ConversationState `json:"status" enum:"open,closed"`
	Turn      agented.ExecutionID       `json:"turn" doc:"Execution of the current turn; empty: none"`
	Queued    int                       `json:"queued" doc:"Messages waiting for their turn"`
	SessionID string                    `json:"session_id" doc:"Session of the agent's CLI that the next turn resumes; empty before the first turn has ended"`
	LastEvent int64                     `json:"last_event" doc:"Id of its latest event"`
	Actor     string                    `json:"actor" doc:"Who started it"`
	CreatedAt time.Time                 `json:"created_at"`
	ActiveAt  time.Time                 `json:"active_at" doc:"Time of the latest activity"`
	ClosedAt  *time.Time                `json:"closed_at" nullable:"true"`
}

func (h *conversations) show(c *agented.Conversation) ConversationView {
	v := ConversationView{
		ID: c.ID, AgentID: c.Agent, AgentName: c.AgentName, Title: h.mask(c.Title), Status: c.State, Turn: c.Turn, Queued: c.Queued,
		LastEvent: c.LastSeq, Actor: c.Actor, CreatedAt: rest.Time(c.CreatedAt), ActiveAt: rest.Time(c.ActiveAt), ClosedAt: rest.OptionalTime(c.ClosedAt),
	}
	if c.Resume != nil {
		v.SessionID = c.Resume.Session
	}
	return v
}

type conversationListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	Agent  string `query:"agent" maxLength:"100" doc:"Only with this agent (id or name)"`
}

func (h *conversations) list(ctx context.Context, in *conversationListInput) (*rest.ListOutput[ConversationView], error) {
	var agent agented.AgentID
	if in.Agent != "" {
		agent = agented.AgentID(in.Agent) // also of a deleted agent
		if id := h.agentID(in.Agent); id != "" {
			agent = id
		}
	}
	items, next, err := h.db.Conversations(ctx, agent, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, h.show), nil
}

// ConversationCreate is the request to start a conversation.
type ConversationCreate struct {
	Agent   string `json:"agent" maxLength:"100" doc:"Id or name of the agent"`
	Title   string `json:"title,omitempty" maxLength:"200" doc:"Default: the beginning of the first message"`
	Message string `json:"message,omitempty" doc:"The first message"`
}

type createdConversation struct {
	Location string `header:"Location" doc:"Path of the new conversation"`
	Body     ConversationView
}

func (h *conversations) create(ctx context.Context, in *rest.Input[ConversationCreate]) (*createdConversation, error) {
	a, err := h.db.Agent(ctx, in.Body.Agent)
	if err != nil {
		return nil, err
	}
	if !a.Enabled {
		return nil, agented.Errorf(agented.Conflict, "agent %q is disabled: enable it first", a.Name)
	}
	if in.Body.Message != "" {
		if err := checkMessageText(in.Body.Message, nil); err != nil {
			return nil, err
		}
	}
	title := in.Body.Title
	if title == "" {
		title = titleOf(in.Body.Message)
	}
	c := &agented.Conversation{Agent: a.ID, AgentName: a.Name, Title: title, Actor: rest.Principal(ctx).Name, CreatedAt: h.now()}
	if err := h.db.CreateConversation(ctx, c); err != nil {
		return nil, err
	}
	h.changes.Notify(sse.ChangedConversations)
	if in.Body.Message != "" {
		p := &store.PostMessage{Conversation: c.ID, Text: in.Body.Message, Actor: rest.Principal(ctx).Name}
		if _, err := h.turns.Say(ctx, p); err != nil {
			return nil, err
		}
		h.note(ctx, "conversation.say", string(c.ID), c.AgentName)
		if c, err = h.db.Conversation(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	return &createdConversation{Location: "/api/v1/conversations/" + string(c.ID), Body: h.show(c)}, nil
}

// titleOf makes a title from a message.
func titleOf(text string) string {
	return format.ClipCharacters(strings.Join(strings.Fields(text), " "), 80)
}

type conversationPath struct {
	ID string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
}

// conversationID validates an id from a path before it becomes part of a file
// path.
func conversationID(id string) (agented.ConversationID, error) {
	if !agented.ValidID("conv", id) {
		return "", agented.Errorf(agented.NotFound, "no conversation has this id")
	}
	return agented.ConversationID(id), nil
}

// idParam describes the id in a path.
func idParam() *huma.Param { return rest.PathParam("id", "The conversation's id, conv-…") }

// find returns the conversation with an id from a request.
func find(ctx context.Context, db *store.DB, id string) (*agented.Conversation, error) {
	cid, err := conversationID(id)
	if err != nil {
		return nil, err
	}
	return db.Conversation(ctx, cid)
}

func (h *conversations) get(ctx context.Context, in *conversationPath) (*rest.Output[ConversationView], error) {
	c, err := find(ctx, h.db, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Reply(h.show(c)), nil
}

func (h *conversations) remove(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := h.db.DeleteConversation(ctx, id, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	h.changes.Notify(sse.ChangedConversations)
	h.removeFolder(ctx, id)
	return nil, nil
}

// removeFolder removes the files of a deleted conversation. If that
// fails, the folder remains in the database's list of removals, and retention
// retries every hour.
func (h *conversations) removeFolder(ctx context.Context, id agented.ConversationID) {
	err := remove.All(h.layout.Conversation(id))
	if err == nil {
		err = h.db.Removed(ctx, []string{string(id)})
	}
	if err != nil {
		h.log.Error("could not remove a conversation's folder: retrying every hour", "conversation", id, "err", err)
	}
}

// ConversationMessageInput is a message in requests.
type ConversationMessageInput struct {
	Text  string   `json:"text" doc:"At most 1 MiB"`
	Files []string `json:"files,omitempty" maxItems:"20" doc:"Names of uploaded files for the message"`
}

// AcceptedMessage is a stored message that will get its turn.
type AcceptedMessage struct {
	Number   int64 `json:"number" doc:"Number of the message among the user messages of the conversation"`
	Repeated bool  `json:"repeated" doc:"The Idempotency-Key was already used: no message was added"`
}

// checkMessageText validates a message.
func checkMessageText(text string, files []string) error {
	var bad []agented.Field
	switch {
	case strings.TrimSpace(text) == "" && len(files) == 0:
		bad = append(bad, agented.Field{Path: "text", Text: "is required: write a text"})
	case len(text) > agented.MaxPrompt:
		bad = append(bad, agented.Field{Path: "text", Text: "is too long: use at most 1 MiB, or a file"})
	case strings.ContainsRune(text, 0):
		bad = append(bad, agented.Field{Path: "text", Text: "has a NUL byte: remove it"})
	}
	for _, name := range files {
		if wrong := checkFileName(name); wrong != "" {
			bad = append(bad, agented.Field{Path: "files", Text: wrong})
			break
		}
	}
	return agented.InvalidFields(bad)
}

func (h *conversations) post(ctx context.Context, in *struct {
	ID   string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	Key  string `header:"Idempotency-Key" doc:"Identifies the message: a request with the same key adds no second message"`
	Body ConversationMessageInput
},
) (*rest.Output[AcceptedMessage], error) {
	if err := rest.CheckKey(in.Key); err != nil {
		return nil, err
	}
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	return h.say(ctx, id, in.Key, in.Body.Text, in.Body.Files)
}

func (h *conversations) say(ctx context.Context, id agented.ConversationID, key, text string, files []string) (*rest.Output[AcceptedMessage], error) {
	if err := checkMessageText(text, files); err != nil {
		return nil, err
	}
	for _, name := range files {
		if _, err := os.Stat(filepath.Join(h.layout.Conversation(id), "files", name)); err != nil {
			return nil, agented.InvalidFields([]agented.Field{{Path: "files", Text: "is not an uploaded file: PUT it first"}})
		}
	}
	p := &store.PostMessage{Conversation: id, Key: key, Text: text, Files: files, Actor: rest.Principal(ctx).Name}
	repeated, err := h.turns.Say(ctx, p)
	if err != nil {
		return nil, err
	}
	if !repeated {
		h.note(ctx, "conversation.say", string(id), "")
	}
	return rest.Reply(AcceptedMessage{Number: p.Number, Repeated: repeated}), nil
}

// Interrupted is the result of an interrupt.
type Interrupted struct {
	Stopped bool   `json:"stopped" doc:"A turn was running, or messages were queued"`
	Number  *int64 `json:"number" nullable:"true" doc:"Number of the message sent instead; null: none"`
}

func (h *conversations) interrupt(ctx context.Context, in *struct {
	ID   string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	Body *struct {
		Text string `json:"text,omitempty" doc:"Message to send instead"`
	}
},
) (*rest.Output[Interrupted], error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	text := ""
	if in.Body != nil {
		text = in.Body.Text
	}
	if text != "" {
		if err := checkMessageText(text, nil); err != nil {
			return nil, err
		}
	}
	stopped, err := h.turns.Interrupt(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	out := Interrupted{Stopped: stopped}
	if text != "" {
		said, err := h.say(ctx, id, "", text, nil)
		if err != nil {
			return nil, err
		}
		out.Number = &said.Body.Number
	}
	return rest.Reply(out), nil
}

func (h *conversations) close(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, h.turns.Close(ctx, id, rest.Principal(ctx))
}

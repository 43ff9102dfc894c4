package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/remove"
	"github.com/agented/agented/internal/store"
)

// Conversations runs the turns of conversations.
type Conversations interface {
	Say(ctx context.Context, p *store.PostMessage) (repeated bool, err error)
	Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error)
	CloseConversation(ctx context.Context, id agented.ConversationID, by agented.Principal) error
}

// conversationRoutes returns the routes of conversations.
func (s *Server) conversationRoutes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	id := rest.PathParam("id", "The conversation's id, conv-…")
	return []rest.Route{
		rest.Op("GET /api/v1/conversations", viewer, s.listConversations, rest.About{
			ID: "list-conversations", Tag: "conversations", Summary: "List conversations", Text: "Lists conversations by latest activity, newest first.",
		}),
		rest.Op("POST /api/v1/conversations", operator, s.createConversation, rest.About{
			ID: "create-conversation", Tag: "conversations", Summary: "Start a conversation", Status: http.StatusCreated, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Starts a conversation with an agent. `message` is the first message; its turn starts immediately.",
		}),
		rest.Op("GET /api/v1/conversations/{id}", viewer, s.getConversation, rest.About{
			ID: "get-conversation", Tag: "conversations", Summary: "Show a conversation", Errors: []int{http.StatusNotFound},
			Text: "Returns the state of one conversation. Its messages are in its events.",
		}),
		rest.Op("DELETE /api/v1/conversations/{id}", admin, s.deleteConversation, rest.About{
			ID: "delete-conversation", Tag: "conversations", Summary: "Delete a conversation", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Deletes the conversation and its files. The executions of its turns remain.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/messages", operator, s.postMessage, rest.About{
			ID: "send-conversation-message", Tag: "conversations", Summary: "Send a message to a conversation", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Returns once the message is stored. Each message gets its own turn, one after another. A message reopens a closed conversation in the same session.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/interrupt", operator, s.interrupt, rest.About{
			ID: "interrupt-conversation", Tag: "conversations", Summary: "Interrupt the current turn", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Stops the current turn and discards queued messages. With `text`, that message is sent instead, and its turn starts when the current one has ended.",
		}),
		rest.Op("POST /api/v1/conversations/{id}/close", operator, s.closeConversation, rest.About{
			ID: "close-conversation", Tag: "conversations", Summary: "Close a conversation", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "A new message reopens it.",
		}),
		rest.Raw("PUT /api/v1/conversations/{id}/files/{name}", operator, s.putFile, rest.About{
			ID: "upload-conversation-file", Tag: "conversations", Summary: "Upload a file for a message",
			Text:    "Limits: 16 MiB per file, 200 files and 256 MiB per conversation. A message lists the names of its files; the agent finds them in a folder of the conversation. An existing file of the same name is replaced.",
			Params:  []*huma.Param{id, rest.PathParam("name", "Letters, digits, spaces, -, _ and .; at most 100 bytes")},
			Answers: map[string]*huma.Response{"204": rest.Describe("The file is stored", "")},
			Body:    &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}},
			Errors:  []int{http.StatusNotFound, http.StatusUnprocessableEntity}, MaxBody: maxFile,
		}),
		rest.Op("GET /api/v1/conversations/{id}/events", viewer, s.listConversationEvents, rest.About{
			ID: "list-conversation-events", Tag: "conversations", Summary: "List events of a conversation", Errors: []int{http.StatusNotFound},
			Text: "Returns the events of the stream, in order. For the next page, send `next_after` as `after`; an empty list means that there are no more events yet.",
		}),
		rest.Raw("GET /api/v1/conversations/{id}/stream", viewer, s.streamConversation, rest.About{
			ID: "stream-conversation", Tag: "conversations", Summary: "Stream a conversation",
			Text:    "Server-sent events with increasing ids: `message`, `content_delta`, `tool_call`, `finish`, `status_change`, `error`. Last-Event-ID or `after` resumes after that event. If pieces of answers after that position have been removed, the stream begins with `full_sync`, which contains the remaining events up to its id and replaces the client's state.",
			Params:  []*huma.Param{id, rest.QueryParam("after", "integer", "Id of the last event received; 0 for all. Last-Event-ID takes precedence"), rest.LastEventID()},
			Answers: map[string]*huma.Response{"200": rest.Describe("The events", "text/event-stream")},
			Errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).Streams(),
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

func (s *Server) showConversation(c *agented.Conversation) ConversationView {
	v := ConversationView{
		ID: c.ID, AgentID: c.Agent, AgentName: c.AgentName, Title: s.mask(c.Title), Status: c.State, Turn: c.Turn, Queued: c.Queued,
		LastEvent: c.LastSeq, Actor: c.Actor, CreatedAt: rest.Time(c.CreatedAt), ActiveAt: rest.Time(c.ActiveAt), ClosedAt: orNull(c.ClosedAt),
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

func (s *Server) listConversations(ctx context.Context, in *conversationListInput) (*rest.ListOutput[ConversationView], error) {
	var agent agented.AgentID
	if in.Agent != "" {
		agent = agented.AgentID(in.Agent) // also of a deleted agent
		if id := s.agents.AgentID(in.Agent); id != "" {
			agent = id
		}
	}
	items, next, err := s.o.DB.Conversations(ctx, agent, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, s.showConversation), nil
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

func (s *Server) createConversation(ctx context.Context, in *rest.Input[ConversationCreate]) (*createdConversation, error) {
	a, err := s.o.DB.Agent(ctx, in.Body.Agent)
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
	c := &agented.Conversation{Agent: a.ID, AgentName: a.Name, Title: title, Actor: rest.Principal(ctx).Name, CreatedAt: s.now()}
	if err := s.o.DB.CreateConversation(ctx, c); err != nil {
		return nil, err
	}
	s.streams.Changes.Notify(sse.ChangedConversations)
	if in.Body.Message != "" {
		p := &store.PostMessage{Conversation: c.ID, Text: in.Body.Message, Actor: rest.Principal(ctx).Name}
		if _, err := s.conversations.Say(ctx, p); err != nil {
			return nil, err
		}
		s.noteAction(ctx, "conversation.say", string(c.ID), c.AgentName)
		if c, err = s.o.DB.Conversation(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	return &createdConversation{Location: "/api/v1/conversations/" + string(c.ID), Body: s.showConversation(c)}, nil
}

// titleOf makes a title from a message.
func titleOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 80 {
		text = string(r[:80]) + "…"
	}
	return text
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

func (s *Server) conversation(ctx context.Context, id string) (*agented.Conversation, error) {
	cid, err := conversationID(id)
	if err != nil {
		return nil, err
	}
	return s.o.DB.Conversation(ctx, cid)
}

func (s *Server) getConversation(ctx context.Context, in *conversationPath) (*rest.Output[ConversationView], error) {
	c, err := s.conversation(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Reply(s.showConversation(c)), nil
}

func (s *Server) deleteConversation(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.DeleteConversation(ctx, id, rest.Principal(ctx).Name); err != nil {
		return nil, err
	}
	s.streams.Changes.Notify(sse.ChangedConversations)
	s.removeConversationFolder(ctx, id)
	return nil, nil
}

// removeConversationFolder removes the files of a deleted conversation. If that
// fails, the folder remains in the database's list of removals, and retention
// retries every hour.
func (s *Server) removeConversationFolder(ctx context.Context, id agented.ConversationID) {
	err := remove.All(s.o.Layout.Conversation(id))
	if err == nil {
		err = s.o.DB.Removed(ctx, []string{string(id)})
	}
	if err != nil {
		s.o.Log.Error("could not remove a conversation's folder: retrying every hour", "conversation", id, "err", err)
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

func (s *Server) postMessage(ctx context.Context, in *struct {
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
	return s.sayIn(ctx, id, in.Key, in.Body.Text, in.Body.Files)
}

func (s *Server) sayIn(ctx context.Context, id agented.ConversationID, key, text string, files []string) (*rest.Output[AcceptedMessage], error) {
	if err := checkMessageText(text, files); err != nil {
		return nil, err
	}
	for _, name := range files {
		if _, err := os.Stat(filepath.Join(s.o.Layout.Conversation(id), "files", name)); err != nil {
			return nil, agented.InvalidFields([]agented.Field{{Path: "files", Text: "is not an uploaded file: PUT it first"}})
		}
	}
	p := &store.PostMessage{Conversation: id, Key: key, Text: text, Files: files, Actor: rest.Principal(ctx).Name}
	repeated, err := s.conversations.Say(ctx, p)
	if err != nil {
		return nil, err
	}
	if !repeated {
		s.noteAction(ctx, "conversation.say", string(id), "")
	}
	return rest.Reply(AcceptedMessage{Number: p.Number, Repeated: repeated}), nil
}

// Interrupted is the result of an interrupt.
type Interrupted struct {
	Stopped bool   `json:"stopped" doc:"A turn was running, or messages were queued"`
	Number  *int64 `json:"number" nullable:"true" doc:"Number of the message sent instead; null: none"`
}

func (s *Server) interrupt(ctx context.Context, in *struct {
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
	stopped, err := s.conversations.Interrupt(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	out := Interrupted{Stopped: stopped}
	if text != "" {
		said, err := s.sayIn(ctx, id, "", text, nil)
		if err != nil {
			return nil, err
		}
		out.Number = &said.Body.Number
	}
	return rest.Reply(out), nil
}

func (s *Server) closeConversation(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, s.conversations.CloseConversation(ctx, id, rest.Principal(ctx))
}

// Limits of attachments.
const (
	maxFile     = 16 << 20
	maxFileName = 100
)

// checkFileName returns why name cannot be the name of an attachment, or "".
// The name becomes a file name, and is read by agents and people.
func checkFileName(name string) string {
	if name == "" || len(name) > maxFileName || !utf8.ValidString(name) {
		return "names must have 1 to 100 bytes"
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.HasPrefix(name, " ") || strings.HasSuffix(name, " ") {
		return "names must not start with . or -, and must not start or end with a space"
	}
	for _, c := range name {
		if c < 0x20 || c == 0x7f || strings.ContainsRune(`/\:*?"<>|`+"`$'", c) {
			return "names must not contain / \\ : * ? \" < > | ` $ ' or control characters"
		}
	}
	return ""
}

func (s *Server) putFile(w http.ResponseWriter, r *http.Request) {
	c, err := s.conversation(r.Context(), r.PathValue("id"))
	if err != nil {
		rest.Fail(w, r, err)
		return
	}
	name := r.PathValue("name")
	if wrong := checkFileName(name); wrong != "" {
		rest.Fail(w, r, agented.InvalidFields([]agented.Field{{Path: "path.name", Text: wrong}}))
		return
	}
	dir := filepath.Join(s.o.Layout.Conversation(c.ID), "files")
	if err := s.writeFile(dir, name, http.MaxBytesReader(w, r.Body, maxFile)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			err = agented.Errorf(agented.TooLarge, "the file is too large: the limit is %d bytes", int64(maxFile))
		}
		rest.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// Limits of all files of one conversation.
const (
	maxConversationFiles = 200
	maxConversationBytes = 256 << 20
)

// checkQuota returns an error if a file of that size would exceed the limits of
// the conversation. The file replaces one of the same name.
func checkQuota(dir, name string, size int64) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	files, bytes := 1, size
	for _, f := range list {
		if f.Name() == name || strings.HasPrefix(f.Name(), ".coming-") {
			continue
		}
		files++
		if info, err := f.Info(); err == nil {
			bytes += info.Size()
		}
	}
	switch {
	case files > maxConversationFiles:
		return agented.Errorf(agented.TooLarge, "the conversation has %d files, which is the limit: start another conversation, or replace a file", maxConversationFiles)
	case bytes > maxConversationBytes:
		return agented.Errorf(agented.TooLarge, "the files of the conversation would have %d bytes, and the limit is %d: start another conversation", bytes, int64(maxConversationBytes))
	}
	return nil
}

// writeFile stores a file atomically.
func (s *Server) writeFile(dir, name string, from io.Reader) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := checkQuota(dir, name, 0); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".coming-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	size, err := io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.files.Lock() // concurrent uploads must not exceed the quota
	defer s.files.Unlock()
	if err := checkQuota(dir, name, size); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
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

func (s *Server) listConversationEvents(ctx context.Context, in *struct {
	ID    string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	After int64  `query:"after" minimum:"0" doc:"Id of the last event received; 0 for all"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Page size"`
},
) (*rest.Output[ConversationEventPage], error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	events, gone, err := s.o.DB.ConversationEvents(ctx, id, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	out := ConversationEventPage{Events: []ConversationEventView{}, NextAfter: in.After, DeltasRemovedThrough: gone}
	for i := range events {
		out.Events = append(out.Events, s.showEvent(&events[i]))
		out.NextAfter = events[i].Seq
	}
	return rest.Reply(out), nil
}

func (s *Server) showEvent(e *agented.ConversationEvent) ConversationEventView {
	return ConversationEventView{ID: e.Seq, Event: e.Kind, Data: s.maskedJSON(e.Data), At: rest.Time(e.At)}
}

// maskedJSON masks secrets in an object. It returns null if masking makes the
// JSON invalid.
func (s *Server) maskedJSON(data []byte) json.RawMessage {
	text := s.mask(string(data))
	if !json.Valid([]byte(text)) {
		return json.RawMessage(`{"masked":true}`)
	}
	return json.RawMessage(text)
}

// maxSync limits the events of one full_sync.
const maxSync = 5000

func (s *Server) streamConversation(w http.ResponseWriter, r *http.Request) {
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
	s.streams.ServeFeed(w, r, string(id), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		events, gone, err := s.o.DB.ConversationEvents(ctx, id, after, sse.FeedBatch)
		if err != nil {
			return dst, after, err
		}
		if after < gone {
			return s.fullSync(ctx, dst, id, gone)
		}
		for i := range events {
			v := s.showEvent(&events[i])
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
func (s *Server) fullSync(ctx context.Context, dst []byte, id agented.ConversationID, gone int64) ([]byte, int64, error) {
	all := []ConversationEventView{}
	for after := int64(0); after < gone; {
		events, _, err := s.o.DB.ConversationEvents(ctx, id, after, 1000)
		if err != nil {
			return dst, gone, err
		}
		if len(events) == 0 {
			break
		}
		for i := range events {
			if after = events[i].Seq; after <= gone {
				all = append(all, s.showEvent(&events[i]))
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

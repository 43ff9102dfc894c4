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
	"github.com/agented/agented/internal/store"
)

// conversationRoutes are the ways to conversations.
func (s *Server) conversationRoutes() []route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	id := inPath("id", "The conversation's id, conv-…")
	return []route{
		op("GET /api/v1/conversations", viewer, s.listConversations, about{
			id: "list-conversations", tag: "conversations", summary: "List conversations", text: "The latest activity first.",
		}),
		op("POST /api/v1/conversations", operator, s.createConversation, about{
			id: "create-conversation", tag: "conversations", summary: "Begin a conversation", status: http.StatusCreated, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "With an agent. A `message` is the first that is said, and its turn begins at once.",
		}),
		op("GET /api/v1/conversations/{id}", viewer, s.getConversation, about{
			id: "get-conversation", tag: "conversations", summary: "Show a conversation", errors: []int{http.StatusNotFound},
			text: "What was said is in its events.",
		}),
		op("DELETE /api/v1/conversations/{id}", admin, s.deleteConversation, about{
			id: "delete-conversation", tag: "conversations", summary: "Delete a conversation", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "With its files. The executions of its turns stay.",
		}),
		op("POST /api/v1/conversations/{id}/messages", operator, s.say, about{
			id: "say", tag: "conversations", summary: "Say something", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Answers once it is stored. Each message has its turn, one after another. A closed conversation opens, in the same session.",
		}),
		op("POST /api/v1/conversations/{id}/interrupt", operator, s.interrupt, about{
			id: "interrupt", tag: "conversations", summary: "Interrupt the turn", status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "Stops the turn under way and takes back the messages that wait. With a `text`, that is said instead, and its turn begins when the old one has ended.",
		}),
		op("POST /api/v1/conversations/{id}/close", operator, s.closeConversation, about{
			id: "close-conversation", tag: "conversations", summary: "Close a conversation", status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusConflict},
			text: "It opens again when somebody writes.",
		}),
		raw("PUT /api/v1/conversations/{id}/files/{name}", operator, func(s *Server) http.HandlerFunc { return s.putFile }, about{
			id: "put-file", tag: "conversations", summary: "Store a file for a message",
			text:    "At most 16 MiB. A message names the files that go with it; the agent finds them in a folder of the conversation. A file of that name is replaced.",
			params:  []*huma.Param{id, inPath("name", "Letters, digits, blanks, -, _ and .; at most 100 bytes")},
			answers: map[string]*huma.Response{"204": describe("It is stored", "")},
			body:    &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {}}},
			errors:  []int{http.StatusNotFound, http.StatusUnprocessableEntity}, maxBody: maxFile,
		}),
		op("GET /api/v1/conversations/{id}/events", viewer, s.listConversationEvents, about{
			id: "list-conversation-events", tag: "conversations", summary: "Read what happened in a conversation", errors: []int{http.StatusNotFound},
			text: "The events of the stream, in order. Ask again with `after` set to `next_after` for those behind; an empty list means that there are no more yet.",
		}),
		raw("GET /api/v1/conversations/{id}/stream", viewer, func(s *Server) http.HandlerFunc { return s.streamConversation }, about{
			id: "stream-conversation", tag: "conversations", summary: "Follow a conversation",
			text:    "Server-sent events with increasing ids: `message`, `content_delta`, `tool_call`, `finish`, `status_change`, `error`. Last-Event-ID or `after` resumes exactly there. `full_sync` comes first to whoever resumes where pieces of answers are gone: it holds what is left up to its id, and replaces all that was known.",
			params:  []*huma.Param{id, inURL("after", "integer", "Id of the last event that is known; 0 for all. Last-Event-ID wins"), lastEventID()},
			answers: map[string]*huma.Response{"200": describe("The events", "text/event-stream")},
			errors:  []int{http.StatusBadRequest, http.StatusNotFound},
		}).streams(),
	}
}

// ConversationView is a conversation as the API shows it.
type ConversationView struct {
	ID        agented.ConversationID    `json:"id" example:"conv-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	AgentID   agented.AgentID           `json:"agent_id"`
	AgentName string                    `json:"agent_name" doc:"As it was when the conversation began"`
	Title     string                    `json:"title"`
	Status    agented.ConversationState `json:"status" enum:"open,closed"`
	Turn      agented.ExecutionID       `json:"turn" doc:"The execution that is at work; empty: none"`
	Queued    int                       `json:"queued" doc:"Messages that wait for their turn"`
	SessionID string                    `json:"session_id" doc:"Of the agent's CLI, in which the next turn goes on; empty before the first has ended"`
	LastEvent int64                     `json:"last_event" doc:"Id of its last event"`
	Actor     string                    `json:"actor" doc:"Who began it"`
	CreatedAt time.Time                 `json:"created_at"`
	ActiveAt  time.Time                 `json:"active_at" doc:"Last activity"`
	ClosedAt  *time.Time                `json:"closed_at" nullable:"true"`
}

func (s *Server) showConversation(c *agented.Conversation) ConversationView {
	v := ConversationView{
		ID: c.ID, AgentID: c.Agent, AgentName: c.AgentName, Title: s.mask(c.Title), Status: c.State, Turn: c.Turn, Queued: c.Queued,
		LastEvent: c.LastSeq, Actor: c.Actor, CreatedAt: shown(c.CreatedAt), ActiveAt: shown(c.ActiveAt), ClosedAt: orNull(c.ClosedAt),
	}
	if c.Resume != nil {
		v.SessionID = c.Resume.Session
	}
	return v
}

type conversationListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	Agent  string `query:"agent" maxLength:"100" doc:"Only with this agent (id or name)"`
}

func (s *Server) listConversations(ctx context.Context, in *conversationListInput) (*listOutput[ConversationView], error) {
	var agent agented.AgentID
	if in.Agent != "" {
		agent = agented.AgentID(in.Agent) // also of one that is no more
		if id := s.o.Dispatch.AgentID(in.Agent); id != "" {
			agent = id
		}
	}
	items, next, err := s.o.DB.Conversations(ctx, agent, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, s.showConversation), nil
}

// ConversationCreate is a new conversation.
type ConversationCreate struct {
	Agent   string `json:"agent" maxLength:"100" doc:"Id or name of the agent"`
	Title   string `json:"title,omitempty" maxLength:"200" doc:"Default: the beginning of the first message"`
	Message string `json:"message,omitempty" doc:"What is said first"`
}

type createdConversation struct {
	Location string `header:"Location" doc:"Path of the new conversation"`
	Body     ConversationView
}

func (s *Server) createConversation(ctx context.Context, in *createInput[ConversationCreate]) (*createdConversation, error) {
	a, err := s.o.DB.Agent(ctx, in.Body.Agent)
	if err != nil {
		return nil, err
	}
	if !a.Enabled {
		return nil, agented.Errorf(agented.Conflict, "agent %q is disabled: enable it first", a.Name)
	}
	if in.Body.Message != "" {
		if err := checkSaid(in.Body.Message, nil); err != nil {
			return nil, err
		}
	}
	title := in.Body.Title
	if title == "" {
		title = firstWords(in.Body.Message)
	}
	c := &agented.Conversation{Agent: a.ID, AgentName: a.Name, Title: title, Actor: principal(ctx).Name, CreatedAt: s.now()}
	if err := s.o.DB.CreateConversation(ctx, c); err != nil {
		return nil, err
	}
	s.changes.tell(changedConversations)
	if in.Body.Message != "" {
		p := &store.Post{Conversation: c.ID, Text: in.Body.Message, Actor: principal(ctx).Name}
		if _, err := s.o.Dispatch.Say(ctx, p); err != nil {
			return nil, err
		}
		if c, err = s.o.DB.Conversation(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	return &createdConversation{Location: "/api/v1/conversations/" + string(c.ID), Body: s.showConversation(c)}, nil
}

// firstWords makes a title of a message.
func firstWords(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 80 {
		text = string(r[:80]) + "…"
	}
	return text
}

type conversationPath struct {
	ID string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
}

// conversationID checks an id from a path before it becomes a path name.
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

func (s *Server) getConversation(ctx context.Context, in *conversationPath) (*output[ConversationView], error) {
	c, err := s.conversation(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &output[ConversationView]{s.showConversation(c)}, nil
}

func (s *Server) deleteConversation(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.DeleteConversation(ctx, id, principal(ctx).Name); err != nil {
		return nil, err
	}
	s.changes.tell(changedConversations)
	if err := os.RemoveAll(s.o.Layout.Conversation(id)); err != nil {
		s.o.Log.Error("remove a conversation's folder", "conversation", id, "err", err)
	}
	return nil, nil
}

// SayInput is what somebody says.
type SayInput struct {
	Text  string   `json:"text" doc:"At most 1 MiB"`
	Files []string `json:"files,omitempty" maxItems:"20" doc:"Names of files that were stored for it"`
}

// Said is a message that is stored, and will have its turn.
type Said struct {
	Number   int64 `json:"number" doc:"Its number among what people said in the conversation"`
	Repeated bool  `json:"repeated" doc:"The Idempotency-Key was seen before: nothing was said again"`
}

// checkSaid refuses what cannot be said.
func checkSaid(text string, files []string) error {
	var bad []agented.Field
	switch {
	case strings.TrimSpace(text) == "" && len(files) == 0:
		bad = append(bad, agented.Field{Path: "text", Text: "is required: say something"})
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

func (s *Server) say(ctx context.Context, in *struct {
	ID   string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	Key  string `header:"Idempotency-Key" doc:"Names this message: sent again, nothing is said again"`
	Body SayInput
},
) (*output[Said], error) {
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	return s.sayIn(ctx, id, in.Key, in.Body.Text, in.Body.Files)
}

func (s *Server) sayIn(ctx context.Context, id agented.ConversationID, key, text string, files []string) (*output[Said], error) {
	if err := checkSaid(text, files); err != nil {
		return nil, err
	}
	for _, name := range files {
		if _, err := os.Stat(filepath.Join(s.o.Layout.Conversation(id), "files", name)); err != nil {
			return nil, agented.InvalidFields([]agented.Field{{Path: "files", Text: "names a file that was not stored: PUT it first"}})
		}
	}
	p := &store.Post{Conversation: id, Key: key, Text: text, Files: files, Actor: principal(ctx).Name}
	repeated, err := s.o.Dispatch.Say(ctx, p)
	if err != nil {
		return nil, err
	}
	return &output[Said]{Said{Number: p.Number, Repeated: repeated}}, nil
}

// Interrupted says what an interruption met.
type Interrupted struct {
	Stopped bool   `json:"stopped" doc:"A turn was under way, or messages waited"`
	Number  *int64 `json:"number" nullable:"true" doc:"Number of what is said instead; null: nothing"`
}

func (s *Server) interrupt(ctx context.Context, in *struct {
	ID   string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	Body *struct {
		Text string `json:"text,omitempty" doc:"What to say instead"`
	}
},
) (*output[Interrupted], error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	text := ""
	if in.Body != nil {
		text = in.Body.Text
	}
	if text != "" {
		if err := checkSaid(text, nil); err != nil {
			return nil, err
		}
	}
	stopped, err := s.o.Dispatch.Interrupt(ctx, id, principal(ctx))
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
	return &output[Interrupted]{out}, nil
}

func (s *Server) closeConversation(ctx context.Context, in *conversationPath) (*struct{}, error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	return nil, s.o.Dispatch.CloseConversation(ctx, id, principal(ctx))
}

// Bounds of attachments.
const (
	maxFile     = 16 << 20
	maxFileName = 100
)

// checkFileName says what is wrong with the name of an attachment, "" if
// nothing: it becomes a file, and is read by agents and people.
func checkFileName(name string) string {
	if name == "" || len(name) > maxFileName || !utf8.ValidString(name) {
		return "names must have 1 to 100 bytes"
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.HasPrefix(name, " ") || strings.HasSuffix(name, " ") {
		return "names may not start with . or -, nor with or end in a blank"
	}
	for _, c := range name {
		if c < 0x20 || c == 0x7f || strings.ContainsRune(`/\:*?"<>|`+"`$'", c) {
			return "names may not hold / \\ : * ? \" < > | ` $ ' or control characters"
		}
	}
	return ""
}

func (s *Server) putFile(w http.ResponseWriter, r *http.Request) {
	c, err := s.conversation(r.Context(), r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	name := r.PathValue("name")
	if wrong := checkFileName(name); wrong != "" {
		s.fail(w, r, agented.InvalidFields([]agented.Field{{Path: "path.name", Text: wrong}}))
		return
	}
	dir := filepath.Join(s.o.Layout.Conversation(c.ID), "files")
	if err := writeFile(dir, name, http.MaxBytesReader(w, r.Body, maxFile)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			err = agented.Errorf(agented.TooLarge, "the file is too large: the limit is %d bytes", int64(maxFile))
		}
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// writeFile stores a file whole or not at all.
func writeFile(dir, name string, from io.Reader) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
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
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// ConversationEventView is one event of a conversation.
type ConversationEventView struct {
	ID    int64                         `json:"id"`
	Event agented.ConversationEventKind `json:"event" enum:"message,content_delta,tool_call,finish,status_change,error"`
	Data  json.RawMessage               `json:"data" doc:"An object; its fields depend on the event"`
	At    time.Time                     `json:"timestamp"`
}

// ConversationEventPage is a part of the events.
type ConversationEventPage struct {
	Events    []ConversationEventView `json:"events"`
	NextAfter int64                   `json:"next_after"`
	Gone      int64                   `json:"gone" doc:"Up to this id, pieces of answers are gone; their messages are there"`
}

func (s *Server) listConversationEvents(ctx context.Context, in *struct {
	ID    string `path:"id" maxLength:"100" doc:"The conversation's id, conv-…"`
	After int64  `query:"after" minimum:"0" doc:"Id of the last event that is known; 0 for all"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"Events at most"`
},
) (*output[ConversationEventPage], error) {
	id, err := conversationID(in.ID)
	if err != nil {
		return nil, err
	}
	events, gone, err := s.o.DB.ConversationEvents(ctx, id, in.After, in.Limit)
	if err != nil {
		return nil, err
	}
	out := ConversationEventPage{Events: []ConversationEventView{}, NextAfter: in.After, Gone: gone}
	for i := range events {
		out.Events = append(out.Events, s.showEvent(&events[i]))
		out.NextAfter = events[i].Seq
	}
	return &output[ConversationEventPage]{out}, nil
}

func (s *Server) showEvent(e *agented.ConversationEvent) ConversationEventView {
	return ConversationEventView{ID: e.Seq, Event: e.Kind, Data: s.maskedJSON(e.Data), At: shown(e.At)}
}

// maskedJSON masks secrets in an object. What a mask broke is told as nothing.
func (s *Server) maskedJSON(data []byte) json.RawMessage {
	text := s.mask(string(data))
	if !json.Valid([]byte(text)) {
		return json.RawMessage(`{"masked":true}`)
	}
	return json.RawMessage(text)
}

// maxSync bounds the events of one full_sync.
const maxSync = 5000

func (s *Server) streamConversation(w http.ResponseWriter, r *http.Request) {
	id, err := conversationID(r.PathValue("id"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, _, err := position(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.feed(w, r, string(id), after, func(ctx context.Context, dst []byte, after int64) ([]byte, int64, error) {
		events, gone, err := s.o.DB.ConversationEvents(ctx, id, after, feedBatch)
		if err != nil {
			return dst, after, err
		}
		if after < gone {
			return s.fullSync(ctx, dst, id, gone)
		}
		for i := range events {
			v := s.showEvent(&events[i])
			dst = appendEvent(dst, v.ID, string(v.Event), withTime(v))
			after = v.ID
		}
		return dst, after, nil
	})
}

// withTime puts the time of an event into its object.
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

// fullSync appends the event that holds all that is left up to gone.
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
	cut := len(all) > maxSync
	if cut {
		all = all[len(all)-maxSync:]
	}
	data, err := json.Marshal(map[string]any{"events": all, "cut": cut})
	if err != nil {
		return dst, gone, err
	}
	return appendEvent(dst, gone, string(agented.EventFullSync), data), gone, nil
}

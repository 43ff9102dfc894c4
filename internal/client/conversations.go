package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"
)

const conversationsPath = "/api/v1/conversations"

// Conversation is a conversation with an agent.
type Conversation struct {
	ID        string     `json:"id"`
	AgentName string     `json:"agent_name"`
	Status    string     `json:"status"`
	Title     string     `json:"title"`
	ActiveAt  *time.Time `json:"active_at"`
	LastEvent int64      `json:"last_event"`
}

// Conversations lists the conversations with an agent, or all if it is empty; latest first.
func (c *Client) Conversations(ctx context.Context, agent string, limit int) iter.Seq2[Response[Conversation], error] {
	return list[Conversation](ctx, c, conversationsPath, values("agent", agent), limit)
}

// Conversation fetches a conversation.
func (c *Client) Conversation(ctx context.Context, id string) (Response[Conversation], error) {
	return do[Conversation](ctx, c, http.MethodGet, at(conversationsPath, id, ""), nil)
}

// CreateConversation starts a conversation with an agent.
func (c *Client) CreateConversation(ctx context.Context, agent string) (Response[Conversation], error) {
	return do[Conversation](ctx, c, http.MethodPost, conversationsPath, struct {
		Agent string `json:"agent"`
	}{agent})
}

// CloseConversation closes a conversation.
func (c *Client) CloseConversation(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, at(conversationsPath, id, "/close"), nil, nil, nil)
}

// DeleteConversation deletes a conversation and its files.
func (c *Client) DeleteConversation(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(conversationsPath, id, ""), nil, nil, nil)
}

// AcceptedMessage is the answer to a message of a conversation.
type AcceptedMessage struct {
	Number int64 `json:"number"`
}

// SendToConversation sends a message to the agent of a conversation.
func (c *Client) SendToConversation(ctx context.Context, id, text string) (Response[AcceptedMessage], error) {
	return do[AcceptedMessage](ctx, c, http.MethodPost, at(conversationsPath, id, "/messages"), struct {
		Text string `json:"text"`
	}{text})
}

// InterruptConversation interrupts the running turn of a conversation.
func (c *Client) InterruptConversation(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodPost, at(conversationsPath, id, "/interrupt"), nil, struct{}{}, nil)
}

// ConversationEvent is an event of a conversation.
type ConversationEvent struct {
	Role      string          `json:"role"`
	Number    int64           `json:"number"`
	Text      string          `json:"text"`
	Thinking  bool            `json:"thinking"`
	End       bool            `json:"end"`
	Tool      string          `json:"tool"`
	State     string          `json:"state"`
	Status    string          `json:"status"`
	Reason    string          `json:"reason"`
	Message   string          `json:"message"`
	Execution string          `json:"execution_id"`
	Input     json.RawMessage `json:"input"`
}

// FollowConversation passes the events of a conversation to handle; see [Client.FollowFeed].
func (c *Client) FollowConversation(ctx context.Context, id, after string, handle func(event, id string, data []byte) error, reconnecting func(error)) error {
	return c.FollowFeed(ctx, at(conversationsPath, id, "/stream"), after, handle, reconnecting)
}

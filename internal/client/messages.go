package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Message is a message on the message bus.
type Message struct {
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	Priority  string     `json:"priority"`
	From      string     `json:"from"`
	To        string     `json:"to"`
	Subject   string     `json:"subject"`
	Body      string     `json:"body"`
	CreatedAt *time.Time `json:"created_at"`
}

// MessageCreate describes a message to send.
type MessageCreate struct {
	To         string `json:"to"`
	Body       string `json:"body"`
	Type       string `json:"type,omitempty"`
	Priority   string `json:"priority,omitempty"`
	Subject    string `json:"subject,omitempty"`
	ReplyTo    string `json:"reply_to,omitempty"`
	Key        string `json:"key,omitempty"` // idempotency key
	TTLSeconds int64  `json:"ttl_seconds,omitempty"`
}

// SentMessage is the result of sending a message.
type SentMessage struct {
	Message    Message  `json:"message"`
	Recipients []string `json:"recipients"`
	Executions []string `json:"execution_ids"`
	Repeated   bool     `json:"repeated"`
}

// SendMessage sends a message.
func (c *Client) SendMessage(ctx context.Context, m MessageCreate) (Response[SentMessage], error) {
	return do[SentMessage](ctx, c, http.MethodPost, "/api/v1/messages", m)
}

// Inbox names the inbox of an agent by its id or name. The zero value is the inbox of the user of
// the API key.
type Inbox string

// OwnInbox is the inbox of the agent whose execution the token belongs to.
const OwnInbox Inbox = "me"

func (i Inbox) path(more string) string {
	if i == "" {
		return "/api/v1/inbox" + more
	}
	return at(agentsPath, string(i), "/inbox"+more)
}

// InboxItem is a message in an inbox.
type InboxItem struct {
	Seq     int64   `json:"seq"`
	State   string  `json:"state"`
	Message Message `json:"message"`
}

// InboxItems lists the messages of an inbox after the number after, at most limit; 0 means all.
// states is a comma-separated list; it is empty for all.
func (c *Client) InboxItems(ctx context.Context, inbox Inbox, states string, after int64, limit int) iter.Seq2[Response[InboxItem], error] {
	return func(yield func(Response[InboxItem], error) bool) {
		query := values("state", states)
		for seen := 0; limit <= 0 || seen < limit; {
			page := pageSize
			if limit > 0 {
				page = min(page, limit-seen)
			}
			query.Set("after", strconv.FormatInt(after, 10))
			query.Set("limit", strconv.Itoa(page))
			var got struct {
				Items []Response[InboxItem] `json:"items"`
				Next  int64                 `json:"next_after"`
			}
			if err := c.Do(ctx, http.MethodGet, inbox.path("?"+query.Encode()), nil, nil, &got); err != nil {
				yield(Response[InboxItem]{}, err)
				return
			}
			if len(got.Items) == 0 {
				return
			}
			for _, item := range got.Items {
				if !yield(item, nil) {
					return
				}
				seen++
			}
			after = got.Next
		}
	}
}

// FollowInbox passes the messages of an inbox to handle as they arrive; see [Client.FollowFeed].
func (c *Client) FollowInbox(ctx context.Context, inbox Inbox, after string, handle func(Response[InboxItem]) error, reconnecting func(error)) error {
	return c.FollowFeed(ctx, inbox.path("/stream"), after, func(event, _ string, data []byte) error {
		if event != "message" {
			return nil
		}
		var item Response[InboxItem]
		if err := json.Unmarshal(data, &item); err != nil {
			return err
		}
		return handle(item)
	}, reconnecting)
}

// Acknowledge marks a message of an inbox as read.
func (c *Client) Acknowledge(ctx context.Context, inbox Inbox, seq int64) error {
	return c.Do(ctx, http.MethodPost, inbox.path("/"+strconv.FormatInt(seq, 10)+"/ack"), nil, nil, nil)
}

// Member is a member of a topic or a group.
type Member struct {
	List   string `json:"list"` // topic:NAME or group:NAME
	Member string `json:"member"`
}

// AddMember subscribes an inbox to a topic, or adds it to a group.
func (c *Client) AddMember(ctx context.Context, m Member) error {
	return c.Do(ctx, http.MethodPost, "/api/v1/members", nil, m, nil)
}

// RemoveMember unsubscribes an inbox from a topic, or removes it from a group.
func (c *Client) RemoveMember(ctx context.Context, m Member) error {
	query := url.Values{"list": {m.List}, "member": {m.Member}}
	return c.Do(ctx, http.MethodDelete, "/api/v1/members?"+query.Encode(), nil, nil, nil)
}

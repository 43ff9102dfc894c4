package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

const channelsPath = "/api/v1/channels"

// Channel is a channel for notifications in answers. Its secrets are never part of them.
type Channel struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Enabled  bool     `json:"enabled"`
	Events   []string `json:"events"`
	Digest   *Digest  `json:"digest"`
	Pending  int      `json:"pending"`
	Failures int      `json:"failures"`
}

// CreatedChannel is the answer to the creation of a channel.
type CreatedChannel struct {
	Channel
	SigningSecret string `json:"signing_secret"` // of a webhook without a secret
}

// Digest is the regular summary of a channel.
type Digest struct {
	DigestPlan
	NextAt *time.Time `json:"next_at"`
}

// DigestPlan is when a digest is sent.
type DigestPlan struct {
	Cron  string `json:"cron"`
	Zone  string `json:"zone,omitempty"`
	Empty string `json:"empty,omitempty"`
}

// ChannelSecret is a secret value, or the name of a secret.
type ChannelSecret struct {
	Name string `json:"secret"`
}

// ChannelChange holds the fields of a channel to set; nil fields stay unchanged. URL, Secret, Token and
// Password are a text or a ChannelSecret.
type ChannelChange struct {
	Enabled  *bool       `json:"enabled,omitempty"`
	Events   *[]string   `json:"events,omitempty"`
	URL      any         `json:"url,omitempty"`
	Secret   any         `json:"secret,omitempty"`
	Token    any         `json:"token,omitempty"`
	Host     *string     `json:"host,omitempty"`
	Port     *int        `json:"port,omitempty"`
	TLS      *string     `json:"tls,omitempty"`
	Username *string     `json:"username,omitempty"`
	Password any         `json:"password,omitempty"`
	From     *string     `json:"from,omitempty"`
	To       *[]string   `json:"to,omitempty"`
	Digest   *DigestPlan `json:"digest,omitempty"`
}

// ChannelCreate describes a new channel.
type ChannelCreate struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	ChannelChange
}

// Notification is a message to a channel.
type Notification struct {
	ID          string     `json:"id"`
	Channel     string     `json:"channel"`
	Kind        string     `json:"kind"`
	TriggerName string     `json:"trigger_name"`
	Text        string     `json:"text"`
	At          *time.Time `json:"at"`
	More        int        `json:"more"`
	Status      string     `json:"status"`
	Attempts    int        `json:"attempts"`
	Answer      string     `json:"answer"`
	NextAt      *time.Time `json:"next_at"`
}

// Channels lists the channels.
func (c *Client) Channels(ctx context.Context, limit int) iter.Seq2[Response[Channel], error] {
	return list[Channel](ctx, c, channelsPath, values(), limit)
}

// CreateChannel creates a channel.
func (c *Client) CreateChannel(ctx context.Context, ch ChannelCreate) (Response[CreatedChannel], error) {
	return do[CreatedChannel](ctx, c, http.MethodPost, channelsPath, ch)
}

// UpdateChannel changes the channel with an id or a name.
func (c *Client) UpdateChannel(ctx context.Context, ref string, ch ChannelChange) (Response[Channel], error) {
	return do[Channel](ctx, c, http.MethodPatch, at(channelsPath, ref, ""), ch)
}

// DeleteChannel deletes the channel with an id or a name.
func (c *Client) DeleteChannel(ctx context.Context, ref string) error {
	return c.Do(ctx, http.MethodDelete, at(channelsPath, ref, ""), nil, nil, nil)
}

// TestChannel sends a test message.
func (c *Client) TestChannel(ctx context.Context, ref string) (Response[Notification], error) {
	return do[Notification](ctx, c, http.MethodPost, at(channelsPath, ref, "/test"), nil)
}

// Notifications lists notifications, the newest first. Empty filters select all.
func (c *Client) Notifications(ctx context.Context, channel, status string, limit int) iter.Seq2[Response[Notification], error] {
	return list[Notification](ctx, c, "/api/v1/notifications", values("channel", channel, "status", status), limit)
}

// Channel returns the channel with an id or a name.
func (c *Client) Channel(ctx context.Context, ref string) (Response[Channel], error) {
	return do[Channel](ctx, c, http.MethodGet, at(channelsPath, ref, ""), nil)
}

// RemoveDigest changes a channel and removes its digest.
func (c *Client) RemoveDigest(ctx context.Context, ref string, ch ChannelChange) (Response[Channel], error) {
	return do[Channel](ctx, c, http.MethodPatch, at(channelsPath, ref, ""), struct {
		ChannelChange
		Digest *DigestPlan `json:"digest"`
	}{ChannelChange: ch})
}

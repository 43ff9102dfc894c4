// Package channels implements the API of notifications: the channels that they are sent to, and
// what was sent.
package channels

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/notify"
	"github.com/agented/agented/internal/store"
)

// Channels serves the channels and their notifications.
type Channels struct {
	DB       *store.DB
	Sealer   auth.Sealer
	Notifier *notify.Notifier
	Guard    *notify.Guard
	Zone     *time.Location // of digests that name none; nil: the machine's
	Now      func() time.Time
	Changed  func() // is called after each change of a secret value; may be nil
}

// Routes returns the routes of channels and notifications.
func (h *Channels) Routes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/channels", viewer, h.list, rest.About{
			ID: "list-channels", Tag: "notifications", Summary: "List channels",
			Text: "Lists all channels by name. Where a channel sends to is shown to admins only. Secrets are never returned.",
		}),
		rest.Op("POST /api/v1/channels", admin, h.create, rest.About{
			ID: "create-channel", Tag: "notifications", Summary: "Create a channel", Status: http.StatusCreated, Errors: []int{http.StatusConflict},
			Text: "A channel is a signed `webhook`, an incoming webhook of `slack`, `teams` or `discord`, a topic of `ntfy`, or `email`. URLs, tokens and passwords are sealed at rest, or named secrets. Addresses that are not public are rejected unless AGENTED_NOTIFY_ALLOW contains them.",
		}),
		rest.Op("GET /api/v1/channels/{id}", viewer, h.get, rest.About{
			ID: "get-channel", Tag: "notifications", Summary: "Show a channel", Errors: []int{http.StatusNotFound}, Text: "Returns one channel, by its id or its name.",
		}),
		rest.Op("PATCH /api/v1/channels/{id}", admin, h.update, rest.About{
			ID: "update-channel", Tag: "notifications", Summary: "Update a channel", Errors: []int{http.StatusNotFound},
			Text: "Takes a JSON merge patch. Name and kind never change. The value `***` keeps a stored secret. Notifications that wait are tried again at once.",
		}),
		rest.Op("DELETE /api/v1/channels/{id}", admin, h.remove, rest.About{
			ID: "delete-channel", Tag: "notifications", Summary: "Delete a channel", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Deletes the channel with its notifications, also those that wait. Returns 409 while triggers name it.",
		}),
		rest.Op("POST /api/v1/channels/{id}/test", admin, h.test, rest.About{
			ID: "test-channel", Tag: "notifications", Summary: "Send a test message", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Sends a message now, once, and returns what the other side answered.",
		}),
		rest.Op("GET /api/v1/notifications", operator, h.notifications, rest.About{
			ID: "list-notifications", Tag: "notifications", Summary: "List notifications",
			Text: "Lists what was sent to channels and what waits, newest first, with the latest answer of the other side. The latest 2,000 of each channel are kept.",
		}),
	}
}

// SecretText is a value that is never returned: in JSON a text, or {"secret": NAME} for a named
// secret.
type SecretText struct {
	Value string
	Named string
}

type namedSecret struct {
	Secret string `json:"secret"`
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *SecretText) UnmarshalJSON(text []byte) error {
	*s = SecretText{}
	var ref namedSecret
	if json.Unmarshal(text, &ref) == nil && ref.Secret != "" {
		s.Named = ref.Secret
		return nil
	}
	return json.Unmarshal(text, &s.Value)
}

// MarshalJSON implements [json.Marshaler].
func (s SecretText) MarshalJSON() ([]byte, error) {
	if s.Named != "" {
		return json.Marshal(namedSecret{s.Named})
	}
	return json.Marshal(s.Value)
}

// Schema implements [huma.SchemaProvider].
func (SecretText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString}, {
		Type: huma.TypeObject, Properties: map[string]*huma.Schema{"secret": {Type: huma.TypeString, Description: "Name of a secret"}},
		Required: []string{"secret"}, AdditionalProperties: false,
	}}}
}

// ChannelView is a channel in responses. Names are stable; fields may be added.
type ChannelView struct {
	ID        string                     `json:"id" doc:"chan-…"`
	Name      string                     `json:"name" doc:"Unique, ignoring case"`
	Kind      notices.ChannelKind        `json:"kind" enum:"webhook,slack,teams,discord,ntfy,email"`
	Enabled   bool                       `json:"enabled"`
	Events    []agented.NotificationKind `json:"events" doc:"Kinds of notifications that it receives from every trigger, unless the trigger's notify says otherwise"`
	Target    *ChannelTarget             `json:"target,omitempty" doc:"Where it sends to. For admins only"`
	Digest    *DigestView                `json:"digest,omitempty" doc:"Regular summary; omitted: none"`
	Pending   int                        `json:"pending" doc:"Notifications that wait"`
	Failures  int                        `json:"failures" doc:"Consecutive attempts that failed"`
	CreatedAt time.Time                  `json:"created_at"`
	CreatedBy string                     `json:"created_by"`
	UpdatedAt time.Time                  `json:"updated_at"`
}

// ChannelTarget says where a channel sends to. *** stands for each secret.
type ChannelTarget struct {
	URL      *SecretText `json:"url,omitempty"`
	Secret   *SecretText `json:"secret,omitempty" doc:"Secret that signs a webhook"`
	Token    *SecretText `json:"token,omitempty"`
	Host     string      `json:"host,omitempty"`
	Port     int         `json:"port,omitempty"`
	TLS      string      `json:"tls,omitempty" enum:"starttls,tls,none"`
	Username string      `json:"username,omitempty"`
	Password *SecretText `json:"password,omitempty"`
	From     string      `json:"from,omitempty"`
	To       []string    `json:"to,omitempty"`
}

const masked = "***"

func shown(stored string) *SecretText {
	if stored == "" {
		return nil
	}
	if name, ok := agented.RefersTo(stored); ok {
		return &SecretText{Named: name}
	}
	return &SecretText{Value: masked}
}

func view(c *notices.Channel, admin bool) ChannelView {
	v := ChannelView{
		ID: c.ID, Name: c.Name, Kind: c.Kind, Enabled: c.Enabled, Events: rest.NotNil(c.Events), Pending: c.Pending, Failures: c.Failures,
		CreatedAt: rest.Time(c.CreatedAt), CreatedBy: c.CreatedBy, UpdatedAt: rest.Time(c.UpdatedAt),
	}
	if c.Digest != nil {
		v.Digest = &DigestView{Digest: *c.Digest, NextAt: rest.OptionalTime(c.DigestAt)}
	}
	if s := &c.Settings; admin {
		v.Target = &ChannelTarget{
			URL: shown(s.URL), Secret: shown(s.Secret), Token: shown(s.Token), Password: shown(s.Password),
			Host: s.Host, Port: s.Port, TLS: s.TLS, Username: s.Username, From: s.From, To: s.To,
		}
	}
	return v
}

// DigestView is the digest of a channel in responses.
type DigestView struct {
	notices.Digest
	NextAt *time.Time `json:"next_at" nullable:"true" doc:"When the next one is due"`
}

type channelPath struct {
	ID string `path:"id" maxLength:"100" doc:"The channel's id or name"`
}

func isAdmin(ctx context.Context) bool { return rest.Principal(ctx).May(agented.RoleAdmin) }

func (h *Channels) list(ctx context.Context, _ *rest.PageInput) (*rest.ListOutput[ChannelView], error) {
	var items []notices.Channel
	err := h.DB.View(ctx, "channels", func(q notices.Querier) (err error) {
		items, err = notices.Channels(q)
		return err
	})
	if err != nil {
		return nil, err
	}
	admin := isAdmin(ctx)
	return rest.List(items, "", func(c *notices.Channel) ChannelView { return view(c, admin) }), nil
}

func (h *Channels) find(ctx context.Context, ref string) (c *notices.Channel, err error) {
	err = h.DB.View(ctx, "channel", func(q notices.Querier) (err error) {
		c, err = notices.ChannelOf(q, ref)
		return err
	})
	return c, err
}

func (h *Channels) get(ctx context.Context, in *channelPath) (*rest.Output[ChannelView], error) {
	c, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return rest.Reply(view(c, isAdmin(ctx))), nil
}

func (h *Channels) remove(ctx context.Context, in *channelPath) (*struct{}, error) {
	c, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return nil, h.DB.Update(ctx, "delete channel", func(tx store.Tx) error {
		if err := notices.Delete(tx, c); err != nil {
			return err
		}
		return tx.Audit(store.AuditEntry{Actor: rest.Principal(ctx).Name, Action: "channel.delete", Subject: c.ID, Detail: c.Name})
	})
}

func (h *Channels) test(ctx context.Context, in *channelPath) (*rest.Output[NotificationView], error) {
	c, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	n, err := h.Notifier.Test(ctx, c)
	if err != nil {
		return nil, err
	}
	err = h.DB.Audit(ctx, store.AuditEntry{Actor: rest.Principal(ctx).Name, Action: "channel.test", Subject: c.ID, Detail: c.Name})
	if err != nil {
		return nil, err
	}
	return rest.Reply(notificationView(n)), nil
}

// Secrets returns the readable secrets of all channels, for masking.
func (h *Channels) Secrets(ctx context.Context) (out []string, err error) {
	var items []notices.Channel
	err = h.DB.View(ctx, "channels", func(q notices.Querier) (err error) {
		items, err = notices.Channels(q)
		return err
	})
	for i := range items {
		c := &items[i]
		for field, sealed := range c.Settings.Sealed() {
			if _, ref := agented.RefersTo(*sealed); ref || *sealed == "" {
				continue
			}
			if value, err := h.Sealer.OpenChannel(c.ID, field, *sealed); err == nil {
				out = append(out, value)
			}
		}
	}
	return out, err
}

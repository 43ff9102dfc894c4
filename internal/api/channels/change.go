package channels

import (
	"context"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/cron"
	"github.com/agented/agented/internal/notices"
	"github.com/agented/agented/internal/notify"
	"github.com/agented/agented/internal/store"
)

// ChannelFields are the fields of a channel in requests.
type ChannelFields struct {
	Enabled  rest.Optional[bool]                       `json:"enabled,omitzero" doc:"Default true"`
	Events   rest.Optional[[]agented.NotificationKind] `json:"events,omitzero" doc:"Kinds of notifications that it receives from every trigger. Default: all of them. An empty list: only what triggers send to it by name"`
	URL      rest.Optional[SecretText]                 `json:"url,omitzero" doc:"Kinds webhook, slack, teams, discord and ntfy: the address, for ntfy with the topic as its last part. {\"secret\": NAME} uses a named secret"`
	Secret   rest.Optional[SecretText]                 `json:"secret,omitzero" doc:"Kind webhook: secret of the signature, whsec_ and base64. Omitted: the server creates one and returns it once"`
	Token    rest.Optional[SecretText]                 `json:"token,omitzero" doc:"Kind ntfy: access token"`
	Host     rest.Optional[string]                     `json:"host,omitzero" doc:"Kind email: the mail server"`
	Port     rest.Optional[int]                        `json:"port,omitzero" doc:"Kind email: default 587, with tls 465"`
	TLS      rest.Optional[string]                     `json:"tls,omitzero" doc:"Kind email: starttls (default), tls, or none for an address in AGENTED_NOTIFY_ALLOW"`
	Username rest.Optional[string]                     `json:"username,omitzero" doc:"Kind email: default is no login"`
	Password rest.Optional[SecretText]                 `json:"password,omitzero" doc:"Kind email"`
	From     rest.Optional[string]                     `json:"from,omitzero" doc:"Kind email: the sender's address"`
	To       rest.Optional[[]string]                   `json:"to,omitzero" doc:"Kind email: up to 20 recipients"`
	Digest   rest.Optional[*notices.Digest]            `json:"digest,omitzero" doc:"Regular summary: cron (five fields), zone (default: the server's) and empty (send or skip a summary about nothing). Default: none"`
}

// ChannelCreate is the request to create a channel.
type ChannelCreate struct {
	Name string              `json:"name" doc:"1 to 100 letters, digits and . _ -; unique, ignoring case; never changes"`
	Kind notices.ChannelKind `json:"kind" enum:"webhook,slack,teams,discord,ntfy,email"`
	ChannelFields
}

// ChannelUpdate is the request to update a channel; omitted fields are unchanged.
type ChannelUpdate struct{ ChannelFields }

// NewChannel is a channel with the secret that was created for it.
type NewChannel struct {
	ChannelView
	SigningSecret string `json:"signing_secret,omitempty" doc:"The secret that signs its messages. Shown only here, and only if the server created it"`
}

type createdChannel struct {
	Location string `header:"Location" doc:"Path of the new channel"`
	Body     NewChannel
}

type channelChange struct {
	ID   string `path:"id" maxLength:"100" doc:"The channel's id or name"`
	Body ChannelUpdate
}

// fieldsOf lists the fields of each kind.
var fieldsOf = map[notices.ChannelKind][]string{
	notices.Webhook: {"url", "secret"},
	notices.Slack:   {"url"},
	notices.Teams:   {"url"},
	notices.Discord: {"url"},
	notices.Ntfy:    {"url", "token"},
	notices.Email:   {"host", "port", "tls", "username", "password", "from", "to"},
}

const maxRecipients = 20

// plain are the new secret values of a request, by field: they are not sealed yet.
type plain map[string]string

// apply applies the request to a channel, and returns its new secret values. A value that is
// unchanged or a reference is set.
func (f *ChannelFields) apply(c *notices.Channel) (plain, []agented.Field) {
	var bad []agented.Field
	refuse := func(path, text string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(text, args...)})
	}
	f.Enabled.Into(&c.Enabled, true)
	f.Events.Into(&c.Events, agented.NotificationKinds)
	s := &c.Settings
	f.Host.Into(&s.Host, "")
	f.TLS.Into(&s.TLS, "")
	f.Port.Into(&s.Port, 0)
	f.Username.Into(&s.Username, "")
	f.From.Into(&s.From, "")
	f.To.Into(&s.To, nil)
	f.Digest.Into(&c.Digest, nil)
	fresh := plain{}
	for field, value := range map[string]rest.Optional[SecretText]{"url": f.URL, "secret": f.Secret, "token": f.Token, "password": f.Password} {
		stored := s.Sealed()[field]
		switch v := value.Value; {
		case !value.Set:
		case value.Null || v == SecretText{}:
			*stored = ""
		case v.Named != "":
			*stored = agented.SecretRef(v.Named)
			if !agented.ValidSecretName(v.Named) {
				refuse(field, "is not the name of a secret; agented secret list shows them")
			}
		case v.Value == masked:
			if *stored == "" {
				refuse(field, "*** keeps a stored value, but there is none: send the value")
			}
		case strings.HasPrefix(v.Value, agented.SecretRef("")):
			refuse(field, `cannot begin with secret:v1: to use a named secret, write {"secret": NAME}`)
		case len(v.Value) > agented.MaxSecret || strings.ContainsRune(v.Value, 0):
			refuse(field, "is too long or has a NUL byte")
		default:
			fresh[field] = v.Value
		}
	}
	for i, k := range c.Events {
		if !slices.Contains(agented.NotificationKinds, k) {
			refuse(fmt.Sprintf("events.%d", i), "is not a kind of notification: use %s", kinds())
		}
	}
	c.Events = slices.DeleteFunc(slices.Clone(agented.NotificationKinds), func(k agented.NotificationKind) bool { return !slices.Contains(c.Events, k) })
	return fresh, bad
}

func kinds() string {
	var out []string
	for _, k := range agented.NotificationKinds {
		out = append(out, string(k))
	}
	return strings.Join(out, ", ")
}

// check validates a channel with its new secret values.
func (h *Channels) check(ctx context.Context, c *notices.Channel, fresh plain) (bad []agented.Field) {
	refuse := func(path, text string, args ...any) {
		bad = append(bad, agented.Field{Path: path, Text: fmt.Sprintf(text, args...)})
	}
	s := &c.Settings
	given := map[string]bool{"host": s.Host != "", "port": s.Port != 0, "tls": s.TLS != "", "username": s.Username != "", "from": s.From != "", "to": len(s.To) > 0}
	for field, value := range s.Sealed() {
		given[field] = *value != "" || fresh[field] != ""
	}
	for _, field := range slices.Sorted(maps.Keys(given)) {
		if given[field] && !slices.Contains(fieldsOf[c.Kind], field) {
			refuse(field, "does not apply to kind %s: remove it", c.Kind)
		}
	}
	if c.Kind == notices.Email {
		h.checkMail(ctx, s, given, refuse)
	} else {
		h.checkURL(ctx, c, fresh, given, refuse)
	}
	if c.Digest != nil {
		bad = append(bad, h.checkDigest(c.Digest)...)
	}
	return bad
}

func (h *Channels) checkURL(ctx context.Context, c *notices.Channel, fresh plain, given map[string]bool, refuse func(string, string, ...any)) {
	if !given["url"] {
		refuse("url", "is required for kind %s", c.Kind)
	}
	if url, ok := fresh["url"]; ok {
		if err := h.Guard.CheckURL(ctx, url); err != nil {
			refuse("url", "%s", agented.Message(err))
		} else if c.Kind == notices.Ntfy && !notify.HasTopic(url) {
			refuse("url", "must end with the topic, for example https://ntfy.sh/my-topic")
		}
	}
	if secret, ok := fresh["secret"]; ok {
		if fault := notify.SecretFault(secret); fault != "" {
			refuse("secret", "%s", fault)
		}
	}
	if c.Kind == notices.Webhook && !given["secret"] {
		refuse("secret", "is required: without it, the receiver cannot verify that a message is from this server")
	}
}

func (h *Channels) checkMail(ctx context.Context, s *notices.Settings, given map[string]bool, refuse func(string, string, ...any)) {
	if s.TLS == "" {
		s.TLS = notify.TLSStart
	}
	if s.Port == 0 {
		s.Port = map[string]int{notify.TLSFull: 465, notify.TLSNone: 25}[s.TLS]
		if s.Port == 0 {
			s.Port = 587
		}
	}
	if !slices.Contains([]string{notify.TLSStart, notify.TLSFull, notify.TLSNone}, s.TLS) {
		refuse("tls", "must be starttls, tls or none")
	}
	if s.Port < 1 || s.Port > 65535 {
		refuse("port", "must be from 1 to 65535")
	}
	if s.Host == "" || len(s.Host) > 253 || strings.ContainsAny(s.Host, "/@ \t\r\n%") {
		refuse("host", "must be the name of a mail server, for example smtp.example.org")
	} else if allowed, err := h.Guard.CheckHost(ctx, s.Host, uint16(s.Port)); err != nil {
		refuse("host", "%s", err.Error())
	} else if s.TLS == notify.TLSNone && !allowed {
		refuse("tls", "must be starttls or tls: without encryption, only addresses in AGENTED_NOTIFY_ALLOW can be used")
	}
	if given["username"] != given["password"] {
		refuse("password", "username and password belong together: set both or none")
	}
	if strings.ContainsAny(s.Username, "\r\n") || len(s.Username) > 320 {
		refuse("username", "has a line break or is too long")
	}
	if fault := addressFault(s.From); fault != "" {
		refuse("from", "%s", fault)
	}
	if len(s.To) == 0 || len(s.To) > maxRecipients {
		refuse("to", "must list 1 to %d recipients", maxRecipients)
	}
	for i, to := range s.To {
		if fault := addressFault(to); fault != "" {
			refuse(fmt.Sprintf("to.%d", i), "%s", fault)
		}
	}
}

func addressFault(text string) string {
	if a, err := mail.ParseAddress(text); err != nil || len(text) > 320 || strings.ContainsAny(a.Address, "\r\n") {
		return "must be an e-mail address, for example agented@example.org"
	}
	return ""
}

func (h *Channels) checkDigest(d *notices.Digest) (bad []agented.Field) {
	refuse := func(path, text string) { bad = append(bad, agented.Field{Path: path, Text: text}) }
	if s, err := cron.Parse(d.Cron); err != nil {
		refuse("digest.cron", agented.Message(err))
	} else if s.Once() {
		refuse("digest.cron", "must repeat: use five cron fields, for example 0 7 * * *")
	}
	if d.Zone != "" {
		if _, err := cron.LoadZone(d.Zone); err != nil {
			refuse("digest.zone", agented.Message(err))
		}
	}
	if d.Empty != "" && d.Empty != "send" && d.Empty != "skip" {
		refuse("digest.empty", "must be send or skip")
	}
	return bad
}

// seal seals the new secret values of a channel.
func (h *Channels) seal(c *notices.Channel, fresh plain) {
	for field, value := range fresh {
		*c.Settings.Sealed()[field] = h.Sealer.SealChannel(c.ID, field, value)
	}
}

func (h *Channels) create(ctx context.Context, in *rest.Input[ChannelCreate]) (*createdChannel, error) {
	now, by := h.Now(), rest.Principal(ctx).Name
	c := &notices.Channel{
		ID: agented.NewID("chan", now), Name: in.Body.Name, Kind: in.Body.Kind, Enabled: true, Events: slices.Clone(agented.NotificationKinds),
		CreatedAt: now, CreatedBy: by, UpdatedAt: now,
	}
	fresh, bad := in.Body.apply(c)
	if !agented.ValidChannelName(c.Name) {
		bad = append(bad, agented.Field{Path: "name", Text: "must be 1 to 100 letters, digits and . _ -, beginning with a letter or a digit"})
	}
	made := ""
	if c.Kind == notices.Webhook && c.Settings.Secret == "" && fresh["secret"] == "" {
		made = notify.NewSecret()
		fresh["secret"] = made
	}
	if bad = append(bad, h.check(ctx, c, fresh)...); len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	h.seal(c, fresh)
	h.plan(c, now)
	if err := h.store(ctx, c, "channel.create", notices.Insert); err != nil {
		return nil, err
	}
	return &createdChannel{Location: "/api/v1/channels/" + c.ID, Body: NewChannel{view(c, true), made}}, nil
}

func (h *Channels) update(ctx context.Context, in *channelChange) (*rest.Output[ChannelView], error) {
	c, err := h.find(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	fresh, bad := in.Body.apply(c)
	if bad = append(bad, h.check(ctx, c, fresh)...); len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	h.seal(c, fresh)
	c.UpdatedAt = h.Now()
	if in.Body.Digest.Set || in.Body.Enabled.Set {
		h.plan(c, c.UpdatedAt)
	}
	if err := h.store(ctx, c, "channel.update", notices.Update); err != nil {
		return nil, err
	}
	h.Notifier.Wake()
	return rest.Reply(view(c, true)), nil
}

// plan sets when the next digest is due, and from when on it reports.
func (h *Channels) plan(c *notices.Channel, now time.Time) {
	c.DigestAt, c.DigestOf = time.Time{}, time.Time{}
	if c.Digest != nil {
		c.DigestAt, c.DigestOf = notify.NextDigest(c.Digest, now, h.Zone), now
	}
}

func (h *Channels) store(ctx context.Context, c *notices.Channel, action string, write func(notices.Tx, *notices.Channel) error) error {
	if err := h.DB.CheckSecretRefs(ctx, c.Settings.Refs()); err != nil {
		return err
	}
	h.DB.ChannelsChanged()
	err := h.DB.Update(ctx, action, func(tx store.Tx) error {
		if err := write(tx, c); err != nil {
			return err
		}
		return tx.Audit(store.AuditEntry{Actor: rest.Principal(ctx).Name, Action: action, Subject: c.ID, Detail: fmt.Sprintf("%s: %s", c.Name, c.Kind)})
	})
	if err == nil && h.Changed != nil {
		h.Changed()
	}
	return err
}

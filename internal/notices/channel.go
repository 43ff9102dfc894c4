package notices

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/naming"
)

// ChannelKind is the kind of a channel. The values are stored and part of the API.
type ChannelKind string

// The kinds of channels.
const (
	Webhook ChannelKind = "webhook" // signed as by Standard Webhooks
	Slack   ChannelKind = "slack"
	Teams   ChannelKind = "teams"
	Discord ChannelKind = "discord"
	Ntfy    ChannelKind = "ntfy"
	Email   ChannelKind = "email"
)

// ChannelKinds lists the kinds of channels.
var ChannelKinds = []ChannelKind{Webhook, Slack, Teams, Discord, Ntfy, Email}

// Settings say where a channel sends to. The JSON names are stored and those of the API.
type Settings struct {
	URL      string   `json:"url,omitempty"`      // sealed
	Secret   string   `json:"secret,omitempty"`   // of a webhook's signature; sealed
	Token    string   `json:"token,omitempty"`    // of ntfy; sealed
	Host     string   `json:"host,omitempty"`     // of a mail server
	Port     int      `json:"port,omitempty"`     // of a mail server
	TLS      string   `json:"tls,omitempty"`      // starttls, tls or none
	Username string   `json:"username,omitempty"` // of a mail server
	Password string   `json:"password,omitempty"` // sealed
	From     string   `json:"from,omitempty"`
	To       []string `json:"to,omitempty"`
}

// Sealed returns the fields with secrets by name.
func (s *Settings) Sealed() map[string]*string {
	return map[string]*string{"url": &s.URL, "secret": &s.Secret, "token": &s.Token, "password": &s.Password}
}

// Refs returns the named secrets that the settings refer to, by field.
func (s *Settings) Refs() map[string]string {
	out := map[string]string{}
	for field, value := range s.Sealed() {
		if name, ok := agented.RefersTo(*value); ok {
			out[field] = name
		}
	}
	return out
}

// Digest is a regular summary. The JSON names are stored and those of the API.
type Digest struct {
	Cron  string `json:"cron"`
	Zone  string `json:"zone,omitempty"`  // empty: the server's
	Empty string `json:"empty,omitempty"` // send or skip a digest about nothing; empty: send
}

// Channel is where notifications are sent.
type Channel struct {
	ID        string // "chan-…"
	Name      string // unique, ignoring case; never changes
	Kind      ChannelKind
	Enabled   bool
	Settings  Settings
	Events    []agented.NotificationKind // kinds that it wants from every trigger
	Digest    *Digest                    // nil: none
	DigestAt  time.Time                  // when the next digest is due
	DigestOf  time.Time                  // up to when the last digest reported
	Failures  int                        // consecutive attempts that failed
	Pending   int                        // notifications that are not sent yet
	CreatedAt time.Time
	CreatedBy string
	UpdatedAt time.Time
}

const channelColumns = `id, name, kind, enabled, settings, events, digest, digest_at, digest_of, failures, created_at, created_by, updated_at,
	(SELECT COUNT(*) FROM notification WHERE channel_id = channel.id AND position IS NOT NULL)`

func scanChannel(c *Channel, scan func(...any) error) error {
	var settings, events, digest string
	var at, of sql.NullInt64
	var created, updated int64
	err := scan(&c.ID, &c.Name, &c.Kind, &c.Enabled, &settings, &events, &digest, &at, &of, &c.Failures, &created, &c.CreatedBy, &updated, &c.Pending)
	if err != nil {
		return err
	}
	c.DigestAt, c.DigestOf = toTime(at), toTime(of)
	c.CreatedAt, c.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	if digest != "" {
		c.Digest = new(Digest)
		err = json.Unmarshal([]byte(digest), c.Digest)
	}
	if err := errors.Join(err, json.Unmarshal([]byte(settings), &c.Settings), json.Unmarshal([]byte(events), &c.Events)); err != nil {
		return fmt.Errorf("channel %s: %w", c.Name, err)
	}
	return nil
}

func toTime(micros sql.NullInt64) time.Time {
	if !micros.Valid {
		return time.Time{}
	}
	return time.UnixMicro(micros.Int64).UTC()
}

func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// Channels returns all channels by name.
func Channels(q Querier) ([]Channel, error) {
	rows, err := q.Query(`SELECT ` + channelColumns + ` FROM channel ORDER BY name_key`)
	return collect(rows, err, scanChannel)
}

// ChannelOf returns the channel with an id or a name, or NotFound.
func ChannelOf(q Querier, ref string) (*Channel, error) {
	c := new(Channel)
	err := scanChannel(c, q.Row(`SELECT `+channelColumns+` FROM channel WHERE id = $1 OR name_key = $2`, ref, naming.Key(ref)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, agented.Errorf(agented.NotFound, "there is no channel %q; agented channel list shows them", ref)
	}
	return c, err
}

// Insert stores a new channel, or returns Conflict if its name is in use.
func Insert(tx Tx, c *Channel) error {
	settings, events, digest, err := texts(c)
	if err != nil {
		return err
	}
	var taken bool
	if err := tx.Row(`SELECT EXISTS (SELECT 1 FROM channel WHERE name_key = $1)`, naming.Key(c.Name)).Scan(&taken); err != nil {
		return err
	}
	if taken {
		return agented.Errorf(agented.Conflict, "there is already a channel %q: choose another name", c.Name)
	}
	return tx.Exec(`INSERT INTO channel (id, name, name_key, kind, enabled, settings, events, digest, digest_at, digest_of, created_at, created_by, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $11)`,
		c.ID, c.Name, naming.Key(c.Name), c.Kind, c.Enabled, settings, events, digest, micros(c.DigestAt), micros(c.DigestOf), c.CreatedAt.UnixMicro(), c.CreatedBy)
}

// Update stores a changed channel, or returns NotFound. Notifications that wait are tried again
// now. When the next digest is due changes only with the digest or whether the channel is enabled:
// a digest may have been stored since c was read.
func Update(tx Tx, c *Channel) error {
	now, err := ChannelOf(tx, c.ID)
	if err != nil {
		return err
	}
	if now.Digest != nil && c.Digest != nil && *now.Digest == *c.Digest && now.Enabled == c.Enabled {
		c.DigestAt, c.DigestOf = now.DigestAt, now.DigestOf
	}
	settings, events, digest, err := texts(c)
	if err != nil {
		return err
	}
	err = tx.Exec(`UPDATE channel SET enabled = $2, settings = $3, events = $4, digest = $5, digest_at = $6, digest_of = $7, updated_at = $8 WHERE id = $1`,
		c.ID, c.Enabled, settings, events, digest, micros(c.DigestAt), micros(c.DigestOf), c.UpdatedAt.UnixMicro())
	if err != nil {
		return err
	}
	return tx.Exec(`UPDATE notification SET retry_at = NULL WHERE channel_id = $1 AND position IS NOT NULL`, c.ID)
}

// Delete deletes a channel with its notifications. It returns Conflict while triggers name it.
func Delete(tx Tx, c *Channel) error {
	rows, err := tx.Query(`SELECT name, spec FROM trigger_ WHERE instr(spec, '"notify"') > 0 ORDER BY name_key`)
	list, err := collect(rows, err, func(t *[2]string, scan func(...any) error) error { return scan(&t[0], &t[1]) })
	if err != nil {
		return err
	}
	for _, t := range list {
		var spec struct {
			Notify agented.NotifyRules `json:"notify"`
		}
		if err := json.Unmarshal([]byte(t[1]), &spec); err != nil {
			return fmt.Errorf("trigger %s: %w", t[0], err)
		}
		for _, names := range spec.Notify {
			for _, name := range names {
				if naming.Key(name) == naming.Key(c.Name) {
					return agented.Errorf(agented.Conflict, "channel %q is in use by trigger %q: remove it from the trigger's notify first", c.Name, t[0])
				}
			}
		}
	}
	return tx.Exec(`DELETE FROM channel WHERE id = $1`, c.ID)
}

func texts(c *Channel) (settings, events, digest string, err error) {
	s, err := json.Marshal(c.Settings)
	if err != nil {
		return "", "", "", err
	}
	list := c.Events
	if list == nil {
		list = []agented.NotificationKind{}
	}
	e, err := json.Marshal(list)
	if err != nil || c.Digest == nil {
		return string(s), string(e), "", err
	}
	d, err := json.Marshal(c.Digest)
	return string(s), string(e), string(d), err
}

// Unknown returns the channels that rules name and that do not exist, by field.
func Unknown(q Querier, rules agented.NotifyRules) ([]agented.Field, error) {
	var bad []agented.Field
	for kind, names := range rules {
		for i, name := range names {
			var known bool
			if err := q.Row(`SELECT EXISTS (SELECT 1 FROM channel WHERE name_key = $1)`, naming.Key(name)).Scan(&known); err != nil {
				return nil, err
			}
			if !known {
				bad = append(bad, agented.Field{Path: fmt.Sprintf("notify.%s.%d", kind, i), Text: fmt.Sprintf("there is no channel %q; agented channel list shows them", name)})
			}
		}
	}
	return bad, nil
}

// collect scans all rows.
func collect[T any](rows database.Rows, err error, scan func(*T, func(...any) error) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var v T
		if err := scan(&v, rows.Scan); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

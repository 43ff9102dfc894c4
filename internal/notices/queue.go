package notices

import (
	"database/sql"
	"errors"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// The kinds of notifications that are not events.
const (
	KindDigest agented.NotificationKind = "digest"
	KindTest   agented.NotificationKind = "test"
)

// Notification is one message for one channel.
type Notification struct {
	agented.Notice
	ID          string // "ntf-…"; the same for every attempt to send it
	Channel     string // id
	ChannelName string
	More        int // further events of the kind that are not listed
	Status      Status
	Attempts    int
	Position    time.Time // when it may be sent at the earliest, while it is pending
	RetryAt     time.Time // when it is tried again, while it is pending
	Answer      string    // what the other side answered last
	SettledAt   time.Time
}

const (
	columns = `n.id, n.channel_id, c.name, n.kind, n.trigger_id, n.trigger_name, n.execution_id, n.subject, n.text, n.at, n.more, n.status, n.attempts,
	n.position, n.retry_at, n.answer, n.settled_at`
	maxAnswer = 500
	// The latest notifications of a channel, which are kept, and the number of surplus ones
	// at which settled ones among them are removed.
	keep      = 2000
	keepSlack = 200
)

func scan(n *Notification, scan func(...any) error) error {
	var at int64
	var position, retry, settled sql.NullInt64
	err := scan(&n.ID, &n.Channel, &n.ChannelName, &n.Kind, &n.Trigger, &n.TriggerName, &n.Execution, &n.Subject, &n.Text, &at, &n.More, &n.Status, &n.Attempts,
		&position, &retry, &n.Answer, &settled)
	n.At, n.Position, n.RetryAt, n.SettledAt = time.UnixMicro(at).UTC(), toTime(position), toTime(retry), toTime(settled)
	return err
}

// Due returns the channels whose next notification may be sent now, and when the next other
// one may be; zero if there is none.
func Due(q Querier, now time.Time) (channels []string, next time.Time, err error) {
	type head struct {
		channel string
		at      int64
	}
	rows, err := q.Query(`SELECT n.channel_id, CASE WHEN n.retry_at > n.position THEN n.retry_at ELSE n.position END
		FROM channel c JOIN notification n ON n.id =
			(SELECT id FROM notification WHERE channel_id = c.id AND position IS NOT NULL ORDER BY position, seq LIMIT 1)
		WHERE c.enabled`)
	heads, err := collect(rows, err, func(h *head, scan func(...any) error) error { return scan(&h.channel, &h.at) })
	for _, h := range heads {
		at := time.UnixMicro(h.at).UTC()
		if !at.After(now) {
			channels = append(channels, h.channel)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return channels, next, err
}

// Begin starts an attempt to send the next notification of a channel, and returns it; nil if
// none is due. From here on no further events are counted in it.
func Begin(tx Tx, channel string, now time.Time) (*Notification, error) {
	n := new(Notification)
	err := scan(n, tx.Row(`SELECT `+columns+` FROM notification n JOIN channel c ON c.id = n.channel_id
		WHERE n.channel_id = $1 AND n.position IS NOT NULL AND c.enabled ORDER BY n.position, n.seq LIMIT 1`, channel).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil || n.Position.After(now) || n.RetryAt.After(now) {
		return nil, err
	}
	n.Attempts++
	return n, tx.Exec(`UPDATE notification SET attempts = $2 WHERE id = $1`, n.ID, n.Attempts)
}

// End stores how an attempt ended. A pending notification is tried again at n.RetryAt.
func End(tx Tx, n *Notification, now time.Time) error {
	position := micros(n.Position)
	if n.Status != Pending {
		n.SettledAt, n.Position, n.RetryAt = now, time.Time{}, time.Time{}
		position = nil
	}
	n.Answer = format.Truncate(n.Answer, maxAnswer)
	err := tx.Exec(`UPDATE notification SET status = $2, position = $3, retry_at = $4, answer = $5, settled_at = $6 WHERE id = $1`,
		n.ID, n.Status, position, micros(n.RetryAt), n.Answer, micros(n.SettledAt))
	if err != nil {
		return err
	}
	failures := `failures + 1`
	if n.Status == Sent {
		failures = `0`
	}
	if err := tx.Exec(`UPDATE channel SET failures = `+failures+` WHERE id = $1`, n.Channel); err != nil || n.Status == Pending {
		return err
	}
	return prune(tx, n.Channel)
}

// prune removes the oldest settled notifications of a channel.
func prune(tx Tx, channel string) error {
	var last sql.NullInt64
	// Only the index is read.
	err := tx.Row(`SELECT seq FROM notification WHERE channel_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2`, channel, keep+keepSlack).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.Exec(`DELETE FROM notification WHERE channel_id = $1 AND position IS NULL AND seq < (SELECT seq FROM notification
		WHERE channel_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2)`, channel, keep)
}

// Record stores a notification that was sent outside of the queue: a test.
func Record(tx Tx, n *Notification) error {
	err := tx.Exec(`INSERT INTO notification (id, seq, channel_id, kind, text, at, status, attempts, answer, settled_at)
		VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM notification), $2, $3, $4, $5, $6, 1, $7, $5)`,
		n.ID, n.Channel, n.Kind, n.Text, n.At.UnixMicro(), n.Status, format.Truncate(n.Answer, maxAnswer))
	if err != nil {
		return err
	}
	return prune(tx, n.Channel)
}

// Filter selects notifications. Empty fields select all.
type Filter struct {
	Channel   string // id
	Status    Status
	Kind      agented.NotificationKind
	Execution agented.ExecutionID
}

// List returns notifications, the newest first, before a position in the list; 0 is the first page.
// next is the position of the next page, 0 if there is none.
func List(q Querier, f Filter, before int64, limit int) (list []Notification, next int64, err error) {
	type row struct {
		Notification
		seq int64
	}
	rows, err := q.Query(`SELECT `+columns+`, n.seq FROM notification n JOIN channel c ON c.id = n.channel_id
		WHERE ($1 = '' OR n.channel_id = $1) AND ($2 = '' OR n.status = $2) AND ($3 = '' OR n.kind = $3) AND ($4 = '' OR n.execution_id = $4)
			AND ($5 = 0 OR n.seq < $5) ORDER BY n.seq DESC LIMIT $6`, f.Channel, f.Status, f.Kind, f.Execution, before, limit+1)
	found, err := collect(rows, err, func(r *row, s func(...any) error) error {
		return scan(&r.Notification, func(dest ...any) error { return s(append(dest, &r.seq)...) })
	})
	if len(found) > limit {
		found, next = found[:limit], found[limit-1].seq
	}
	for _, r := range found {
		list = append(list, r.Notification)
	}
	return list, next, err
}

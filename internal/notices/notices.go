// Package notices stores notifications: the channels, and per channel the queue of what is
// to be sent to it (the outbox). Its functions run in transactions of the store.
package notices

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/database"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/naming"
)

// Querier reads in a transaction.
type Querier interface {
	Query(q string, args ...any) (database.Rows, error)
	Row(q string, args ...any) database.Row
}

// Tx is a write transaction.
type Tx interface {
	Querier
	Exec(q string, args ...any) error
	Affected(q string, args ...any) (int64, error)
}

// Limits of the queue of a channel. Events beyond them are counted in one notification per
// kind, so that neither rows nor messages are unbounded.
const (
	Burst      = 20          // notifications of a kind within Window
	Window     = time.Minute // how long a counting notification waits for further events
	maxPending = 500
	maxText    = 1000
)

// Status is the state of a notification. The values are stored and part of the API.
type Status string

// The states of a notification.
const (
	Pending Status = "pending"
	Sent    Status = "sent"
	GaveUp  Status = "gave_up" // it was not delivered within a day, or was refused
)

// Append stores a notification for each channel that wants the event, and reports whether
// there is one. rules are those of the trigger, nil if it has none.
func Append(tx Tx, n agented.Notice, rules agented.NotifyRules, now time.Time) (any bool, err error) {
	targets, err := targets(tx, n.Kind, rules)
	if err != nil {
		return false, err
	}
	for _, id := range targets {
		if n.Kind == agented.NotifyChannel && n.Subject == id {
			continue // a channel is not told about itself
		}
		if err := appendTo(tx, id, n, now); err != nil {
			return false, err
		}
		any = true
	}
	return any, nil
}

// targets returns the ids of the channels for a kind, the oldest first.
func targets(q Querier, kind agented.NotificationKind, rules agented.NotifyRules) (ids []string, err error) {
	names, ruled := rules.Channels(kind)
	if ruled && len(names) == 0 {
		return nil, nil
	}
	names = slices.Clone(names)
	for i, name := range names {
		names[i] = naming.Key(name)
	}
	rows, err := q.Query(`SELECT id, name_key, events FROM channel WHERE enabled ORDER BY created_at, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, key, events string
		if err := rows.Scan(&id, &key, &events); err != nil {
			return nil, err
		}
		if ruled && slices.Contains(names, key) || !ruled && wants(events, kind) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// wants reports whether a JSON list of kinds contains a kind.
func wants(events string, kind agented.NotificationKind) bool {
	var list []agented.NotificationKind
	return json.Unmarshal([]byte(events), &list) == nil && slices.Contains(list, kind)
}

// appendTo stores a notification for one channel. In a storm it is counted in an existing
// one instead, unless an attempt to send that has begun: the other side may have it.
func appendTo(tx Tx, channel string, n agented.Notice, now time.Time) error {
	// kind with a suffix: the index of the queue finds it, not that of all notifications.
	counted, err := tx.Affected(`UPDATE notification SET more = more + 1 WHERE id = (SELECT id FROM notification
		WHERE channel_id = $1 AND kind || '' = $2 AND position IS NOT NULL AND collects AND attempts = 0 ORDER BY position DESC LIMIT 1)`, channel, n.Kind)
	if err != nil || counted > 0 {
		return err
	}
	var recent, pending int
	err = tx.Row(`SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM notification WHERE channel_id = $1 AND kind = $2 AND at > $3 LIMIT $4) AS r),
		(SELECT COUNT(*) FROM (SELECT 1 FROM notification WHERE channel_id = $1 AND position IS NOT NULL LIMIT $5) AS p)`,
		channel, n.Kind, now.Add(-Window).UnixMicro(), Burst, maxPending).Scan(&recent, &pending)
	if err != nil {
		return err
	}
	collects, position := false, now
	if recent >= Burst || pending >= maxPending {
		collects, position = true, now.Add(Window)
	}
	return insert(tx, channel, n, position, collects, maxText)
}

func insert(tx Tx, channel string, n agented.Notice, position time.Time, collects bool, maxText int) error {
	return tx.Exec(`INSERT INTO notification (id, seq, channel_id, kind, trigger_id, trigger_name, execution_id, subject, text, at, collects, status, position)
		VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM notification), $2, $3, $4, $5, $6, $7, $8, $9, $10, 'pending', $11)`,
		agented.NewID("ntf", n.At), channel, n.Kind, n.Trigger, n.TriggerName, n.Execution, n.Subject,
		format.Truncate(strings.ToValidUTF8(n.Text, "\ufffd"), maxText), n.At.UnixMicro(), collects, position.UnixMicro())
}

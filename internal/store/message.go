package store

import (
	"context"
	"strings"
	"time"

	"github.com/agented/agented"
)

// MessageAdmission asks for a message to be stored and put into the inboxes of
// all that it is for.
type MessageAdmission struct {
	Message agented.BusMessage // addresses resolved; Chain as the sender's cause makes it, zero if it begins one
	Limits  agented.ChainLimits
	Rules   string      // RuleVersion of the rules that were asked; empty does not matter
	Fires   []Admission // executions that it fires
}

// MessageResult is what became of a MessageAdmission.
type MessageResult struct {
	Message  agented.BusMessage // as stored
	Repeated bool               // the key was seen before: Message is the first one
	Stale    bool               // the rules have changed meanwhile: nothing was stored, ask them again
	Owners   []agented.Address  // whose inboxes it is in now
	Fired    []agented.ExecutionID
	Replaced []agented.ExecutionID // running ones that have been asked to stop
}

// SendMessage stores a message, its place in each inbox and what it fires, all
// or nothing. When it returns, they survive a power cut. A sender's key that was
// seen before is the first message again. A chain at its limit is a Conflict
// that says which.
func (db *DB) SendMessage(ctx context.Context, a MessageAdmission, now time.Time) (MessageResult, error) {
	return inGroup(ctx, db, "send message", func(tx *tx) (MessageResult, error) { return tx.sendMessage(a, now) })
}

func (tx *tx) sendMessage(a MessageAdmission, now time.Time) (MessageResult, error) {
	m := a.Message
	if m.Key != "" {
		first, err := tx.messageByKey(m.From, m.Key)
		if first != nil || err != nil {
			if err == nil {
				return MessageResult{Message: *first, Repeated: true}, nil
			}
			return MessageResult{}, err
		}
	}
	if a.Rules != "" {
		if v, err := tx.hookVersion(); err != nil || v != a.Rules {
			return MessageResult{Stale: true}, err
		}
	}
	m.CreatedAt = stored(now)
	if m.ID == "" {
		m.ID = agented.MessageID(agented.NewID("msg", now))
	}
	if err := tx.mayFollow(m.Chain, a.Limits); err != nil {
		return MessageResult{}, err
	}
	if m.Chain.ID == "" {
		m.Chain = agented.Chain{ID: string(m.ID)}
	}
	owners, err := recipients(tx, m.To)
	if err != nil {
		return MessageResult{}, err
	}
	var key *string
	if m.Key != "" {
		key = &m.Key
	}
	err = tx.exec(`INSERT INTO message (id, dedup_key, type, priority, sender, recipient, subject, body, reply_to, chain_id, chain_depth, chain_parent, expires_at, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		m.ID, key, m.Type, m.Priority, m.From.String(), m.To.String(), m.Subject, m.Body, m.ReplyTo,
		m.Chain.ID, m.Chain.Depth, m.Chain.Parent, micros(m.ExpiresAt), micros(m.CreatedAt))
	if err != nil {
		return MessageResult{}, err
	}
	got := MessageResult{Message: m, Owners: owners}
	for _, owner := range owners {
		var seq int64
		err := tx.row(`INSERT INTO inbox (owner, last_seq) VALUES ($1, 1)
			ON CONFLICT (owner) DO UPDATE SET last_seq = inbox.last_seq + 1 RETURNING last_seq`, owner.String()).Scan(&seq)
		if err != nil {
			return MessageResult{}, err
		}
		err = tx.exec(`INSERT INTO inbox_item (owner, seq, message_id, state, expires_at) VALUES ($1, $2, $3, $4, $5)`,
			owner.String(), seq, m.ID, agented.InboxPending, micros(m.ExpiresAt))
		if err != nil {
			return MessageResult{}, err
		}
	}
	for _, fire := range a.Fires {
		fire.Execution.Chain = m.Chain.Next(string(m.ID))
		if err := tx.mayFollow(fire.Execution.Chain, a.Limits); err != nil {
			return MessageResult{}, err
		}
		e, replaced, err := tx.place(fire, now)
		if err != nil {
			return MessageResult{}, err
		}
		got.Fired = append(got.Fired, e.ID)
		got.Replaced = append(got.Replaced, replaced...)
	}
	return got, nil
}

// mayFollow refuses what would go beyond the limits of its chain.
func (tx *tx) mayFollow(c agented.Chain, l agented.ChainLimits) error {
	if c.ID == "" {
		return nil
	}
	var used agented.ChainUse
	err := tx.row(`SELECT
		(SELECT COUNT(*) FROM message WHERE chain_parent = $1 AND chain_parent <> '') + (SELECT COUNT(*) FROM execution WHERE chain_parent = $1 AND chain_parent <> ''),
		(SELECT COUNT(*) FROM message WHERE chain_id = $2) + (SELECT COUNT(*) FROM execution WHERE chain_id = $2 AND chain_id <> ''),
		COALESCE((SELECT SUM(cost_usd) FROM execution WHERE (chain_id = $2 AND chain_id <> '') OR id = $2), 0)`, c.Parent, c.ID).
		Scan(&used.Children, &used.Total, &used.CostUSD)
	if err != nil {
		return err
	}
	if why := l.Refuse(c, used); why != "" {
		return agented.Errorf(agented.Conflict, "%s", why)
	}
	return nil
}

// recipients lists the inboxes behind an address. An agent or a user that is
// not there is NotFound; a group or a topic may be empty.
func recipients(q querier, to agented.Address) ([]agented.Address, error) {
	switch to.Kind {
	case agented.ToAgent:
		a, err := findAgent(q, to.Name)
		if err != nil {
			return nil, err
		}
		return []agented.Address{{Kind: agented.ToAgent, Name: string(a.ID)}}, nil
	case agented.ToUser:
		var id string
		err := q.row(`SELECT id FROM user_ WHERE id = $1 OR name_key = $2`, to.Name, fold(to.Name)).Scan(&id)
		if missing(err) {
			return nil, agented.Errorf(agented.NotFound, "no user %q", clip(to.Name, 80))
		}
		return []agented.Address{{Kind: agented.ToUser, Name: id}}, err
	case agented.ToGroup, agented.ToTopic:
		rows, err := q.query(`SELECT owner FROM member WHERE list = $1 ORDER BY owner`, to.String())
		return collect(rows, err, func(v *agented.Address, scan func(...any) error) error { return scan(toAddress{v}) })
	}
	return nil, agented.Errorf(agented.Invalid, "nothing can be sent to %q", to.String())
}

// Recipients lists the inboxes that a message to an address reaches now.
func (db *DB) Recipients(ctx context.Context, to agented.Address) ([]agented.Address, error) {
	var out []agented.Address
	err := db.read(ctx, "recipients", func(r *reader) (err error) {
		out, err = recipients(r, to)
		return err
	})
	return out, err
}

const messageColumns = `m.id, COALESCE(m.dedup_key, ''), m.type, m.priority, m.sender, m.recipient, m.subject, m.body, m.reply_to,
	m.chain_id, m.chain_depth, m.chain_parent, m.expires_at, m.created_at`

func scanMessage(m *agented.BusMessage, scan func(...any) error, more ...any) error {
	return scan(append([]any{
		&m.ID, &m.Key, &m.Type, &m.Priority,
		toAddress{&m.From},
		toAddress{&m.To},
		&m.Subject, &m.Body, &m.ReplyTo,
		&m.Chain.ID, &m.Chain.Depth, &m.Chain.Parent,
		toTime{&m.ExpiresAt},
		toTime{&m.CreatedAt},
	}, more...)...)
}

// toAddress reads an address as it is stored.
type toAddress struct{ a *agented.Address }

// Scan implements sql.Scanner.
func (t toAddress) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	}
	kind, name, _ := strings.Cut(text, ":")
	*t.a = agented.Address{Kind: agented.AddressKind(kind), Name: name}
	return nil
}

func (tx *tx) messageByKey(from agented.Address, key string) (*agented.BusMessage, error) {
	var m agented.BusMessage
	err := scanMessage(&m, tx.row(`SELECT `+messageColumns+` FROM message m WHERE m.sender = $1 AND m.dedup_key = $2`, from.String(), key).Scan)
	if missing(err) {
		return nil, nil
	}
	return &m, err
}

// Message returns one message, or NotFound.
func (db *DB) Message(ctx context.Context, id agented.MessageID) (*agented.BusMessage, error) {
	var m agented.BusMessage
	err := scanMessage(&m, db.r.QueryRowContext(ctx, `SELECT `+messageColumns+` FROM message m WHERE m.id = $1`, id).Scan)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "no message %q", clip(string(id), 80))
	}
	return &m, db.explain("message", err)
}

// InboxFilter narrows a list of an inbox. Zero fields do not.
type InboxFilter struct {
	States []agented.InboxState // any of these
}

// Inbox returns up to limit items of an inbox behind the number after, in
// order.
func (db *DB) Inbox(ctx context.Context, owner agented.Address, after int64, limit int, f InboxFilter) ([]agented.InboxItem, error) {
	var w where
	w.and(`i.owner = $?`, owner.String())
	w.and(`i.seq > $?`, after)
	cond := w.sql()
	if len(f.States) > 0 {
		cond += ` AND i.state IN ` + in(&w, f.States)
	}
	q := `SELECT ` + messageColumns + `, i.owner, i.seq, i.state, i.delivered_at, i.read_at
		FROM inbox_item i JOIN message m ON m.id = i.message_id` + cond + ` ORDER BY i.seq LIMIT ` + w.number(`$?`, limit)
	rows, err := db.r.QueryContext(ctx, q, w.args...)
	list, err := collect(rows, err, scanItem)
	return list, db.explain("inbox", err)
}

// Delivered notes that items of an inbox were handed over, up to the number
// upTo. Those that were before stay as they are.
func (db *DB) Delivered(ctx context.Context, owner agented.Address, upTo int64, now time.Time) error {
	return db.write(ctx, "delivered", func(tx *tx) error {
		return tx.exec(`UPDATE inbox_item SET state = $3, delivered_at = $4 WHERE owner = $1 AND state = 'pending' AND read_at IS NULL AND seq <= $2`,
			owner.String(), upTo, agented.InboxDelivered, micros(now))
	})
}

// TakeInbox gives an execution up to limit messages of an inbox that nobody has
// read and no other execution has, in order, and writes the prompt that render
// makes of them into it, all or nothing. They are read when the execution
// succeeds, and free again when it does not. Asked again, the answer is the
// same.
func (db *DB) TakeInbox(ctx context.Context, e agented.ExecutionID, owner agented.Address, limit int, now time.Time,
	render func([]agented.InboxItem) string,
) (string, error) {
	var prompt string
	err := db.write(ctx, "take inbox", func(tx *tx) error {
		var state agented.State
		err := tx.row(`SELECT status FROM execution WHERE id = $1`, e).Scan(&state)
		switch {
		case missing(err):
			return noExecution(e)
		case err != nil:
			return err
		case state.Final():
			return agented.Errorf(agented.Conflict, "%s is %s", e, state)
		}
		err = tx.exec(`UPDATE inbox_item SET taken_by = $1, state = 'delivered', delivered_at = COALESCE(delivered_at, $4)
			WHERE (owner, seq) IN (SELECT owner, seq FROM inbox_item
				WHERE owner = $2 AND state IN ('pending', 'delivered') AND read_at IS NULL AND taken_by IS NULL ORDER BY seq LIMIT $3)`,
			e, owner.String(), limit, micros(now))
		if err != nil {
			return err
		}
		rows, err := tx.query(`SELECT `+messageColumns+`, i.owner, i.seq, i.state, i.delivered_at, i.read_at
			FROM inbox_item i JOIN message m ON m.id = i.message_id WHERE i.taken_by = $1 ORDER BY i.seq`, e)
		items, err := collect(rows, err, scanItem)
		if err != nil {
			return err
		}
		prompt = render(items)
		return tx.exec(`UPDATE execution_text SET prompt = $2 WHERE execution_id = $1`, e, prompt)
	})
	return prompt, err
}

// settleInbox ends what an execution that has ended did with its messages.
func (tx *tx) settleInbox(e agented.ExecutionID, state agented.State, now time.Time) error {
	if state == agented.StateSuccess {
		return tx.exec(`UPDATE inbox_item SET state = 'read', read_at = $2, expires_at = NULL, taken_by = NULL WHERE taken_by = $1`, e, micros(now))
	}
	return tx.exec(`UPDATE inbox_item SET state = 'pending', taken_by = NULL WHERE taken_by = $1`, e)
}

func scanItem(v *agented.InboxItem, scan func(...any) error) error {
	return scanMessage(&v.Message, scan, toAddress{&v.Owner}, &v.Seq, &v.State, toTime{&v.DeliveredAt}, toTime{&v.ReadAt})
}

// Acknowledge notes that one item of an inbox was read. Once more is no error;
// one that has expired is a Conflict.
func (db *DB) Acknowledge(ctx context.Context, owner agented.Address, seq int64, now time.Time) error {
	return db.write(ctx, "acknowledge", func(tx *tx) error {
		var state agented.InboxState
		err := tx.row(`SELECT state FROM inbox_item WHERE owner = $1 AND seq = $2`, owner.String(), seq).Scan(&state)
		switch {
		case missing(err):
			return agented.Errorf(agented.NotFound, "there is no message %d in this inbox", seq)
		case err != nil || state == agented.InboxRead:
			return err
		case state == agented.InboxExpired:
			return agented.Errorf(agented.Conflict, "message %d of this inbox has expired", seq)
		}
		return tx.exec(`UPDATE inbox_item SET state = $3, read_at = $4, delivered_at = COALESCE(delivered_at, $4), expires_at = NULL, taken_by = NULL
			WHERE owner = $1 AND seq = $2`, owner.String(), seq, agented.InboxRead, micros(now))
	})
}

// Lapsed is a message in an inbox whose time to live has run out.
type Lapsed struct {
	Owner agented.Address
	Seq   int64
}

// ExpireMessages marks up to limit items whose time to live has run out, and
// returns which. What an execution has taken is its own until it ends.
func (db *DB) ExpireMessages(ctx context.Context, now time.Time, limit int) ([]Lapsed, error) {
	var out []Lapsed
	err := db.write(ctx, "expire messages", func(tx *tx) error {
		rows, err := tx.query(`UPDATE inbox_item SET state = 'expired', expires_at = NULL
			WHERE (owner, seq) IN (SELECT owner, seq FROM inbox_item WHERE expires_at <= $1 AND taken_by IS NULL ORDER BY expires_at LIMIT $2)
			RETURNING owner, seq`, micros(now), limit)
		out, err = collect(rows, err, func(v *Lapsed, scan func(...any) error) error { return scan(toAddress{&v.Owner}, &v.Seq) })
		return err
	})
	return out, err
}

// NextExpiry is when the next message's time to live runs out; zero when none
// waits for that.
func (db *DB) NextExpiry(ctx context.Context) (time.Time, error) {
	var at time.Time
	err := db.r.QueryRowContext(ctx, `SELECT MIN(expires_at) FROM inbox_item WHERE expires_at IS NOT NULL AND taken_by IS NULL`).Scan(toTime{&at})
	return at, db.explain("next expiry", err)
}

// Join puts an inbox on the list of a group or a topic; once more is no error.
func (db *DB) Join(ctx context.Context, list, owner agented.Address, by string) error {
	return db.write(ctx, "join", func(tx *tx) error {
		if _, err := recipients(tx, owner); err != nil {
			return err
		}
		n, err := tx.affected(`INSERT INTO member (list, owner) VALUES ($1, $2) ON CONFLICT (list, owner) DO NOTHING`, list.String(), owner.String())
		if err != nil || n == 0 {
			return err
		}
		if err := tx.rulesChanged(); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: string(list.Kind) + ".join", Subject: list.String(), Detail: owner.String()})
	})
}

// Leave takes an inbox off the list of a group or a topic; NotFound if it is
// not on it.
func (db *DB) Leave(ctx context.Context, list, owner agented.Address, by string) error {
	return db.write(ctx, "leave", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM member WHERE list = $1 AND owner = $2`, list.String(), owner.String())
		if err != nil {
			return err
		}
		if n == 0 {
			return agented.Errorf(agented.NotFound, "%s is not on %s", owner, list)
		}
		if err := tx.rulesChanged(); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: string(list.Kind) + ".leave", Subject: list.String(), Detail: owner.String()})
	})
}

// Membership is one inbox on one list.
type Membership struct{ List, Owner agented.Address }

// Members returns the lists of groups and topics.
func (db *DB) Members(ctx context.Context) ([]Membership, error) {
	rows, err := db.r.QueryContext(ctx, `SELECT list, owner FROM member ORDER BY list, owner`)
	list, err := collect(rows, err, func(v *Membership, scan func(...any) error) error {
		return scan(toAddress{&v.List}, toAddress{&v.Owner})
	})
	return list, db.explain("members", err)
}

package store

import (
	"context"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// MessageAdmission is a request to store a message and deliver it to all
// inboxes that its address reaches.
type MessageAdmission struct {
	Message agented.BusMessage // with resolved addresses; Chain follows from the sender's cause, zero if the message begins one
	Limits  agented.ChainLimits
	Rules   string      // RuleVersion of the evaluated rules; empty: not checked
	Fires   []Admission // executions that it fires
}

// MessageResult is the result of a MessageAdmission.
type MessageResult struct {
	Message  agented.BusMessage // as stored
	Repeated bool               // the key was already used: Message is the first one
	Stale    bool               // the rules have changed: nothing was stored, evaluate them again
	Owners   []agented.Address  // owners of the inboxes that contain it
	Fired    []agented.ExecutionID
	Replaced []agented.ExecutionID // running executions that were requested to stop
}

// SendMessage atomically stores a message, its inbox items and the executions
// that it fires. When it returns, they are durable. For a key that the sender
// already used, it returns the first message. If the chain has reached a limit,
// it returns a Conflict that names the limit.
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
		e, replaced, err := tx.enqueue(fire, now)
		if err != nil {
			return MessageResult{}, err
		}
		got.Fired = append(got.Fired, e.ID)
		got.Replaced = append(got.Replaced, replaced...)
	}
	return got, nil
}

// mayFollow returns an error if the limits of the chain are exceeded.
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

// recipients returns the inboxes behind an address. It returns NotFound for an
// unknown agent or user; a group or a topic may be empty.
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
		err := q.row(`SELECT id FROM user_ WHERE id = $1 OR name_key = $2 ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END LIMIT 1`, to.Name, fold(to.Name)).Scan(&id)
		if missing(err) {
			return nil, agented.Errorf(agented.NotFound, "no user %q", format.Truncate(to.Name, 80))
		}
		return []agented.Address{{Kind: agented.ToUser, Name: id}}, err
	case agented.ToGroup, agented.ToTopic:
		rows, err := q.query(`SELECT owner FROM member WHERE list = $1 ORDER BY owner`, to.String())
		return collect(rows, err, func(v *agented.Address, scan func(...any) error) error { return scan(toAddress{v}) })
	}
	return nil, agented.Errorf(agented.Invalid, "messages cannot be sent to %q: use an agent, user, group or topic", to.String())
}

// Recipients returns the inboxes that a message to an address reaches now.
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

// toAddress decodes a stored address.
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
	err := scanMessage(&m, db.row(ctx, `SELECT `+messageColumns+` FROM message m WHERE m.id = $1`, id).Scan)
	if missing(err) {
		return nil, agented.Errorf(agented.NotFound, "no message %q", format.Truncate(string(id), 80))
	}
	return &m, explain("message", err)
}

// InboxFilter filters the items of an inbox. Zero fields match all.
type InboxFilter struct {
	States []agented.InboxState // any of these
}

// Inbox returns up to limit items of an inbox after the number after, in order.
func (db *DB) Inbox(ctx context.Context, owner agented.Address, after int64, limit int, f InboxFilter) ([]agented.InboxItem, error) {
	var w where
	w.And(`i.owner = $?`, owner.String())
	w.And(`i.seq > $?`, after)
	cond := w.SQL()
	if len(f.States) > 0 {
		cond += ` AND i.state IN ` + in(&w, f.States)
	}
	q := `SELECT ` + messageColumns + `, i.owner, i.seq, i.state, i.delivered_at, i.read_at
		FROM inbox_item i JOIN message m ON m.id = i.message_id` + cond + ` ORDER BY i.seq LIMIT ` + w.Number(`$?`, limit)
	rows, err := db.query(ctx, q, w.Args()...)
	list, err := collect(rows, err, scanItem)
	return list, explain("inbox", err)
}

// Delivered marks the items of an inbox up to the number upTo as delivered.
// Items that were delivered before are unchanged.
func (db *DB) Delivered(ctx context.Context, owner agented.Address, upTo int64, now time.Time) error {
	return db.write(ctx, "delivered", func(tx *tx) error {
		return tx.exec(`UPDATE inbox_item SET state = $3, delivered_at = $4 WHERE owner = $1 AND state = 'pending' AND read_at IS NULL AND seq <= $2`,
			owner.String(), upTo, agented.InboxDelivered, micros(now))
	})
}

// TakeInbox atomically assigns to an execution up to limit messages of an inbox
// that are unread and not assigned to another execution, in order, and stores
// the prompt that render makes of them. They become read when the execution
// succeeds, and unassigned when it does not. Repeating the call returns the
// same messages.
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
		err = tx.exec(`UPDATE inbox_item SET claimed_by = $1, state = 'delivered', delivered_at = COALESCE(delivered_at, $4)
			WHERE (owner, seq) IN (SELECT owner, seq FROM inbox_item
				WHERE owner = $2 AND state IN ('pending', 'delivered') AND read_at IS NULL AND claimed_by IS NULL ORDER BY seq LIMIT $3)`,
			e, owner.String(), limit, micros(now))
		if err != nil {
			return err
		}
		rows, err := tx.query(`SELECT `+messageColumns+`, i.owner, i.seq, i.state, i.delivered_at, i.read_at
			FROM inbox_item i JOIN message m ON m.id = i.message_id WHERE i.claimed_by = $1 ORDER BY i.seq`, e)
		items, err := collect(rows, err, scanItem)
		if err != nil {
			return err
		}
		prompt = render(items)
		return tx.exec(`UPDATE execution_text SET prompt = $2 WHERE execution_id = $1`, e, prompt)
	})
	return prompt, err
}

// settleInbox settles the messages that were assigned to an execution that has
// ended.
func (tx *tx) settleInbox(e agented.ExecutionID, state agented.State, now time.Time) error {
	if state == agented.StateSuccess {
		return tx.exec(`UPDATE inbox_item SET state = 'read', read_at = $2, expires_at = NULL, claimed_by = NULL WHERE claimed_by = $1`, e, micros(now))
	}
	return tx.exec(`UPDATE inbox_item SET state = 'pending', claimed_by = NULL WHERE claimed_by = $1`, e)
}

func scanItem(v *agented.InboxItem, scan func(...any) error) error {
	return scanMessage(&v.Message, scan, toAddress{&v.Owner}, &v.Seq, &v.State, toTime{&v.DeliveredAt}, toTime{&v.ReadAt})
}

// Acknowledge marks one item of an inbox as read. Repeating it is not an error;
// for an expired item it returns Conflict.
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
		return tx.exec(`UPDATE inbox_item SET state = $3, read_at = $4, delivered_at = COALESCE(delivered_at, $4), expires_at = NULL, claimed_by = NULL
			WHERE owner = $1 AND seq = $2`, owner.String(), seq, agented.InboxRead, micros(now))
	})
}

// ExpiredMessage is a message in an inbox whose time to live has ended.
type ExpiredMessage struct {
	Owner agented.Address
	Seq   int64
}

// ExpireMessages marks up to limit items whose time to live has ended, and
// returns them. Items assigned to an execution do not expire until it ends.
func (db *DB) ExpireMessages(ctx context.Context, now time.Time, limit int) ([]ExpiredMessage, error) {
	var out []ExpiredMessage
	err := db.write(ctx, "expire messages", func(tx *tx) error {
		rows, err := tx.query(`UPDATE inbox_item SET state = 'expired', expires_at = NULL
			WHERE (owner, seq) IN (SELECT owner, seq FROM inbox_item WHERE expires_at <= $1 AND claimed_by IS NULL ORDER BY expires_at LIMIT $2)
			RETURNING owner, seq`, micros(now), limit)
		out, err = collect(rows, err, func(v *ExpiredMessage, scan func(...any) error) error { return scan(toAddress{&v.Owner}, &v.Seq) })
		return err
	})
	return out, err
}

// NextExpiry returns when the time to live of the next message ends; zero if
// there is none.
func (db *DB) NextExpiry(ctx context.Context) (time.Time, error) {
	var at time.Time
	err := db.row(ctx, `SELECT MIN(expires_at) FROM inbox_item WHERE expires_at IS NOT NULL AND claimed_by IS NULL`).Scan(toTime{&at})
	return at, explain("next expiry", err)
}

// Join adds an inbox to a group or a topic; repeating it is not an error.
func (db *DB) Join(ctx context.Context, list, owner agented.Address, by string) error {
	return db.writeRules(ctx, "join", func(tx *tx) error {
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

// Leave removes an inbox from a group or a topic; NotFound if it is not a
// member.
func (db *DB) Leave(ctx context.Context, list, owner agented.Address, by string) error {
	return db.writeRules(ctx, "leave", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM member WHERE list = $1 AND owner = $2`, list.String(), owner.String())
		if err != nil {
			return err
		}
		if n == 0 {
			return agented.Errorf(agented.NotFound, "%s is not a member of %s", owner, list)
		}
		if err := tx.rulesChanged(); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: string(list.Kind) + ".leave", Subject: list.String(), Detail: owner.String()})
	})
}

// Membership is one inbox in one list.
type Membership struct{ List, Owner agented.Address }

// Members returns the memberships of all groups and topics.
func (db *DB) Members(ctx context.Context) ([]Membership, error) {
	rows, err := db.query(ctx, `SELECT list, owner FROM member ORDER BY list, owner`)
	list, err := collect(rows, err, func(v *Membership, scan func(...any) error) error {
		return scan(toAddress{&v.List}, toAddress{&v.Owner})
	})
	return list, explain("members", err)
}

type messageRuleRow struct {
	trigger agented.TriggerID
	rule    agented.MessageRule
}

// setMessageRules replaces the message rules of a trigger. Addresses of agents
// contain their ids.
func (tx *tx) setMessageRules(t *agented.Trigger) error {
	if err := tx.exec(`DELETE FROM message_rule WHERE trigger_id = $1`, t.ID); err != nil {
		return err
	}
	for i, r := range t.Messages {
		if r.To.Kind == agented.ToAgent {
			a, err := findAgent(tx, r.To.Name)
			if err != nil {
				return err
			}
			r.To.Name = string(a.ID)
		}
		types := make([]string, len(r.Types))
		for i, one := range r.Types {
			types[i] = string(one)
		}
		err := tx.exec(`INSERT INTO message_rule (trigger_id, place, address, types, enabled) VALUES ($1, $2, $3, $4, $5)`,
			t.ID, i, r.To.String(), strings.Join(types, " "), r.Enabled)
		if err != nil {
			return err
		}
	}
	return nil
}

// loadMessageRules loads the message rules of triggers.
func loadMessageRules(q querier, list []agented.Trigger) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.TriggerID]int, len(list))
	ids := make([]agented.TriggerID, len(list))
	for i := range list {
		ids[i], place[list[i].ID] = list[i].ID, i
	}
	var w where
	rows, err := q.query(`SELECT trigger_id, address, types, enabled FROM message_rule WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.Args()...)
	all, err := collect(rows, err, func(r *messageRuleRow, scan func(...any) error) error {
		var types string
		if err := scan(&r.trigger, toAddress{&r.rule.To}, &types, &r.rule.Enabled); err != nil {
			return err
		}
		for one := range strings.FieldsSeq(types) {
			r.rule.Types = append(r.rule.Types, agented.MessageType(one))
		}
		return nil
	})
	for _, r := range all {
		t := &list[place[r.trigger]]
		t.Messages = append(t.Messages, r.rule)
	}
	return err
}

// MessageTriggers returns the enabled triggers that a message to an address may
// fire, because of the address itself or of an inbox that it reaches, in the
// order of their ids, and the version of the evaluated rules.
func (db *DB) MessageTriggers(ctx context.Context, to agented.Address) ([]agented.Trigger, string, error) {
	var list []agented.Trigger
	version := "0"
	err := db.read(ctx, "message rules", func(r *reader) error {
		err := r.row(`SELECT value FROM setting WHERE key = $1`, hookVersion).Scan(&version)
		if err != nil && !missing(err) {
			return err
		}
		owners, err := recipients(r, to)
		if err != nil {
			return err
		}
		addresses := []string{to.String()}
		for _, o := range owners {
			addresses = append(addresses, o.String())
		}
		for len(addresses) > 0 {
			part := addresses[:min(len(addresses), 500)]
			addresses = addresses[len(part):]
			var w where
			rows, err := r.query(`SELECT `+triggerColumns+` FROM trigger_ WHERE enabled AND id IN
				(SELECT trigger_id FROM message_rule WHERE enabled AND address IN `+in(&w, part)+`) ORDER BY id`, w.Args()...)
			more, err := collect(rows, err, scanTrigger)
			if err != nil {
				return err
			}
			list = append(list, more...)
		}
		return loadMessageRules(r, list)
	})
	return list, version, err
}

// Chain is the messages and executions with a common cause.
type Chain struct {
	ID        string
	CostUSD   *float64 // known cost of its executions; nil: unknown
	Links     []ChainLink
	Truncated bool // the list is truncated
}

// ChainLink is one message or execution of a chain.
type ChainLink struct {
	Kind      string // message or execution
	ID        string
	Parent    string
	Depth     int
	Title     string          // subject of a message, name of an execution's trigger
	From, To  agented.Address // for a message
	State     agented.State   // for an execution
	CreatedAt time.Time
}

// maxLinks limits the links that Chain returns; a chain's own limit is lower
// unless an admin raised it.
const maxLinks = 2000

// Chain returns the chain that a message or an execution belongs to, by time.
// It returns NotFound if neither exists.
func (db *DB) Chain(ctx context.Context, id string) (Chain, error) {
	var c Chain
	err := db.read(ctx, "chain", func(r *reader) error {
		err := r.row(`SELECT CASE WHEN chain_id = '' THEN id ELSE chain_id END FROM execution WHERE id = $1
			UNION ALL SELECT chain_id FROM message WHERE id = $1`, id).Scan(&c.ID)
		if missing(err) {
			return agented.Errorf(agented.NotFound, "no message or execution %q", format.Truncate(id, 80))
		}
		if err != nil {
			return err
		}
		err = r.row(`SELECT SUM(cost_usd) FROM (SELECT cost_usd FROM execution WHERE chain_id = $1 AND chain_id <> ''
			UNION ALL SELECT cost_usd FROM execution WHERE id = $1) AS e`, c.ID).Scan(&c.CostUSD)
		if err != nil {
			return err
		}
		rows, err := r.query(`SELECT 'execution', id, chain_parent, chain_depth, trigger_name, '', '', status, created_at FROM execution WHERE chain_id = $1 AND chain_id <> ''
			UNION ALL SELECT 'execution', id, '', 0, trigger_name, '', '', status, created_at FROM execution WHERE id = $1
			UNION ALL SELECT 'message', id, chain_parent, chain_depth, subject, sender, recipient, '', created_at FROM message WHERE chain_id = $1
			ORDER BY 9, 4, 2 LIMIT $2`, c.ID, maxLinks+1)
		c.Links, err = collect(rows, err, func(l *ChainLink, scan func(...any) error) error {
			return scan(&l.Kind, &l.ID, &l.Parent, &l.Depth, &l.Title, toAddress{&l.From}, toAddress{&l.To}, &l.State, toTime{&l.CreatedAt})
		})
		if len(c.Links) > maxLinks {
			c.Links, c.Truncated = c.Links[:maxLinks], true
		}
		return err
	})
	return c, err
}

// AddressNames returns the names of agents, users and triggers by address.
func (db *DB) AddressNames(ctx context.Context) (map[agented.Address]string, error) {
	type one struct {
		a    agented.Address
		name string
	}
	rows, err := db.query(ctx, `SELECT 'agent:' || id, name FROM agent UNION ALL SELECT 'user:' || id, name FROM user_
		UNION ALL SELECT 'trigger:' || id, name FROM trigger_`)
	list, err := collect(rows, err, func(v *one, scan func(...any) error) error { return scan(toAddress{&v.a}, &v.name) })
	out := make(map[agented.Address]string, len(list))
	for _, v := range list {
		out[v.a] = v.name
	}
	return out, explain("names", err)
}

// LastInboxSeq returns the number of the last message of an inbox; 0 if it is
// empty.
func (db *DB) LastInboxSeq(ctx context.Context, owner agented.Address) (int64, error) {
	var n int64
	err := db.row(ctx, `SELECT last_seq FROM inbox WHERE owner = $1`, owner.String()).Scan(&n)
	if missing(err) {
		return 0, nil
	}
	return n, explain("inbox", err)
}

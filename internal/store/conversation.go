package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// PostMessage is a message from a person in a conversation.
type PostMessage struct {
	Conversation agented.ConversationID
	Number       int64  // from 1
	Key          string // the author's idempotency key; empty: none
	Text         string
	Files        []string // names of attachments, in the conversation's folder
	Actor        string
	Execution    agented.ExecutionID // the turn that answers it; empty while it is queued
	CreatedAt    time.Time
}

const conversationColumns = `id, agent_id, agent_name, title, state, resume, turn, last_seq, actor, created_at, active_at, closed_at,
	(SELECT COUNT(*) FROM conversation_post p WHERE p.conversation_id = conversation.id AND p.execution_id IS NULL)`

func scanConversation(c *agented.Conversation, scan func(...any) error) error {
	var resume string
	err := scan(&c.ID, &c.Agent, &c.AgentName, &c.Title, &c.State, &resume, &c.Turn, &c.LastSeq, &c.Actor,
		toTime{&c.CreatedAt}, toTime{&c.ActiveAt}, toTime{&c.ClosedAt}, &c.Queued)
	if err != nil || resume == "" {
		return err
	}
	return json.Unmarshal([]byte(resume), &c.Resume)
}

// CreateConversation stores a new conversation. It fills in an empty ID and
// empty times.
func (db *DB) CreateConversation(ctx context.Context, c *agented.Conversation) error {
	if c.CreatedAt.IsZero() {
		c.CreatedAt = time.Now()
	}
	c.CreatedAt = stored(c.CreatedAt)
	c.ActiveAt, c.State = c.CreatedAt, agented.ConversationOpen
	if c.ID == "" {
		c.ID = agented.ConversationID(agented.NewID("conv", c.CreatedAt))
	}
	return db.write(ctx, "create conversation", func(tx *tx) error {
		return tx.exec(`INSERT INTO conversation (id, agent_id, agent_name, title, state, actor, created_at, active_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			c.ID, c.Agent, c.AgentName, c.Title, c.State, c.Actor, micros(c.CreatedAt), micros(c.ActiveAt))
	})
}

func noConversation(id agented.ConversationID) error {
	return agented.Errorf(agented.NotFound, "no conversation %q", format.Truncate(string(id), 80))
}

// Conversation returns one conversation, or NotFound.
func (db *DB) Conversation(ctx context.Context, id agented.ConversationID) (*agented.Conversation, error) {
	var c agented.Conversation
	err := scanConversation(&c, db.row(ctx, `SELECT `+conversationColumns+` FROM conversation WHERE id = $1`, id).Scan)
	if missing(err) {
		return nil, noConversation(id)
	}
	return &c, explain("conversation", err)
}

// Conversations returns a page of conversations by latest activity, and the
// cursor of the next page. An empty agent means all.
func (db *DB) Conversations(ctx context.Context, agent agented.AgentID, p Page) ([]agented.Conversation, string, error) {
	var w where
	after, err := pageKey(p, "conversation", 2)
	if err != nil {
		return nil, "", err
	}
	if after != nil {
		from, err := strconv.ParseInt(after[0], 10, 64)
		if err != nil {
			return nil, "", badCursor()
		}
		w.And(`(active_at, id) < ($?, $?)`, from, after[1])
	}
	if agent != "" {
		w.And(`agent_id = $?`, agent)
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT `+conversationColumns+` FROM conversation`+w.SQL()+` ORDER BY active_at DESC, id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, scanConversation)
	if err != nil {
		return nil, "", explain("conversations", err)
	}
	return cut(p, list, "conversation", func(last *agented.Conversation) []string {
		return []string{strconv.FormatInt(last.ActiveAt.UnixMicro(), 10), string(last.ID)}
	})
}

// DeleteConversation deletes a conversation without a current turn. Its
// executions remain; the caller removes its folder.
func (db *DB) DeleteConversation(ctx context.Context, id agented.ConversationID, by string) error {
	return db.write(ctx, "delete conversation", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		if c.Turn != "" {
			return agented.Errorf(agented.Conflict, "%s is running a turn of this conversation: interrupt it first", c.Turn)
		}
		if err := tx.exec(`DELETE FROM conversation WHERE id = $1`, id); err != nil {
			return err
		}
		if err := tx.markConversationForRemoval(id); err != nil {
			return err
		}
		return tx.audit(AuditEntry{Actor: by, Action: "conversation.delete", Subject: string(id), Detail: c.AgentName})
	})
}

// conversationState is the state of a conversation that writes need.
type conversationState struct {
	agented.Conversation
	source int64 // last line of the turn's log that was converted to events
	posts  int64
}

func (tx *tx) conversation(id agented.ConversationID) (conversationState, error) {
	var c conversationState
	err := tx.row(`SELECT agent_name, state, turn, source, posts, last_seq FROM conversation WHERE id = $1`, id).
		Scan(&c.AgentName, &c.State, &c.Turn, &c.source, &c.posts, &c.LastSeq)
	if missing(err) {
		return c, noConversation(id)
	}
	c.ID = id
	return c, err
}

// appendEvents appends events to a conversation and fills in their Seq and At.
func (tx *tx) appendEvents(c *conversationState, now time.Time, events ...agented.ConversationEvent) error {
	for _, e := range events {
		c.LastSeq++
		err := tx.exec(`INSERT INTO conversation_event (conversation_id, seq, kind, data, execution_id, source, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			c.ID, c.LastSeq, e.Kind, string(e.Data), e.Execution, e.Source, micros(now))
		if err != nil {
			return err
		}
		c.source = max(c.source, int64(e.Source))
	}
	return tx.exec(`UPDATE conversation SET last_seq = $2, source = $3, active_at = $4 WHERE id = $1`, c.ID, c.LastSeq, c.source, micros(now))
}

func event(kind agented.ConversationEventKind, execution agented.ExecutionID, data any) agented.ConversationEvent {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return agented.ConversationEvent{Kind: kind, Data: text, Execution: execution}
}

// AddPost stores a message; it reopens a closed conversation. For a key that
// was already used, it returns the first post and repeated is true.
func (db *DB) AddPost(ctx context.Context, p *PostMessage, now time.Time) (repeated bool, err error) {
	files, err := json.Marshal(p.Files)
	if err != nil {
		return false, err
	}
	err = db.write(ctx, "add post", func(tx *tx) error {
		c, err := tx.conversation(p.Conversation)
		if err != nil {
			return err
		}
		var key *string
		if p.Key != "" {
			key = &p.Key
			var firstText, firstFiles string
			err := tx.row(`SELECT number, COALESCE(execution_id, ''), created_at, text, files FROM conversation_post WHERE conversation_id = $1 AND dedup_key = $2`, c.ID, key).
				Scan(&p.Number, &p.Execution, toTime{&p.CreatedAt}, &firstText, &firstFiles)
			if err == nil && (firstText != p.Text || firstFiles != string(files)) {
				return errKeyReused
			}
			if err == nil || !missing(err) {
				repeated = err == nil
				return err
			}
		}
		p.Number, p.CreatedAt = c.posts+1, stored(now)
		err = tx.exec(`INSERT INTO conversation_post (conversation_id, number, dedup_key, text, files, actor, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			c.ID, p.Number, key, p.Text, string(files), p.Actor, micros(p.CreatedAt))
		if err != nil {
			return err
		}
		if err := tx.exec(`UPDATE conversation SET posts = $2, state = 'open', closed_at = NULL WHERE id = $1`, c.ID, p.Number); err != nil {
			return err
		}
		var happened []agented.ConversationEvent
		if c.State == agented.ConversationClosed {
			happened = append(happened, event(agented.EventStatus, "", map[string]any{"status": "open"}))
		}
		happened = append(happened, event(agented.EventMessage, "", map[string]any{
			"role": "user", "number": p.Number, "text": p.Text, "files": p.Files, "actor": p.Actor,
		}))
		return tx.appendEvents(&c, now, happened...)
	})
	return repeated, err
}

// NextPost returns the first queued post, or nil if there is none or a turn is
// running.
func (db *DB) NextPost(ctx context.Context, id agented.ConversationID) (*PostMessage, error) {
	p := PostMessage{Conversation: id}
	var files string
	err := db.row(ctx, `SELECT p.number, COALESCE(p.dedup_key, ''), p.text, p.files, p.actor, p.created_at
		FROM conversation_post p JOIN conversation c ON c.id = p.conversation_id
		WHERE p.conversation_id = $1 AND p.execution_id IS NULL AND c.turn = '' ORDER BY p.number LIMIT 1`, id).
		Scan(&p.Number, &p.Key, &p.Text, &files, &p.Actor, toTime{&p.CreatedAt})
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, explain("next post", err)
	}
	return &p, json.Unmarshal([]byte(files), &p.Files)
}

// BeginTurn atomically admits the execution that answers a post. It returns
// Conflict if a turn is running or the post already has a turn.
func (db *DB) BeginTurn(ctx context.Context, id agented.ConversationID, number int64, a Admission, now time.Time) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.write(ctx, "begin turn", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		if c.Turn != "" {
			return agented.Errorf(agented.Conflict, "%s is running a turn of this conversation: wait for it", c.Turn)
		}
		placed, _, err := tx.enqueue(a, now)
		if err != nil {
			return err
		}
		n, err := tx.affected(`UPDATE conversation_post SET execution_id = $3 WHERE conversation_id = $1 AND number = $2 AND execution_id IS NULL`, id, number, placed.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			return agented.Errorf(agented.Conflict, "message %d of this conversation already has a turn", number)
		}
		if err := tx.exec(`UPDATE conversation SET turn = $2, source = 0 WHERE id = $1`, id, placed.ID); err != nil {
			return err
		}
		c.Turn, c.source = placed.ID, 0
		err = tx.appendEvents(&c, now, event(agented.EventStatus, placed.ID, map[string]any{"status": "queued", "execution_id": placed.ID, "number": number}))
		if err != nil {
			return err
		}
		e, err = load(tx, placed.ID)
		return err
	})
	return e, err
}

// RefusePost removes a post from the queue because its turn cannot start, and
// appends the events with the reason. A post with a turn is unchanged.
func (db *DB) RefusePost(ctx context.Context, id agented.ConversationID, number int64, events []agented.ConversationEvent, now time.Time) error {
	return db.write(ctx, "refuse post", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		n, err := tx.affected(`UPDATE conversation_post SET execution_id = '' WHERE conversation_id = $1 AND number = $2 AND execution_id IS NULL`, id, number)
		if err != nil || n == 0 {
			return err
		}
		return tx.appendEvents(&c, now, events...)
	})
}

// RelayEvents appends events from the turn's log to the conversation. Events of
// earlier lines are skipped, so repeating the call changes nothing. It returns
// Conflict if the turn does not belong to the conversation.
func (db *DB) RelayEvents(ctx context.Context, id agented.ConversationID, turn agented.ExecutionID, events []agented.ConversationEvent, now time.Time) error {
	return db.write(ctx, "relay events", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		if c.Turn != turn {
			return agented.Errorf(agented.Conflict, "%s is not the turn of %s", turn, id)
		}
		return tx.appendEvents(&c, now, newEvents(events, c.source)...)
	})
}

// newEvents removes events of lines up to relayed. All events of one line come in one
// call.
func newEvents(events []agented.ConversationEvent, relayed int64) []agented.ConversationEvent {
	return slices.DeleteFunc(slices.Clone(events), func(e agented.ConversationEvent) bool { return e.Source > 0 && int64(e.Source) <= relayed })
}

// RelayedUpTo returns the last line of the turn's log that was converted to events.
func (db *DB) RelayedUpTo(ctx context.Context, id agented.ConversationID, turn agented.ExecutionID) (agented.Seq, error) {
	var n agented.Seq
	err := db.row(ctx, `SELECT source FROM conversation WHERE id = $1 AND turn = $2`, id, turn).Scan(&n)
	if missing(err) {
		return 0, agented.Errorf(agented.Conflict, "%s is not the turn of %s", turn, id)
	}
	return n, explain("relayed events", err)
}

// EndTurn appends the last events of a turn and ends it. resume is where the
// next turn resumes; nil leaves it unchanged. Repeating it returns Conflict.
func (db *DB) EndTurn(ctx context.Context, id agented.ConversationID, turn agented.ExecutionID, events []agented.ConversationEvent, resume *agented.ResumePoint, now time.Time) error {
	return db.write(ctx, "end turn", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		if c.Turn != turn {
			return agented.Errorf(agented.Conflict, "%s is not the turn of %s", turn, id)
		}
		if err := tx.appendEvents(&c, now, newEvents(events, c.source)...); err != nil {
			return err
		}
		text := ""
		if resume != nil {
			b, err := json.Marshal(resume)
			if err != nil {
				return err
			}
			text = string(b)
		}
		return tx.exec(`UPDATE conversation SET turn = '', source = 0, resume = CASE WHEN $2 = '' THEN resume ELSE $2 END WHERE id = $1`, id, text)
	})
}

// DiscardQueued removes queued posts, as for an interrupt, and returns their number.
func (db *DB) DiscardQueued(ctx context.Context, id agented.ConversationID, by string, now time.Time) (int64, error) {
	var n int64
	err := db.write(ctx, "take back", func(tx *tx) error {
		c, err := tx.conversation(id)
		if err != nil {
			return err
		}
		n, err = tx.affected(`UPDATE conversation_post SET execution_id = '' WHERE conversation_id = $1 AND execution_id IS NULL`, id)
		if err != nil || n == 0 {
			return err
		}
		return tx.appendEvents(&c, now, event(agented.EventStatus, "", map[string]any{"status": "taken_back", "count": n, "actor": by}))
	})
	return n, err
}

// UnfinishedConversations returns the conversations that have a current turn or
// queued posts, to be resumed.
func (db *DB) UnfinishedConversations(ctx context.Context) ([]agented.ConversationID, error) {
	rows, err := db.query(ctx, `SELECT id FROM conversation WHERE turn <> ''
		UNION SELECT conversation_id FROM conversation_post WHERE execution_id IS NULL`)
	ids, err := collect(rows, err, func(v *agented.ConversationID, scan func(...any) error) error { return scan(v) })
	return ids, explain("unfinished conversations", err)
}

// CloseStale closes open conversations without a turn or a queued post whose
// latest activity was before the time, and returns them.
func (db *DB) CloseStale(ctx context.Context, before, now time.Time, limit int) ([]agented.ConversationID, error) {
	var ids []agented.ConversationID
	err := db.write(ctx, "close stale", func(tx *tx) (err error) {
		rows, err := tx.query(`SELECT id FROM conversation WHERE state = 'open' AND active_at < $1 AND turn = ''
			AND NOT EXISTS (SELECT 1 FROM conversation_post p WHERE p.conversation_id = conversation.id AND p.execution_id IS NULL)
			ORDER BY active_at LIMIT $2`, micros(before), limit)
		ids, err = collect(rows, err, func(v *agented.ConversationID, scan func(...any) error) error { return scan(v) })
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := tx.closeConversation(id, "idle for too long", now); err != nil {
				return err
			}
		}
		return nil
	})
	return ids, err
}

// CloseConversation closes an open conversation without a current turn;
// repeating it is not an error.
func (db *DB) CloseConversation(ctx context.Context, id agented.ConversationID, by string, now time.Time) error {
	return db.write(ctx, "close conversation", func(tx *tx) error {
		c, err := tx.conversation(id)
		switch {
		case err != nil:
			return err
		case c.Turn != "":
			return agented.Errorf(agented.Conflict, "%s is running a turn of this conversation: interrupt it first", c.Turn)
		case c.State == agented.ConversationClosed:
			return nil
		}
		return tx.closeConversation(id, "closed by "+by, now)
	})
}

func (tx *tx) closeConversation(id agented.ConversationID, why string, now time.Time) error {
	c, err := tx.conversation(id)
	if err != nil {
		return err
	}
	if err := tx.appendEvents(&c, now, event(agented.EventStatus, "", map[string]any{"status": "closed", "reason": why})); err != nil {
		return err
	}
	return tx.exec(`UPDATE conversation SET state = 'closed', closed_at = $2 WHERE id = $1`, id, micros(now))
}

// ConversationEvents returns up to limit events after the number after, in
// order, and the number of the last removed event: a client that has received
// fewer needs the whole state.
func (db *DB) ConversationEvents(ctx context.Context, id agented.ConversationID, after int64, limit int) (events []agented.ConversationEvent, gone int64, err error) {
	err = db.read(ctx, "conversation events", func(r *reader) error {
		err := r.row(`SELECT compacted FROM conversation WHERE id = $1`, id).Scan(&gone)
		if missing(err) {
			return noConversation(id)
		}
		if err != nil {
			return err
		}
		rows, err := r.query(`SELECT seq, kind, data, execution_id, source, at FROM conversation_event
			WHERE conversation_id = $1 AND seq > $2 ORDER BY seq LIMIT $3`, id, after, limit)
		events, err = collect(rows, err, func(e *agented.ConversationEvent, scan func(...any) error) error {
			return scan(&e.Seq, &e.Kind, &e.Data, &e.Execution, &e.Source, toTime{&e.At})
		})
		return err
	})
	return events, gone, err
}

// Compact removes the pieces of answers that ended before the time: their
// message contains the whole answer. All other events remain.
func (db *DB) Compact(ctx context.Context, id agented.ConversationID, before time.Time) error {
	return db.write(ctx, "compact", func(tx *tx) error {
		var last int64
		err := tx.row(`SELECT COALESCE(MAX(seq), 0) FROM conversation_event WHERE conversation_id = $1 AND kind = 'content_delta' AND at < $2
			AND execution_id <> (SELECT turn FROM conversation WHERE id = $1)`, id, micros(before)).Scan(&last)
		if err != nil || last == 0 {
			return err
		}
		err = tx.exec(`DELETE FROM conversation_event WHERE conversation_id = $1 AND kind = 'content_delta' AND seq <= $2
			AND execution_id <> (SELECT turn FROM conversation WHERE id = $1)`, id, last)
		if err != nil {
			return err
		}
		return tx.exec(`UPDATE conversation SET compacted = CASE WHEN compacted > $2 THEN compacted ELSE $2 END WHERE id = $1`, id, last)
	})
}

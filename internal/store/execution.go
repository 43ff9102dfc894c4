package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agented/agented"
)

// briefColumns is what lists and events have of an execution: all but the
// snapshot, the prompt and the result.
const briefColumns = `id, trigger_id, trigger_name, backend, status, reason, source, actor, retry_of, attempt_no, last_seq,
	COALESCE(lease_owner, ''), lease_token, lease_expires_at, cancel_asked, exit_code, error,
	input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, cumulative,
	event_seq, created_at, scheduled_at, started_at, finished_at, cause, pinned_at, pinned_by, log_removed_at, chain_id, chain_depth, chain_parent,
	probes, (SELECT until FROM lane WHERE key = parked_on), COALESCE((SELECT why FROM lane WHERE key = parked_on), '')`

func scanBrief(e *agented.Execution, scan func(...any) error) error {
	return scan(&e.ID, &e.Trigger, &e.TriggerName, &e.Backend, &e.State, &e.Reason, &e.Source, &e.Actor, &e.RetryOf, &e.AttemptNo, &e.LastSeq,
		&e.Lease.Owner, &e.Lease.Token, toTime{&e.Lease.ExpiresAt}, &e.CancelAsked, &e.ExitCode, &e.Error,
		&e.Usage.InputTokens, &e.Usage.OutputTokens, &e.Usage.CacheReadTokens, &e.Usage.CacheWriteTokens, &e.Usage.CostUSD, &e.Usage.CumulativeSession,
		&e.EventSeq, toTime{&e.CreatedAt}, toTime{&e.ScheduledAt}, toTime{&e.StartedAt}, toTime{&e.FinishedAt}, toCause{&e.Cause},
		toTime{&e.PinnedAt}, &e.PinnedBy, toTime{&e.LogRemovedAt},
		&e.Chain.ID, &e.Chain.Depth, &e.Chain.Parent,
		&e.Probes, toTime{&e.ParkedUntil}, &e.WaitingOn)
}

// causeText writes an Origin as JSON, nil as empty.
func causeText(c *agented.Origin) string {
	if c == nil {
		return ""
	}
	text, _ := json.Marshal(c) // strings and a time always marshal
	return string(text)
}

// toCause reads what causeText wrote.
type toCause struct{ c **agented.Origin }

// Scan implements sql.Scanner.
func (s toCause) Scan(v any) error {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return fmt.Errorf("a cause is stored as %T", v)
	}
	if *s.c = nil; text == "" {
		return nil
	}
	*s.c = new(agented.Origin)
	return json.Unmarshal([]byte(text), *s.c)
}

const attemptColumns = `execution_id, number, backend, account, cli_version, status, exit_code, signal, reason, session_id,
	input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, cumulative, started_at, finished_at,
	model, class, evidence, retry_at, resumed_from, session_gone`

func scanAttempt(a *agented.Attempt, scan func(...any) error) error {
	return scan(&a.Execution, &a.Number, &a.Backend, &a.Account, &a.CLIVersion, &a.State, &a.ExitCode, &a.Signal, &a.Reason, &a.SessionID,
		&a.Usage.InputTokens, &a.Usage.OutputTokens, &a.Usage.CacheReadTokens, &a.Usage.CacheWriteTokens, &a.Usage.CostUSD, &a.Usage.CumulativeSession,
		toTime{&a.StartedAt}, toTime{&a.FinishedAt},
		&a.Model, &a.Class, &a.Evidence, toTime{&a.RetryAt}, &a.ResumedFrom, &a.SessionGone)
}

// loadBrief returns the executions that are there, in the order of ids, with
// their attempts.
func loadBrief(q querier, ids []agented.ExecutionID) ([]agented.Execution, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var w where
	rows, err := q.query(`SELECT `+briefColumns+` FROM execution WHERE id IN `+in(&w, ids), w.args...)
	list, err := collect(rows, err, scanBrief)
	if err != nil {
		return nil, err
	}
	place := make(map[agented.ExecutionID]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	slices.SortFunc(list, func(a, b agented.Execution) int { return place[a.ID] - place[b.ID] })
	if err := loadAttempts(q, list); err != nil {
		return nil, err
	}
	if err := loadMoney(q, list); err != nil {
		return nil, err
	}
	for i := range list {
		explainWait(&list[i])
	}
	return list, nil
}

// loadAttempts fills in the attempts of all executions with one query.
func loadAttempts(q querier, list []agented.Execution) error {
	var w where
	var ids []agented.ExecutionID
	place := map[agented.ExecutionID]int{}
	for i := range list {
		if list[i].AttemptNo > 0 {
			ids = append(ids, list[i].ID)
			place[list[i].ID] = i
		}
	}
	if len(ids) == 0 {
		return nil
	}
	rows, err := q.query(`SELECT `+attemptColumns+` FROM attempt WHERE execution_id IN `+in(&w, ids)+` ORDER BY execution_id, number`, w.args...)
	attempts, err := collect(rows, err, scanAttempt)
	if err != nil {
		return err
	}
	for _, a := range attempts {
		e := &list[place[a.Execution]]
		e.Attempts = append(e.Attempts, a)
	}
	return nil
}

// load returns one execution with everything, or NotFound.
func load(q querier, id agented.ExecutionID) (*agented.Execution, error) {
	list, err := loadAll(q, []agented.ExecutionID{id})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, noExecution(id)
	}
	return list[0], nil
}

// loadAll returns the executions that are there with everything, the oldest
// first. It asks as many questions for 200 as for one.
func loadAll(q querier, ids []agented.ExecutionID) ([]*agented.Execution, error) {
	var out []*agented.Execution
	for part := range slices.Chunk(ids, 200) {
		list, err := loadBrief(q, part)
		if err != nil {
			return nil, err
		}
		place := make(map[agented.ExecutionID]*agented.Execution, len(list))
		for i := range list {
			place[list[i].ID] = &list[i]
			out = append(out, &list[i])
		}
		if err := loadCheckouts(q, place, part); err != nil {
			return nil, err
		}
		if err := loadTexts(q, place, part); err != nil {
			return nil, err
		}
	}
	// Not in SQL: asked for an order, the planner walks the whole history in it.
	slices.SortFunc(out, func(a, b *agented.Execution) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(string(a.ID), string(b.ID)))
	})
	return out, nil
}

// loadTexts fills in what lists leave out because it is long.
func loadTexts(q querier, place map[agented.ExecutionID]*agented.Execution, ids []agented.ExecutionID) error {
	type row struct {
		id       agented.ExecutionID
		snapshot []byte
		prompt   string
		result   string
	}
	var w where
	rows, err := q.query(`SELECT execution_id, snapshot, prompt, result FROM execution_text WHERE execution_id IN `+in(&w, ids), w.args...)
	found, err := collect(rows, err, func(r *row, scan func(...any) error) error {
		return scan(&r.id, &r.snapshot, &r.prompt, &r.result)
	})
	if err != nil {
		return err
	}
	if len(found) < len(place) {
		return fmt.Errorf("%d of %d executions have no text: the database is damaged", len(place)-len(found), len(place))
	}
	for _, r := range found {
		e := place[r.id]
		e.Prompt, e.Result = r.prompt, r.result
		if err := json.Unmarshal(r.snapshot, &e.Snapshot); err != nil {
			return fmt.Errorf("the snapshot of %s: %w", r.id, err)
		}
	}
	return nil
}

func noExecution(id agented.ExecutionID) error {
	return agented.Errorf(agented.NotFound, "no execution %q", id)
}

// Execution returns one execution with its attempts, or NotFound.
func (db *DB) Execution(ctx context.Context, id agented.ExecutionID) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.read(ctx, "execution", func(r *reader) (err error) {
		e, err = load(r, id)
		return err
	})
	return e, err
}

// HasExecution reports whether there is an execution of that id.
func (db *DB) HasExecution(ctx context.Context, id agented.ExecutionID) (bool, error) {
	var n int
	err := db.r.QueryRowContext(ctx, `SELECT COUNT(*) FROM execution WHERE id = $1`, id).Scan(&n)
	return n > 0, db.explain("has execution", err)
}

// DeleteExecution removes a final execution with its attempts and its
// idempotency key. One that is not final is a Conflict. Its files are not the
// store's.
func (db *DB) DeleteExecution(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "delete execution", func(tx *tx) error {
		var state agented.State
		err := tx.row(`SELECT status FROM execution WHERE id = $1`, id).Scan(&state)
		switch {
		case missing(err):
			return noExecution(id)
		case err != nil:
			return err
		case !state.Final():
			return agented.Errorf(agented.Conflict, "%s is %s: only an execution that has ended can be deleted", id, state)
		}
		if err := tx.exec(`DELETE FROM execution WHERE id = $1`, id); err != nil {
			return err
		}
		return tx.count(state, -1)
	})
}

// count keeps how many executions stand in a final state.
func (tx *tx) count(s agented.State, by int) error {
	return tx.exec(`UPDATE counter SET value = value + $2 WHERE name = $1`, s, by)
}

// Counts returns how many executions stand in each state.
func (db *DB) Counts(ctx context.Context) (map[agented.State]int64, error) {
	out := map[agented.State]int64{}
	err := db.read(ctx, "counts", func(r *reader) error {
		// The final ones are counted as they end: a history has no bound.
		type one struct {
			name string
			n    int64
		}
		rows, err := r.query(`SELECT name, value FROM counter WHERE name NOT IN ('event', 'bytes')
			UNION ALL SELECT 'pending', COUNT(*) FROM execution WHERE status = 'pending'
			UNION ALL SELECT 'running', COUNT(*) FROM execution WHERE status = 'running'`)
		list, err := collect(rows, err, func(v *one, scan func(...any) error) error { return scan(&v.name, &v.n) })
		for _, v := range list {
			out[agented.State(v.name)] = v.n
		}
		return err
	})
	return out, err
}

// QueueStats says how the queue stands.
type QueueStats struct {
	Pending   int64         // executions that wait, for whatever reason
	Due       int64         // of these, how many could run now if there were room
	OldestDue time.Duration // how long the first of those has been due
}

// Queue returns how the queue stands at now.
func (db *DB) Queue(ctx context.Context, now time.Time) (QueueStats, error) {
	var s QueueStats
	var oldest time.Time
	err := db.r.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN scheduled_at <= $1 THEN 1 ELSE 0 END), 0), MIN(scheduled_at)
		FROM execution WHERE status = 'pending'`, micros(now)).Scan(&s.Pending, &s.Due, toTime{&oldest})
	if !oldest.IsZero() {
		s.OldestDue = max(0, now.Sub(oldest))
	}
	return s, db.explain("queue", err)
}

// Tidied notes that an ended execution needs no more tidying of its files.
func (db *DB) Tidied(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "tidied", func(tx *tx) error {
		return tx.exec(`UPDATE execution SET untidied = NULL WHERE id = $1`, id)
	})
}

// TidiedSoFar is Tidied for an execution that has not ended.
func (db *DB) TidiedSoFar(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "tidied", func(tx *tx) error {
		return tx.exec(`UPDATE execution SET untidied = NULL WHERE id = $1 AND finished_at IS NULL`, id)
	})
}

// Untidied returns up to limit ended executions that Tidied was not called for,
// the ones that ended first in front.
func (db *DB) Untidied(ctx context.Context, limit int) ([]agented.ExecutionID, error) {
	rows, err := db.r.QueryContext(ctx, `SELECT id FROM execution WHERE untidied IS NOT NULL ORDER BY untidied LIMIT $1`, limit)
	ids, err := collect(rows, err, scanID)
	return ids, db.explain("untidied", err)
}

func scanID(id *agented.ExecutionID, scan func(...any) error) error { return scan(id) }

// maxSentence bounds a reason and an error.
const maxSentence = 16 << 10

// clip cuts a text to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

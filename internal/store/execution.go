package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/policy"
)

// briefColumns are the columns of an execution in lists and events: all except
// the snapshot, the prompt and the result.
const briefColumns = `id, trigger_id, trigger_name, backend, status, reason, source, actor, retry_of, attempt_no, last_seq,
	COALESCE(lease_owner, ''), lease_token, lease_expires_at, cancel_asked, exit_code, error,
	input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, cumulative,
	event_seq, created_at, scheduled_at, started_at, finished_at, cause, pinned_at, pinned_by, log_removed_at, chain_id, chain_depth, chain_parent,
	probe_account, (SELECT until FROM account_queue WHERE key = parked_on), COALESCE((SELECT reason FROM account_queue WHERE key = parked_on), '')`

func scanBrief(e *agented.Execution, scan func(...any) error) error {
	return scan(&e.ID, &e.Trigger, &e.TriggerName, &e.Backend, &e.State, &e.Reason, &e.Source, &e.Actor, &e.RetryOf, &e.AttemptNo, &e.LastSeq,
		&e.Lease.Owner, &e.Lease.Token, toTime{&e.Lease.ExpiresAt}, &e.CancelAsked, &e.ExitCode, &e.Error,
		&e.Usage.InputTokens, &e.Usage.OutputTokens, &e.Usage.CacheReadTokens, &e.Usage.CacheWriteTokens, &e.Usage.CostUSD, &e.Usage.CumulativeSession,
		&e.EventSeq, toTime{&e.CreatedAt}, toTime{&e.ScheduledAt}, toTime{&e.StartedAt}, toTime{&e.FinishedAt}, toCause{&e.Cause},
		toTime{&e.PinnedAt}, &e.PinnedBy, toTime{&e.LogRemovedAt},
		&e.Chain.ID, &e.Chain.Depth, &e.Chain.Parent,
		&e.ProbeAccount, toTime{&e.ParkedUntil}, &e.WaitingOn)
}

// causeText encodes an Origin as JSON; nil is empty.
func causeText(c *agented.Origin) string {
	if c == nil {
		return ""
	}
	text, _ := json.Marshal(c) // strings and a time always marshal
	return string(text)
}

// toCause decodes the output of causeText.
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
	model, class, evidence, retry_at, resumed_from, session_gone, sandbox, sandbox_reason, changes, broker, contract`

func scanAttempt(a *agented.Attempt, scan func(...any) error) error {
	return scan(&a.Execution, &a.Number, &a.Backend, &a.Account, &a.CLIVersion, &a.State, &a.ExitCode, &a.Signal, &a.Reason, &a.SessionID,
		&a.Usage.InputTokens, &a.Usage.OutputTokens, &a.Usage.CacheReadTokens, &a.Usage.CacheWriteTokens, &a.Usage.CostUSD, &a.Usage.CumulativeSession,
		toTime{&a.StartedAt}, toTime{&a.FinishedAt},
		&a.Model, &a.Class, &a.Evidence, toTime{&a.RetryAt}, &a.ResumedFrom, &a.SessionGone, &a.Sandbox.Level, &a.Sandbox.Reason, toObject[agented.Changes]{&a.Changes}, toObject[agented.BrokerUse]{&a.Broker}, toContract{&a.Contract})
}

// toObject scans a JSON object; the empty text is nil.
type toObject[T any] struct{ to **T }

// Scan implements sql.Scanner.
func (s toObject[T]) Scan(v any) error {
	text, _ := v.(string)
	if *s.to = nil; text == "" {
		return nil
	}
	*s.to = new(T)
	return json.Unmarshal([]byte(text), *s.to)
}

// loadBrief returns the executions that exist, in the order of ids, with their
// attempts.
func loadBrief(q querier, ids []agented.ExecutionID) ([]agented.Execution, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var w where
	rows, err := q.query(`SELECT `+briefColumns+` FROM execution WHERE id IN `+in(&w, ids), w.Args()...)
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
	if err := loadPauses(q, list); err != nil {
		return nil, err
	}
	if err := loadPublications(q, list); err != nil {
		return nil, err
	}
	if err := loadOutputs(q, list); err != nil {
		return nil, err
	}
	for i := range list {
		policy.ExplainWait(&list[i])
	}
	return list, nil
}

// loadAttempts loads the attempts of all executions with one query.
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
	rows, err := q.query(`SELECT `+attemptColumns+` FROM attempt WHERE execution_id IN `+in(&w, ids)+` ORDER BY execution_id, number`, w.Args()...)
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

// load returns one complete execution, or NotFound.
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

// loadAll returns the complete executions that exist, oldest first. It uses the
// same number of queries for 200 as for one.
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
		if err := loadContracts(q, place); err != nil {
			return nil, err
		}
	}
	// Not in SQL: with an order, the planner would scan the whole history.
	slices.SortFunc(out, func(a, b *agented.Execution) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(string(a.ID), string(b.ID)))
	})
	return out, nil
}

// loadTexts loads the long texts that lists omit.
func loadTexts(q querier, place map[agented.ExecutionID]*agented.Execution, ids []agented.ExecutionID) error {
	type row struct {
		id       agented.ExecutionID
		snapshot []byte
		prompt   string
		result   string
	}
	var w where
	rows, err := q.query(`SELECT execution_id, snapshot, prompt, result FROM execution_text WHERE execution_id IN `+in(&w, ids), w.Args()...)
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

// count updates the number of executions in a final state.
func (tx *tx) count(s agented.State, by int) error {
	return tx.exec(`UPDATE counter SET value = value + $2 WHERE name = $1`, s, by)
}

// Counts returns the number of executions in each state.
func (db *DB) Counts(ctx context.Context) (map[agented.State]int64, error) {
	out := map[agented.State]int64{}
	err := db.read(ctx, "counts", func(r *reader) error {
		// Final executions are counted as they end: the history is unbounded.
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

// QueueStats is the state of the queue.
type QueueStats struct {
	Pending   int64         // pending executions, for whatever reason
	Due       int64         // of these, executions that could run if a slot were free
	OldestDue time.Duration // how long the oldest of those has been due
}

// Queue returns the state of the queue at now.
func (db *DB) Queue(ctx context.Context, now time.Time) (QueueStats, error) {
	var s QueueStats
	var oldest time.Time
	err := db.row(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN scheduled_at <= $1 THEN 1 ELSE 0 END), 0), MIN(scheduled_at)
		FROM execution WHERE status = 'pending'`, micros(now)).Scan(&s.Pending, &s.Due, toTime{&oldest})
	if !oldest.IsZero() {
		s.OldestDue = max(0, now.Sub(oldest))
	}
	return s, explain("queue", err)
}

// AttemptCleanupDone records that the files of an execution that has not ended
// are cleaned up.
func (db *DB) AttemptCleanupDone(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "record a cleanup", func(tx *tx) error {
		return tx.exec(`UPDATE execution SET cleanup_due_at = NULL WHERE id = $1 AND finished_at IS NULL`, id)
	})
}

// PendingCleanups returns up to limit ended executions without CleanupDoneWithBytes, earliest end
// first.
func (db *DB) PendingCleanups(ctx context.Context, limit int) ([]agented.ExecutionID, error) {
	rows, err := db.query(ctx, `SELECT id FROM execution WHERE cleanup_due_at IS NOT NULL ORDER BY cleanup_due_at LIMIT $1`, limit)
	ids, err := collect(rows, err, scanID)
	return ids, explain("pending cleanups", err)
}

func scanID(id *agented.ExecutionID, scan func(...any) error) error { return scan(id) }

// maxSentence limits a reason and an error, in bytes.
const maxSentence = 16 << 10

// TriggerOf returns the trigger of an execution, empty for an ad-hoc one, or
// NotFound.
func (db *DB) TriggerOf(ctx context.Context, id agented.ExecutionID) (agented.TriggerID, error) {
	var trigger agented.TriggerID
	err := db.row(ctx, `SELECT trigger_id FROM execution WHERE id = $1`, id).Scan(&trigger)
	if missing(err) {
		return "", noExecution(id)
	}
	return trigger, explain("trigger of an execution", err)
}

// ExecutionFilter filters a list of executions. Zero fields match all.
type ExecutionFilter struct {
	Trigger       agented.TriggerID
	Only          []agented.TriggerID // one of these triggers; empty: any
	States        []agented.State     // any of these, or FilterPaused
	Source        agented.Source
	Class         agented.Class // an attempt ended with it
	CreatedAfter  time.Time     // at this time or later
	CreatedBefore time.Time     // before this time
	Query         string        // part of the trigger's name, ignoring case, or prefix of the execution's id
}

// FilterPaused selects running executions that are paused. It is no state: theirs stays
// running.
const FilterPaused agented.State = "paused"

// statusCondition returns the condition for a state or [FilterPaused].
func statusCondition(w *where, s agented.State) string {
	if s == FilterPaused {
		return w.Number(`status = $? AND id IN (SELECT execution_id FROM pause)`, agented.StateRunning)
	}
	return w.Number(`status = $?`, s)
}

// maxNames limits how many trigger names a Query may match.
const maxNames = 50

// Executions returns a page of executions, newest first, with their attempts
// but without snapshot, prompt and result, and the cursor of the next page,
// empty if there is none. Executions that are admitted meanwhile do not shift
// pages.
func (db *DB) Executions(ctx context.Context, f ExecutionFilter, p Page) ([]agented.Execution, string, error) {
	after, err := pageKey(p, "execution", 2)
	if err != nil {
		return nil, "", err
	}
	var from int64
	if after != nil {
		if from, err = strconv.ParseInt(after[0], 10, 64); err != nil || !agented.ValidID("exec", after[1]) {
			return nil, "", badCursor()
		}
	}
	for _, s := range f.States {
		if !s.Valid() && s != FilterPaused {
			return nil, "", agented.InvalidFields([]agented.Field{{Path: "status", Text: fmt.Sprintf("%q is not a status", format.Truncate(string(s), 60))}})
		}
	}
	limit := p.Size()
	var list []agented.Execution
	err = db.read(ctx, "executions", func(r *reader) error {
		var w where
		common := f.common(&w)
		if after != nil {
			common = append(common, w.Number(`(created_at, id) < ($?, $?)`, from, after[1]))
		}
		branches, err := f.branches(r, &w)
		if err != nil || len(branches) == 0 {
			return err
		}
		var parts []string
		for _, b := range branches {
			conds := slices.Concat(common, b)
			text := ""
			if len(conds) > 0 {
				text = " WHERE " + strings.Join(conds, " AND ")
			}
			parts = append(parts, fmt.Sprintf(`SELECT * FROM (SELECT created_at, id FROM execution%s ORDER BY created_at DESC, id DESC LIMIT %d) AS b%d`,
				text, limit+1, len(parts)))
		}
		rows, err := r.query(`SELECT id FROM (`+strings.Join(parts, " UNION ")+`) AS page ORDER BY created_at DESC, id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
		ids, err := collect(rows, err, scanID)
		if err != nil {
			return err
		}
		list, err = loadBrief(r, ids)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return cut(p, list, "execution", func(last *agented.Execution) []string {
		return []string{strconv.FormatInt(last.CreatedAt.UnixMicro(), 10), string(last.ID)}
	})
}

// common returns the conditions of every branch.
func (f *ExecutionFilter) common(w *where) []string {
	var conds []string
	if !f.CreatedAfter.IsZero() {
		conds = append(conds, w.Number(`created_at >= $?`, micros(f.CreatedAfter)))
	}
	if !f.CreatedBefore.IsZero() {
		conds = append(conds, w.Number(`created_at < $?`, micros(f.CreatedBefore)))
	}
	if f.Source != "" {
		conds = append(conds, w.Number(`source = $?`, f.Source))
	}
	if f.Class != "" {
		conds = append(conds, w.Number(`EXISTS (SELECT 1 FROM attempt a WHERE a.execution_id = execution.id AND a.class = $?)`, f.Class))
	}
	if len(f.Only) > 0 && (f.Query != "" || f.Trigger != "") {
		conds = append(conds, `trigger_id IN `+in(w, f.Only))
	}
	if f.Query != "" && f.Trigger != "" {
		conds = append(conds, w.Number(`trigger_id = $?`, f.Trigger))
	}
	if f.Query != "" && len(f.States) > 0 {
		var any []string
		for _, s := range f.States {
			any = append(any, "("+statusCondition(w, s)+")")
		}
		conds = append(conds, "("+strings.Join(any, " OR ")+")")
	}
	return conds
}

// branches splits the filter into conditions for each of which an index yields
// the newest rows in order; the page is the newest of all. A single query would
// sort the whole history.
func (f *ExecutionFilter) branches(r *reader, w *where) ([][]string, error) {
	states := slices.Compact(slices.Sorted(slices.Values(f.States)))
	var out [][]string
	switch {
	case f.Query != "":
		names, err := namesLike(r, fold(f.Query))
		if err != nil {
			return nil, err
		}
		if old := strings.ToLower(f.Query); old != fold(f.Query) { // rows written before names were normalised
			more, err := namesLike(r, old)
			if err != nil {
				return nil, err
			}
			names = append(names, more...)
		}
		for _, name := range names {
			out = append(out, []string{w.Number(`name_key = $?`, name)})
		}
		if id := fold(f.Query); strings.HasPrefix(id, "exec-") && len(id) > len("exec-") {
			out = append(out, []string{w.Number(`id >= $? AND id < $?`, id, id+lastRune)})
		}
	case f.Trigger != "" || len(f.Only) > 0:
		if len(states) == 0 {
			states = agented.States
		}
		triggers := f.Only
		if f.Trigger != "" {
			triggers = []agented.TriggerID{f.Trigger}
		}
		for _, id := range triggers {
			trigger := w.Number(`trigger_id = $?`, id)
			for _, s := range states {
				out = append(out, []string{trigger, statusCondition(w, s)})
			}
		}
	case len(states) > 0:
		for _, s := range states {
			out = append(out, []string{statusCondition(w, s)})
		}
	default:
		out = append(out, nil)
	}
	return out, nil
}

// containing returns the pattern of LIKE for texts that contain a text.
func containing(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(text) + "%"
}

// namesLike returns the trigger names of the history that contain a text, using a skip scan
// of the index: its cost depends on the number of names, not of executions.
func namesLike(r *reader, text string) ([]string, error) {
	rows, err := r.query(`WITH RECURSIVE name (k) AS (
			SELECT MIN(name_key) FROM execution
			UNION ALL
			SELECT (SELECT MIN(name_key) FROM execution WHERE name_key > name.k) FROM name WHERE name.k IS NOT NULL
		) SELECT k FROM name WHERE k IS NOT NULL AND k LIKE $1 ESCAPE '\' LIMIT $2`, containing(text), maxNames)
	return collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
}

// ChangedSince returns up to limit executions that changed after the event
// number seq, in the order of their latest change, each once, without snapshot,
// prompt and result. A subscriber that applies them in order has seen every
// lasting state.
func (db *DB) ChangedSince(ctx context.Context, seq int64, limit int) ([]agented.ExecutionEvent, error) {
	var out []agented.ExecutionEvent
	err := db.read(ctx, "changed since", func(r *reader) error {
		rows, err := r.query(`SELECT id FROM execution WHERE event_seq > $1 ORDER BY event_seq LIMIT $2`, seq, limit)
		ids, err := collect(rows, err, scanID)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(ids, 500) {
			list, err := loadBrief(r, part)
			if err != nil {
				return err
			}
			for i := range list {
				out = append(out, agented.ExecutionEvent{Seq: list[i].EventSeq, Execution: &list[i]})
			}
		}
		return nil
	})
	return out, err
}

// LastEventSeq returns the number of the latest change of any execution.
func (db *DB) LastEventSeq(ctx context.Context) (int64, error) {
	var seq int64
	err := db.row(ctx, `SELECT value FROM counter WHERE name = 'event'`).Scan(&seq)
	return seq, explain("last event", err)
}

// lastOfTrigger selects the id of a trigger's newest execution. The index
// contains them by status: it selects the newest of each status, and of these
// the newest.
var lastOfTrigger = func() string {
	parts := make([]string, len(agented.States))
	for i, s := range agented.States {
		parts[i] = `SELECT * FROM (SELECT created_at, id FROM execution WHERE trigger_id = $1 AND status = '` + string(s) +
			`' ORDER BY created_at DESC, id DESC LIMIT 1) AS s` + string(rune('a'+i))
	}
	return `SELECT id FROM (` + strings.Join(parts, " UNION ALL ") + `) AS newest ORDER BY created_at DESC, id DESC LIMIT 1`
}()

// LastExecutions returns the newest execution of each trigger that has one,
// without snapshot, prompt and result.
func (db *DB) LastExecutions(ctx context.Context, triggers []agented.TriggerID) (map[agented.TriggerID]agented.Execution, error) {
	out := make(map[agented.TriggerID]agented.Execution, len(triggers))
	err := db.read(ctx, "last executions", func(r *reader) error {
		var ids []agented.ExecutionID
		for _, t := range triggers {
			var id agented.ExecutionID
			switch err := r.row(lastOfTrigger, t).Scan(&id); {
			case missing(err):
			case err != nil:
				return err
			default:
				ids = append(ids, id)
			}
		}
		list, err := loadBrief(r, ids)
		for _, e := range list {
			out[e.Trigger] = e
		}
		return err
	})
	return out, err
}

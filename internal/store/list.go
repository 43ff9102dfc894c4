package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// ExecutionFilter narrows a list of executions. Zero fields do not.
type ExecutionFilter struct {
	Trigger       agented.TriggerID
	States        []agented.State // any of these
	Source        agented.Source
	CreatedAfter  time.Time // at this time or later
	CreatedBefore time.Time // before this time
	Query         string    // start of the trigger's name, ignoring case, or of the execution's id
}

// maxNames bounds how many trigger names a Query may stand for.
const maxNames = 50

// Executions returns a page of executions, the newest first, with their
// attempts and without snapshot, prompt and result, and the cursor of the next
// page, empty when there is none. Executions that are admitted meanwhile shift
// nothing.
func (db *DB) Executions(ctx context.Context, f ExecutionFilter, p Page) ([]agented.Execution, string, error) {
	after, err := p.after("execution", 2)
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
		if !s.Valid() {
			return nil, "", agented.InvalidFields([]agented.Field{{Path: "status", Text: fmt.Sprintf("%q is not a status", clip(string(s), 60))}})
		}
	}
	limit := p.limit()
	var list []agented.Execution
	err = db.read(ctx, "executions", func(r *reader) error {
		var w where
		common := f.common(&w)
		if after != nil {
			common = append(common, w.number(`(created_at, id) < ($?, $?)`, from, after[1]))
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
		rows, err := r.query(`SELECT id FROM (`+strings.Join(parts, " UNION ")+`) AS page ORDER BY created_at DESC, id DESC LIMIT `+fmt.Sprint(limit+1), w.args...)
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
	if len(list) <= limit {
		return list, "", nil
	}
	last := &list[limit-1]
	return list[:limit], cursor("execution", strconv.FormatInt(last.CreatedAt.UnixMicro(), 10), string(last.ID)), nil
}

// common are the conditions that hold in every branch.
func (f *ExecutionFilter) common(w *where) []string {
	var conds []string
	if !f.CreatedAfter.IsZero() {
		conds = append(conds, w.number(`created_at >= $?`, micros(f.CreatedAfter)))
	}
	if !f.CreatedBefore.IsZero() {
		conds = append(conds, w.number(`created_at < $?`, micros(f.CreatedBefore)))
	}
	if f.Source != "" {
		conds = append(conds, w.number(`source = $?`, f.Source))
	}
	if f.Query != "" && f.Trigger != "" {
		conds = append(conds, w.number(`trigger_id = $?`, f.Trigger))
	}
	if f.Query != "" && len(f.States) > 0 {
		conds = append(conds, `status IN `+in(w, f.States))
	}
	return conds
}

// branches splits the filter into conditions of each of which an index yields
// the newest rows in order; the page is the newest of all of them. One query
// for all would sort the whole history.
func (f *ExecutionFilter) branches(r *reader, w *where) ([][]string, error) {
	states := slices.Compact(slices.Sorted(slices.Values(f.States)))
	var out [][]string
	switch {
	case f.Query != "":
		names, err := namesLike(r, f.Query)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			out = append(out, []string{w.number(`name_key = $?`, name)})
		}
		if id := fold(f.Query); strings.HasPrefix(id, "exec-") && len(id) > len("exec-") {
			out = append(out, []string{w.number(`id >= $? AND id < $?`, id, id+lastRune)})
		}
	case f.Trigger != "":
		if len(states) == 0 {
			states = agented.States
		}
		trigger := w.number(`trigger_id = $?`, f.Trigger)
		for _, s := range states {
			out = append(out, []string{trigger, w.number(`status = $?`, s)})
		}
	case len(states) > 0:
		for _, s := range states {
			out = append(out, []string{w.number(`status = $?`, s)})
		}
	default:
		out = append(out, nil)
	}
	return out, nil
}

// namesLike returns the trigger names of the history that start with prefix,
// jumping from name to name in the index.
func namesLike(r *reader, prefix string) ([]string, error) {
	rows, err := r.query(`WITH RECURSIVE name (k) AS (
			SELECT MIN(name_key) FROM execution WHERE name_key >= $1 AND name_key < $2
			UNION ALL
			SELECT (SELECT MIN(name_key) FROM execution WHERE name_key > name.k AND name_key < $2) FROM name WHERE name.k IS NOT NULL
		) SELECT k FROM name WHERE k IS NOT NULL LIMIT $3`, fold(prefix), fold(prefix)+lastRune, maxNames)
	return collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
}

// ChangedSince returns up to limit executions that changed after the event
// number seq, in the order of their latest change, each once, without snapshot,
// prompt and result. Who applies them all in turn has seen every state that
// lasted.
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

// LastEventSeq is the number of the latest change of any execution.
func (db *DB) LastEventSeq(ctx context.Context) (int64, error) {
	var seq int64
	err := db.r.QueryRowContext(ctx, `SELECT value FROM counter WHERE name = 'event'`).Scan(&seq)
	return seq, db.explain("last event", err)
}

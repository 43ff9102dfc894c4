// Package deadman stores the dead man's switches of triggers: it finds those of which no execution
// has succeeded in time. Its functions run in transactions of the store.
//
// Periods are measured on a clock of their own, which counts the time in which a server runs. After
// a downtime, a suspend or a jump of the system's clock, a trigger therefore has the rest of its
// period left, in which missed runs are caught up.
package deadman

import (
	"database/sql"
	"errors"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/notices"
)

// MaxGap is the longest time between two looks that counts. A server looks more often.
const MaxGap = 2 * time.Minute

// Set stores the switch of a trigger that was created or changed. A switch whose period did not
// change, and which remains enabled, keeps its state; otherwise the period begins now.
func Set(tx notices.Tx, t *agented.Trigger, now time.Time) error {
	every, _ := agented.ParseExpectEvery(t.Spec.ExpectEvery)
	if every == 0 {
		return tx.Exec(`DELETE FROM deadman WHERE trigger_id = $1`, t.ID)
	}
	watched, err := advance(tx, now)
	if err != nil {
		return err
	}
	if !t.Enabled {
		// Nothing is expected. An absence ends without a success.
		return tx.Exec(`INSERT INTO deadman (trigger_id, every, since, begin_at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (trigger_id) DO UPDATE SET every = excluded.every, due = NULL, raised = 0, raised_at = NULL`,
			t.ID, every.Microseconds(), now.UnixMicro(), watched)
	}
	return tx.Exec(`INSERT INTO deadman (trigger_id, every, due, since, begin_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (trigger_id) DO UPDATE SET every = excluded.every, due = excluded.due, since = excluded.since, begin_at = excluded.begin_at,
			succeeded = FALSE, raised = 0, raised_at = NULL
		WHERE deadman.every <> excluded.every OR deadman.due IS NULL`,
		t.ID, every.Microseconds(), watched+every.Microseconds(), now.UnixMicro(), watched)
}

// advance advances the watch clock to a time, and returns what it shows. It remains where it is for a
// time shortly before the last look, such as the end of an execution that is recorded after it.
func advance(tx notices.Tx, now time.Time) (watched int64, err error) {
	var last int64
	if err := tx.Row(`SELECT watched, at FROM watch_clock WHERE id = 1`).Scan(&watched, &last); err != nil {
		return 0, err
	}
	if late := last - now.UnixMicro(); late >= 0 && late <= MaxGap.Microseconds() {
		return watched, nil // this time is already part of the clock
	}
	watched += min(max(now.UnixMicro()-last, 0), MaxGap.Microseconds())
	return watched, tx.Exec(`UPDATE watch_clock SET watched = $1, at = $2 WHERE id = 1`, watched, now.UnixMicro())
}

// Succeeded records that an execution of a trigger succeeded at a time. It returns the absence that
// this ends, nil if there was none.
func Succeeded(tx notices.Tx, id agented.TriggerID, at time.Time) (*agented.Absence, error) {
	if id == "" {
		return nil, nil
	}
	list, err := read(tx, `d.trigger_id = $1`, id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	watched, err := advance(tx, at)
	if err != nil {
		return nil, err
	}
	err = tx.Exec(`UPDATE deadman SET since = $2, begin_at = $3, succeeded = TRUE, raised = 0, raised_at = NULL,
			due = CASE WHEN due IS NULL THEN NULL ELSE $3 + every END
		WHERE trigger_id = $1`, id, at.UnixMicro(), watched)
	if err != nil || !list[0].Overdue() {
		return nil, err
	}
	return &list[0], nil
}

// Look advances the watch clock to a time, and returns the triggers of which no execution succeeded
// in time, each once per period. next is how long after now the next one is due at the earliest;
// 0 means that nothing is expected.
func Look(tx notices.Tx, now time.Time) (absent []agented.Absence, next time.Duration, err error) {
	var armed bool
	if err := tx.Row(`SELECT EXISTS (SELECT 1 FROM deadman WHERE due IS NOT NULL)`).Scan(&armed); err != nil {
		return nil, 0, err
	}
	if !armed {
		return nil, 0, nil
	}
	watched, err := advance(tx, now)
	if err != nil {
		return nil, 0, err
	}
	if absent, err = read(tx, `d.due <= $1`, watched); err != nil {
		return nil, 0, err
	}
	for i := range absent {
		a := &absent[i]
		a.RaisedAt = now
		// The next period begins where this one ended, but never in the past.
		err := tx.Exec(`UPDATE deadman SET raised = raised + 1, raised_at = $2, due = CASE WHEN due + every > $3 THEN due + every ELSE $3 + every END
			WHERE trigger_id = $1`, a.Trigger, now.UnixMicro(), watched)
		if err != nil {
			return nil, 0, err
		}
	}
	var due int64
	if err := tx.Row(`SELECT MIN(due) FROM deadman WHERE due IS NOT NULL`).Scan(&due); err != nil {
		return nil, 0, err
	}
	return absent, max(time.Duration(due-watched)*time.Microsecond, time.Millisecond), nil
}

// Of returns the switch of a trigger, nil if it has none.
func Of(q notices.Querier, id agented.TriggerID) (*agented.Absence, error) {
	list, err := read(q, `d.trigger_id = $1`, id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// Overdue returns the triggers of which no execution has succeeded in time, the longest first, at
// most 100.
func Overdue(q notices.Querier) ([]agented.Absence, error) {
	return read(q, `d.due IS NOT NULL AND d.raised > 0`)
}

// read returns the switches that match a condition.
func read(q notices.Querier, condition string, args ...any) ([]agented.Absence, error) {
	rows, err := q.Query(`SELECT d.trigger_id, t.name, d.every, d.due, d.since, d.succeeded, d.raised_at, d.begin_at, c.watched, c.at
		FROM deadman d JOIN trigger_ t ON t.id = d.trigger_id, watch_clock c WHERE `+condition+` ORDER BY d.since, d.trigger_id LIMIT 100`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []agented.Absence
	for rows.Next() {
		var a agented.Absence
		var every, since, begin, watched, last int64
		var due, raisedAt sql.NullInt64
		if err := rows.Scan(&a.Trigger, &a.Name, &every, &due, &since, &a.Succeeded, &raisedAt, &begin, &watched, &last); err != nil {
			return nil, err
		}
		a.Every, a.Since = time.Duration(every)*time.Microsecond, time.UnixMicro(since).UTC()
		if raisedAt.Valid {
			a.RaisedAt = time.UnixMicro(raisedAt.Int64).UTC()
		}
		if due.Valid {
			a.DueAt = time.UnixMicro(last + due.Int64 - watched).UTC()
			a.Unwatched = time.Duration(last-since-(watched-begin)) * time.Microsecond
		}
		out = append(out, a)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

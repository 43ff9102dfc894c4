package store

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

// RequestCancel requests the cancellation of an execution. A pending one is
// cancelled immediately; a running one is marked, and the holder of its lease
// must stop it. For a final one it returns Conflict. by is the actor.
func (db *DB) RequestCancel(ctx context.Context, id agented.ExecutionID, by string, now time.Time) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.write(ctx, "cancel", func(tx *tx) error {
		var state agented.State
		var trigger agented.TriggerID
		err := tx.row(`SELECT status, trigger_id FROM execution WHERE id = $1`, id).Scan(&state, &trigger)
		if missing(err) {
			return noExecution(id)
		}
		if err != nil {
			return err
		}
		switch {
		case state == agented.StatePending:
			if err = tx.cancelPending(id, byWhom("cancelled", by), by, now); err == nil {
				err = tx.release(trigger, 1)
			}
		case state == agented.StateRunning:
			err = tx.requestCancel(id, byWhom("is being stopped: requested", by), by)
		default:
			return agented.Errorf(agented.Conflict, "%s has already ended as %s: there is nothing to cancel", id, state)
		}
		if err != nil {
			return err
		}
		e, err = load(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// CancelAsked reports whether cancellation of an execution was requested.
func (db *DB) CancelAsked(ctx context.Context, id agented.ExecutionID) (bool, error) {
	var asked bool
	err := db.rowPrepared(ctx, `SELECT cancel_asked FROM execution WHERE id = $1`, id).Scan(&asked)
	return asked, explain("cancel asked", err)
}

func byWhom(what, by string) string {
	if by == "" {
		return what
	}
	return what + " by " + by
}

// cancelPending makes a pending execution final. The caller releases the
// trigger's held executions.
func (tx *tx) cancelPending(id agented.ExecutionID, reason, by string, now time.Time) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	err = tx.exec(`UPDATE execution SET status = 'cancelled', reason = $2, cancel_by = $3, due_at = NULL, held_by = NULL, parked_on = NULL, give_up_at = NULL, finished_at = $4, cleanup_due_at = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, id, format.Truncate(reason, maxSentence), by, micros(now), seq)
	if err != nil {
		return err
	}
	if err := tx.settleInbox(id, agented.StateCancelled, now); err != nil {
		return err
	}
	return tx.count(agented.StateCancelled, 1)
}

// requestCancel marks a running execution, once.
func (tx *tx) requestCancel(id agented.ExecutionID, reason, by string) error {
	var asked bool
	err := tx.row(`SELECT cancel_asked FROM execution WHERE id = $1`, id).Scan(&asked)
	if err != nil || asked {
		return err
	}
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE execution SET cancel_asked = TRUE, reason = $2, cancel_by = $3, event_seq = $4
		WHERE id = $1 AND status = 'running'`, id, format.Truncate(reason, maxSentence), by, seq)
}

// Paused records that a running execution is paused, or a new reason for its
// pause. It returns Conflict if the lease is not the execution's current one.
func (db *DB) Paused(ctx context.Context, id agented.ExecutionID, lease agented.Lease, p agented.Pause) error {
	return db.write(ctx, "paused", func(tx *tx) error {
		if err := tx.leased(id, lease); err != nil {
			return err
		}
		err := tx.exec(`INSERT INTO pause (execution_id, paused_at, paused_until, reason, paused_by, question, spent_usd, limit_usd)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (execution_id) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason, paused_by = excluded.paused_by,
				question = excluded.question, spent_usd = excluded.spent_usd, limit_usd = excluded.limit_usd`,
			id, micros(p.At), micros(p.Until), format.Truncate(p.Reason, maxSentence), p.By, p.Question, p.SpentUSD, p.LimitUSD)
		if err != nil {
			return err
		}
		if err := tx.notifyPause(id, p); err != nil {
			return err
		}
		return tx.touch(id)
	})
}

// Continued records that an execution is no longer paused.
func (db *DB) Continued(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "continued", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM pause WHERE execution_id = $1`, id)
		if err != nil || n == 0 {
			return err
		}
		return tx.touch(id)
	})
}

// RaiseCeiling sets the cost ceiling of an execution in USD; 0 means none.
func (db *DB) RaiseCeiling(ctx context.Context, id agented.ExecutionID, usd float64) error {
	return db.write(ctx, "raise ceiling", func(tx *tx) error {
		err := tx.exec(`INSERT INTO ceiling (execution_id, usd) VALUES ($1, $2) ON CONFLICT (execution_id) DO UPDATE SET usd = excluded.usd`, id, usd)
		if err != nil {
			return err
		}
		return tx.touch(id)
	})
}

// PausedCount returns the number of paused executions.
func (db *DB) PausedCount(ctx context.Context) (n int64, err error) {
	err = db.row(ctx, `SELECT COUNT(*) FROM pause`).Scan(&n)
	return n, explain("paused executions", err)
}

// Ceiling returns the cost ceiling of an execution if it was set while it ran.
func (db *DB) Ceiling(ctx context.Context, id agented.ExecutionID) (usd float64, set bool, err error) {
	err = db.row(ctx, `SELECT usd FROM ceiling WHERE execution_id = $1`, id).Scan(&usd)
	if missing(err) {
		return 0, false, nil
	}
	return usd, err == nil, explain("ceiling", err)
}

// loadPauses loads pauses, and which costs were estimated from the price list.
func loadPauses(q querier, list []agented.Execution) error {
	var running, spent []agented.ExecutionID
	place := map[agented.ExecutionID]int{}
	for i := range list {
		place[list[i].ID] = i
		if list[i].State == agented.StateRunning {
			running = append(running, list[i].ID)
		}
		if list[i].Usage.CostUSD != nil {
			spent = append(spent, list[i].ID)
		}
	}
	if len(running) > 0 {
		type row struct {
			id agented.ExecutionID
			p  agented.Pause
		}
		var w where
		rows, err := q.query(`SELECT execution_id, paused_at, paused_until, reason, paused_by, question, spent_usd, limit_usd
			FROM pause WHERE execution_id IN `+in(&w, running), w.Args()...)
		found, err := collect(rows, err, func(r *row, scan func(...any) error) error {
			return scan(&r.id, toTime{&r.p.At}, toTime{&r.p.Until}, &r.p.Reason, &r.p.By, &r.p.Question, &r.p.SpentUSD, &r.p.LimitUSD)
		})
		if err != nil {
			return err
		}
		for _, r := range found {
			list[place[r.id]].Pause = &r.p
		}
	}
	if len(spent) > 0 {
		type row struct {
			id     agented.ExecutionID
			number int
		}
		var w where
		rows, err := q.query(`SELECT execution_id, attempt FROM spending WHERE execution_id IN `+in(&w, spent)+` AND estimated`, w.Args()...)
		found, err := collect(rows, err, func(r *row, scan func(...any) error) error { return scan(&r.id, &r.number) })
		if err != nil {
			return err
		}
		for _, r := range found {
			e := &list[place[r.id]]
			e.Usage.Estimated = true
			for i := range e.Attempts {
				if e.Attempts[i].Number == r.number {
					e.Attempts[i].Usage.Estimated = true
				}
			}
		}
	}
	return nil
}

package store

import (
	"context"
	"time"

	"github.com/agented/agented"
)

// RequestCancel asks for the end of an execution. A pending one is cancelled at
// once; a running one is only marked, and whoever holds its lease has to stop
// it. A final one is a Conflict. by is who asks.
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
			err = tx.askCancel(id, byWhom("is being stopped: asked", by), by)
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

// CancelAsked reports whether somebody has asked for the end of an execution.
func (db *DB) CancelAsked(ctx context.Context, id agented.ExecutionID) (bool, error) {
	var asked bool
	err := db.hotRow(ctx, `SELECT cancel_asked FROM execution WHERE id = $1`, id).Scan(&asked)
	return asked, db.explain("cancel asked", err)
}

func byWhom(what, by string) string {
	if by == "" {
		return what
	}
	return what + " by " + by
}

// cancelPending makes a pending execution final. The caller releases its
// trigger.
func (tx *tx) cancelPending(id agented.ExecutionID, reason, by string, now time.Time) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	err = tx.exec(`UPDATE execution SET status = 'cancelled', reason = $2, cancel_by = $3, due_at = NULL, held_by = NULL, parked_on = NULL, give_up_at = NULL, finished_at = $4, untidied = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, id, clip(reason, maxSentence), by, micros(now), seq)
	if err != nil {
		return err
	}
	if err := tx.settleInbox(id, agented.StateCancelled, now); err != nil {
		return err
	}
	return tx.count(agented.StateCancelled, 1)
}

// askCancel marks a running execution, once.
func (tx *tx) askCancel(id agented.ExecutionID, reason, by string) error {
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
		WHERE id = $1 AND status = 'running'`, id, clip(reason, maxSentence), by, seq)
}

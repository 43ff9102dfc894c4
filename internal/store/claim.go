package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// markWindow is how many of the executions in front of the queue are told that
// they wait for a free slot.
const markWindow = 100

// Claim leases the next due execution to node, opens its next attempt and
// returns it, or nil when nothing can be claimed: nothing is due, the node
// already runs limit executions, or what is due waits for its trigger.
//
// The queue holds, beside each pending execution, whether it is held back by
// its trigger's limit. The claim looks only at those that are not, so a long
// queue of one trigger costs the others nothing. Two rules keep this right:
// an execution is held only while its trigger runs as many as it may, and
// whatever makes room (an end, a cancellation, a claim that did not use the
// last slot) releases the next held one in the same transaction.
func (db *DB) Claim(ctx context.Context, node agented.NodeID, limit int, now time.Time, ttl time.Duration) (*agented.Execution, error) {
	// Most claims find nothing to do; that takes no write transaction.
	due, err := db.anyDue(ctx, now)
	if err != nil || !due {
		return nil, err
	}
	var e *agented.Execution
	err = db.write(ctx, "claim", func(tx *tx) (err error) {
		e, err = tx.claim(node, limit, now, ttl)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (db *DB) anyDue(ctx context.Context, now time.Time) (bool, error) {
	var due bool
	err := db.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM execution WHERE due_at <= $1)`, micros(now)).Scan(&due)
	return due, db.explain("claim", err)
}

func (tx *tx) claim(node agented.NodeID, limit int, now time.Time, ttl time.Duration) (*agented.Execution, error) {
	var busy int
	err := tx.row(`SELECT COUNT(*) FROM execution WHERE lease_owner = $1`, node).Scan(&busy)
	if err != nil {
		return nil, err
	}
	if busy >= limit {
		return nil, tx.markWaiting(fmt.Sprintf("waits for a free slot: %d of %d executions are running", busy, limit), now)
	}
	for {
		var id agented.ExecutionID
		var trigger agented.TriggerID
		var backend string
		var most, running, number int
		err := tx.row(`SELECT e.id, e.trigger_id, e.backend, e.attempt_no, e.max_concurrent,
				(SELECT COUNT(*) FROM execution o WHERE o.trigger_id = e.trigger_id AND o.status = 'running')
			FROM execution e WHERE e.due_at <= $1 ORDER BY e.due_at, e.admit_no LIMIT 1`, micros(now)).Scan(&id, &trigger, &backend, &number, &most, &running)
		if missing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if trigger != "" && most > 0 && running >= most {
			if err := tx.hold(id, most); err != nil {
				return nil, err
			}
			continue
		}
		if err := tx.start(id, backend, number+1, node, now.Add(ttl)); err != nil {
			return nil, err
		}
		if err := tx.release(trigger, 1); err != nil {
			return nil, err
		}
		return load(tx, id)
	}
}

// start makes a pending execution running and opens its attempt.
func (tx *tx) start(id agented.ExecutionID, backend string, number int, node agented.NodeID, expires time.Time) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	err = tx.exec(`UPDATE execution SET status = 'running', reason = '', due_at = NULL, attempt_no = $2,
			lease_owner = $3, lease_token = lease_token + 1, lease_expires_at = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, id, number, node, micros(expires), seq)
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO attempt (execution_id, number, backend, status) VALUES ($1, $2, $3, 'running')`, id, number, backend)
}

// hold takes a pending execution out of the queue's front until its trigger has
// room.
func (tx *tx) hold(id agented.ExecutionID, limit int) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE execution SET held_by = trigger_id, due_at = NULL, reason = $2, event_seq = $3 WHERE id = $1`, id, turnReason(limit), seq)
}

// release puts up to n held executions of a trigger back into the queue while
// the trigger has room.
func (tx *tx) release(trigger agented.TriggerID, n int) error {
	if trigger == "" {
		return nil
	}
	// The first ones speak for all: what waits of a trigger has one limit, and
	// looking further would read a long queue at each claim.
	type front struct {
		id            agented.ExecutionID
		most, running int
	}
	rows, err := tx.query(`SELECT e.id, e.max_concurrent,
			(SELECT COUNT(*) FROM execution o WHERE o.trigger_id = $1 AND o.status = 'running')
		FROM execution e WHERE e.held_by = $1 ORDER BY e.scheduled_at, e.admit_no LIMIT $2`, trigger, n)
	list, err := collect(rows, err, func(f *front, scan func(...any) error) error { return scan(&f.id, &f.most, &f.running) })
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.most > 0 && f.running >= f.most {
			continue
		}
		if err := tx.exec(`UPDATE execution SET held_by = NULL, due_at = scheduled_at WHERE id = $1`, f.id); err != nil {
			return err
		}
	}
	return nil
}

// resize gives what waits of a trigger the trigger's new limit.
func (tx *tx) resize(trigger agented.TriggerID, limit int) error {
	n, err := tx.affected(`UPDATE execution SET max_concurrent = $2
		WHERE trigger_id = $1 AND status = 'pending' AND max_concurrent <> $2`, trigger, limit)
	if err != nil || n == 0 {
		return err
	}
	if limit > 0 {
		n = int64(limit)
	}
	return tx.release(trigger, int(n))
}

// markWaiting says in the first due executions why they do not run, unless they
// say it already.
func (tx *tx) markWaiting(reason string, now time.Time) error {
	rows, err := tx.query(`SELECT id FROM (SELECT id, reason FROM execution
			WHERE due_at <= $1 ORDER BY due_at, admit_no LIMIT $2) AS front
		WHERE reason <> $3`, micros(now), markWindow, reason)
	ids, err := collect(rows, err, scanID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		seq, err := tx.change(id)
		if err != nil {
			return err
		}
		if err := tx.exec(`UPDATE execution SET reason = $2, event_seq = $3 WHERE id = $1`, id, reason, seq); err != nil {
			return err
		}
	}
	return nil
}

// NextDue returns the earliest time after now at which a pending execution
// becomes due, false if there is none.
func (db *DB) NextDue(ctx context.Context, now time.Time) (time.Time, bool, error) {
	var at time.Time
	err := db.r.QueryRowContext(ctx, `SELECT MIN(due_at) FROM execution WHERE due_at > $1`, micros(now)).Scan(toTime{&at})
	return at, !at.IsZero(), db.explain("next due", err)
}

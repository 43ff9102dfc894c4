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
//
// It takes the writer's turn also when there is nothing to claim: ask Due first.
func (db *DB) Claim(ctx context.Context, node agented.NodeID, limit int, now time.Time, ttl time.Duration) (*agented.Execution, error) {
	for {
		var e *agented.Execution
		var again bool
		err := db.write(ctx, "claim", func(tx *tx) (err error) {
			e, again, err = tx.claim(node, limit, now, ttl)
			return err
		})
		if err != nil {
			return nil, err
		}
		if e != nil || !again {
			return e, nil
		}
	}
}

// maxSteps bounds how many executions one transaction holds back or parks, so
// that the writer's turn comes round for others.
const maxSteps = 100

// claim is Claim in a transaction. It answers again when it has not come to an
// end.
func (tx *tx) claim(node agented.NodeID, limit int, now time.Time, ttl time.Duration) (_ *agented.Execution, again bool, _ error) {
	if err := tx.giveUp(now); err != nil {
		return nil, false, err
	}
	var busy int
	err := tx.row(`SELECT COUNT(*) FROM execution WHERE lease_owner = $1`, node).Scan(&busy)
	if err != nil {
		return nil, false, err
	}
	if busy >= limit {
		return nil, false, tx.markWaiting(fmt.Sprintf("waits for a free slot: %d of %d executions are running", busy, limit), now)
	}
	var scene *agented.Scene // of this transaction, once somebody needs it
	for range maxSteps {
		c, err := tx.front(now)
		if err != nil || c == nil {
			return nil, false, err
		}
		if c.trigger != "" && c.most > 0 && c.running >= c.most {
			if err := tx.hold(c.id, c.most); err != nil {
				return nil, false, err
			}
			continue
		}
		if waits, err := tx.waitForBudget(c, now); err != nil {
			return nil, false, err
		} else if waits {
			continue
		}
		p := agented.Picked{OK: true, Choice: agented.Choice{Backend: c.backend}}
		if c.lane != "" {
			if scene == nil {
				s, err := tx.scene(now)
				if err != nil {
					return nil, false, err
				}
				scene = &s
			}
			if p, err = tx.pick(c, *scene); err != nil {
				return nil, false, err
			}
		}
		switch {
		case !p.OK && c.probes != "":
			err = tx.cancelPending(c.id, p.Why, "", now)
		case !p.OK:
			err = tx.park(c, p)
		default:
			if err := tx.start(c, p, node, now, now.Add(ttl)); err != nil {
				return nil, false, err
			}
			if err := tx.release(c.trigger, 1); err != nil {
				return nil, false, err
			}
			e, err := load(tx, c.id)
			return e, false, err
		}
		if err != nil {
			return nil, false, err
		}
	}
	return nil, true, nil
}

// start makes a pending execution running and opens its attempt on what was
// picked for it.
func (tx *tx) start(c *candidate, p agented.Picked, node agented.NodeID, now, expires time.Time) error {
	seq, err := tx.change(c.id)
	if err != nil {
		return err
	}
	var account *agented.AccountID
	if p.Account.ID != "" {
		account = &p.Account.ID
		if err := tx.use(c.id, p, now); err != nil {
			return err
		}
	}
	err = tx.exec(`UPDATE execution SET status = 'running', reason = '', due_at = NULL, parked_on = NULL, give_up_at = NULL, account_id = $6, attempt_no = $2,
			lease_owner = $3, lease_token = lease_token + 1, lease_expires_at = $4, event_seq = $5
		WHERE id = $1 AND status = 'pending'`, c.id, c.number+1, node, micros(expires), seq, account)
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO attempt (execution_id, number, backend, account, model, status) VALUES ($1, $2, $3, $4, $5, 'running')`,
		c.id, c.number+1, p.Choice.Backend, p.Account.ID, p.Choice.Model)
}

// hold takes a pending execution out of the queue's front until its trigger has
// room.
func (tx *tx) hold(id agented.ExecutionID, limit int) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE execution SET held_by = trigger_id, due_at = NULL, parked_on = NULL, reason = $2, event_seq = $3 WHERE id = $1`, id, turnReason(limit), seq)
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
		tx.loads = nil
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
	if err := tx.exec(`UPDATE lane SET why = $2, until = NULL WHERE looks_at <= $1 AND why <> $2`, micros(now), reason); err != nil {
		return err
	}
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

// queueQuery looks at the ends of three small indexes.
const queueQuery = `SELECT
	EXISTS (SELECT 1 FROM execution WHERE due_at <= $1)
		OR EXISTS (SELECT 1 FROM lane WHERE looks_at <= $1) OR EXISTS (SELECT 1 FROM execution WHERE give_up_at <= $1),
	(SELECT MIN(due_at) FROM execution WHERE due_at > $1),
	(SELECT MIN(looks_at) FROM lane WHERE looks_at > $1),
	(SELECT MIN(give_up_at) FROM execution WHERE give_up_at > $1)`

// Due reports whether there may be something for Claim to do: a pending execution
// is due, looks again at what it waits for, or gives up. next is the earliest time
// after now at which that comes to be; zero if there is none.
func (db *DB) Due(ctx context.Context, now time.Time) (due bool, next time.Time, err error) {
	var at [3]time.Time
	err = db.hotRow(ctx, queueQuery, micros(now)).Scan(&due, toTime{&at[0]}, toTime{&at[1]}, toTime{&at[2]})
	if err != nil {
		return false, time.Time{}, db.explain("due", err)
	}
	for _, at := range at {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return due, next, nil
}

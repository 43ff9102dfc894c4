package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/policy"
)

// markWindow is how many executions at the front of the queue get the reason
// that they wait for a free slot.
const markWindow = 100

// Claim leases the next due execution to node, opens its next attempt and
// returns it. It returns nil if nothing can be claimed: nothing is due, the
// node already runs limit executions, or the due executions wait for their
// trigger.
//
// The queue stores for each pending execution whether it is held back by its
// trigger's limit. The claim skips held executions, so that a long queue of one
// trigger does not slow the others down. Two rules keep this correct: an
// execution is held only while its trigger runs as many as its limit allows,
// and every event that frees a slot (an end, a cancellation, a claim that did
// not use the last slot) releases the next held one in the same transaction.
//
// Claim takes the writer's turn even if there is nothing to claim: call Due
// first.
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

// maxSteps limits how many executions one transaction holds back or parks, so
// that other writers get their turn.
const maxSteps = 100

// claim is Claim in a transaction. It returns again if it must be repeated.
func (tx *tx) claim(node agented.NodeID, limit int, now time.Time, ttl time.Duration) (_ *agented.Execution, again bool, _ error) {
	if err := tx.failExpired(now); err != nil {
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
	var candidates *policy.Candidates // loaded on first use in this transaction
	for range maxSteps {
		c, err := tx.front(now)
		if err != nil || c == nil {
			return nil, false, err
		}
		if policy.AtLimit(c.trigger, c.most, c.running) {
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
		s := policy.Selection{OK: true, Choice: agented.Choice{Backend: c.backend}}
		if c.queue != "" {
			if candidates == nil {
				all, err := tx.loadCandidates(now)
				if err != nil {
					return nil, false, err
				}
				candidates = &all
			}
			if s, err = tx.pick(c, *candidates); err != nil {
				return nil, false, err
			}
		}
		switch action, reason := policy.ClaimAction(s, c.probes != "", s.NeedsLogin() && tx.failsWithoutLogin(c.id)); action {
		case policy.ActCancel:
			err = tx.cancelPending(c.id, reason, "", now)
		case policy.ActFail:
			err = tx.failPending(c.id, c.trigger, reason, now)
		case policy.ActPark:
			err = tx.park(c, s, now)
		default:
			if err := tx.start(c, s, node, now, now.Add(ttl)); err != nil {
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

// start makes a pending execution running and opens its attempt with the
// selected account.
func (tx *tx) start(c *candidate, p policy.Selection, node agented.NodeID, now, expires time.Time) error {
	seq, err := tx.change(c.id)
	if err != nil {
		return err
	}
	if err := tx.noteUnparked(c.id); err != nil {
		return err
	}
	var account *agented.AccountID
	if p.Account.ID != "" {
		account = &p.Account.ID
		if err := tx.recordUse(c.id, p, now); err != nil {
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

// hold excludes a pending execution from the queue until its trigger has a free
// slot.
func (tx *tx) hold(id agented.ExecutionID, limit int) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE execution SET held_by = trigger_id, due_at = NULL, parked_on = NULL, reason = $2, event_seq = $3 WHERE id = $1`, id, policy.QueueReason(limit), seq)
}

// release returns up to n held executions of a trigger to the queue while the
// trigger has free slots.
func (tx *tx) release(trigger agented.TriggerID, n int) error {
	if trigger == "" {
		return nil
	}
	// Only the first ones are checked: all pending executions of a trigger have
	// the same limit, and reading a long queue at each claim would be slow.
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
		if policy.AtLimit(trigger, f.most, f.running) {
			continue
		}
		tx.loads = nil
		if err := tx.exec(`UPDATE execution SET held_by = NULL, due_at = scheduled_at WHERE id = $1`, f.id); err != nil {
			return err
		}
	}
	return nil
}

// resize applies the trigger's new limit to its pending executions.
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

// markWaiting sets the reason of the first due executions, unless it is already
// set.
func (tx *tx) markWaiting(reason string, now time.Time) error {
	if err := tx.exec(`UPDATE account_queue SET reason = $2, until = NULL WHERE check_at <= $1 AND reason <> $2`, micros(now), reason); err != nil {
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

// queueQuery reads the ends of three small indexes.
const queueQuery = `SELECT
	EXISTS (SELECT 1 FROM execution WHERE due_at <= $1)
		OR EXISTS (SELECT 1 FROM account_queue WHERE check_at <= $1) OR EXISTS (SELECT 1 FROM execution WHERE give_up_at <= $1),
	(SELECT MIN(due_at) FROM execution WHERE due_at > $1),
	(SELECT MIN(check_at) FROM account_queue WHERE check_at > $1),
	(SELECT MIN(give_up_at) FROM execution WHERE give_up_at > $1)`

// Due reports whether Claim may have something to do: a pending execution is
// due, must check again what it waits for, or gives up. next is the earliest
// time after now at which that is the case; zero if there is none.
func (db *DB) Due(ctx context.Context, now time.Time) (due bool, next time.Time, err error) {
	var at [3]time.Time
	err = db.rowPrepared(ctx, queueQuery, micros(now)).Scan(&due, toTime{&at[0]}, toTime{&at[1]}, toTime{&at[2]})
	if err != nil {
		return false, time.Time{}, explain("due", err)
	}
	for _, at := range at {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return due, next, nil
}

const (
	staleQuery = `SELECT id FROM execution WHERE lease_expires_at <= $1`
	// UNION without ALL would make the planner merge two sorted halves, one of
	// them by a scan of the whole history.
	ownQuery = `SELECT id FROM execution WHERE lease_owner = $1
		UNION ALL SELECT id FROM execution WHERE lease_expires_at <= $2 AND lease_owner IS DISTINCT FROM $1`
)

// TakeOver leases every running execution to node that node held before (under
// another process id) or whose lease expired by now. The leases have new
// tokens, so that earlier holders cannot write any more. It returns complete
// executions in order of creation.
func (db *DB) TakeOver(ctx context.Context, node agented.NodeID, now time.Time, ttl time.Duration) ([]*agented.Execution, error) {
	return db.takeOver(ctx, node, now, ttl, ownQuery, node, micros(now))
}

// TakeOverExpired leases every running execution to node whose lease expired by
// expired, regardless of its holder.
func (db *DB) TakeOverExpired(ctx context.Context, node agented.NodeID, expired, now time.Time, ttl time.Duration) ([]*agented.Execution, error) {
	stale, err := db.StaleRunning(ctx, expired)
	if err != nil || len(stale) == 0 {
		return nil, err
	}
	return db.takeOver(ctx, node, now, ttl, staleQuery, micros(expired))
}

func (db *DB) takeOver(ctx context.Context, node agented.NodeID, now time.Time, ttl time.Duration, which string, args ...any) ([]*agented.Execution, error) {
	var out []*agented.Execution
	err := db.write(ctx, "take over", func(tx *tx) error {
		rows, err := tx.query(which, args...)
		ids, err := collect(rows, err, scanID)
		if err != nil {
			return err
		}
		for part := range slices.Chunk(ids, 200) {
			var w where
			set := w.Number(`lease_owner = $?, lease_token = lease_token + 1, lease_expires_at = $?`, node, micros(now.Add(ttl)))
			err := tx.exec(`UPDATE execution SET `+set+`
				WHERE id IN `+in(&w, part), w.Args()...)
			if err != nil {
				return err
			}
		}
		out, err = loadAll(tx, ids)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// RenewLeases extends all leases of node to now plus ttl.
func (db *DB) RenewLeases(ctx context.Context, node agented.NodeID, now time.Time, ttl time.Duration) error {
	return db.write(ctx, "renew leases", func(tx *tx) error {
		return tx.exec(`UPDATE execution SET lease_expires_at = $2 WHERE lease_owner = $1`, node, micros(now.Add(ttl)))
	})
}

// StaleRunning returns the running executions whose lease expired by olderThan,
// without changing them.
func (db *DB) StaleRunning(ctx context.Context, olderThan time.Time) ([]*agented.Execution, error) {
	var out []*agented.Execution
	err := db.read(ctx, "stale executions", func(r *reader) error {
		rows, err := r.query(staleQuery, micros(olderThan))
		ids, err := collect(rows, err, scanID)
		if err != nil {
			return err
		}
		out, err = loadAll(r, ids)
		return err
	})
	return out, err
}

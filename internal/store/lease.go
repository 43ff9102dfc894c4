package store

import (
	"context"
	"slices"
	"time"

	"github.com/agented/agented"
)

const (
	staleQuery = `SELECT id FROM execution WHERE lease_expires_at <= $1`
	// UNION without ALL has the planner merge two sorted halves, one of them by a
	// walk through the whole history.
	ownQuery = `SELECT id FROM execution WHERE lease_owner = $1
		UNION ALL SELECT id FROM execution WHERE lease_expires_at <= $2 AND lease_owner IS DISTINCT FROM $1`
)

// TakeOver leases every running execution to node that node held before (when
// it ran under another process id) or whose lease ran out by now. The leases
// have new tokens: whoever held the old ones can write no more. The executions
// are complete, in the order of their creation.
func (db *DB) TakeOver(ctx context.Context, node agented.NodeID, now time.Time, ttl time.Duration) ([]*agented.Execution, error) {
	return db.takeOver(ctx, node, now, ttl, ownQuery, node, micros(now))
}

// TakeOverExpired leases every running execution to node whose lease ran out by
// expired, whoever held it.
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
			w := where{args: []any{node, micros(now.Add(ttl))}}
			err := tx.exec(`UPDATE execution SET lease_owner = $1, lease_token = lease_token + 1, lease_expires_at = $2
				WHERE id IN `+in(&w, part), w.args...)
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

// RenewLeases moves the end of all leases that node holds to now and ttl.
func (db *DB) RenewLeases(ctx context.Context, node agented.NodeID, now time.Time, ttl time.Duration) error {
	return db.write(ctx, "renew leases", func(tx *tx) error {
		return tx.exec(`UPDATE execution SET lease_expires_at = $2 WHERE lease_owner = $1`, node, micros(now.Add(ttl)))
	})
}

// StaleRunning returns the running executions whose lease ran out by olderThan,
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

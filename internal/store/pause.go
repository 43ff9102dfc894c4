package store

import (
	"context"

	"github.com/agented/agented"
)

// Paused writes down that a running execution stands still, or anew why. A
// lease that is not the execution's any more is a Conflict.
func (db *DB) Paused(ctx context.Context, id agented.ExecutionID, lease agented.Lease, p agented.Pause) error {
	return db.write(ctx, "paused", func(tx *tx) error {
		if err := tx.leased(id, lease); err != nil {
			return err
		}
		err := tx.exec(`INSERT INTO pause (execution_id, paused_at, paused_until, reason, paused_by, question, spent_usd, limit_usd)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (execution_id) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason, paused_by = excluded.paused_by,
				question = excluded.question, spent_usd = excluded.spent_usd, limit_usd = excluded.limit_usd`,
			id, micros(p.At), micros(p.Until), clip(p.Reason, maxSentence), p.By, p.Question, p.SpentUSD, p.LimitUSD)
		if err != nil {
			return err
		}
		return tx.touch(id)
	})
}

// Continued writes down that an execution goes on.
func (db *DB) Continued(ctx context.Context, id agented.ExecutionID) error {
	return db.write(ctx, "continued", func(tx *tx) error {
		n, err := tx.affected(`DELETE FROM pause WHERE execution_id = $1`, id)
		if err != nil || n == 0 {
			return err
		}
		return tx.touch(id)
	})
}

// RaiseCeiling sets the ceiling of an execution's cost in USD; 0 is none.
func (db *DB) RaiseCeiling(ctx context.Context, id agented.ExecutionID, usd float64) error {
	return db.write(ctx, "raise ceiling", func(tx *tx) error {
		err := tx.exec(`INSERT INTO ceiling (execution_id, usd) VALUES ($1, $2) ON CONFLICT (execution_id) DO UPDATE SET usd = excluded.usd`, id, usd)
		if err != nil {
			return err
		}
		return tx.touch(id)
	})
}

// PausedCount is how many executions stand still.
func (db *DB) PausedCount(ctx context.Context) (n int64, err error) {
	err = db.r.QueryRowContext(ctx, `SELECT COUNT(*) FROM pause`).Scan(&n)
	return n, db.explain("paused executions", err)
}

// Ceiling is the ceiling of an execution's cost if it was set while it ran.
func (db *DB) Ceiling(ctx context.Context, id agented.ExecutionID) (usd float64, set bool, err error) {
	err = db.r.QueryRowContext(ctx, `SELECT usd FROM ceiling WHERE execution_id = $1`, id).Scan(&usd)
	if missing(err) {
		return 0, false, nil
	}
	return usd, err == nil, db.explain("ceiling", err)
}

// loadMoney fills in what stands still and which costs were worked out from a
// list of prices.
func loadMoney(q querier, list []agented.Execution) error {
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
			FROM pause WHERE execution_id IN `+in(&w, running), w.args...)
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
		rows, err := q.query(`SELECT execution_id, attempt FROM spending WHERE execution_id IN `+in(&w, spent)+` AND estimated`, w.args...)
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

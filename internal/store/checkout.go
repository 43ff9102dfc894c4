package store

import (
	"context"
	"encoding/json"

	"github.com/agented/agented"
)

// NoteCheckout records the checkout of a running execution. It returns Conflict
// if the lease is not the execution's current one.
func (db *DB) NoteCheckout(ctx context.Context, id agented.ExecutionID, lease agented.Lease, c agented.Checkout) error {
	return db.write(ctx, "record checkout", func(tx *tx) error {
		if err := tx.leased(id, lease); err != nil {
			return err
		}
		var same bool
		err := tx.row(`SELECT EXISTS (SELECT 1 FROM checkout WHERE execution_id = $1 AND commit_id = $2)`, id, c.Commit).Scan(&same)
		if err != nil || same {
			return err
		}
		err = tx.exec(`INSERT INTO checkout (execution_id, repository, ref, commit_id, made_at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (execution_id) DO UPDATE SET repository = excluded.repository, ref = excluded.ref, commit_id = excluded.commit_id, made_at = excluded.made_at`,
			id, c.Repository, c.Ref, c.Commit, micros(c.At))
		if err != nil {
			return err
		}
		return tx.touch(id)
	})
}

// SetPrompt replaces the prompt of a running execution after values of the
// checkout were filled in.
func (db *DB) SetPrompt(ctx context.Context, id agented.ExecutionID, lease agented.Lease, prompt string) error {
	return db.write(ctx, "set prompt", func(tx *tx) error {
		if err := tx.leased(id, lease); err != nil {
			return err
		}
		return tx.exec(`UPDATE execution_text SET prompt = $2 WHERE execution_id = $1`, id, prompt)
	})
}

// leased checks that the execution is running under the lease.
func (tx *tx) leased(id agented.ExecutionID, lease agented.Lease) error {
	var state agented.State
	var token int64
	err := tx.row(`SELECT status, lease_token FROM execution WHERE id = $1`, id).Scan(&state, &token)
	switch {
	case missing(err):
		return noExecution(id)
	case err != nil:
		return err
	case state != agented.StateRunning:
		return agented.Errorf(agented.Conflict, "%s is %s, not running", id, state)
	case token != lease.Token:
		return agented.Errorf(agented.Conflict, "%s has a newer lease: another server runs it", id)
	}
	return nil
}

// touch reports a change that is not in the execution's own row.
func (tx *tx) touch(id agented.ExecutionID) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	return tx.exec(`UPDATE execution SET event_seq = $2 WHERE id = $1`, id, seq)
}

// loadCheckouts loads the checkouts of executions.
func loadCheckouts(q querier, place map[agented.ExecutionID]*agented.Execution, ids []agented.ExecutionID) error {
	type row struct {
		id agented.ExecutionID
		c  agented.Checkout
	}
	var w where
	rows, err := q.query(`SELECT execution_id, repository, ref, commit_id, made_at FROM checkout WHERE execution_id IN `+in(&w, ids), w.Args()...)
	found, err := collect(rows, err, func(r *row, scan func(...any) error) error {
		return scan(&r.id, &r.c.Repository, &r.c.Ref, &r.c.Commit, toTime{&r.c.At})
	})
	if err != nil {
		return err
	}
	for _, r := range found {
		place[r.id].Checkout = &r.c
	}
	return nil
}

// ResumesIn returns the executions whose folders are in use by another execution
// that has not ended, or by an open conversation.
func (db *DB) ResumesIn(ctx context.Context) (map[agented.ExecutionID]bool, error) {
	out := map[agented.ExecutionID]bool{}
	err := db.read(ctx, "executions in use as a session folder", func(r *reader) error {
		rows, err := r.query(`SELECT t.snapshot FROM execution e JOIN execution_text t ON t.execution_id = e.id
			WHERE e.status IN ('pending', 'running') AND t.snapshot LIKE '%"resume":{%'`)
		list, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
		if err != nil {
			return err
		}
		for _, text := range list {
			var s agented.Spec
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return err
			}
			if s.Resume != nil {
				out[s.Resume.Execution] = true
			}
		}
		rows, err = r.query(`SELECT resume FROM conversation WHERE resume <> '' AND state <> $1`, agented.ConversationClosed)
		list, err = collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
		if err != nil {
			return err
		}
		for _, text := range list {
			var p agented.ResumePoint
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				return err
			}
			out[p.Execution] = true
		}
		return nil
	})
	return out, err
}

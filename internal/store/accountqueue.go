package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/policy"
)

// accountQueueOf returns the account queue for a fallback chain; "" needs no account.
func accountQueueOf(chain []agented.Choice) string {
	if len(chain) == 0 || chain[0].Backend == agented.BackendCommand {
		return ""
	}
	text, _ := json.Marshal(chain) // strings always marshal
	return string(text)
}

// ownQueue marks an execution whose own env contains its credentials: its next
// attempt needs no account.
const ownQueue = "own:"

// executionQueue returns the account queue of an admitted execution.
func executionQueue(e *agented.Execution) string {
	queue := accountQueueOf(chainOf(e))
	spec := e.Snapshot
	spec.Backend = e.Backend
	if queue != "" && e.ProbeAccount == "" && spec.OwnCredentials() != "" {
		return ownQueue + queue
	}
	return queue
}

// chainOf returns the fallback chain of an execution.
func chainOf(e *agented.Execution) []agented.Choice {
	chain := e.Snapshot.Chain()
	chain[0].Backend = e.Backend // a snapshot may lack it
	return chain
}

// candidate is an execution that the claim considers.
type candidate struct {
	id            agented.ExecutionID
	trigger       agented.TriggerID
	backend       string
	queue         string
	probes        agented.AccountID
	number        int // number of its latest attempt
	most, running int // limit and running executions of its trigger
	scheduled     time.Time
	admitted      int64
	parked        bool
}

const candidateColumns = `e.id, e.trigger_id, e.backend, e.account_queue, e.probe_account, e.attempt_no, e.max_concurrent,
	(SELECT COUNT(*) FROM execution o WHERE o.trigger_id = e.trigger_id AND o.status = 'running'), e.scheduled_at, e.admit_no, e.parked_on IS NOT NULL`

func scanCandidate(c *candidate, scan func(...any) error) error {
	err := scan(&c.id, &c.trigger, &c.backend, &c.queue, &c.probes, &c.number, &c.most, &c.running, toTime{&c.scheduled}, &c.admitted, &c.parked)
	if c.queue == "" && c.backend != agented.BackendCommand {
		c.queue = accountQueueOf([]agented.Choice{{Backend: c.backend}}) // it was admitted by a version without account queues
	}
	return err
}

// before orders candidates by waiting time, longest first.
func (c *candidate) before(o *candidate) bool {
	if n := c.scheduled.Compare(o.scheduled); n != 0 {
		return n < 0
	}
	return c.admitted < o.admitted
}

// front returns the next execution to consider: the first of the queue and of
// the account queues that are due for a check; nil if there is none.
func (tx *tx) front(now time.Time) (*candidate, error) {
	var best *candidate
	var c candidate
	err := scanCandidate(&c, tx.row(`SELECT `+candidateColumns+` FROM execution e WHERE e.due_at <= $1 ORDER BY e.due_at, e.admit_no LIMIT 1`, micros(now)).Scan)
	switch {
	case err == nil:
		best = &c
	case !missing(err):
		return nil, err
	}
	rows, err := tx.query(`SELECT key FROM account_queue WHERE check_at <= $1`, micros(now))
	keys, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var c candidate
		err := scanCandidate(&c, tx.row(`SELECT `+candidateColumns+` FROM execution e WHERE e.parked_on = $1 ORDER BY e.scheduled_at, e.admit_no LIMIT 1`, key).Scan)
		switch {
		case missing(err): // no execution waits in the account queue any more
			if err := tx.exec(`DELETE FROM account_queue WHERE key = $1`, key); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		case best == nil || c.before(best):
			best = &c
		}
	}
	return best, nil
}

// pick selects the account for a candidate's next attempt.
func (tx *tx) pick(c *candidate, candidates policy.Candidates) (policy.Selection, error) {
	if c.probes != "" {
		a, err := tx.account(c.probes)
		if err != nil {
			a = nil
		}
		return policy.SelectProbed(a), nil
	}
	own := strings.HasPrefix(c.queue, ownQueue)
	var chain []agented.Choice
	if err := json.Unmarshal([]byte(strings.TrimPrefix(c.queue, ownQueue)), &chain); err != nil {
		return policy.Selection{}, fmt.Errorf("%s: its fallback chain: %w", c.id, err)
	}
	if own && len(chain) > 0 {
		return policy.SelectOwn(chain), nil
	}
	if c.number > 0 {
		// A session resumes only with an account that has access to it.
		var home agented.Home
		err := tx.row(`SELECT a.backend, a.config FROM attempt t JOIN account a ON a.id = t.account
			WHERE t.execution_id = $1 AND t.session_id <> '' AND NOT t.session_gone ORDER BY t.number DESC LIMIT 1`, c.id).Scan(&home.Backend, &home.Config)
		if err == nil {
			candidates.Session = &home
		} else if !missing(err) {
			return policy.Selection{}, err
		}
	}
	s := policy.SelectAccount(chain, candidates)
	if s.OK && s.Choice.Account == "" {
		s.Choice.Account = s.Account.ID
	}
	return s, nil
}

// park makes a pending execution wait in its account queue for the reason in p.
func (tx *tx) park(c *candidate, p policy.Selection, now time.Time) error {
	if !c.parked {
		seq, err := tx.change(c.id)
		if err != nil {
			return err
		}
		err = tx.exec(`UPDATE execution SET parked_on = $2, account_queue = $2, due_at = NULL, event_seq = $3,
			reason = CASE WHEN attempt_no = 0 THEN '' ELSE reason END WHERE id = $1`, c.id, c.queue, seq)
		if err != nil {
			return err
		}
		if err := tx.noteParked(c.id, now); err != nil {
			return err
		}
	}
	if err := tx.parkQueue(c.queue, p); err != nil {
		return err
	}
	return tx.releaseOther(c.trigger, c.queue)
}

// parkQueue records what an account queue waits for, and reports the change for its first
// executions.
func (tx *tx) parkQueue(queue string, p policy.Selection) error {
	until := p.At
	if p.EndUnknown {
		until = time.Time{}
	}
	var reason string
	var was time.Time
	err := tx.row(`SELECT reason, until FROM account_queue WHERE key = $1`, queue).Scan(&reason, toTime{&was})
	if err != nil && !missing(err) {
		return err
	}
	first := missing(err)
	err = tx.exec(`INSERT INTO account_queue (key, check_at, until, reason, waits_for_slot) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (key) DO UPDATE SET check_at = excluded.check_at, until = excluded.until, reason = excluded.reason, waits_for_slot = excluded.waits_for_slot`,
		queue, micros(p.At), micros(until), format.Truncate(p.Reason, maxSentence), p.WaitsForSlot)
	if err != nil || first || reason == p.Reason && was.Equal(until) {
		return err
	}
	rows, err := tx.query(`SELECT id FROM execution WHERE parked_on = $1 ORDER BY scheduled_at, admit_no LIMIT $2`, queue, markWindow)
	ids, err := collect(rows, err, scanID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		seq, err := tx.change(id)
		if err != nil {
			return err
		}
		if err := tx.exec(`UPDATE execution SET event_seq = $2 WHERE id = $1`, id, seq); err != nil {
			return err
		}
	}
	return nil
}

// wakeAccountQueues makes the first execution of every account queue due for a check.
func (tx *tx) wakeAccountQueues(now time.Time) error {
	return tx.exec(`UPDATE account_queue SET check_at = $1 WHERE check_at IS NULL OR check_at > $1`, micros(now))
}

// wakeWaitingForSlot makes account queues due that wait for a slot which the end of an attempt may
// have released.
func (tx *tx) wakeWaitingForSlot(now time.Time) error {
	return tx.exec(`UPDATE account_queue SET check_at = $1 WHERE waits_for_slot AND (check_at IS NULL OR check_at > $1)`, micros(now))
}

// releaseOther returns the first held execution of a trigger to the queue when
// another one of the trigger has been parked, unless it would wait in the same
// account queue.
func (tx *tx) releaseOther(trigger agented.TriggerID, queue string) error {
	if trigger == "" {
		return nil
	}
	var held string
	err := tx.row(`SELECT account_queue FROM execution WHERE held_by = $1 ORDER BY scheduled_at, admit_no LIMIT 1`, trigger).Scan(&held)
	if missing(err) || err == nil && held == queue {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.release(trigger, 1)
}

// failExpired ends executions whose deadline for another attempt has passed.
func (tx *tx) failExpired(now time.Time) error {
	rows, err := tx.query(`SELECT id FROM execution WHERE give_up_at <= $1 LIMIT $2`, micros(now), markWindow)
	ids, err := collect(rows, err, scanID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		list, err := loadBrief(tx, []agented.ExecutionID{id})
		if err != nil {
			return err
		}
		e := &list[0]
		reason := e.Reason + "; gave up: the deadline for another attempt has passed"
		if err := tx.failPending(id, e.Trigger, reason, now); err != nil {
			return err
		}
	}
	return nil
}

// failPending makes a pending execution failed.
func (tx *tx) failPending(id agented.ExecutionID, trigger agented.TriggerID, reason string, now time.Time) error {
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	err = tx.exec(`UPDATE execution SET status = 'failed', reason = $2, error = $2, due_at = NULL, held_by = NULL, parked_on = NULL, give_up_at = NULL,
		finished_at = $3, cleanup_due_at = $3, event_seq = $4 WHERE id = $1 AND status = 'pending'`, id, format.Truncate(reason, maxSentence), micros(now), seq)
	if err != nil {
		return err
	}
	if err := tx.count(agented.StateFailed, 1); err != nil {
		return err
	}
	if err := tx.notifyEnd(id, agented.StateFailed, "", reason, now); err != nil {
		return err
	}
	return tx.release(trigger, 1)
}

// failsWithoutLogin reports whether an execution fails instead of waiting for a
// login.
func (tx *tx) failsWithoutLogin(id agented.ExecutionID) bool {
	var text []byte
	var spec agented.Spec
	err := tx.row(`SELECT snapshot FROM execution_text WHERE execution_id = $1`, id).Scan(&text)
	return err == nil && json.Unmarshal(text, &spec) == nil && spec.NeedsLogin
}

package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// laneOf is the lane of what may run on these choices; "" needs no account.
func laneOf(chain []agented.Choice) string {
	if len(chain) == 0 || chain[0].Backend == agented.BackendCommand {
		return ""
	}
	text, _ := json.Marshal(chain) // strings always marshal
	return string(text)
}

// chainOf is what an execution may run on.
func chainOf(e *agented.Execution) []agented.Choice {
	chain := e.Snapshot.Chain()
	chain[0].Backend = e.Backend // a snapshot may be bare
	return chain
}

// candidate is an execution that the claim considers.
type candidate struct {
	id            agented.ExecutionID
	trigger       agented.TriggerID
	backend       string
	lane          string
	probes        agented.AccountID
	number        int // of its latest attempt
	most, running int // of its trigger
	scheduled     time.Time
	admitted      int64
	parked        bool
}

const candidateColumns = `e.id, e.trigger_id, e.backend, e.lane, e.probes, e.attempt_no, e.max_concurrent,
	(SELECT COUNT(*) FROM execution o WHERE o.trigger_id = e.trigger_id AND o.status = 'running'), e.scheduled_at, e.admit_no, e.parked_on IS NOT NULL`

func scanCandidate(c *candidate, scan func(...any) error) error {
	err := scan(&c.id, &c.trigger, &c.backend, &c.lane, &c.probes, &c.number, &c.most, &c.running, toTime{&c.scheduled}, &c.admitted, &c.parked)
	if c.lane == "" && c.backend != agented.BackendCommand {
		c.lane = laneOf([]agented.Choice{{Backend: c.backend}}) // it was admitted before there were lanes
	}
	return err
}

// before orders candidates: who has waited longest goes first.
func (c *candidate) before(o *candidate) bool {
	if n := c.scheduled.Compare(o.scheduled); n != 0 {
		return n < 0
	}
	return c.admitted < o.admitted
}

// front returns the next execution to consider: the first of the queue and of
// the lanes whose time to look has come; nil when there is none.
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
	rows, err := tx.query(`SELECT key FROM lane WHERE looks_at <= $1`, micros(now))
	keys, err := collect(rows, err, func(v *string, scan func(...any) error) error { return scan(v) })
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		var c candidate
		err := scanCandidate(&c, tx.row(`SELECT `+candidateColumns+` FROM execution e WHERE e.parked_on = $1 ORDER BY e.scheduled_at, e.admit_no LIMIT 1`, key).Scan)
		switch {
		case missing(err): // nobody waits there any more
			if err := tx.exec(`DELETE FROM lane WHERE key = $1`, key); err != nil {
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

// pick chooses the account for a candidate's next attempt.
func (tx *tx) pick(c *candidate, s agented.Scene) (agented.Picked, error) {
	if c.probes != "" {
		a, err := tx.account(c.probes)
		if err != nil {
			return agented.Picked{Why: "the account that it was to try is gone"}, nil
		}
		return agented.Picked{OK: true, Account: *a, Choice: agented.Choice{Backend: a.Backend, Account: a.ID}, Probe: a.State == agented.AccountCooling}, nil
	}
	var chain []agented.Choice
	if err := json.Unmarshal([]byte(c.lane), &chain); err != nil {
		return agented.Picked{}, fmt.Errorf("%s: its choices: %w", c.id, err)
	}
	if c.number > 0 {
		// A session goes on where an account sees it.
		var home agented.Home
		err := tx.row(`SELECT a.backend, a.config FROM attempt t JOIN account a ON a.id = t.account
			WHERE t.execution_id = $1 AND t.session_id <> '' AND NOT t.session_gone ORDER BY t.number DESC LIMIT 1`, c.id).Scan(&home.Backend, &home.Config)
		if err == nil {
			s.Session = &home
		} else if !missing(err) {
			return agented.Picked{}, err
		}
	}
	p := agented.Pick(chain, s)
	if p.OK && p.Choice.Account == "" {
		p.Choice.Account = p.Account.ID
	}
	return p, nil
}

// park lets a pending execution wait in its lane for what p says.
func (tx *tx) park(c *candidate, p agented.Picked) error {
	if !c.parked {
		seq, err := tx.change(c.id)
		if err != nil {
			return err
		}
		err = tx.exec(`UPDATE execution SET parked_on = $2, lane = $2, due_at = NULL, event_seq = $3,
			reason = CASE WHEN attempt_no = 0 THEN '' ELSE reason END WHERE id = $1`, c.id, c.lane, seq)
		if err != nil {
			return err
		}
	}
	if err := tx.sleep(c.lane, p); err != nil {
		return err
	}
	return tx.releaseOther(c.trigger, c.lane)
}

// sleep notes what a lane waits for, and tells of the change those in front.
func (tx *tx) sleep(lane string, p agented.Picked) error {
	until := p.At
	if p.Guess {
		until = time.Time{}
	}
	var why string
	var was time.Time
	err := tx.row(`SELECT why, until FROM lane WHERE key = $1`, lane).Scan(&why, toTime{&was})
	if err != nil && !missing(err) {
		return err
	}
	first := missing(err)
	err = tx.exec(`INSERT INTO lane (key, looks_at, until, why, room) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (key) DO UPDATE SET looks_at = excluded.looks_at, until = excluded.until, why = excluded.why, room = excluded.room`,
		lane, micros(p.At), micros(until), clip(p.Why, maxSentence), p.Room)
	if err != nil || first || why == p.Why && was.Equal(until) {
		return err
	}
	rows, err := tx.query(`SELECT id FROM execution WHERE parked_on = $1 ORDER BY scheduled_at, admit_no LIMIT $2`, lane, markWindow)
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

// wakeLanes lets the first one of every lane look again.
func (tx *tx) wakeLanes(now time.Time) error {
	return tx.exec(`UPDATE lane SET looks_at = $1 WHERE looks_at IS NULL OR looks_at > $1`, micros(now))
}

// wakeRoom does so where the end of an attempt may have made room.
func (tx *tx) wakeRoom(now time.Time) error {
	return tx.exec(`UPDATE lane SET looks_at = $1 WHERE room AND (looks_at IS NULL OR looks_at > $1)`, micros(now))
}

// releaseOther puts the first held execution of a trigger back into the queue
// when another one of the trigger has been parked, unless it would wait in the
// same lane.
func (tx *tx) releaseOther(trigger agented.TriggerID, lane string) error {
	if trigger == "" {
		return nil
	}
	var held string
	err := tx.row(`SELECT lane FROM execution WHERE held_by = $1 ORDER BY scheduled_at, admit_no LIMIT 1`, trigger).Scan(&held)
	if missing(err) || err == nil && held == lane {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.release(trigger, 1)
}

// giveUp ends executions whose time for another attempt is over.
func (tx *tx) giveUp(now time.Time) error {
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
		reason := e.Reason + "; gave up: no more attempts after so long"
		seq, err := tx.change(id)
		if err != nil {
			return err
		}
		err = tx.exec(`UPDATE execution SET status = 'failed', reason = $2, error = $2, due_at = NULL, held_by = NULL, parked_on = NULL, give_up_at = NULL,
			finished_at = $3, untidied = $3, event_seq = $4 WHERE id = $1 AND status = 'pending'`, id, clip(reason, maxSentence), micros(now), seq)
		if err != nil {
			return err
		}
		if err := tx.count(agented.StateFailed, 1); err != nil {
			return err
		}
		if err := tx.release(e.Trigger, 1); err != nil {
			return err
		}
	}
	return nil
}

// explainWait puts into words what a pending execution waits for.
func explainWait(e *agented.Execution) {
	if e.State != agented.StatePending || e.WaitingOn == "" {
		return
	}
	if e.AttemptNo == 0 {
		e.Reason = e.WaitingOn
		return
	}
	next := "goes on"
	for i := range e.Attempts {
		if a := &e.Attempts[i]; a.SessionID != "" && !a.SessionGone {
			next = "goes on in the same session"
		}
	}
	if e.ParkedUntil.IsZero() {
		e.Reason += "; " + next + " later: " + e.WaitingOn
		return
	}
	e.Reason += "; " + next + " at " + agented.Clock(e.ParkedUntil) + ", or sooner if an account is ready before"
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// Admission asks for an execution to be queued.
type Admission struct {
	Execution      *agented.Execution // a new one; it is not changed
	IdempotencyKey string             // the same key for the same trigger is the same execution; empty: none
	MaxConcurrent  int                // executions of the trigger that may run at once; 0 is no limit
	Overlap        agented.Overlap
	SkipIsConflict bool   // what overlap skip does: refuse, or leave a cancelled execution behind
	Subject        string // what it is about; empty: nothing that others could be about
	Supersede      bool   // end what the trigger has under way about the same subject

	// Claim also claims what is at the front of the queue then, which is this one
	// unless others are due before it: one commit for both. Nil claims nothing.
	Claim *ClaimRequest
}

// ClaimRequest is who claims, see Claim.
type ClaimRequest struct {
	Node  agented.NodeID
	Limit int
	TTL   time.Duration
}

// AdmitResult is what became of an Admission.
type AdmitResult struct {
	Execution *agented.Execution    // as stored
	Repeated  bool                  // the key was seen before: Execution is the first one's
	Replaced  []agented.ExecutionID // running ones that have been asked to stop
	Claimed   *agented.Execution    // what Admission.Claim claimed; nil: nothing
}

// Admit stores an execution as pending, all or nothing. When it returns, the
// execution survives a power cut. Overlap skip answers Conflict or stores a
// cancelled execution; overlap replace cancels what waits of the same trigger
// and asks what runs to stop.
func (db *DB) Admit(ctx context.Context, a Admission, now time.Time) (AdmitResult, error) {
	var got AdmitResult
	var claimErr error
	err := db.write(ctx, "admit", func(tx *tx) (err error) {
		got, err = tx.admit(a, now)
		if err != nil || a.Claim == nil || got.Repeated || got.Execution.State.Final() {
			return err
		}
		if err := tx.tell(); err != nil {
			return err
		}
		got.Claimed, _, claimErr = tx.claim(a.Claim.Node, a.Claim.Limit, now, a.Claim.TTL)
		return claimErr
	})
	if claimErr != nil { // which is nothing that the admission should suffer from
		a.Claim = nil
		return db.Admit(ctx, a, now)
	}
	if err != nil {
		return AdmitResult{}, err
	}
	return got, nil
}

func (tx *tx) admit(a Admission, now time.Time) (AdmitResult, error) {
	if a.IdempotencyKey != "" {
		first, err := tx.repeated(a.Execution.Trigger, a.IdempotencyKey)
		if first != nil || err != nil {
			return AdmitResult{Execution: first, Repeated: true}, err
		}
	}
	e, replaced, err := tx.place(a, now)
	if err != nil {
		return AdmitResult{}, err
	}
	stored, err := load(tx, e.ID)
	return AdmitResult{Execution: stored, Replaced: replaced}, err
}

// place stores a new execution where the trigger's limit and the overlap rule
// want it: in the queue, held back, or skipped and with that final.
func (tx *tx) place(a Admission, now time.Time) (agented.Execution, []agented.ExecutionID, error) {
	e := *a.Execution
	e.State = agented.StatePending
	if e.CreatedAt.IsZero() {
		e.CreatedAt = now
	}
	if e.ScheduledAt.IsZero() {
		e.ScheduledAt = e.CreatedAt
	}
	if e.Chain.ID == "" {
		e.Chain = agented.Chain{}
	}
	limit := a.MaxConcurrent
	held := false
	var replaced []agented.ExecutionID
	if e.Trigger == "" {
		limit = 0
	} else {
		if a.Supersede && a.Subject != "" {
			n, running, err := tx.supersede(&e, a.Subject, now)
			if err != nil {
				return e, nil, err
			}
			if replaced = running; n > 0 && a.Overlap == agented.OverlapSkip {
				a.Overlap = agented.OverlapQueue // else the newest would be the one that does not run
			}
		}
		load, err := tx.loadOf(e.Trigger)
		if err != nil {
			return e, nil, err
		}
		switch {
		case a.Overlap == agented.OverlapSkip && load.first != "":
			if a.SkipIsConflict {
				return e, nil, agented.Errorf(agented.Conflict,
					"%s of this trigger has not ended, and its overlap rule is skip: wait for it, or cancel it first", load.first)
			}
			e.State = agented.StateCancelled
			e.Reason = fmt.Sprintf("skipped: %s of this trigger had not ended", load.first)
			e.FinishedAt = now
		case a.Overlap == agented.OverlapReplace && load.first != "":
			if replaced, err = tx.replace(&e, now); err != nil {
				return e, nil, err
			}
			load.held = false
		}
		// One that is due later must not stand in the way of those that are
		// due before: the claim holds it back when its time comes.
		due := !e.ScheduledAt.After(now)
		if e.State == agented.StatePending && due && limit > 0 && (load.running >= limit || load.held) {
			held = true
			e.Reason = turnReason(limit)
		}
	}
	subject, err := tx.subjectOf(&e, a.Subject)
	if err != nil {
		return e, nil, err
	}
	if err := tx.insert(&e, subject, limit, held); err != nil {
		return e, nil, err
	}
	if a.IdempotencyKey != "" {
		err := tx.exec(`INSERT INTO idempotency (scope, key, execution_id) VALUES ($1, $2, $3)`, e.Trigger, a.IdempotencyKey, e.ID)
		if err != nil {
			return e, nil, err
		}
	}
	return e, replaced, nil
}

// turnReason is why an execution waits behind others of its trigger. It names
// no number of others, which would be wrong as soon as one of them ends.
func turnReason(limit int) string {
	if limit == 1 {
		return "waits for earlier executions of this trigger: it runs one at a time"
	}
	return fmt.Sprintf("waits for earlier executions of this trigger: it runs at most %d at a time", limit)
}

// repeated returns the execution that the key made, nil if the key is new.
func (tx *tx) repeated(scope agented.TriggerID, key string) (*agented.Execution, error) {
	var id agented.ExecutionID
	err := tx.row(`SELECT execution_id FROM idempotency WHERE scope = $1 AND key = $2`, scope, key).Scan(&id)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return load(tx, id)
}

// triggerLoad is what a trigger has under way.
type triggerLoad struct {
	first   agented.ExecutionID // the earliest that has not ended
	running int
	held    bool // some wait behind the trigger's limit
}

// loadOf looks up what a trigger has under way; many executions that one
// transaction places ask but once.
func (tx *tx) loadOf(id agented.TriggerID) (triggerLoad, error) {
	if l := tx.loads[id]; l != nil {
		return *l, nil
	}
	var l triggerLoad
	// The limit keeps this from reading a long queue.
	err := tx.row(`SELECT
		COALESCE((SELECT id FROM execution WHERE trigger_id = $1 AND status = 'running' ORDER BY created_at, id LIMIT 1),
			(SELECT id FROM execution WHERE trigger_id = $1 AND status = 'pending' ORDER BY created_at, id LIMIT 1), ''),
		(SELECT COUNT(*) FROM execution WHERE trigger_id = $1 AND status = 'running'),
		EXISTS (SELECT 1 FROM execution WHERE held_by = $1)`, id).Scan(&l.first, &l.running, &l.held)
	if err != nil {
		return l, err
	}
	if tx.loads == nil {
		tx.loads = map[agented.TriggerID]*triggerLoad{}
	}
	tx.loads[id] = &l
	return l, nil
}

// insert writes a new execution.
func (tx *tx) insert(e *agented.Execution, subject string, limit int, held bool) error {
	var due time.Time
	var heldBy *agented.TriggerID
	switch {
	case held:
		heldBy = &e.Trigger
	case e.State == agented.StatePending:
		due = e.ScheduledAt
	}
	seq, err := tx.nextSeq(e.ID)
	if err != nil {
		return err
	}
	err = tx.exec(`INSERT INTO execution (id, trigger_id, trigger_name, name_key, backend, status, reason, source, actor, retry_of,
			event_seq, admit_no, max_concurrent, due_at, held_by, created_at, scheduled_at, finished_at, untidied, cause, lane, probes,
			subject, chain_id, chain_depth, chain_parent)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13, $14, $15, $16, $17, $17, $18, $19, $20, $21, $22, $23, $24)`,
		e.ID, e.Trigger, e.TriggerName, fold(e.TriggerName), e.Backend, e.State, clip(e.Reason, maxSentence), e.Source, e.Actor, e.RetryOf,
		seq, limit, micros(due), heldBy, micros(e.CreatedAt), micros(e.ScheduledAt), micros(e.FinishedAt), causeText(e.Cause), laneOf(chainOf(e)), e.Probes,
		subject, e.Chain.ID, e.Chain.Depth, e.Chain.Parent)
	if duplicate(err) {
		return agented.Errorf(agented.Conflict, "there is already an execution %s", e.ID).Because(err)
	}
	if err != nil {
		return err
	}
	snapshot, err := json.Marshal(e.Snapshot)
	if err != nil {
		return err
	}
	err = tx.exec(`INSERT INTO execution_text (execution_id, snapshot, prompt) VALUES ($1, $2, $3)`, e.ID, string(snapshot), e.Prompt)
	if err == nil && e.State.Final() {
		err = tx.count(e.State, 1)
	}
	if err != nil {
		return err
	}
	if l := tx.loads[e.Trigger]; l != nil && e.State == agented.StatePending {
		l.held = l.held || held
		if l.first == "" {
			l.first = e.ID
		}
	}
	if tx.db.onChange != nil {
		if tx.fresh == nil {
			tx.fresh = map[agented.ExecutionID]*agented.Execution{}
		}
		tx.fresh[e.ID] = inserted(e, seq)
	}
	return nil
}

// inserted is a new execution as loadBrief finds it in the database.
func inserted(e *agented.Execution, seq int64) *agented.Execution {
	out := &agented.Execution{
		ID: e.ID, Trigger: e.Trigger, TriggerName: e.TriggerName, Backend: e.Backend, State: e.State, Reason: clip(e.Reason, maxSentence),
		Source: e.Source, Actor: e.Actor, RetryOf: e.RetryOf, Probes: e.Probes, Chain: e.Chain, EventSeq: seq,
		CreatedAt: stored(e.CreatedAt), ScheduledAt: stored(e.ScheduledAt), FinishedAt: stored(e.FinishedAt),
	}
	if e.Cause != nil {
		cause := *e.Cause
		out.Cause = &cause
	}
	return out
}

// replace ends what the trigger has under way in favour of e and returns what
// runs and has been asked to stop.
func (tx *tx) replace(e *agented.Execution, now time.Time) ([]agented.ExecutionID, error) {
	pending, err := tx.pendingOf(e.Trigger)
	if err != nil {
		return nil, err
	}
	for _, id := range pending {
		if err := tx.cancelPending(id, "replaced by "+string(e.ID), "", now); err != nil {
			return nil, err
		}
	}
	rows, err := tx.query(`SELECT id FROM execution WHERE trigger_id = $1 AND status = 'running' ORDER BY created_at, id`, e.Trigger)
	running, err := collect(rows, err, scanID)
	if err != nil {
		return nil, err
	}
	for _, id := range running {
		if err := tx.askCancel(id, "is being stopped: replaced by "+string(e.ID), "the overlap rule of its trigger, in favour of "+string(e.ID)); err != nil {
			return nil, err
		}
	}
	return running, nil
}

// pendingOf lists what waits of a trigger.
func (tx *tx) pendingOf(id agented.TriggerID) ([]agented.ExecutionID, error) {
	rows, err := tx.query(`SELECT id FROM execution WHERE trigger_id = $1 AND status = 'pending' ORDER BY created_at, id`, id)
	return collect(rows, err, scanID)
}

// Repeated returns the execution that an idempotency key made, nil if the key
// is new. Admit asks for itself; this is for whoever refuses before it.
func (db *DB) Repeated(ctx context.Context, scope agented.TriggerID, key string) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.read(ctx, "idempotency key", func(r *reader) error {
		var id agented.ExecutionID
		err := r.row(`SELECT execution_id FROM idempotency WHERE scope = $1 AND key = $2`, scope, key).Scan(&id)
		if missing(err) {
			return nil
		}
		if err == nil {
			e, err = load(r, id)
		}
		return err
	})
	return e, err
}

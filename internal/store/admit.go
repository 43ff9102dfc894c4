package store

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/policy"
)

// Admission is a request to queue an execution.
type Admission struct {
	Execution      *agented.Execution // a new one; it is not modified
	IdempotencyKey string             // the same key for the same trigger returns the same execution; empty: none
	KeyDigest      string             // digest of the request, which must be equal for a repeated key; empty: unknown
	MaxConcurrent  int                // concurrent executions of the trigger; 0 means no limit
	Overlap        agented.Overlap
	SkipIsConflict bool   // effect of overlap skip: Conflict, or a cancelled execution
	Subject        string // what it is about, for supersede; empty: nothing that others could be about
	Refusal        string // why it cannot run: it is stored as failed with this reason; empty: it can
	Supersede      bool   // end the trigger's pending and running executions about the same subject

	// Claim also claims the first execution of the queue, usually this one, in
	// the same commit. Nil claims nothing.
	Claim *ClaimRequest
}

// ClaimRequest are the arguments of Claim.
type ClaimRequest struct {
	Node  agented.NodeID
	Limit int
	TTL   time.Duration
}

// AdmitResult is the result of an Admission.
type AdmitResult struct {
	Execution *agented.Execution    // as stored
	Repeated  bool                  // the key was already used: Execution is the first one
	Replaced  []agented.ExecutionID // running executions that were requested to stop
	Claimed   *agented.Execution    // execution that Admission.Claim claimed; nil: none
}

// Admit atomically stores a pending execution. When it returns, the execution
// is durable. Overlap skip returns Conflict or stores a cancelled execution;
// overlap replace cancels the trigger's pending executions and requests its
// running ones to stop.
func (db *DB) Admit(ctx context.Context, a Admission, now time.Time) (AdmitResult, error) {
	var got AdmitResult
	var claimErr error
	err := db.write(ctx, "admit", func(tx *tx) (err error) {
		got, err = tx.admit(a, now)
		if err != nil || a.Claim == nil || got.Repeated || got.Execution.State.Final() {
			return err
		}
		if err := tx.collectEvents(); err != nil {
			return err
		}
		got.Claimed, _, claimErr = tx.claim(a.Claim.Node, a.Claim.Limit, now, a.Claim.TTL)
		return claimErr
	})
	if claimErr != nil { // the admission succeeds even if the claim fails
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
		first, err := tx.repeated(a.Execution.Trigger, a.IdempotencyKey, a.KeyDigest)
		if first != nil || err != nil {
			return AdmitResult{Execution: first, Repeated: true}, err
		}
	}
	e, replaced, err := tx.enqueue(a, now)
	if err != nil {
		return AdmitResult{}, err
	}
	stored, err := load(tx, e.ID)
	return AdmitResult{Execution: stored, Replaced: replaced}, err
}

// enqueue stores a new execution according to the trigger's limit and overlap
// rule: queued, held back, or skipped and therefore final.
func (tx *tx) enqueue(a Admission, now time.Time) (agented.Execution, []agented.ExecutionID, error) {
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
	switch {
	case a.Refusal != "":
		limit = 0
		e.State, e.Reason, e.FinishedAt = agented.StateFailed, a.Refusal, now
	case e.Trigger == "":
		limit = 0
	default:
		if a.Supersede && a.Subject != "" {
			n, running, err := tx.supersede(&e, a.Subject, now)
			if err != nil {
				return e, nil, err
			}
			if replaced = running; n > 0 && a.Overlap == agented.OverlapSkip {
				a.Overlap = agented.OverlapQueue // otherwise an execution that will not run would replace the others
			}
		}
		load, err := tx.loadOf(e.Trigger)
		if err != nil {
			return e, nil, err
		}
		to := policy.Arrive(load, limit, a.Overlap, !e.ScheduledAt.After(now))
		held, e.Reason = to.Held, cmp.Or(to.Reason, e.Reason)
		switch {
		case to.Skip && a.SkipIsConflict:
			return e, nil, agented.Errorf(agented.Conflict,
				"%s of this trigger has not ended, and its overlap rule is skip: wait for it, or cancel it first", load.First)
		case to.Skip:
			e.State, e.FinishedAt = agented.StateCancelled, now
		case to.Replace:
			if replaced, err = tx.replace(&e, now); err != nil {
				return e, nil, err
			}
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
		err := tx.exec(`INSERT INTO idempotency (scope, key, execution_id, digest) VALUES ($1, $2, $3, $4)`, e.Trigger, a.IdempotencyKey, e.ID, a.KeyDigest)
		if err != nil {
			return e, nil, err
		}
	}
	return e, replaced, nil
}

// repeated returns the execution created with the key, nil if the key is new.
func (tx *tx) repeated(scope agented.TriggerID, key, digest string) (*agented.Execution, error) {
	var id agented.ExecutionID
	var first string
	err := tx.row(`SELECT execution_id, digest FROM idempotency WHERE scope = $1 AND key = $2`, scope, key).Scan(&id, &first)
	if missing(err) {
		return nil, nil
	}
	if err == nil {
		err = checkSameRequest(first, digest)
	}
	if err != nil {
		return nil, err
	}
	return load(tx, id)
}

// loadOf returns the load of a trigger; it is read once per transaction.
func (tx *tx) loadOf(id agented.TriggerID) (policy.TriggerLoad, error) {
	if l := tx.loads[id]; l != nil {
		return *l, nil
	}
	var l policy.TriggerLoad
	// The limit avoids reading a long queue.
	err := tx.row(`SELECT
		COALESCE((SELECT id FROM execution WHERE trigger_id = $1 AND status = 'running' ORDER BY created_at, id LIMIT 1),
			(SELECT id FROM execution WHERE trigger_id = $1 AND status = 'pending' ORDER BY created_at, id LIMIT 1), ''),
		(SELECT COUNT(*) FROM execution WHERE trigger_id = $1 AND status = 'running'),
		EXISTS (SELECT 1 FROM execution WHERE held_by = $1)`, id).Scan(&l.First, &l.Running, &l.Held)
	if err != nil {
		return l, err
	}
	if tx.loads == nil {
		tx.loads = map[agented.TriggerID]*policy.TriggerLoad{}
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
			event_seq, admit_no, max_concurrent, due_at, held_by, created_at, scheduled_at, finished_at, cleanup_due_at, cause, account_queue, probe_account,
			subject, chain_id, chain_depth, chain_parent)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13, $14, $15, $16, $17, $17, $18, $19, $20, $21, $22, $23, $24)`,
		e.ID, e.Trigger, e.TriggerName, fold(e.TriggerName), e.Backend, e.State, format.Truncate(e.Reason, maxSentence), e.Source, e.Actor, e.RetryOf,
		seq, limit, micros(due), heldBy, micros(e.CreatedAt), micros(e.ScheduledAt), micros(e.FinishedAt), causeText(e.Cause), executionQueue(e), e.ProbeAccount,
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
		l.Held = l.Held || held
		if l.First == "" {
			l.First = e.ID
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

// inserted returns a new execution as loadBrief would load it.
func inserted(e *agented.Execution, seq int64) *agented.Execution {
	out := &agented.Execution{
		ID: e.ID, Trigger: e.Trigger, TriggerName: e.TriggerName, Backend: e.Backend, State: e.State, Reason: format.Truncate(e.Reason, maxSentence),
		Source: e.Source, Actor: e.Actor, RetryOf: e.RetryOf, ProbeAccount: e.ProbeAccount, Chain: e.Chain, EventSeq: seq,
		CreatedAt: stored(e.CreatedAt), ScheduledAt: stored(e.ScheduledAt), FinishedAt: stored(e.FinishedAt),
	}
	if e.Cause != nil {
		cause := *e.Cause
		out.Cause = &cause
	}
	return out
}

// replace ends the trigger's pending and running executions in favour of e, and
// returns the running ones, which were requested to stop.
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
		if err := tx.requestCancel(id, "is being stopped: replaced by "+string(e.ID), "the overlap rule of its trigger, in favour of "+string(e.ID)); err != nil {
			return nil, err
		}
	}
	return running, nil
}

// pendingOf returns the pending executions of a trigger.
func (tx *tx) pendingOf(id agented.TriggerID) ([]agented.ExecutionID, error) {
	rows, err := tx.query(`SELECT id FROM execution WHERE trigger_id = $1 AND status = 'pending' ORDER BY created_at, id`, id)
	return collect(rows, err, scanID)
}

// Repeated returns the execution created with an idempotency key, nil if the
// key is new. Admit checks the key itself; Repeated is for callers that may
// reject the request earlier.
func (db *DB) Repeated(ctx context.Context, scope agented.TriggerID, key, digest string) (*agented.Execution, error) {
	var e *agented.Execution
	err := db.read(ctx, "idempotency key", func(r *reader) error {
		var id agented.ExecutionID
		var first string
		err := r.row(`SELECT execution_id, digest FROM idempotency WHERE scope = $1 AND key = $2`, scope, key).Scan(&id, &first)
		if missing(err) {
			return nil
		}
		if err == nil {
			err = checkSameRequest(first, digest)
		}
		if err == nil {
			e, err = load(r, id)
		}
		return err
	})
	return e, err
}

// checkSameRequest returns an error if an idempotency key was used with another request.
func checkSameRequest(first, now string) error {
	if first == "" || now == "" || first == now {
		return nil
	}
	return errKeyReused
}

var errKeyReused = agented.InvalidFields([]agented.Field{{
	Path: "header.Idempotency-Key", Text: "was used with another body before: use a new key, or send the same body",
}})

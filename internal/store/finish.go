package store

import (
	"context"
	"fmt"
	"time"

	"github.com/agented/agented"
)

// AttemptEnd is the end of an attempt and what it means for its execution.
type AttemptEnd struct {
	Attempt     agented.Attempt // Execution, Number and what it ended as
	Next        agented.State   // of the execution: final, or pending to try again
	ScheduledAt time.Time       // when to try again, if Next is pending
	Reason      string
	Error       string
	Result      string // at most MaxResult bytes are kept
	LastSeq     agented.Seq

	Model string                                                              // that the CLI named; empty: as it was asked for
	Price func(backend, model string, u agented.Usage) (usd float64, ok bool) // of usage whose cost is not known; nil: nobody knows

	// Retry lets the store decide, in the same transaction, what the end means
	// for account and backend, and whether and when another attempt follows:
	// Next is then that of an end that is the execution's. Nil leaves it at that.
	Retry  *agented.RetryPolicy
	Limit  agented.Limit // what the output says about a limit
	Worked bool          // the model answered
	Jitter float64       // from 0 to 1
	Now    time.Time     // what follows is reckoned from here; zero is the end itself
	// NotStarted says that no CLI ran: the end says nothing of account and
	// backend.
	NotStarted bool
	// NoRoom says that nothing ran because the disk was full: another attempt
	// follows in a while, whatever the policy says.
	NoRoom bool
}

// Plan is what an attempt's end meant.
type Plan struct {
	Next        agented.State
	Reason      string    // as people see it
	WaitingOn   string    // what it is parked for; empty: it is not
	ParkedUntil time.Time // zero: not known
}

// AttemptStarted notes that the process of the attempt runs, and which CLI it
// is. A lease that is not the execution's any more is a Conflict.
func (db *DB) AttemptStarted(ctx context.Context, id agented.ExecutionID, lease agented.Lease, number int, cliVersion string, at time.Time) error {
	return db.write(ctx, "attempt started", func(tx *tx) error {
		if _, err := tx.mine(id, lease, number); err != nil {
			return err
		}
		seq, err := tx.change(id)
		if err != nil {
			return err
		}
		err = tx.exec(`UPDATE execution SET started_at = COALESCE(started_at, $2), event_seq = $3 WHERE id = $1`, id, micros(at), seq)
		if err != nil {
			return err
		}
		return tx.exec(`UPDATE attempt SET started_at = COALESCE(started_at, $3), cli_version = CASE WHEN $4 = '' THEN cli_version ELSE $4 END
			WHERE execution_id = $1 AND number = $2`, id, number, micros(at), cliVersion)
	})
}

// NoteResume notes that an attempt is about to go on in a session, before it
// does.
func (db *DB) NoteResume(ctx context.Context, id agented.ExecutionID, lease agented.Lease, number int, session string) error {
	return db.write(ctx, "note session", func(tx *tx) error {
		if _, err := tx.mine(id, lease, number); err != nil {
			return err
		}
		return tx.exec(`UPDATE attempt SET resumed_from = $3 WHERE execution_id = $1 AND number = $2`, id, number, session)
	})
}

// EndAttempt is FinishAttempt that tells what was planned.
func (db *DB) EndAttempt(ctx context.Context, end AttemptEnd, lease agented.Lease, at time.Time) (Plan, error) {
	var p Plan
	err := db.write(ctx, "finish attempt", func(tx *tx) error {
		if err := tx.finish(end, lease, at); err != nil {
			return err
		}
		list, err := loadBrief(tx, []agented.ExecutionID{end.Attempt.Execution})
		if err != nil {
			return err
		}
		e := &list[0]
		p = Plan{Next: e.State, Reason: e.Reason, WaitingOn: e.WaitingOn, ParkedUntil: e.ParkedUntil}
		return nil
	})
	return p, err
}

// FinishAttempt writes the end of an attempt and the execution's next state,
// once. It is a Conflict when the execution has ended, is at another attempt,
// or is leased anew. An execution that is to be tried again although someone
// asked for its end is cancelled instead.
func (db *DB) FinishAttempt(ctx context.Context, end AttemptEnd, lease agented.Lease, at time.Time) error {
	return db.write(ctx, "finish attempt", func(tx *tx) error { return tx.finish(end, lease, at) })
}

func (tx *tx) finish(end AttemptEnd, lease agented.Lease, at time.Time) error {
	a := &end.Attempt
	id := a.Execution
	now, err := tx.mine(id, lease, a.Number)
	if err != nil {
		return err
	}
	// The account is free from here on, whatever the plan picks.
	if err := tx.exec(`UPDATE execution SET account_id = NULL WHERE id = $1`, id); err != nil {
		return err
	}
	var planned planned
	if end.Retry != nil {
		if planned, err = tx.plan(&end, orTime(end.Now, at), now.cancelAsked); err != nil {
			return err
		}
	} else if end.Next == agented.StatePending {
		planned.due = orTime(end.ScheduledAt, at)
		planned.scheduled = planned.due
	}
	if now.cancelAsked && (end.Next == agented.StatePending || end.Next == agented.StateCancelled) {
		// Who asked is known here and nowhere else.
		end.Next, planned.retry = agented.StateCancelled, time.Time{}
		end.Reason = byWhom("cancelled", now.cancelBy)
		end.Error = end.Reason
	}
	if !agented.StateRunning.CanBecome(end.Next) || !a.State.Final() {
		return fmt.Errorf("a running execution cannot become %q with an attempt that is %q", end.Next, a.State)
	}
	if err := tx.spend(&end, at); err != nil {
		return err
	}
	err = tx.exec(`UPDATE attempt SET status = $3, exit_code = $4, signal = $5, reason = $6,
			account = CASE WHEN $7 = '' THEN account ELSE $7 END,
			cli_version = CASE WHEN $8 = '' THEN cli_version ELSE $8 END, session_id = $9,
			input_tokens = $10, output_tokens = $11, cache_read_tokens = $12, cache_write_tokens = $13, cost_usd = $14, cumulative = $15,
			started_at = COALESCE($16, started_at), finished_at = $17,
			class = $18, evidence = $19, unknown_limit = $20, retry_at = $21, session_gone = $22
		WHERE execution_id = $1 AND number = $2`,
		id, a.Number, a.State, a.ExitCode, a.Signal, clip(a.Reason, maxSentence), a.Account, a.CLIVersion, a.SessionID,
		a.Usage.InputTokens, a.Usage.OutputTokens, a.Usage.CacheReadTokens, a.Usage.CacheWriteTokens, a.Usage.CostUSD, a.Usage.CumulativeSession,
		micros(a.StartedAt), micros(orTime(a.FinishedAt, at)),
		a.Class, clip(a.Evidence, agented.MaxEvidence), end.Limit.Unknown, micros(planned.retry), a.SessionGone)
	if err != nil {
		return err
	}
	attempts := []agented.Execution{{ID: id, AttemptNo: a.Number}}
	if err := loadAttempts(tx, attempts); err != nil {
		return err
	}
	usage := total(attempts[0].Attempts)
	seq, err := tx.change(id)
	if err != nil {
		return err
	}
	var finished micros
	if end.Next.Final() {
		finished = micros(at)
		if err := tx.count(end.Next, 1); err != nil {
			return err
		}
		if err := tx.settleInbox(id, end.Next, at); err != nil {
			return err
		}
	}
	if end.Next.Final() {
		planned = planned.none()
	}
	// The lease ends here; its token stays, so that the next one is greater.
	err = tx.exec(`UPDATE execution SET status = $2, reason = $3, error = $4, exit_code = $5,
			last_seq = CASE WHEN last_seq > $6 THEN last_seq ELSE $6 END, event_seq = $7,
			input_tokens = $8, output_tokens = $9, cache_read_tokens = $10, cache_write_tokens = $11, cost_usd = $12, cumulative = $13,
			scheduled_at = COALESCE($14, scheduled_at), started_at = COALESCE(started_at, $15), due_at = $17, finished_at = $16, untidied = $18,
			parked_on = $19, give_up_at = $20, lease_owner = NULL, lease_expires_at = NULL
		WHERE id = $1`,
		id, end.Next, clip(end.Reason, maxSentence), clip(end.Error, maxSentence), a.ExitCode, end.LastSeq, seq,
		usage.InputTokens, usage.OutputTokens, usage.CacheReadTokens, usage.CacheWriteTokens, usage.CostUSD, usage.CumulativeSession,
		micros(planned.scheduled), micros(a.StartedAt), finished, micros(planned.due), micros(at), planned.parkedOn, micros(planned.giveUp))
	if err != nil {
		return err
	}
	if end.Result != "" {
		err := tx.exec(`UPDATE execution_text SET result = $2 WHERE execution_id = $1`, id, clip(end.Result, agented.MaxResult))
		if err != nil {
			return err
		}
	}
	if planned.parkedOn != nil {
		if err := tx.sleep(*planned.parkedOn, planned.picked); err != nil {
			return err
		}
	}
	if err := tx.wakeRoom(at); err != nil {
		return err
	}
	return tx.release(now.trigger, 1)
}

func orTime(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

// standing is what a write to a running execution has to know of it.
type standing struct {
	trigger     agented.TriggerID
	cancelAsked bool
	cancelBy    string
}

// mine checks that the execution runs its attempt of that number under the
// lease.
func (tx *tx) mine(id agented.ExecutionID, lease agented.Lease, number int) (standing, error) {
	var s standing
	var state agented.State
	var token int64
	var at int
	err := tx.row(`SELECT status, lease_token, attempt_no, trigger_id, cancel_asked, cancel_by FROM execution WHERE id = $1`, id).
		Scan(&state, &token, &at, &s.trigger, &s.cancelAsked, &s.cancelBy)
	switch {
	case missing(err):
		return s, noExecution(id)
	case err != nil:
		return s, err
	case state != agented.StateRunning:
		return s, agented.Errorf(agented.Conflict, "%s is %s, not running", id, state)
	case token != lease.Token:
		return s, agented.Errorf(agented.Conflict, "%s is leased anew (token %d, not %d): another server decides about it", id, token, lease.Token)
	case at != number:
		return s, agented.Errorf(agented.Conflict, "%s is at attempt %d, not %d", id, at, number)
	}
	return s, nil
}

// total adds up what the attempts consumed. Of attempts that went on in one
// session and count it as a whole, only the last counts.
func total(attempts []agented.Attempt) agented.Usage {
	var sum agented.Usage
	for i, a := range attempts {
		u := a.Usage
		if u.CumulativeSession && a.SessionID != "" {
			superseded := false
			for _, later := range attempts[i+1:] {
				superseded = superseded || later.SessionID == a.SessionID && later.Usage.CumulativeSession && later.Usage.Known()
			}
			if superseded {
				continue
			}
		}
		add(&sum.InputTokens, u.InputTokens)
		add(&sum.OutputTokens, u.OutputTokens)
		add(&sum.CacheReadTokens, u.CacheReadTokens)
		add(&sum.CacheWriteTokens, u.CacheWriteTokens)
		add(&sum.CostUSD, u.CostUSD)
		sum.CumulativeSession = sum.CumulativeSession || u.CumulativeSession
	}
	return sum
}

func add[T int64 | float64](sum **T, v *T) {
	if v == nil {
		return
	}
	n := *v
	if *sum != nil {
		n += **sum
	}
	*sum = &n
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/policy"
)

// AttemptEnd is the end of an attempt and its effect on the execution.
type AttemptEnd struct {
	Attempt     agented.Attempt // Execution, Number and the result
	Next        agented.State   // of the execution: final, or pending to try again
	ScheduledAt time.Time       // when to try again, if Next is pending
	Reason      string
	Error       string
	Result      string // at most MaxResult bytes are stored
	LastSeq     agented.Seq
	// Publications are stored if the execution ends with success.
	Publications []agented.Publication

	Model string                                                              // reported by the CLI; empty: the requested one
	Price func(backend, model string, u agented.Usage) (usd float64, ok bool) // cost of usage without a cost; nil: unknown

	// Retry lets the store decide in the same transaction what the end means
	// for account and backend, and whether and when another attempt follows.
	// Next is then the state if none follows. Nil disables this.
	Retry  *agented.RetryPolicy
	Limit  agented.Limit // limit reported in the output
	Worked bool          // the model responded
	Jitter float64       // from 0 to 1
	Now    time.Time     // reference time; zero means the time of the end
	// NotStarted is set if no CLI ran: the end does not affect account and
	// backend.
	NotStarted bool
	// NoRoom is set if nothing ran because the disk was full: another attempt
	// follows later, regardless of the policy.
	NoRoom bool
	// Repairs is how many attempts may repair an outcome that is not the expected one.
	Repairs int
}

// Plan is what follows an attempt's end.
type Plan struct {
	Next        agented.State
	Reason      string    // for display
	WaitingOn   string    // what it is parked for; empty: it is not parked
	ParkedUntil time.Time // zero: unknown
}

// AttemptStarted records that the process of the attempt is running, the CLI's
// version and the level of the sandbox. It returns Conflict if the lease is not the execution's
// current one.
func (db *DB) AttemptStarted(ctx context.Context, id agented.ExecutionID, lease agented.Lease, number int, cliVersion string, box agented.Isolation, at time.Time) error {
	return db.write(ctx, "attempt started", func(tx *tx) error {
		if _, err := tx.checkAttempt(id, lease, number); err != nil {
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
		return tx.exec(`UPDATE attempt SET started_at = COALESCE(started_at, $3), cli_version = CASE WHEN $4 = '' THEN cli_version ELSE $4 END, sandbox = $5, sandbox_reason = $6
			WHERE execution_id = $1 AND number = $2`, id, number, micros(at), cliVersion, box.Level, format.Truncate(box.Reason, maxSentence))
	})
}

// NoteResume records that an attempt is about to resume a session, before it
// does.
func (db *DB) NoteResume(ctx context.Context, id agented.ExecutionID, lease agented.Lease, number int, session string) error {
	return db.write(ctx, "record session", func(tx *tx) error {
		if _, err := tx.checkAttempt(id, lease, number); err != nil {
			return err
		}
		return tx.exec(`UPDATE attempt SET resumed_from = $3 WHERE execution_id = $1 AND number = $2`, id, number, session)
	})
}

// EndAttempt records the end of an attempt and the execution's next state,
// once, and returns what follows. It returns Conflict if the execution has
// ended, is at another attempt, or has a newer lease. An execution that would
// be tried again is cancelled instead if cancellation was requested.
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

func (tx *tx) finish(end AttemptEnd, lease agented.Lease, at time.Time) error {
	a := &end.Attempt
	id := a.Execution
	now, err := tx.checkAttempt(id, lease, a.Number)
	if err != nil {
		return err
	}
	// Release the account, whatever the plan selects.
	if err := tx.exec(`UPDATE execution SET account_id = NULL WHERE id = $1`, id); err != nil {
		return err
	}
	next, err := tx.next(&end, now, at)
	if err != nil {
		return err
	}
	if !agented.StateRunning.CanBecome(end.Next) || !a.State.Final() {
		return fmt.Errorf("a running execution cannot become %q with an attempt that is %q", end.Next, a.State)
	}
	if err := tx.spend(&end, at); err != nil {
		return err
	}
	if err := tx.endAttempt(&end, next.retry, at); err != nil {
		return err
	}
	if end.Next.Final() {
		next = planned{} // the account keeps its new state
		if err := tx.count(end.Next, 1); err != nil {
			return err
		}
		if err := tx.settleInbox(id, end.Next, at); err != nil {
			return err
		}
	}
	if end.Next == agented.StateSuccess {
		if err := tx.insertPublications(id, end.Publications, at); err != nil {
			return err
		}
	}
	if err := tx.endLease(&end, next, at); err != nil {
		return err
	}
	if err := tx.notifyEnd(id, end.Next, a.Class, orText(end.Error, end.Reason), at); err != nil {
		return err
	}
	if next.parkedOn != nil {
		if err := tx.noteParked(id, at); err != nil {
			return err
		}
		if err := tx.parkQueue(*next.parkedOn, next.picked); err != nil {
			return err
		}
	}
	if err := tx.wakeWaitingForSlot(at); err != nil {
		return err
	}
	return tx.release(now.trigger, 1)
}

// next returns what follows an attempt's end, and sets the end's Next, Reason
// and Error.
func (tx *tx) next(end *AttemptEnd, now runningState, at time.Time) (next planned, err error) {
	if end.Retry != nil {
		if next, err = tx.plan(end, orTime(end.Now, at), now.cancelAsked); err != nil {
			return next, err
		}
	} else if end.Next == agented.StatePending {
		next.due = orTime(end.ScheduledAt, at)
		next.scheduled = next.due
	}
	if now.cancelAsked && (end.Next == agented.StatePending || end.Next == agented.StateCancelled) {
		// Only this transaction knows who requested it.
		end.Next, next.retry = agented.StateCancelled, time.Time{}
		end.Reason = byWhom("cancelled", now.cancelBy)
		end.Error = end.Reason
	}
	return next, nil
}

// endAttempt writes the end into the attempt's row.
func (tx *tx) endAttempt(end *AttemptEnd, retry, at time.Time) error {
	a := &end.Attempt
	changes := ""
	if a.Changes != nil {
		c := *a.Changes
		c.Reason = format.Truncate(c.Reason, maxSentence)
		b, err := json.Marshal(c)
		if err != nil {
			return err
		}
		changes = string(b)
	}
	broker := ""
	if a.Broker != nil {
		b, err := json.Marshal(a.Broker)
		if err != nil {
			return err
		}
		broker = string(b)
	}
	if err := tx.storeContract(a); err != nil {
		return err
	}
	return tx.exec(`UPDATE attempt SET status = $3, exit_code = $4, signal = $5, reason = $6,
			account = CASE WHEN $7 = '' THEN account ELSE $7 END,
			cli_version = CASE WHEN $8 = '' THEN cli_version ELSE $8 END, session_id = $9,
			input_tokens = $10, output_tokens = $11, cache_read_tokens = $12, cache_write_tokens = $13, cost_usd = $14, cumulative = $15,
			started_at = COALESCE($16, started_at), finished_at = $17,
			class = $18, evidence = $19, unknown_limit = $20, retry_at = $21, session_gone = $22, sandbox = CASE WHEN $23 = '' THEN sandbox ELSE $23 END, changes = $24, broker = $25,
			sandbox_reason = CASE WHEN $23 = '' THEN sandbox_reason ELSE $26 END,
			contract = $27
		WHERE execution_id = $1 AND number = $2`,
		a.Execution, a.Number, a.State, a.ExitCode, a.Signal, format.Truncate(a.Reason, maxSentence), a.Account, a.CLIVersion, a.SessionID,
		a.Usage.InputTokens, a.Usage.OutputTokens, a.Usage.CacheReadTokens, a.Usage.CacheWriteTokens, a.Usage.CostUSD, a.Usage.CumulativeSession,
		micros(a.StartedAt), micros(orTime(a.FinishedAt, at)),
		a.Class, format.Truncate(a.Evidence, agented.MaxEvidence), end.Limit.Unknown, micros(retry), a.SessionGone, a.Sandbox.Level, changes, broker,
		format.Truncate(a.Sandbox.Reason, maxSentence), contractState(a.Contract))
}

// endLease writes the execution's next state into its row, with the usage of all
// its attempts.
func (tx *tx) endLease(end *AttemptEnd, next planned, at time.Time) error {
	a := &end.Attempt
	id := a.Execution
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
	}
	// The lease ends; its token stays, so that the next one is greater.
	err = tx.exec(`UPDATE execution SET status = $2, reason = $3, error = $4, exit_code = $5,
			last_seq = CASE WHEN last_seq > $6 THEN last_seq ELSE $6 END, event_seq = $7,
			input_tokens = $8, output_tokens = $9, cache_read_tokens = $10, cache_write_tokens = $11, cost_usd = $12, cumulative = $13,
			scheduled_at = COALESCE($14, scheduled_at), started_at = COALESCE(started_at, $15), due_at = $17, finished_at = $16, cleanup_due_at = $18,
			parked_on = $19, give_up_at = $20, lease_owner = NULL, lease_expires_at = NULL
		WHERE id = $1`,
		id, end.Next, format.Truncate(end.Reason, maxSentence), format.Truncate(end.Error, maxSentence), a.ExitCode, end.LastSeq, seq,
		usage.InputTokens, usage.OutputTokens, usage.CacheReadTokens, usage.CacheWriteTokens, usage.CostUSD, usage.CumulativeSession,
		micros(next.scheduled), micros(a.StartedAt), finished, micros(next.due), micros(at), next.parkedOn, micros(next.giveUp))
	if err != nil {
		return err
	}
	if end.Result == "" {
		return nil
	}
	return tx.exec(`UPDATE execution_text SET result = $2 WHERE execution_id = $1`, id, format.Truncate(end.Result, agented.MaxResult))
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func orTime(t, otherwise time.Time) time.Time {
	if t.IsZero() {
		return otherwise
	}
	return t
}

// runningState is the state of a running execution that writes need.
type runningState struct {
	trigger     agented.TriggerID
	cancelAsked bool
	cancelBy    string
}

// checkAttempt checks that the execution is running the attempt with that number under
// the lease.
func (tx *tx) checkAttempt(id agented.ExecutionID, lease agented.Lease, number int) (runningState, error) {
	var s runningState
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
		return s, agented.Errorf(agented.Conflict, "%s has a newer lease (token %d, not %d): another server runs it", id, token, lease.Token)
	case at != number:
		return s, agented.Errorf(agented.Conflict, "%s is at attempt %d, not %d", id, at, number)
	}
	return s, nil
}

// total sums the usage of attempts. Of attempts that resumed one session and
// report its totals, only the last one counts.
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

// planned is what follows an attempt's end, for the execution's row.
type planned struct {
	scheduled time.Time // zero leaves it unchanged
	due       time.Time // zero: parked, or final
	parkedOn  *string
	picked    policy.Selection // why it is parked
	retry     time.Time        // expected time of the next attempt; zero: none or unknown
	giveUp    time.Time
}

// plan stores what an attempt's end means for its account and its backend, and
// returns whether and when another attempt follows. It sets the end's Next and
// Reason. asked reports that cancellation was requested.
func (tx *tx) plan(end *AttemptEnd, at time.Time, asked bool) (planned, error) {
	var out planned
	a := &end.Attempt
	list, err := loadBrief(tx, []agented.ExecutionID{a.Execution})
	if err != nil {
		return out, err
	}
	e := &list[0]
	i := slices.IndexFunc(e.Attempts, func(x agented.Attempt) bool { return x.Number == a.Number })
	if i < 0 {
		return out, fmt.Errorf("%s has no attempt %d", e.ID, a.Number)
	}
	a.Account, a.Backend = e.Attempts[i].Account, e.Attempts[i].Backend
	limits, err := tx.recordOutcome(end, e, at)
	if err != nil {
		return out, err
	}
	var queue string
	if err := tx.row(`SELECT account_queue FROM execution WHERE id = $1`, e.ID).Scan(&queue); err != nil {
		return out, err
	}
	var own []agented.Choice
	if a.Account == "" && strings.HasPrefix(queue, ownQueue) {
		if err := json.Unmarshal([]byte(strings.TrimPrefix(queue, ownQueue)), &own); err != nil {
			return out, fmt.Errorf("%s: its fallback chain: %w", e.ID, err)
		}
	}
	plan, err := policy.AfterAttempt(policy.ExecutionEnd{
		Execution: e, Number: a.Number, Class: a.Class, Reason: end.Reason, Error: end.Error, Until: end.Limit.Until,
		SessionGone: a.SessionGone, NoRoom: end.NoRoom, StartedAt: a.StartedAt, CancelAsked: asked,
		Limits: limits, Own: own, Policy: *end.Retry, Jitter: end.Jitter, Repairs: end.Repairs,
	}, at)
	if err != nil {
		return out, err
	}
	end.Reason, end.Error = plan.Reason, plan.Error
	if plan.Chain != nil {
		queue = accountQueueOf(plan.Chain)
		if err := tx.exec(`UPDATE execution SET account_queue = $2 WHERE id = $1`, e.ID, queue); err != nil {
			return out, err
		}
	}
	switch plan.Step {
	case policy.StepRetry:
		end.Next = agented.StatePending
		out.scheduled, out.due, out.retry, out.giveUp = plan.At, plan.At, plan.At, plan.GiveUp
	case policy.StepSelect:
		return tx.place(end, e, plan, queue, at)
	}
	return out, nil
}

// place is plan for an execution that needs an account for its next attempt.
func (tx *tx) place(end *AttemptEnd, e *agented.Execution, plan policy.Plan, queue string, at time.Time) (planned, error) {
	if queue == "" {
		queue = accountQueueOf([]agented.Choice{{Backend: e.Backend}})
	}
	c := candidate{id: e.ID, number: e.AttemptNo, backend: e.Backend, probes: e.ProbeAccount, queue: queue}
	candidates, err := tx.loadCandidates(at)
	if err != nil {
		return planned{}, err
	}
	s, err := tx.pick(&c, candidates)
	if err != nil {
		return planned{}, err
	}
	to := plan.Place(s, end.Attempt.SessionGone, s.NeedsLogin() && tx.failsWithoutLogin(e.ID), at)
	end.Next, end.Reason, end.Error = agented.StatePending, to.Reason, to.Error
	out := planned{retry: to.Retry, giveUp: plan.GiveUp}
	switch {
	case to.Error != "":
		end.Next = agented.StateFailed
		return planned{}, nil
	case to.Parked:
		out.parkedOn, out.picked = &queue, s
	default:
		out.due = e.ScheduledAt
	}
	return out, nil
}

// recordOutcome updates account and backend for an attempt's end, and returns how many
// consecutive ends of this kind they have had; 0 if they do not count them.
func (tx *tx) recordOutcome(end *AttemptEnd, e *agented.Execution, at time.Time) (limits int, err error) {
	a := &end.Attempt
	if a.Account == "" {
		return 0, nil
	}
	facts := policy.AttemptEnd{
		Execution: e.ID, Backend: a.Backend, Class: a.Class, Reason: a.Reason, Evidence: a.Evidence,
		Until: end.Limit.Until, Responded: end.Worked, State: a.State,
		Used: a.Usage.OutputTokens != nil && *a.Usage.OutputTokens > 0, Tests: e.ProbeAccount != "", Jitter: end.Jitter,
	}
	if end.NotStarted {
		facts.Class = "" // not caused by account or provider
	}
	failures, err := tx.recordBackendOutcome(facts, at)
	if err != nil {
		return 0, err
	}
	acc, err := tx.account(a.Account)
	if agented.KindOf(err) == agented.NotFound {
		return failures, nil // deleted meanwhile
	}
	if err != nil {
		return 0, err
	}
	var probe agented.ExecutionID
	if err := tx.row(`SELECT probe FROM account WHERE id = $1`, a.Account).Scan(&probe); err != nil {
		return 0, err
	}
	out := policy.EndOnAccount(*acc, probe, facts, at)
	after := &out.Account
	err = tx.exec(`UPDATE account SET state = $2, until = $3, evidence = $4, cause = $5, consecutive_limits = $6, probe = $7 WHERE id = $1`,
		acc.ID, after.State, micros(after.Until), after.Evidence, after.Cause, after.ConsecutiveLimits, out.Probe)
	if err != nil {
		return 0, err
	}
	if shows, works, reason := policy.ShowsUse(facts); shows {
		err := tx.exec(`UPDATE account SET checked_at = $2, check_works = $3, check_reason = $4, check_execution = $5 WHERE id = $1`,
			acc.ID, micros(at), works, reason, e.ID)
		if err != nil {
			return 0, err
		}
	}
	if after.State == agented.AccountNeedsLogin && acc.State != after.State {
		err := tx.notify(agented.Notice{
			Kind: agented.NotifyNeedsPerson, Execution: a.Execution, Subject: string(acc.ID), At: at,
			Text: fmt.Sprintf("account %s/%s needs a login: its credentials were rejected", acc.Backend, acc.Name),
		})
		if err != nil {
			return 0, err
		}
	}
	if out.Wake {
		if err := tx.wakeAccountQueues(at); err != nil {
			return 0, err
		}
	}
	if facts.Class == agented.ClassThrottle {
		if err := tx.recordThrottle(acc, after.Until, at); err != nil {
			return 0, err
		}
	}
	if out.Limits > 0 {
		return out.Limits, nil
	}
	return failures, nil
}

// recordThrottle records a throttle of an account, which may be one of this
// server's address.
func (tx *tx) recordThrottle(acc *agented.Account, until, at time.Time) error {
	var others int
	err := tx.row(`SELECT COUNT(*) FROM account WHERE backend = $1 AND id <> $2 AND throttled_at > $3`,
		acc.Backend, acc.ID, micros(at.Add(-policy.AddressWindow))).Scan(&others)
	if err != nil {
		return err
	}
	if err := tx.exec(`UPDATE account SET throttled_at = $2 WHERE id = $1`, acc.ID, micros(at)); err != nil {
		return err
	}
	c, limited := policy.AddressCooldown(acc.Backend, others, until)
	if !limited {
		return nil
	}
	return tx.exec(`INSERT INTO backend_cooldown (backend, kind, until, reason) VALUES ($1, $2, $3, $4)
		ON CONFLICT (backend, kind) DO UPDATE SET until = excluded.until, reason = excluded.reason, probe = ''`, acc.Backend, cooldownAddress, micros(c.Until), c.Reason)
}

// recordBackendOutcome updates the cooldowns of a backend, and returns the
// consecutive failures of its provider; 0 if the end was none.
func (tx *tx) recordBackendOutcome(e policy.AttemptEnd, at time.Time) (failures int, err error) {
	rows, err := tx.query(`SELECT `+cooldownColumns+` FROM backend_cooldown WHERE backend = $1`, e.Backend)
	cooldowns, err := collect(rows, err, scanCooldown)
	if err != nil {
		return 0, err
	}
	probes := false
	var was policy.Provider
	for _, r := range cooldowns {
		probes = probes || r.probe == e.Execution
		if r.Kind == cooldownProvider {
			was = policy.Provider{Failures: r.Failures, Cooldown: r.Cooldown, Probe: r.probe}
		}
	}
	switch out := policy.EndOnProvider(was, len(cooldowns) > 0, probes, e, at); out.Reach {
	case policy.ReachFailed:
		p := &out.Provider
		return out.Failures, tx.exec(`INSERT INTO backend_cooldown (backend, kind, failures, until, reason, probe) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (backend, kind) DO UPDATE SET failures = excluded.failures, until = excluded.until, reason = excluded.reason, probe = excluded.probe`,
			e.Backend, cooldownProvider, p.Failures, micros(p.Until), p.Reason, p.Probe)
	case policy.ReachRefused:
		err = tx.exec(`DELETE FROM backend_cooldown WHERE backend = $1 AND kind = $2`, e.Backend, cooldownProvider)
	case policy.ReachWorked:
		err = tx.exec(`DELETE FROM backend_cooldown WHERE backend = $1`, e.Backend)
	case policy.ReachRetest:
		err = tx.exec(`UPDATE backend_cooldown SET probe = '', until = $2 WHERE backend = $1 AND probe = $3`, e.Backend, micros(at), e.Execution)
	default:
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return 0, tx.wakeAccountQueues(at)
}

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/deadman"
	"github.com/agented/agented/internal/notices"
)

// Querier reads in a transaction, for packages that have statements of their own. See View.
type Querier = notices.Querier

// Tx is a write transaction for packages that have tables of their own. See Update.
type Tx interface {
	notices.Tx
	Audit(a AuditEntry) error
}

type ownTx struct{ *tx }

func (t ownTx) Audit(a AuditEntry) error { return t.audit(a) }

// Update runs f in the single write transaction. It is for packages that have tables of
// their own.
func (db *DB) Update(ctx context.Context, what string, f func(Tx) error) error {
	return db.write(ctx, what, func(tx *tx) error { return f(ownTx{tx}) })
}

// View runs f in a read transaction. It is for packages that have tables of their own.
func (db *DB) View(ctx context.Context, what string, f func(Querier) error) error {
	return db.read(ctx, what, func(r *reader) error { return f(r) })
}

// OnNotice sets the function that is called after the commit of notifications. It must not
// block and must not call the DB. Set it before the first write.
func (db *DB) OnNotice(f func()) { db.engine.InTurn(func() { db.onNotice = f }) }

func (db *DB) loadChannels(ctx context.Context) error {
	var any bool
	err := db.row(ctx, `SELECT EXISTS (SELECT 1 FROM channel)`).Scan(&any)
	db.channels.Store(any)
	return explain("channels", err)
}

// ChannelsChanged must be called before a channel is stored.
func (db *DB) ChannelsChanged() { db.channels.Store(true) }

// Notify stores a notification for each channel that wants it by the rules of the notice's
// trigger or its own: it is sent later and survives a crash, and nothing waits for it. No
// channel, no row.
//
// This is the function to call where something happens that people must know. Call it with
// the state change in one transaction, so that neither exists without the other: in this
// package with tx.notify, elsewhere within [DB.Together]. A zero At is now.
func (db *DB) Notify(ctx context.Context, n agented.Notice) error {
	if !db.channels.Load() {
		return nil
	}
	return db.write(ctx, "notify", func(tx *tx) error { return tx.notify(n) })
}

// notify is Notify in a transaction.
func (tx *tx) notify(n agented.Notice) error {
	if !tx.db.channels.Load() {
		return nil
	}
	now := stored(time.Now())
	if n.At.IsZero() {
		n.At = now
	}
	n.At = stored(n.At)
	var rules agented.NotifyRules
	if n.Execution != "" && n.TriggerName == "" {
		err := tx.row(`SELECT trigger_id, trigger_name FROM execution WHERE id = $1`, n.Execution).Scan(&n.Trigger, &n.TriggerName)
		if err != nil && !missing(err) {
			return err
		}
	}
	if n.Trigger != "" {
		var text []byte
		var name string
		err := tx.row(`SELECT name, spec FROM trigger_ WHERE id = $1`, n.Trigger).Scan(&name, &text)
		switch {
		case missing(err): // deleted: the channels' own rules apply
		case err != nil:
			return err
		default:
			var spec struct {
				Notify agented.NotifyRules `json:"notify"`
			}
			if err := json.Unmarshal(text, &spec); err != nil {
				return fmt.Errorf("trigger %s: %w", n.Trigger, err)
			}
			rules = spec.Notify
			if n.TriggerName == "" {
				n.TriggerName = name
			}
		}
	}
	any, err := notices.Append(tx, n, rules, n.At)
	tx.noticed = tx.noticed || any
	return err
}

// notifyEnd notifies about the final state of an execution, and resets the dead man's switch of its
// trigger if it succeeded.
func (tx *tx) notifyEnd(id agented.ExecutionID, state agented.State, class agented.Class, reason string, at time.Time) error {
	var absent *agented.Absence
	if state == agented.StateSuccess {
		var trigger agented.TriggerID
		err := tx.row(`SELECT trigger_id FROM execution WHERE id = $1`, id).Scan(&trigger)
		if err == nil {
			absent, err = deadman.Succeeded(tx, trigger, at)
		}
		if err != nil {
			return err
		}
	}
	if !tx.db.channels.Load() {
		return nil
	}
	var n agented.Notice
	var source agented.Source
	err := tx.row(`SELECT trigger_id, trigger_name, source FROM execution WHERE id = $1`, id).Scan(&n.Trigger, &n.TriggerName, &source)
	if err != nil {
		return err
	}
	if source == agented.SourceTurn {
		return nil // a person is talking with it
	}
	n.Execution, n.At, n.Text = id, at, reason
	switch state {
	case agented.StateSuccess:
		n.Kind = agented.NotifyRecovered
		was, err := tx.endedBefore(n.Trigger, id)
		switch {
		case err != nil:
			return err
		case absent != nil:
			n.Text = "succeeded again: before, " + absent.Text(at)
		case was == "" || was == agented.StateSuccess:
			return nil
		default:
			n.Text = "succeeded again"
		}
	case agented.StateFailed, agented.StateTimeout, agented.StateInterrupted:
		n.Kind = agented.NotifyFailed
		if class == agented.ClassNoEffect {
			n.Kind = agented.NotifyNoEffect
		}
		if n.Text == "" {
			n.Text = "ended as " + string(state)
		}
	default:
		return nil
	}
	return tx.notify(n)
}

// endedBefore returns how the latest other execution of a trigger ended that was not
// cancelled; "" if there is none.
func (tx *tx) endedBefore(trigger agented.TriggerID, id agented.ExecutionID) (last agented.State, err error) {
	if trigger == "" {
		return "", nil
	}
	var latest string
	for _, s := range []agented.State{agented.StateSuccess, agented.StateFailed, agented.StateTimeout, agented.StateInterrupted} {
		var other string
		err := tx.row(`SELECT id FROM execution WHERE trigger_id = $1 AND status = $2 AND id <> $3 ORDER BY created_at DESC, id DESC LIMIT 1`,
			trigger, s, id).Scan(&other)
		if missing(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		if other > latest {
			latest, last = other, s
		}
	}
	return last, nil
}

// notifyPause notifies about a pause with a question.
func (tx *tx) notifyPause(id agented.ExecutionID, p agented.Pause) error {
	kind := agented.NotifyNeedsPerson
	switch p.Question {
	case agented.QuestionNone:
		return nil
	case agented.QuestionCeiling, agented.QuestionBudget:
		kind = agented.NotifyPaused
	}
	return tx.notify(agented.Notice{Kind: kind, Execution: id, Text: p.Reason, At: p.At})
}

// noteParked records since when an execution is parked.
func (tx *tx) noteParked(id agented.ExecutionID, now time.Time) error {
	if !tx.db.channels.Load() {
		return nil
	}
	return tx.exec(`INSERT INTO parked (execution_id, since) VALUES ($1, $2) ON CONFLICT (execution_id) DO NOTHING`, id, micros(now))
}

// noteUnparked forgets what noteParked has recorded.
func (tx *tx) noteUnparked(id agented.ExecutionID) error {
	if !tx.db.channels.Load() {
		return nil
	}
	return tx.exec(`DELETE FROM parked WHERE execution_id = $1`, id)
}

// NotifyParked notifies once about each execution that has been parked since before a time.
func (db *DB) NotifyParked(ctx context.Context, before, now time.Time) error {
	if !db.channels.Load() {
		return nil
	}
	type row struct {
		id     agented.ExecutionID
		since  time.Time
		reason string
	}
	rows, err := db.query(ctx, `SELECT p.execution_id, p.since, COALESCE(NULLIF(q.reason, ''), e.reason)
		FROM parked p JOIN execution e ON e.id = p.execution_id LEFT JOIN account_queue q ON q.key = e.parked_on
		WHERE p.since <= $1 ORDER BY p.since LIMIT 1000`, micros(before))
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error { return scan(&r.id, toTime{&r.since}, &r.reason) })
	if err != nil || len(list) == 0 {
		return explain("parked executions", err)
	}
	return db.write(ctx, "notify of parked executions", func(tx *tx) error {
		for _, r := range list {
			n, err := tx.affected(`DELETE FROM parked WHERE execution_id = $1 AND since = $2`, r.id, micros(r.since))
			if err != nil {
				return err
			}
			var parked bool
			err = tx.row(`SELECT parked_on IS NOT NULL FROM execution WHERE id = $1`, r.id).Scan(&parked)
			if missing(err) || err == nil && (n == 0 || !parked) {
				continue
			}
			if err != nil {
				return err
			}
			text := fmt.Sprintf("has been parked for %s: %s", now.Sub(r.since).Round(time.Minute), r.reason)
			if err := tx.notify(agented.Notice{Kind: agented.NotifyParked, Execution: r.id, Text: text, At: now}); err != nil {
				return err
			}
		}
		return nil
	})
}

// NotifyAbsent notifies about each trigger of which no execution has succeeded in time, once per
// period, and returns after which time the next one can be due; 0 if none can.
func (db *DB) NotifyAbsent(ctx context.Context, now time.Time) (next time.Duration, err error) {
	var armed bool
	err = db.row(ctx, `SELECT EXISTS (SELECT 1 FROM deadman WHERE due IS NOT NULL)`).Scan(&armed)
	if err != nil || !armed {
		return 0, explain("expected successes", err)
	}
	err = db.write(ctx, "notify of missing successes", func(tx *tx) error {
		absent, after, err := deadman.Look(tx, now)
		if err != nil {
			return err
		}
		next = after
		for i := range absent {
			a := &absent[i]
			if err := tx.notify(agented.Notice{Kind: agented.NotifyDeadMan, Trigger: a.Trigger, TriggerName: a.Name, Text: a.Text(now), At: now}); err != nil {
				return err
			}
		}
		return nil
	})
	return next, err
}

// checkNotify rejects rules with channels that do not exist.
func (tx *tx) checkNotify(rules agented.NotifyRules) error {
	bad, err := notices.Unknown(tx, rules)
	if err != nil {
		return err
	}
	return agented.InvalidFields(bad)
}

// Overdue returns the triggers of which no execution has succeeded within expect_every, the longest
// first, at most 100.
func (db *DB) Overdue(ctx context.Context) ([]agented.Absence, error) {
	var out []agented.Absence
	err := db.View(ctx, "triggers that have not succeeded in time", func(q Querier) (err error) {
		out, err = deadman.Overdue(q)
		return err
	})
	return out, err
}

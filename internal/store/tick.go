package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
)

// Due is a schedule whose time has come.
type Due struct {
	Schedule     agented.Schedule // NextDue is the first due time that has to be decided
	Trigger      *agented.Trigger // without its schedules and webhooks
	DecidedUntil time.Time        // the latest due time that has a tick; zero when there is none
}

// Decision is what is done about the due times of a schedule that have come.
type Decision struct {
	Ticks            []Decided // in the order of their due times, all of them after Due.DecidedUntil
	NextDue, NextRun time.Time // the next one, and the same with its jitter; zero: the schedule is over
}

// Decided is the tick of one due time.
type Decided struct {
	Tick      agented.Tick // Schedule, Trigger and DecidedAt are filled in
	RunAt     time.Time    // DueAt with its jitter
	Admission *Admission   // of the execution that it fires; nil: it fires none
}

// Ticked is what came of a round.
type Ticked struct {
	Schedules int                   // schedules that were due
	Ticks     []TickRun             // what was stored about them
	Replaced  []agented.ExecutionID // running ones that have been asked to stop
}

// TickRun is a stored tick with the time at which it was to be fired.
type TickRun struct {
	agented.Tick
	RunAt time.Time // zero for a tick that fired nothing
}

// dueQuery finds the schedules whose time has come, the longest waiting first.
const dueQuery = `SELECT s.id, s.spec, s.next_due, s.next_run, t.id, t.name, t.enabled, t.spec, t.created_at, t.updated_at,
		(SELECT MAX(due_at) FROM tick k WHERE k.schedule_id = s.id)
	FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id
	WHERE s.next_run <= $1 ORDER BY s.next_run, s.id LIMIT $2`

// TickDue decides the due times of up to limit schedules that have come by now,
// in one transaction: the tick rows, the executions that they fire and the
// schedules' next due times are stored together or not at all. decide must be
// quick and must not call the DB.
//
// A due time is decided once: the schedule moves on only from the due time at
// which it was read, and a tick is unique by schedule and due time. So two
// servers on one database, and one that is killed between any two statements,
// fire it once.
func (db *DB) TickDue(ctx context.Context, now time.Time, limit int, decide func(Due) Decision) (Ticked, error) {
	var got Ticked
	// Most rounds find nothing; that takes no write transaction.
	var due bool
	err := db.r.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM schedule WHERE next_run <= $1)`, micros(now)).Scan(&due)
	if err != nil || !due {
		return got, db.explain("tick", err)
	}
	err = db.write(ctx, "tick", func(tx *tx) error {
		rows, err := tx.query(dueQuery, micros(now), limit)
		list, err := collect(rows, err, scanDue)
		if err != nil {
			return err
		}
		got.Schedules = len(list)
		for _, d := range list {
			if err := tx.tick(&got, d, decide(d), now); err != nil {
				return fmt.Errorf("schedule %s: %w", d.Schedule.ID, err)
			}
		}
		return tx.insertTicks(got.Ticks)
	})
	if err != nil {
		return Ticked{}, err
	}
	return got, nil
}

func scanDue(d *Due, scan func(...any) error) error {
	var spec []byte
	d.Trigger = new(agented.Trigger)
	err := scanSchedule(&d.Schedule, func(to ...any) error {
		return scan(append(to, &d.Trigger.ID, &d.Trigger.Name, &d.Trigger.Enabled, &spec,
			toTime{&d.Trigger.CreatedAt}, toTime{&d.Trigger.UpdatedAt}, toTime{&d.DecidedUntil})...)
	})
	if err != nil {
		return err
	}
	return json.Unmarshal(spec, &d.Trigger.Spec)
}

// tick stores a decision, but for the tick rows, which it adds to got.
func (tx *tx) tick(got *Ticked, d Due, to Decision, now time.Time) error {
	n, err := tx.affected(`UPDATE schedule SET next_due = $3, next_run = $4 WHERE id = $1 AND next_due = $2`,
		d.Schedule.ID, micros(d.Schedule.NextDue), micros(to.NextDue), micros(to.NextRun))
	if err != nil || n == 0 {
		return err // n is 0 when somebody else has decided it
	}
	for _, one := range to.Ticks {
		k := one.Tick
		k.Schedule, k.Trigger, k.DecidedAt = d.Schedule.ID, d.Trigger.ID, now
		run := TickRun{}
		if a := one.Admission; a != nil {
			e, replaced, err := tx.place(*a, now)
			if err != nil {
				return err
			}
			k.Execution = e.ID
			if e.State.Final() { // the overlap rule
				k.Outcome, k.Reason = agented.TickSkipped, e.Reason
			}
			got.Replaced = append(got.Replaced, replaced...)
			run.RunAt = one.RunAt
		}
		run.Tick = k
		got.Ticks = append(got.Ticks, run)
	}
	return nil
}

// insertTicks writes many rows with few statements: when many schedules are due
// at once, and after a long absence, there can be thousands.
func (tx *tx) insertTicks(list []TickRun) error {
	const most = 100
	for len(list) > 0 {
		part := list[:1]
		if len(list) >= most {
			part = list[:most]
		}
		list = list[len(part):]
		var w where
		var b strings.Builder
		for i, k := range part {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(w.number(`($?, $?, $?, $?, $?, $?, $?)`, k.Schedule, micros(k.DueAt), k.Trigger, k.Outcome,
				clip(k.Reason, maxSentence), k.Execution, micros(k.DecidedAt)))
		}
		err := tx.exec(`INSERT INTO tick (schedule_id, due_at, trigger_id, outcome, reason, execution_id, decided_at) VALUES `+b.String(), w.args...)
		if err != nil {
			return err
		}
	}
	return nil
}

// TickFilter narrows a list of ticks. Zero fields do not.
type TickFilter struct {
	Schedule  agented.ScheduleID
	Trigger   agented.TriggerID
	Outcome   agented.TickOutcome
	DueAfter  time.Time // at this time or later
	DueBefore time.Time // before this time
}

// Ticks returns a page of ticks, the latest due time first, and the cursor of
// the next page, empty when there is none.
func (db *DB) Ticks(ctx context.Context, f TickFilter, p Page) ([]agented.Tick, string, error) {
	after, err := p.after("tick", 2)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		from, err := strconv.ParseInt(after[0], 10, 64)
		if err != nil {
			return nil, "", badCursor()
		}
		w.and(`(due_at, schedule_id) < ($?, $?)`, from, after[1])
	}
	if f.Schedule != "" {
		w.and(`schedule_id = $?`, f.Schedule)
	}
	if f.Trigger != "" {
		w.and(`trigger_id = $?`, f.Trigger)
	}
	if f.Outcome != "" {
		w.and(`outcome = $?`, f.Outcome)
		if f.Outcome != agented.TickFired {
			w.and(`outcome <> 'fired'`) // tells the planner of the index
		}
	}
	if !f.DueAfter.IsZero() {
		w.and(`due_at >= $?`, micros(f.DueAfter))
	}
	if !f.DueBefore.IsZero() {
		w.and(`due_at < $?`, micros(f.DueBefore))
	}
	limit := p.limit()
	rows, err := db.r.QueryContext(ctx, `SELECT schedule_id, trigger_id, due_at, outcome, reason, execution_id, decided_at FROM tick`+w.sql()+
		` ORDER BY due_at DESC, schedule_id DESC LIMIT `+fmt.Sprint(limit+1), w.args...)
	list, err := collect(rows, err, func(k *agented.Tick, scan func(...any) error) error {
		return scan(&k.Schedule, &k.Trigger, toTime{&k.DueAt}, &k.Outcome, &k.Reason, &k.Execution, toTime{&k.DecidedAt})
	})
	if err != nil {
		return nil, "", db.explain("ticks", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	last := list[limit-1]
	return list[:limit], cursor("tick", strconv.FormatInt(last.DueAt.UnixMicro(), 10), string(last.Schedule)), nil
}

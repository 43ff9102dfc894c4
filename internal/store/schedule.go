package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/format"
)

const scheduleColumns = `id, spec, next_due, next_run`

// scanSchedule scans the columns above. A spec that cannot be decoded leaves
// all fields except the id and the times empty: one damaged row must not stop
// the others.
func scanSchedule(s *agented.Schedule, scan func(...any) error) error {
	var id agented.ScheduleID
	var spec []byte
	var due, run time.Time
	if err := scan(&id, &spec, toTime{&due}, toTime{&run}); err != nil {
		return err
	}
	if err := json.Unmarshal(spec, s); err != nil {
		*s = agented.Schedule{}
	}
	s.ID, s.NextDue, s.NextRun = id, due, run
	return nil
}

// scheduleSpec encodes a schedule's settings: equal text means no change.
func scheduleSpec(s agented.Schedule) (string, error) {
	s.ID = ""
	for _, at := range []*time.Time{&s.Anchor, &s.At, &s.StartAt, &s.EndAt} {
		*at = stored(*at)
	}
	text, err := json.Marshal(s)
	return string(text), err
}

// setSchedules replaces the trigger's schedules with t.Schedules. An unchanged
// schedule keeps its next due time, which the ticker may have advanced since
// the caller read it; others get the one that the caller computed. It fills in
// empty ids, and t gets the stored schedules.
func (tx *tx) setSchedules(t *agented.Trigger, now time.Time) error {
	type row struct {
		agented.Schedule
		spec    string
		enabled bool
		place   int
	}
	rows, err := tx.query(`SELECT id, spec, enabled, place, next_due, next_run FROM schedule WHERE trigger_id = $1`, t.ID)
	list, err := collect(rows, err, func(r *row, scan func(...any) error) error {
		return scan(&r.ID, &r.spec, &r.enabled, &r.place, toTime{&r.NextDue}, toTime{&r.NextRun})
	})
	if err != nil {
		return err
	}
	old := map[agented.ScheduleID]row{}
	for _, r := range list {
		old[r.ID] = r
	}
	for i := range t.Schedules {
		s := &t.Schedules[i]
		on := t.Enabled && s.Enabled // the row combines both switches
		if !on {
			s.NextDue, s.NextRun = time.Time{}, time.Time{}
		}
		spec, err := scheduleSpec(*s)
		if err != nil {
			return err
		}
		r, known := old[s.ID]
		switch {
		case !known:
			if s.ID == "" {
				s.ID = agented.ScheduleID(agented.NewID("sch", now))
			}
			err = tx.execNow(`INSERT INTO schedule (id, trigger_id, place, spec, enabled, next_due, next_run, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, s.ID, t.ID, i, spec, on, micros(s.NextDue), micros(s.NextRun), micros(now))
			if duplicate(err) {
				return agented.InvalidFields([]agented.Field{{
					Path: fmt.Sprintf("schedules.%d.id", i), Text: "belongs to another schedule: omit it to add a schedule",
				}})
			}
		case r.spec != spec || r.enabled != on:
			err = tx.exec(`UPDATE schedule SET place = $2, spec = $3, enabled = $4, next_due = $5, next_run = $6 WHERE id = $1`,
				s.ID, i, spec, on, micros(s.NextDue), micros(s.NextRun))
		default:
			s.NextDue, s.NextRun = r.NextDue, r.NextRun
			if r.place != i {
				err = tx.exec(`UPDATE schedule SET place = $2 WHERE id = $1`, s.ID, i)
			}
		}
		if err != nil {
			return err
		}
		delete(old, s.ID)
	}
	for id := range old {
		if err := tx.exec(`DELETE FROM schedule WHERE id = $1`, id); err != nil {
			return err
		}
	}
	return nil
}

// loadSchedules loads the schedules of triggers with one query.
func loadSchedules(q querier, list []agented.Trigger) error {
	if len(list) == 0 {
		return nil
	}
	place := make(map[agented.TriggerID]int, len(list))
	var ids []agented.TriggerID
	for i := range list {
		place[list[i].ID] = i
		ids = append(ids, list[i].ID)
	}
	var w where
	rows, err := q.query(`SELECT trigger_id, `+scheduleColumns+` FROM schedule WHERE trigger_id IN `+in(&w, ids)+` ORDER BY trigger_id, place`, w.Args()...)
	_, err = collect(rows, err, func(_ *struct{}, scan func(...any) error) error {
		var id agented.TriggerID
		var s agented.Schedule
		err := scanSchedule(&s, func(to ...any) error { return scan(append([]any{&id}, to...)...) })
		if err == nil {
			t := &list[place[id]]
			t.Schedules = append(t.Schedules, s)
		}
		return err
	})
	return err
}

// ScheduleOf is a schedule and its trigger.
type ScheduleOf struct {
	agented.Schedule
	Trigger        agented.TriggerID
	TriggerName    string
	TriggerEnabled bool
}

// Schedules returns a page of all schedules in order of creation, and the
// cursor of the next page, empty if there is none.
func (db *DB) Schedules(ctx context.Context, trigger agented.TriggerID, p Page) ([]ScheduleOf, string, error) {
	after, err := pageKey(p, "schedule", 1)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		w.And(`s.id > $?`, after[0])
	}
	if trigger != "" {
		w.And(`s.trigger_id = $?`, trigger)
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT s.trigger_id, t.name, t.enabled, s.id, s.spec, s.next_due, s.next_run
		FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id`+w.SQL()+` ORDER BY s.id LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, func(s *ScheduleOf, scan func(...any) error) error {
		return scanSchedule(&s.Schedule, func(to ...any) error {
			return scan(append([]any{&s.Trigger, &s.TriggerName, &s.TriggerEnabled}, to...)...)
		})
	})
	if err != nil {
		return nil, "", explain("schedules", err)
	}
	return cut(p, list, "schedule", func(last *ScheduleOf) []string { return []string{string(last.ID)} })
}

// ScheduleStats is the number of schedules and the earliest due time.
type ScheduleStats struct {
	Schedules int64     // all of them
	Waiting   int64     // schedules with a next due time
	NextDue   time.Time // the earliest of these; zero if there is none
}

// ScheduleStats counts the schedules.
func (db *DB) ScheduleStats(ctx context.Context) (ScheduleStats, error) {
	var s ScheduleStats
	err := db.row(ctx, `SELECT COUNT(*), COUNT(next_run), MIN(next_due) FROM schedule`).Scan(&s.Schedules, &s.Waiting, toTime{&s.NextDue})
	return s, explain("schedules", err)
}

// NextScheduleRun returns when the first schedule is due for a check, false if
// no schedule has a next run.
func (db *DB) NextScheduleRun(ctx context.Context) (time.Time, bool, error) {
	var at time.Time
	err := db.row(ctx, `SELECT MIN(next_run) FROM schedule WHERE next_run IS NOT NULL`).Scan(toTime{&at})
	return at, !at.IsZero(), explain("next schedule", err)
}

// MoveSchedules sets new next times for each schedule for which next returns
// true, unless it is due at now: its due time is decided first. Schedules
// without a next time are unchanged. It returns how many it changed.
func (db *DB) MoveSchedules(ctx context.Context, now time.Time, next func(agented.Schedule) (due, run time.Time, move bool)) (int, error) {
	moved := 0
	err := db.write(ctx, "move schedules", func(tx *tx) error {
		rows, err := tx.query(`SELECT `+scheduleColumns+` FROM schedule WHERE next_run > $1`, micros(now))
		list, err := collect(rows, err, scanSchedule)
		if err != nil {
			return err
		}
		for _, s := range list {
			due, run, move := next(s)
			if !move {
				continue
			}
			if err := tx.exec(`UPDATE schedule SET next_due = $2, next_run = $3 WHERE id = $1`, s.ID, micros(due), micros(run)); err != nil {
				return err
			}
			moved++
		}
		return nil
	})
	return moved, err
}

// Due is a schedule that is due.
type Due struct {
	Schedule     agented.Schedule // NextDue is the first due time to be decided
	Trigger      *agented.Trigger // without its schedules and webhooks
	DecidedUntil time.Time        // the latest due time that has a tick; zero if there is none
}

// Decision is the outcome of a schedule's due times.
type Decision struct {
	Ticks            []Decided // in the order of their due times, all of them after Due.DecidedUntil
	NextDue, NextRun time.Time // the next due time, without and with its jitter; zero: the schedule has ended
}

// Decided is the tick of one due time.
type Decided struct {
	Tick      agented.Tick // Schedule, Trigger and DecidedAt are filled in
	RunAt     time.Time    // DueAt with its jitter
	Admission *Admission   // of the execution that it fires; nil: none
}

// Ticked is the result of a round.
type Ticked struct {
	Schedules int                   // schedules that were due
	Ticks     []TickRun             // the stored ticks
	Replaced  []agented.ExecutionID // running executions that were requested to stop
}

// TickRun is a stored tick and the time at which it was to fire.
type TickRun struct {
	agented.Tick
	RunAt time.Time // zero for a tick that fired nothing
}

// dueQuery selects the due schedules, longest waiting first.
const dueQuery = `SELECT s.id, s.spec, s.next_due, s.next_run, t.id, t.name, t.enabled, t.spec, t.created_at, t.updated_at,
		(SELECT MAX(due_at) FROM tick k WHERE k.schedule_id = s.id)
	FROM schedule s JOIN trigger_ t ON t.id = s.trigger_id
	WHERE s.next_run <= $1 ORDER BY s.next_run, s.id LIMIT $2`

// TickDue decides the due times by now of up to limit schedules, in one
// transaction: the tick rows, the executions that they fire and the schedules'
// next due times are stored together or not at all. decide must be quick and
// must not call the DB.
//
// A due time is decided once: a schedule advances only from the due time at
// which it was read, and ticks are unique by schedule and due time. So two
// servers with one database, or one that is killed between any two statements,
// fire it once.
func (db *DB) TickDue(ctx context.Context, now time.Time, limit int, decide func(Due) Decision) (Ticked, error) {
	var got Ticked
	// Most rounds find nothing, and need no write transaction.
	var due bool
	err := db.row(ctx, `SELECT EXISTS (SELECT 1 FROM schedule WHERE next_run <= $1)`, micros(now)).Scan(&due)
	if err != nil || !due {
		return got, explain("tick", err)
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

// tick stores a decision, except for the tick rows, which it adds to got.
func (tx *tx) tick(got *Ticked, d Due, to Decision, now time.Time) error {
	n, err := tx.affected(`UPDATE schedule SET next_due = $3, next_run = $4 WHERE id = $1 AND next_due = $2`,
		d.Schedule.ID, micros(d.Schedule.NextDue), micros(to.NextDue), micros(to.NextRun))
	if err != nil || n == 0 {
		return err // n is 0 if another server has decided it
	}
	for _, one := range to.Ticks {
		k := one.Tick
		k.Schedule, k.Trigger, k.DecidedAt = d.Schedule.ID, d.Trigger.ID, now
		run := TickRun{}
		if a := one.Admission; a != nil {
			e, replaced, err := tx.enqueue(*a, now)
			if err != nil {
				return err
			}
			k.Execution = e.ID
			if e.State.Final() && a.Refusal == "" { // because of the overlap rule
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
// at once, or after a long downtime, there can be thousands.
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
			b.WriteString(w.Number(`($?, $?, $?, $?, $?, $?, $?)`, k.Schedule, micros(k.DueAt), k.Trigger, k.Outcome,
				format.Truncate(k.Reason, maxSentence), k.Execution, micros(k.DecidedAt)))
		}
		err := tx.exec(`INSERT INTO tick (schedule_id, due_at, trigger_id, outcome, reason, execution_id, decided_at) VALUES `+b.String(), w.Args()...)
		if err != nil {
			return err
		}
	}
	return nil
}

// TickFilter filters a list of ticks. Zero fields match all.
type TickFilter struct {
	Schedule  agented.ScheduleID
	Trigger   agented.TriggerID
	Outcome   agented.TickOutcome
	DueAfter  time.Time // at this time or later
	DueBefore time.Time // before this time
}

// Ticks returns a page of ticks, latest due time first, and the cursor of the
// next page, empty if there is none.
func (db *DB) Ticks(ctx context.Context, f TickFilter, p Page) ([]agented.Tick, string, error) {
	after, err := pageKey(p, "tick", 2)
	if err != nil {
		return nil, "", err
	}
	var w where
	if after != nil {
		from, err := strconv.ParseInt(after[0], 10, 64)
		if err != nil {
			return nil, "", badCursor()
		}
		w.And(`(due_at, schedule_id) < ($?, $?)`, from, after[1])
	}
	if f.Schedule != "" {
		w.And(`schedule_id = $?`, f.Schedule)
	}
	if f.Trigger != "" {
		w.And(`trigger_id = $?`, f.Trigger)
	}
	if f.Outcome != "" {
		w.And(`outcome = $?`, f.Outcome)
		if f.Outcome != agented.TickFired {
			w.And(`outcome <> 'fired'`) // a hint for the planner to use the index
		}
	}
	if !f.DueAfter.IsZero() {
		w.And(`due_at >= $?`, micros(f.DueAfter))
	}
	if !f.DueBefore.IsZero() {
		w.And(`due_at < $?`, micros(f.DueBefore))
	}
	limit := p.Size()
	rows, err := db.query(ctx, `SELECT schedule_id, trigger_id, due_at, outcome, reason, execution_id, decided_at FROM tick`+w.SQL()+
		` ORDER BY due_at DESC, schedule_id DESC LIMIT `+fmt.Sprint(limit+1), w.Args()...)
	list, err := collect(rows, err, func(k *agented.Tick, scan func(...any) error) error {
		return scan(&k.Schedule, &k.Trigger, toTime{&k.DueAt}, &k.Outcome, &k.Reason, &k.Execution, toTime{&k.DecidedAt})
	})
	if err != nil {
		return nil, "", explain("ticks", err)
	}
	return cut(p, list, "tick", func(last *agented.Tick) []string {
		return []string{strconv.FormatInt(last.DueAt.UnixMicro(), 10), string(last.Schedule)}
	})
}
